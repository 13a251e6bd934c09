"""Token corpora on disk: what has a receipt is there, what is wrong is named."""
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tokenizer import audit, storage, tokens
from tokenizer.schema import CodeSpec, Manifest, SpecMismatch, TokenSpec, rows_table
from tokenizer.tokens import AuditFailure, DeadLetter, Receipt, TokenCorpus

SPEC = TokenSpec(codes=(CodeSpec(modality="image", grid=(2, 2), codebook_size=8, image_size=(8, 8),
                                 tokenizer="sha256:a"),))
PLANNED = (["a", "b", "c"], ["d", "e"], ["f"])
DEAD = {"b": "Broken", "e": "Missing"}


def rows(keys: list[str], spec: TokenSpec = SPEC) -> pa.Table:
    """Rows whose codes follow from their keys."""
    codes = np.array([[ord(key) % 8] * 4 for key in keys], np.uint16).reshape(-1, 2, 2)
    numbers = dict.fromkeys(("height", "width", "left", "top", "crop_width", "crop_height"),
                            [1] * len(keys))
    numbers["crop_index"] = [0] * len(keys)
    return rows_table(spec, {"image": codes}, {
        "key": keys, "source": keys, "flipped": [False] * len(keys), **numbers,
        "label": [ord(key) % 2 for key in keys],
        "class_name": [("even", "odd")[ord(key) % 2] for key in keys]})


def letter(key: str) -> DeadLetter:
    return DeadLetter(key=key, source=f"{key}.png", stage="decode", error=DEAD[key], message="so")


def commit(url: str, shard: int) -> Receipt:
    keys = PLANNED[shard]
    return tokens.commit_shard(url, shard, len(PLANNED), "sha256:f",
                               rows([key for key in keys if key not in DEAD]),
                               [letter(key) for key in keys if key in DEAD])


def complete(url: str) -> Manifest:
    receipts = tokens.read_receipts(url, "sha256:f").values()
    return audit.complete(url, SPEC, "sha256:f", receipts, ["even", "odd"], 6,
                          PLANNED.__getitem__)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three committed shards of six inputs, two of them dead."""
    for shard in range(len(PLANNED)):
        commit(str(tmp_path), shard)
    return tmp_path


def test_a_receipt_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(storage, "write_bytes", lambda url, content: written.append(
        os.path.relpath(url, tmp_path)))
    commit(str(tmp_path), 0)
    assert written == ["data/part-00000-of-00003.parquet", "_dead/00000.parquet",
                       "_receipts/00000.json"]


def test_two_attempts_at_a_shard_write_the_same_bytes(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    commit(str(folder), 0)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_dead_letters_of_an_attempt_without_receipt_are_removed(folder: Path) -> None:
    (folder / "_receipts/00002.json").unlink()
    stale = folder / "_dead/00002.parquet"
    stale.write_bytes((folder / "_dead/00001.parquet").read_bytes())
    commit(str(folder), 2)
    assert not stale.exists()
    assert complete(str(folder)).num_dead_letters == 2


def test_receipts_account_for_rows_and_dead_letters(folder: Path) -> None:
    receipts = tokens.read_receipts(str(folder), "sha256:f")
    assert {shard: (item.entry.rows, item.num_dead_letters, item.num_inputs)
            for shard, item in receipts.items()} == {0: (2, 1, 3), 1: (1, 1, 2), 2: (1, 0, 1)}
    assert receipts[2].dead_file is None
    assert list(tokens.read_receipts(str(folder), "sha256:f", known={0, 2})) == [1]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"shard": 1}', b"\xff",
                                     b"3", b"null"])
def test_a_receipt_that_cannot_be_read_does_not_count(folder: Path, content: bytes) -> None:
    (folder / "_receipts/00001.json").write_bytes(content)
    assert sorted(tokens.read_receipts(str(folder), "sha256:f")) == [0, 2]


def test_files_that_are_no_receipts_are_passed_over(folder: Path) -> None:
    for name in ("x.json", "00001.json.bak", ".DS_Store"):
        (folder / "_receipts" / name).write_bytes(b"?")
    assert sorted(tokens.read_receipts(str(folder), "sha256:f")) == [0, 1, 2]


def test_a_receipt_of_another_plan_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="belongs to the plan sha256:f, this one is sha256:other"):
        tokens.read_receipts(str(folder), "sha256:other")


def test_a_completed_corpus_is_read_in_order(folder: Path) -> None:
    manifest = complete(str(folder))
    corpus = TokenCorpus.open(str(folder))
    assert corpus.manifest == manifest and corpus.num_shards == 3 and corpus.spec == SPEC
    assert [table["key"].to_pylist() for table in corpus.tables()] == [["a", "c"], ["d"], ["f"]]
    assert corpus.read_shard(0, ["label"]).column_names == ["label"]
    assert list(corpus.dead_letters()) == [letter("b"), letter("e")]


def test_the_manifest_counts_rows_reasons_classes_and_codes(folder: Path) -> None:
    manifest = complete(str(folder))
    assert (manifest.num_inputs, manifest.num_rows, manifest.num_dead_letters) == (6, 4, 2)
    assert manifest.dead_letters == {"Broken": 1, "Missing": 1}
    assert manifest.class_counts == {"even": 2, "odd": 2}
    assert manifest.usage["image"].used == 4
    assert manifest.usage["image"].perplexity == pytest.approx(4)
    assert [entry.name for entry in manifest.dead_files] == ["_dead/00000.parquet",
                                                             "_dead/00001.parquet"]


def test_success_comes_after_everything_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write_bytes = storage.write_bytes
    monkeypatch.setattr(storage, "write_bytes", lambda url, content: (
        written.append(os.path.basename(url)), write_bytes(url, content)))
    complete(str(folder))
    assert written == ["README.md", "manifest.json", "_SUCCESS"]


def damage_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, tuple[str, Callable[[Path], object], str, list[int]]] = {
    "missing shard": ("data/part-00001-of-00003.parquet", Path.unlink, "is missing", [1]),
    "cut shard": ("data/part-00001-of-00003.parquet", lambda path: path.write_bytes(b"PAR1"),
                  "is damaged: bytes 4, its receipt says", [1]),
    "flipped bit": ("data/part-00000-of-00003.parquet", damage_bytes, "is damaged: sha256", [0]),
    "missing dead letters": ("_dead/00001.parquet", Path.unlink, "is missing", [1]),
    "damaged dead letters": ("_dead/00000.parquet", damage_bytes, "is damaged: sha256", [0]),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_an_audit_names_what_is_damaged_and_its_shard(folder: Path, kind: str) -> None:
    name, damage, words, shards = DAMAGES[kind]
    damage(folder / name)
    with pytest.raises(AuditFailure, match=words) as caught:
        complete(str(folder))
    assert caught.value.shards == shards and name in str(caught.value)
    assert not (folder / "_SUCCESS").exists()


@pytest.mark.parametrize("kind", DAMAGES)
def test_verify_names_what_is_damaged(folder: Path, kind: str) -> None:
    name, damage, words, _ = DAMAGES[kind]
    complete(str(folder))
    corpus = TokenCorpus.open(str(folder))
    assert list(audit.verify(corpus)) == [None] * 5
    damage(folder / name)
    problems = [problem for problem in audit.verify(corpus) if problem]
    assert len(problems) == 1 and name in problems[0] and words in problems[0]


@pytest.mark.parametrize("name", ["data/part-00003-of-00004.parquet", "_dead/00002.parquet"])
def test_surplus_files_are_named(folder: Path, name: str) -> None:
    complete(str(folder))
    (folder / name).write_bytes(b"x")
    assert [problem for problem in audit.verify(TokenCorpus.open(str(folder))) if problem] == [
        f"{name} is surplus: no receipt names it; remove it"]
    with pytest.raises(AuditFailure, match="surplus") as caught:
        complete(str(folder))
    assert caught.value.shards == []


def test_sums_that_do_not_add_up_are_named(folder: Path) -> None:
    complete(str(folder))
    data = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(data | {"num_rows": 5}))
    assert [problem for problem in audit.verify(TokenCorpus.open(str(folder))) if problem] == [
        "manifest.json says num_rows 5, its files add up to 4"]


@pytest.mark.parametrize(("keys", "dead", "words"), [
    (["a"], ["b"], "5 of 6 inputs are accounted for"),
    (["a", "x"], ["b"], "does not hold the keys of its plan, each once and in order"),
    (["c", "a"], ["b"], "does not hold the keys of its plan, each once and in order"),
    (["a", "a"], ["b"], "does not hold the keys of its plan, each once and in order"),
    (["a", "b", "c"], [], "does not hold the keys"),
    (["a", "c"], ["e"], "_dead/00000.parquet holds keys that its plan does not"),
])
def test_every_input_must_be_one_row_or_one_dead_letter(
        folder: Path, keys: list[str], dead: list[str], words: str) -> None:
    planned = list(PLANNED)
    if keys == ["a", "b", "c"]:
        planned[0] = ["a", "c", "b"]
    tokens.commit_shard(str(folder), 0, 3, "sha256:f", rows(keys), [letter(key) for key in dead])
    if not dead:
        storage.remove(f"{folder}/_dead/00000.parquet")
    receipts = tokens.read_receipts(str(folder), "sha256:f").values()
    with pytest.raises(AuditFailure, match=words):
        audit.complete(str(folder), SPEC, "sha256:f", receipts, [], 6, planned.__getitem__)


@pytest.mark.parametrize(("planned", "dead", "keys", "holds"), [
    ("aabcc", "ac", "abc", True),
    ("aabcc", "aab", "cc", True),
    ("aba", "a", "ba", True),  # the first input of the key failed
    ("aba", "a", "ab", True),  # the last one did
    ("aba", "a", "aab", False),
    ("abca", "a", "bac", False),
    ("aba", "b", "aa", True),
    ("aba", "a", "bb", False),
    ("ab", "aa", "b", False),
    ("", "", "", True),
])
def test_of_a_key_planned_twice_any_may_be_dead_and_the_order_is_the_plan_s(
        planned: str, dead: str, keys: str, holds: bool) -> None:
    assert tokens.holds_crops(rows(list(keys)), list(planned), Counter(dead), 1) is holds


def test_a_missing_receipt_is_an_input_unaccounted_for(folder: Path) -> None:
    (folder / "_receipts/00002.json").unlink()
    with pytest.raises(AuditFailure, match="part-00002-of-00003.parquet is surplus"):
        complete(str(folder))


def test_codes_outside_the_codebook_fail_the_audit(folder: Path) -> None:
    table = rows(["a", "c"])
    column = table.schema.get_field_index("image_codes")
    flat = pa.array(np.full(8, 8, np.uint16))
    wrong = pa.FixedSizeListArray.from_arrays(flat, type=table.schema.field(column).type)
    table = table.set_column(column, table.schema.field(column), wrong)
    tokens.commit_shard(str(folder), 0, 3, "sha256:f", table, [letter("b")])
    with pytest.raises(AuditFailure, match=r"must lie in \[0, 8\), got 8 to 8"):
        complete(str(folder))


def test_other_columns_fail_the_audit(folder: Path) -> None:
    table = rows(["a", "c"]).drop_columns(["caption"])
    tokens.commit_shard(str(folder), 0, 3, "sha256:f", table, [letter("b")])
    with pytest.raises(AuditFailure, match="other columns than its spec says"):
        complete(str(folder))


def test_a_corpus_that_is_not_complete_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing lies there"):
        TokenCorpus.open(f"{tmp_path}/nowhere")
    with pytest.raises(FileNotFoundError, match="give the folder that `img2tokens encode` or"):
        TokenCorpus.open(str(tmp_path))
    (folder / "_plan").mkdir()
    with pytest.raises(FileNotFoundError, match="run the same command again"):
        TokenCorpus.open(str(folder))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 something else PAR1"])
def test_reading_a_damaged_shard_names_it_and_the_remedy(folder: Path, content: bytes) -> None:
    complete(str(folder))
    (folder / "data/part-00001-of-00003.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"part-00001.* is damaged .*--verify"):
        TokenCorpus.open(str(folder)).read_shard(1)


@pytest.mark.parametrize("content", [
    b"", b"PAR1 something else PAR1", tokens.parquet_bytes(pa.table({"key": ["b"]}))])
def test_reading_damaged_dead_letters_names_their_file(folder: Path, content: bytes) -> None:
    complete(str(folder))
    (folder / "_dead/00001.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"_dead/00001\.parquet cannot be read .*damaged"):
        list(TokenCorpus.open(str(folder)).dead_letters())


def test_reading_a_missing_shard_names_it_and_the_remedy(folder: Path) -> None:
    complete(str(folder))
    (folder / "data/part-00001-of-00003.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"part-00001.* is missing.*--verify"):
        TokenCorpus.open(str(folder)).read_shard(1)


def test_reading_a_shard_of_another_tokenizer_is_refused(folder: Path) -> None:
    complete(str(folder))
    other = TokenSpec(codes=(CodeSpec(modality="image", grid=(2, 2), codebook_size=8,
                                      image_size=(8, 8), tokenizer="sha256:b"),))
    storage.write_bytes(f"{folder}/data/part-00002-of-00003.parquet",
                        tokens.parquet_bytes(rows(["f"], other)))
    with pytest.raises(SpecMismatch, match="tokenizer is 'sha256:b', expected 'sha256:a'"):
        TokenCorpus.open(str(folder)).read_shard(2)


def test_a_shard_without_rows_is_sound(tmp_path: Path) -> None:
    receipt = tokens.commit_shard(str(tmp_path), 0, 1, "sha256:f", rows([]), [letter("b")])
    manifest = audit.complete(str(tmp_path), SPEC, "sha256:f", [receipt], [], 1, lambda _: ["b"])
    assert manifest.num_rows == 0 and manifest.usage["image"].perplexity == 0
    assert TokenCorpus.open(str(tmp_path)).read_shard(0).num_rows == 0


def test_a_thousand_rows_take_little_more_than_their_bits(tmp_path: Path) -> None:
    spec = TokenSpec(codes=(CodeSpec(modality="image", grid=(16, 16), codebook_size=1024,
                                     image_size=(8, 8), tokenizer="sha256:a"),))
    codes = np.random.default_rng(0).integers(0, 1024, (1000, 16, 16), np.uint16)
    numbers = dict.fromkeys(("height", "width", "crop_index", "left", "top", "crop_width",
                             "crop_height"), [1] * 1000)
    keys = [f"{index:06d}" for index in range(1000)]
    table = rows_table(spec, {"image": codes}, {"key": keys, "source": keys,
                                                "flipped": [False] * 1000, **numbers})
    ideal = codes.size * 10 / 8
    assert len(tokens.parquet_bytes(table)) < 1.1 * ideal
