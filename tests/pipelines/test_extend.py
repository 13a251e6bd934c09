"""Extensions: new inputs in shards of their own; what changed or is gone is refused by name."""
import dataclasses
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from delta_corpora import codes_by_key, encode_all_but, photo, require_sound, require_untouched
from job_fakes import tree
from PIL import Image

from pipelines.array import Part
from pipelines.encode import EncodeConfig, encode_corpus, encode_part
from pipelines.job import TooManyErrors
from pipelines.plan import PlanMismatch
from pipelines.report import describe
from pipelines.retry import retry_corpus
from tokenizer import storage
from tokenizer.tokens import TokenCorpus

Settings = Callable[..., EncodeConfig]
Draw = Callable[..., np.ndarray]


@pytest.fixture
def add(drawn: Draw, tmp_path: Path) -> Callable[[str], None]:
    """Adds a drawn photo of this name."""
    def save(name: str) -> None:
        path = tmp_path / "photos" / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(drawn(sum(name.encode()))).save(path)
    return save


def extended(config: EncodeConfig) -> EncodeConfig:
    return dataclasses.replace(config, extend=True)


def test_new_inputs_become_shards_of_their_own(config: Settings, tmp_path: Path,
                                               add: Callable[[str], None]) -> None:
    make = config()
    encode_corpus(make)
    before = tree(tmp_path / "tokens")
    for name in ("a.png", "img-0045.png", "m.png", "x/y.png", "z.png"):
        add(name)
    manifest = encode_corpus(extended(make))
    assert [delta.kind for delta in manifest.deltas] == ["extend"]
    assert manifest.deltas[0].num_inputs == 5 and len(manifest.shards) == 5
    assert require_sound(make, 15) == manifest
    require_untouched(before, make)
    encode_corpus(dataclasses.replace(make, output=str(tmp_path / "clean")))
    assert codes_by_key(make.output) == codes_by_key(str(tmp_path / "clean"))
    for again in (make, extended(make)):
        grown = tree(tmp_path / "tokens")
        encode_corpus(again)
        assert tree(tmp_path / "tokens") == grown


def test_new_inputs_that_all_fail_are_dead_letters_unless_that_is_too_many(
        config: Settings, tmp_path: Path, add: Callable[[str], None]) -> None:
    make = config()
    encode_corpus(make)
    for name in ("a.png", "b.png"):
        (tmp_path / "photos" / name).write_bytes(b"no image")
    with pytest.raises(TooManyErrors, match="2 of 2 images failed, more than the 1 that .*, such "
                                            "as a: .*_deltas/001/_dead says which and why"):
        encode_corpus(dataclasses.replace(extended(make), max_errors=1))
    begun = "delta 1: of 2 inputs, not finished and not counted here"
    assert begun in describe(TokenCorpus.open(make.output))
    assert encode_corpus(extended(make)).dead_letters == {"UnreadableImage": 2}
    assert begun not in describe(TokenCorpus.open(make.output))
    require_sound(make, 12)
    assert [letter.key for letter in TokenCorpus.open(make.output).dead_letters()] == ["a", "b"]
    (tmp_path / "photos/c.png").write_bytes(b"no image")
    encode_corpus(dataclasses.replace(extended(make), max_errors=1))  # of the newest delta alone
    for name in "abc":
        add(f"{name}.png")
    assert retry_corpus(make.output, make.tokenizers).num_tried == 3
    assert require_sound(make, 13).num_dead_letters == 0


def test_nothing_new_leaves_no_delta(config: Settings, tmp_path: Path) -> None:
    encode_corpus(extended(config()))
    before = tree(tmp_path / "tokens")
    encode_corpus(extended(config()))
    assert tree(tmp_path / "tokens") == before and not (tmp_path / "tokens/_deltas").exists()


def test_new_inputs_are_added_only_when_asked_for(config: Settings, tmp_path: Path,
                                                  add: Callable[[str], None]) -> None:
    encode_corpus(config())
    add("a.png")
    with pytest.raises(PlanMismatch, match="the input 'a' is new"):
        encode_corpus(config())
    encode_corpus(extended(config()))
    add("b.png")
    before = tree(tmp_path / "tokens")
    with pytest.raises(PlanMismatch, match="the input 'b' of .*tokens is new: add --extend"):
        encode_corpus(config())
    assert tree(tmp_path / "tokens") == before
    encode_corpus(extended(config()))
    assert len(require_sound(config(), 12).deltas) == 2


def gone(config: EncodeConfig) -> None:
    photo(config, 3).unlink()


def other_content(config: EncodeConfig) -> None:
    shutil.copy(photo(config, 4), photo(config, 3))


def other_time(config: EncodeConfig) -> None:
    os.utime(photo(config, 3), (2e9, 2e9))


def other_suffix(config: EncodeConfig) -> None:
    photo(config, 3).rename(photo(config, 3, "webp"))


@pytest.mark.parametrize(("change", "words"), [
    (gone, "the input 'img-003' of .* is gone, or stands elsewhere"),
    (other_content, r"img-003\.png was \d+ bytes.*, is .*: put back the old one"),
    (other_time, r"img-003\.png was \d+ bytes.*, is .*2033-05-18"),
    (other_suffix, "sources of the input 'img-003' was .*png.*, now .*webp"),
])
@pytest.mark.parametrize("with_delta", [False, True])
def test_what_changed_or_is_gone_is_refused_by_name(
        config: Settings, tmp_path: Path, add: Callable[[str], None], with_delta: bool,
        change: Callable[[EncodeConfig], None], words: str) -> None:
    make = config()
    encode_corpus(make)
    if with_delta:
        add("a.png")
        encode_corpus(extended(make))
    add("z.png")
    change(make)
    before = tree(tmp_path / "tokens")
    with pytest.raises(PlanMismatch, match=words):
        encode_corpus(extended(make))
    assert tree(tmp_path / "tokens") == before


@pytest.mark.parametrize(("settings", "words"), [
    ({"tokenizers": {"image": "other-tok"}}, "codes.image.tokenizer was"),
    ({"shard_size": 3}, "shard_size was 4, now 3"), ({"crops": "random:2"}, "crop was 'centre'")])
def test_another_way_of_encoding_is_refused(config: Settings, add: Callable[[str], None],
                                            settings: dict[str, object], words: str) -> None:
    encode_corpus(config())
    add("a.png")
    with pytest.raises(PlanMismatch, match=words):
        encode_corpus(config(extend=True, **settings))


def test_labels_there_are_stay_and_new_classes_come_behind(config: Settings,
                                                           add: Callable[[str], None]) -> None:
    make = config()
    for name in ("cats/1.png", "dogs/1.png"):
        add(name)
    assert encode_corpus(make).classes == ("cats", "dogs")
    for name in ("ants/1.png", "cats/2.png", "dogs/2.png"):
        add(name)
    manifest = encode_corpus(extended(make))
    assert manifest.classes == ("cats", "dogs", "ants")
    assert manifest.class_counts == {"ants": 1, "cats": 2, "dogs": 2}
    labels = {(row["class_name"], row["label"])
              for table in TokenCorpus.open(make.output).tables() for row in table.to_pylist()}
    assert labels == {(None, None), ("cats", 0), ("dogs", 1), ("ants", 2)}
    before = tree(Path(make.output))
    encode_corpus(make)
    assert tree(Path(make.output)) == before


def test_retries_and_extensions_follow_one_another(config: Settings, tmp_path: Path,
                                                   add: Callable[[str], None]) -> None:
    make = config()
    good = photo(make, 2).read_bytes()
    photo(make, 2).write_bytes(b"no image")
    encode_corpus(make)
    add("a.png")
    (tmp_path / "photos/b.png").write_bytes(b"no image")
    assert encode_corpus(extended(make)).num_dead_letters == 2
    photo(make, 2).write_bytes(good)
    assert retry_corpus(make.output, make.tokenizers).manifest.num_dead_letters == 1
    add("b.png")
    add("c.png")
    assert encode_corpus(extended(make)).num_dead_letters == 1  # b is known, and is tried again by
    assert retry_corpus(make.output, make.tokenizers).manifest.num_dead_letters == 0
    manifest = require_sound(make, 13)
    assert [delta.kind for delta in manifest.deltas] == ["extend", "retry", "extend", "retry"]
    before = tree(tmp_path / "tokens")
    encode_corpus(extended(make))
    assert tree(tmp_path / "tokens") == before
    photo(make, 2).write_bytes(b"no image")  # it has rows by now
    with pytest.raises(PlanMismatch, match=r"img-002\.png was"):
        encode_corpus(extended(make))


def test_an_extension_that_was_stopped_goes_on_to_the_same_bytes(
        config: Settings, tmp_path: Path, add: Callable[[str], None]) -> None:
    make = config(shard_size=2)
    encode_corpus(make)
    shutil.copytree(tmp_path / "tokens", tmp_path / "copy")
    for name in "abcdefg":
        add(f"{name}.png")
    encode_corpus(extended(make))
    undisturbed = tree(tmp_path / "tokens")
    shutil.rmtree(tmp_path / "tokens")
    (tmp_path / "copy").rename(tmp_path / "tokens")
    assert "1 of 4 shards could not be made, the first being 2" in encode_all_but(2, extended(make))
    assert TokenCorpus.open(make.output).manifest.num_inputs == 10
    encode_corpus(make)  # with or without --extend: the plan of the delta stands
    assert tree(tmp_path / "tokens") == undisturbed


def test_arrays_extend_nothing(config: Settings, add: Callable[[str], None]) -> None:
    encode_corpus(config())
    add("a.png")
    with pytest.raises(ValueError, match="is to have one, which no array makes: leave out --array"):
        encode_part(extended(config()), Part(index=0, size=1))
    assert not storage.exists(f"{config().output}/_deltas")


def test_an_unfinished_corpus_can_grow(config: Settings, add: Callable[[str], None]) -> None:
    make = config(shard_size=2)
    encode_part(make, Part(index=0, size=2))
    add("a.png")
    assert encode_corpus(extended(make)).num_rows == 11
    require_sound(make, 11)


def write_tar(path: Path, photos: Path, names: list[str]) -> None:
    with tarfile.open(path, "w") as archive:
        for name in names:
            archive.add(photos / name, name)


def test_further_tar_files_are_added_and_changed_ones_refused(config: Settings,
                                                              tmp_path: Path) -> None:
    photos = Path(config().corpus)
    names = sorted(path.name for path in photos.iterdir())
    make = config(corpus=str(tmp_path / "*.tar"))
    write_tar(tmp_path / "b.tar", photos, names[:4])
    encode_corpus(make)
    write_tar(tmp_path / "a.tar", photos, names[4:6])
    write_tar(tmp_path / "c.tar", photos, names[6:])
    encode_corpus(extended(make))
    require_sound(make, 10)
    write_tar(tmp_path / "a.tar", photos, names[4:5])
    with pytest.raises(PlanMismatch, match="is gone"):
        encode_corpus(extended(make))
    (tmp_path / "a.tar").unlink()
    write_tar(tmp_path / "a.tar", photos, [names[4], names[5], names[0]])
    with pytest.raises(PlanMismatch, match=r"a\.tar, which holds the input .*img-004'?, is gone"):
        encode_corpus(extended(make))


def test_a_list_may_grow(config: Settings, tmp_path: Path) -> None:
    photos = sorted(Path(config().corpus).iterdir())
    make = config(corpus=str(tmp_path / "list.csv"))

    def write(count: int) -> None:
        lines = "".join(f"{path},{path.stem}\n" for path in photos[:count])
        (tmp_path / "list.csv").write_text(f"path,key\n{lines}")
    write(6)
    encode_corpus(make)
    write(10)
    encode_corpus(extended(make))
    require_sound(make, 10)
    write(9)
    with pytest.raises(PlanMismatch, match="the input 'img-009' of .* is gone"):
        encode_corpus(extended(make))


def test_starting_over_removes_deltas_and_excludes_extending(config: Settings,
                                                             add: Callable[[str], None]) -> None:
    make = config()
    encode_corpus(make)
    add("a.png")
    encode_corpus(extended(make))
    with pytest.raises(ValueError, match="leave out --extend or --overwrite"):
        config(extend=True, overwrite=True)
    assert encode_corpus(config(overwrite=True)).deltas == ()
    assert not storage.exists(f"{make.output}/_deltas")
    require_sound(make, 11)


def test_deltas_of_a_corpus_that_was_made_anew_are_refused(config: Settings, tmp_path: Path,
                                                           add: Callable[[str], None]) -> None:
    make = config()
    encode_corpus(make)
    add("a.png")
    encode_corpus(extended(make))
    (tmp_path / "tokens/_deltas").rename(tmp_path / "deltas")
    encode_corpus(config(overwrite=True))
    (tmp_path / "deltas").rename(tmp_path / "tokens/_deltas")
    with pytest.raises(ValueError, match="_deltas/001 is no delta of .*, which was made anew"):
        encode_corpus(make)
