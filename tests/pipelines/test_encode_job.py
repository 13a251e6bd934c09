"""The encode job: whatever happens on the way, the same inputs end in the same files."""
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from job_fakes import FakeCodec, full_disk, run_inline, save_maps, tree, writes_that_end
from PIL import Image

from pipelines.encode import (
    EncodeConfig,
    encode_corpus,
    entry_of,
    num_decode_threads,
    prepare_task,
    row_of,
)
from pipelines.engines import BeamEngine
from pipelines.job import JobFailed, ShardTask, TooManyErrors
from pipelines.plan import PlanMismatch, load_plan
from pipelines.shard import SourceUnreachable
from tokenizer import storage, tokens
from tokenizer.corpus.modalities import RGB, Depth
from tokenizer.corpus.sources import Entry
from tokenizer.tokens import TokenCorpus

Settings = Callable[..., EncodeConfig]


def keys_of(url: str) -> list[str]:
    return [key for table in TokenCorpus.open(url).tables(["key"])
            for key in table["key"].to_pylist()]


def test_a_corpus_becomes_tokens(config: Settings) -> None:
    manifest = encode_corpus(config())
    assert (manifest.num_inputs, manifest.num_rows, len(manifest.shards)) == (10, 10, 3)
    assert [entry.rows for entry in manifest.shards] == [4, 4, 2]
    assert keys_of(config().output) == [f"img-{index:03d}" for index in range(10)]
    assert manifest.spec["image"].tokenizer == "sha256:a"
    assert TokenCorpus.open(config().output).manifest == manifest


def test_the_folder_holds_what_the_format_says_and_no_more(config: Settings) -> None:
    encode_corpus(config())
    assert set(tree(Path(config().output))) == {
        "README.md", "_SUCCESS", "manifest.json", "_plan/plan.json",
        "_plan/inputs-00000.parquet",
        *(f"_receipts/{shard:05d}.json" for shard in range(3)),
        *(f"data/part-{shard:05d}-of-00003.parquet" for shard in range(3))}


def test_the_same_command_changes_nothing(config: Settings) -> None:
    encode_corpus(config())
    before = tree(Path(config().output))
    encode_corpus(config())
    assert tree(Path(config().output)) == before


def test_two_runs_write_the_same_bytes(config: Settings, tmp_path: Path) -> None:
    encode_corpus(config())
    encode_corpus(config(output=str(tmp_path / "again")))
    assert tree(tmp_path / "again") == tree(tmp_path / "tokens")


@pytest.mark.parametrize("lost", ["_receipts/00001.json", "data/part-00001-of-00003.parquet",
                                  "_SUCCESS", "manifest.json"])
def test_what_was_lost_is_made_again(config: Settings, tmp_path: Path, lost: str) -> None:
    encode_corpus(config())
    before = tree(tmp_path / "tokens")
    (tmp_path / "tokens" / lost).unlink()
    encode_corpus(config())
    assert tree(tmp_path / "tokens") == before


@pytest.mark.parametrize("damage", [lambda content: content[:40], lambda content: b"",
                                    lambda content: content[:-9] + b"x" + content[-8:]])
def test_damaged_shards_are_found_and_made_again(
        config: Settings, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    encode_corpus(config())
    before = tree(tmp_path / "tokens")
    shard = tmp_path / "tokens/data/part-00002-of-00003.parquet"
    shard.write_bytes(damage(shard.read_bytes()))
    encode_corpus(config())
    assert tree(tmp_path / "tokens") == before


def test_damaged_dead_letters_are_found_and_made_again(config: Settings, tmp_path: Path) -> None:
    make = config()
    (tmp_path / "photos/img-005.png").write_bytes(b"no image")
    encode_corpus(make)
    before = tree(tmp_path / "tokens")
    (tmp_path / "tokens/_dead/00001.parquet").write_bytes(b"PAR1")
    encode_corpus(make)
    assert tree(tmp_path / "tokens") == before


def test_an_attempt_that_died_before_its_receipt_leaves_no_surplus(config: Settings,
                                                                   tmp_path: Path) -> None:
    make, image = config(), tmp_path / "photos/img-005.png"
    sound, times = image.read_bytes(), (image.stat().st_atime_ns, image.stat().st_mtime_ns)
    image.write_bytes(bytes(len(sound)))
    os.utime(image, ns=times)
    encode_corpus(make)
    (tmp_path / "tokens/_receipts/00001.json").unlink()
    image.write_bytes(sound)
    os.utime(image, ns=times)
    assert encode_corpus(make).num_dead_letters == 0


def test_a_surplus_file_is_named_and_left_to_the_user(config: Settings, tmp_path: Path) -> None:
    encode_corpus(config())
    stray = tmp_path / "tokens/data/part-00009-of-00010.parquet"
    stray.write_bytes(b"x")
    with pytest.raises(tokens.AuditFailure, match="00009-of-00010.parquet is surplus"):
        encode_corpus(config())
    assert stray.exists()


def test_broken_inputs_become_dead_letters_with_reasons(config: Settings, tmp_path: Path) -> None:
    make = config()
    (tmp_path / "photos/img-001.png").write_bytes(b"")
    (tmp_path / "photos/img-005.png").write_bytes(b"<html>moved</html>")
    Image.new("RGB", (40, 40), "white").save(tmp_path / "photos/img-007.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "photos/img-009.jpg")
    manifest = encode_corpus(make)
    assert (manifest.num_rows, manifest.num_inputs) == (7, 11)
    assert manifest.dead_letters == {"DuplicateKey": 1, "UnreadableImage": 2, "ValueError": 1}
    letters = list(TokenCorpus.open(make.output).dead_letters())
    assert [(letter.key, letter.stage) for letter in letters] == [
        ("img-001", "decode"), ("img-005", "decode"), ("img-007", "encode"), ("img-009", "plan")]
    assert letters[1].message == "an HTML page, not an image"
    assert letters[1].source.endswith("photos/img-005.png")


def test_a_shard_of_which_nothing_is_left_fails_unless_all_may_fail(config: Settings,
                                                                   tmp_path: Path) -> None:
    task = prepare_task(config(max_errors=10))
    patient = prepare_task(config(max_errors=1.0))
    for path in sorted((tmp_path / "photos").iterdir())[:4]:
        path.unlink()
    with pytest.raises(SourceUnreachable, match="or give them up with --max-errors 100%"):
        task.run(0)
    assert patient.run(0).dead_letters == {"FileNotFoundError": 4}


def test_a_limit_of_errors_fails_the_job_and_a_higher_one_completes_it(
        config: Settings, tmp_path: Path) -> None:
    make = config()
    for index in (0, 4, 8):
        (tmp_path / f"photos/img-{index:03d}.png").write_bytes(b"no image")
    with pytest.raises(TooManyErrors, match="3 of 10 images failed, more than the 2"):
        encode_corpus(dataclasses.replace(make, max_errors=2))
    assert not storage.exists(f"{make.output}/_SUCCESS")
    assert len(list((tmp_path / "tokens/data").iterdir())) == 3
    assert encode_corpus(dataclasses.replace(make, max_errors=3)).num_rows == 7


def test_a_corpus_without_one_sound_image_fails(config: Settings, tmp_path: Path) -> None:
    make = config()
    for path in (tmp_path / "photos").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(TooManyErrors, match=r"10 of 10 images failed, all that there are \(10 Unr"
                                            r"eadableImage\), such as \S+: .*; .*_dead says which"):
        encode_corpus(make)


def test_a_disk_that_fills_up_keeps_the_finished_shards(config: Settings, tmp_path: Path) -> None:
    encode_corpus(config(output=str(tmp_path / "undisturbed")))
    with (writes_that_end(5, full_disk()),  # inputs, plan.json, shard, receipt, half a shard
          pytest.raises(JobFailed, match="takes no data: No space left on device")):
        encode_corpus(config())
    assert os.listdir(tmp_path / "tokens/_receipts") == ["00000.json"]
    with pytest.raises(FileNotFoundError, match="its job has not finished"):
        TokenCorpus.open(config().output)
    encode_corpus(config())
    assert tree(tmp_path / "tokens") == tree(tmp_path / "undisturbed")


def test_an_interrupt_between_any_two_writes_loses_nothing(config: Settings,
                                                           tmp_path: Path) -> None:
    make = config(output=str(tmp_path / "undisturbed"))
    (tmp_path / "photos/img-001.png").write_bytes(b"no image")
    encode_corpus(make)
    for num_writes in range(len(tree(tmp_path / "undisturbed"))):
        again = dataclasses.replace(make, output=str(tmp_path / f"stopped-{num_writes}"))
        with writes_that_end(num_writes, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
            encode_corpus(again)
        encode_corpus(again)
        assert tree(Path(again.output)) == tree(tmp_path / "undisturbed"), num_writes


def test_rests_of_killed_writers_are_removed(config: Settings, tmp_path: Path) -> None:
    encode_corpus(config())
    before = tree(tmp_path / "tokens")
    for folder in ("data", "_receipts", "_plan", "_dead", "."):
        (tmp_path / "tokens" / folder).mkdir(exist_ok=True)
        rest = tmp_path / "tokens" / folder / ".tmp-0123456789abcdef"
        rest.write_bytes(b"half")
        os.utime(rest, (0, 0))
    encode_corpus(config())
    assert tree(tmp_path / "tokens") == before


def test_another_plan_is_refused_and_overwritten_on_demand(config: Settings,
                                                           tmp_path: Path) -> None:
    encode_corpus(config())
    before = tree(tmp_path / "tokens")
    for change, words in (
            ({"tokenizers": {"image": "other-tok"}},
             "codes.image.tokenizer was 'sha256:a', now 'sha256:b'"),
            ({"shard_size": 5}, "shard_size was 4, now 5"),
            ({"batch_size": 2}, "batch_size was 4, now 2"),
            ({"labels": "regex:(img)"}, r"classes was \[\], now \['img'\]; label of the input")):
        with pytest.raises(PlanMismatch, match=words):
            encode_corpus(config(**change))
        assert tree(tmp_path / "tokens") == before
    encode_corpus(config(shard_size=5, overwrite=True))
    assert sorted(os.listdir(tmp_path / "tokens/data")) == [
        f"part-{shard:05d}-of-00002.parquet" for shard in range(2)]


def test_a_new_image_is_named(config: Settings, tmp_path: Path) -> None:
    encode_corpus(config())
    Image.new("RGB", (20, 20)).save(tmp_path / "photos/img-0045.png")
    with pytest.raises(PlanMismatch, match="the input 'img-0045' is new"):
        encode_corpus(config())


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_written_to(config: Settings, tmp_path: Path,
                                                        overwrite: bool) -> None:
    (tmp_path / "tokens/data").mkdir(parents=True)
    (tmp_path / "tokens/thesis.tex").write_bytes(b"x")
    with pytest.raises(ValueError, match="holds other files, such as data: choose another folder"):
        encode_corpus(config(overwrite=overwrite))
    assert tree(tmp_path / "tokens") == {"thesis.tex": b"x"}


@pytest.mark.parametrize("content", [None, "", "3", "{}", '{"format": "theirs"}'])
def test_a_folder_named_like_a_plan_makes_nothing_ours(config: Settings, tmp_path: Path,
                                                       content: str | None) -> None:
    for name in ("_plan/inputs.txt", "data/theirs.csv"):
        (tmp_path / "tokens" / name).parent.mkdir(parents=True)
        (tmp_path / "tokens" / name).write_bytes(b"x")
    if content is not None:
        (tmp_path / "tokens/_plan/plan.json").write_text(content)
    before = tree(tmp_path / "tokens")
    for overwrite in (True, False):
        with pytest.raises(ValueError, match="holds other files, such as _plan: choose another"):
            encode_corpus(config(overwrite=overwrite))
    (tmp_path / "tokens/data/theirs.csv").rename(tmp_path / "theirs.csv")
    (tmp_path / "tokens/data").rmdir()
    with pytest.raises(ValueError, match="holds other files, such as _plan: choose another"):
        encode_corpus(config(overwrite=True))
    assert tree(tmp_path / "tokens").items() <= before.items()


def test_an_edited_plan_and_a_stopped_listing_are_ours(config: Settings, tmp_path: Path) -> None:
    encode_corpus(config())
    plan = tmp_path / "tokens/_plan/plan.json"
    plan.write_text(plan.read_text().replace('"batch_size": 4', '"batch_size": 5'))
    (tmp_path / "tokens/manifest.json").unlink()
    with pytest.raises(ValueError, match="was edited"):
        encode_corpus(config())
    encode_corpus(config(overwrite=True))
    (tmp_path / "stopped/_plan").mkdir(parents=True)
    (tmp_path / "stopped/_plan/inputs-00000.parquet").write_bytes(b"PAR1")
    encode_corpus(config(output=str(tmp_path / "stopped")))


@pytest.mark.parametrize(("settings", "words"), [
    ({"corpus": "empty"}, "holds no image files"),
    ({"labels": "regex:(dog)"}, "matches no key"),
])
def test_a_wrong_request_overwrites_nothing(config: Settings, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch,
                                            settings: dict[str, object], words: str) -> None:
    encode_corpus(config())
    before = tree(tmp_path / "tokens")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        encode_corpus(config(overwrite=True, **settings))
    assert tree(tmp_path / "tokens") == before


def test_tokens_without_a_plan_are_kept_unless_overwritten(config: Settings) -> None:
    encode_corpus(config())
    storage.remove(f"{config().output}/_plan")
    with pytest.raises(ValueError, match="a token corpus without a plan: add --overwrite"):
        encode_corpus(config())
    encode_corpus(config(overwrite=True))


def test_the_corpus_must_not_lie_in_the_output(config: Settings, tmp_path: Path) -> None:
    for output in (tmp_path, tmp_path / "photos"):
        with pytest.raises(ValueError, match="lies in the output folder"):
            encode_corpus(config(output=str(output), overwrite=True))
    assert len(list((tmp_path / "photos").iterdir())) == 10


def test_the_output_must_not_lie_among_the_inputs(config: Settings, tmp_path: Path) -> None:
    tokenizers = {"image": "tok", "depth": "depth-tok"}
    for folder, settings in (("photos", {}),
                             ("depths", {"maps": {"depth": f"{tmp_path}/depths"},
                                         "tokenizers": tokenizers})):
        make = config(output=f"{tmp_path}/{folder}/sub/tokens", **settings)
        with pytest.raises(ValueError, match=f"sub/tokens lies in the .*{folder}; choose another"):
            encode_corpus(make)
        assert not (tmp_path / folder / "sub").exists()


def test_names_that_are_not_utf_8_are_dead_letters(config: Settings, tmp_path: Path) -> None:
    make = config()
    photos = os.fsencode(tmp_path / "photos")
    os.mkdir(photos + b"/\xff")
    for name in (b"/\xff/a.png", b"/\xfe.png", b"/notes.\xff"):
        with open(photos + name, "wb") as file:
            file.write(b"x")
    manifest = encode_corpus(make)
    assert manifest.dead_letters == {"UnusableName": 2} and manifest.num_rows == 10
    assert manifest.classes == ("\\udcff",)


def test_maps_are_encoded_beside_their_images(config: Settings, tmp_path: Path) -> None:
    make = config(maps={"segmentation": f"{tmp_path}/labels", "depth": f"{tmp_path}/depths"},
                  tokenizers={"segmentation": "seg-tok", "image": "tok", "depth": "depth-tok"})
    save_maps(tmp_path / "labels", tmp_path / "photos", lambda size: np.full(size, 5, np.uint8))
    save_maps(tmp_path / "depths", tmp_path / "photos", lambda size: np.full(size, 5, np.uint16))
    (tmp_path / "labels/img-003.png").unlink()
    Image.new("L", (5, 5)).save(tmp_path / "depths/img-099.png")
    manifest = encode_corpus(make)
    assert manifest.spec.modalities == ("image", "depth", "segmentation")
    assert manifest.num_rows == 9
    assert manifest.dead_letters == {"MapWithoutImage": 1, "MissingMap": 1}


def test_a_corpus_of_maps_alone_is_encoded(config: Settings, tmp_path: Path) -> None:
    make = config(corpus=str(tmp_path / "labels"), tokenizers={"segmentation": "seg-tok"})
    save_maps(tmp_path / "labels", tmp_path / "photos", lambda size: np.full(size, 5, np.uint8))
    manifest = encode_corpus(make)
    assert manifest.spec.modalities == ("segmentation",) and manifest.num_rows == 10


@pytest.mark.parametrize(("settings", "words"), [
    ({"tokenizers": {"image": "tok", "depth": "depth-tok"}},
     "without --maps are image, depth: add --maps NAME=FOLDER for all but one"),
    ({"maps": {"image": "x"}}, "without --maps are none: leave out the --maps of what CORPUS"),
    ({"maps": {"depth": "x"}}, "depth maps are given without a tokenizer; add --tokenizer depth"),
    ({"shard_size": 0}, "shard_size must be at least 1, got 0"),
    ({"num_workers": 0}, "num_workers must be at least 1, got 0"),
])
def test_settings_that_do_not_fit_are_refused(config: Settings, settings: dict[str, object],
                                              words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**settings)


def test_a_tokenizer_of_another_modality_is_refused(config: Settings) -> None:
    with pytest.raises(ValueError, match="depth-tok is a tokenizer of depth, not of image"):
        encode_corpus(config(tokenizers={"image": "depth-tok"}))


def test_tokenizers_of_different_shapes_are_refused(
        config: Settings, tmp_path: Path, fakes: dict[str, FakeCodec]) -> None:
    make = config(maps={"depth": str(tmp_path / "photos")},
                  tokenizers={"image": "tok", "depth": "square"})
    fakes["square"] = FakeCodec(Depth())
    fakes["square"].spec = dataclasses.replace(fakes["square"].spec, image_size=(8, 8))
    with pytest.raises(ValueError, match="takes 8 x 8 pixels, that of image 8 x 12"):
        encode_corpus(make)


def test_nothing_is_written_when_there_is_nothing_to_do(config: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for settings, error, words in (
            ({"corpus": str(tmp_path / "nowhere")}, FileNotFoundError, "nowhere does not exist"),
            ({"corpus": str(tmp_path / "empty")}, ValueError, "holds no image files"),
            ({"tokenizers": {"image": "no-tok"}}, FileNotFoundError, "no-tok holds no tokenizer")):
        with pytest.raises(error, match=words):
            encode_corpus(config(**settings))
        assert not tree(tmp_path / "tokens") if (tmp_path / "tokens").exists() else True


def test_a_tokenizer_that_changes_under_the_job_fails_its_shards(
        config: Settings, fakes: dict[str, FakeCodec], monkeypatch: pytest.MonkeyPatch) -> None:
    def changing(task: ShardTask, shards: list[int]) -> None:
        fakes["tok"] = FakeCodec(RGB(), "changed")
        run_inline(task, shards)
    monkeypatch.setattr(BeamEngine, "__call__",
                        lambda engine, task, shards: changing(task, shards))
    with pytest.raises(JobFailed, match="tok is sha256:changed, the job was planned with sha256:a"):
        encode_corpus(config())


def test_classes_come_from_folders_and_are_counted(config: Settings, tmp_path: Path) -> None:
    make = config()
    for index, path in enumerate(sorted((tmp_path / "photos").iterdir())):
        folder = tmp_path / "photos" / ("cats" if index % 5 else "dogs")
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    manifest = encode_corpus(make)
    assert manifest.classes == ("cats", "dogs")
    assert manifest.class_counts == {"cats": 8, "dogs": 2}
    table = TokenCorpus.open(make.output).read_shard(2)
    assert table["label"].to_pylist() == [1, 1] and table["class_name"].to_pylist() == ["dogs"] * 2


def test_what_is_passed_over_is_counted_in_the_plan(config: Settings, tmp_path: Path) -> None:
    make = config()
    (tmp_path / "photos/notes.txt").write_bytes(b"x")
    encode_corpus(make)
    plan = load_plan(make.output)
    assert plan is not None and sum(plan.notes.values()) == 1


def test_object_stores_hold_the_same_files(config: Settings, tmp_path: Path) -> None:
    import fsspec
    memory = fsspec.filesystem("memory")
    memory.rm("/", recursive=True)
    encode_corpus(config())
    encode_corpus(config(output="memory://tokens"))
    found = {path.removeprefix("/tokens/"): memory.cat_file(path)
             for path in memory.find("/tokens")}
    assert found == tree(tmp_path / "tokens")
    assert keys_of("memory://tokens") == keys_of(config().output)


def test_another_program_can_check_a_corpus_by_the_specification(config: Settings,
                                                                 tmp_path: Path) -> None:
    make = config(labels="regex:([01])$")
    (tmp_path / "photos/img-005.png").write_bytes(b"no image")
    encode_corpus(make)
    folder = tmp_path / "tokens"
    plan = json.loads((folder / "_plan/plan.json").read_text())
    assert plan["fingerprint"] == "sha256:" + sha256(canonical(
        {name: plan[name] for name in ("job", "settings")}).encode())
    inputs = [row for path in sorted(folder.glob("_plan/*.parquet"))
              for row in pq.read_table(path).to_pylist()]
    for row in inputs:
        assert row.pop("ranges") is None
        assert set(dict(row.pop("stamps"))) == {"image"}
    assert plan["settings"]["inputs"] == {"num_inputs": len(inputs), "sha256": sha256(
        "".join(canonical(row) + "\n" for row in inputs).encode())}
    keys = []
    for path in sorted((folder / "_receipts").iterdir()):
        receipt = json.loads(path.read_text())
        assert receipt["fingerprint"] == plan["fingerprint"]
        for entry in filter(None, (receipt["entry"], receipt["dead_file"])):
            content = (folder / entry["name"]).read_bytes()
            assert (len(content), sha256(content)) == (entry["bytes"], entry["sha256"])
            table = pq.read_table(folder / entry["name"])
            assert table.num_rows == entry["rows"]
            keys += table["key"].to_pylist()
    assert sorted(keys) == [row["key"] for row in inputs]
    spec = json.loads(pq.read_schema(folder / "data/part-00000-of-00003.parquet").metadata[
        b"img2tokens"])
    assert spec == json.loads((folder / "manifest.json").read_text())["spec"]


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_an_input_survives_the_plan() -> None:
    for entry in (Entry(key="a", sources={"image": "x", "depth": "y"}, label=3, class_name="cat",
                        caption="a cat"),
                  Entry(key="b", sources={"image": "x"}, problem=("MissingMap", "none there")),
                  Entry(key="c", sources={"image": "t.tar#c.jpg", "depth": "t.tar#c.depth.png"},
                        ranges={"image": (512, 5 << 32), "depth": (9 << 32, 0)})):
        assert entry_of(row_of(entry)) == entry


def test_decode_threads_share_the_cores(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert [num_decode_threads(config(num_workers=workers)) for workers in (1, 4, 16)] == [8, 4, 2]
    assert num_decode_threads(config(engine="dask://a:1", tokenizers={"image": "/tok"})) == 2
