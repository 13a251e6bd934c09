"""The decode job: a file for each crop, named by key, from the right tokenizer only."""
import dataclasses
import errno
import io
import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from job_fakes import GRID, SIZE, FakeCodec, full_disk, save_maps, tree, writes_that_end
from PIL import Image

from pipelines import decode
from pipelines.decode import DecodeConfig, Decoded, decode_corpus, prepare_task
from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.job import JobFailed
from pipelines.plan import PlanMismatch
from tokenizer import audit, tokens
from tokenizer.corpus.modalities import RGB
from tokenizer.schema import TokenSpec, codes_array, rows_table
from tokenizer.tokens import TokenCorpus

Settings = Callable[..., EncodeConfig]


@pytest.fixture
def job(config: Settings, tmp_path: Path) -> DecodeConfig:
    """Decodes ten images, encoded in shards of four."""
    encode_corpus(config())
    return DecodeConfig(tokens=str(tmp_path / "tokens"), output=str(tmp_path / "out"),
                        tokenizers={"image": "tok"}, batch_size=4)


def images(folder: Path) -> list[str]:
    """Paths of the image files below a folder, without the job's own."""
    return [path for path in tree(folder) if not path.startswith("_decode/")]


def save_corpus(folder: Path, keys: Sequence[str], crops: Sequence[int] = ()) -> None:
    """A token corpus with these keys, as any program may write one."""
    spec = TokenSpec(codes=(FakeCodec(RGB()).spec,))
    codes = np.arange(len(keys), dtype=np.uint16).repeat(6).reshape(-1, *GRID) % 16
    geometry = dict.fromkeys(("height", "width", "left", "top", "crop_width", "crop_height"),
                             [1] * len(keys))
    rows = rows_table(spec, {"image": codes}, {
        "key": keys, "source": keys, "crop_index": list(crops) or [0] * len(keys),
        "flipped": [False] * len(keys), **geometry})
    receipt = tokens.commit_shard(str(folder), 0, 1, "sha256:x", rows)
    audit.complete(str(folder), spec, "sha256:x", [receipt], [], len(keys))


def test_every_crop_becomes_a_file_named_by_its_key(job: DecodeConfig, tmp_path: Path) -> None:
    assert decode_corpus(job) == Decoded(num_crops=10, dead_letters={})
    assert images(tmp_path / "out") == [f"img-{index:03d}.png" for index in range(10)]


@pytest.mark.parametrize("to", ["folder", "tar", "parquet"])
def test_a_corpus_without_rows_decodes_to_nothing(job: DecodeConfig, tmp_path: Path,
                                                  to: str) -> None:
    save_corpus(tmp_path / "none", [])
    done = decode_corpus(dataclasses.replace(job, tokens=str(tmp_path / "none"), to=to))
    assert done == Decoded(num_crops=0, dead_letters={})


def test_files_hold_what_the_codec_makes_of_the_codes(job: DecodeConfig, tmp_path: Path) -> None:
    decode_corpus(job)
    codec, corpus = FakeCodec(RGB()), TokenCorpus.open(job.tokens)
    codes = codes_array(codec.spec, corpus.read_shard(1))
    with Image.open(tmp_path / "out/img-004.png") as image:
        assert (np.array(image) == codec.decode(codes)[0]).all()


@pytest.mark.parametrize(("picture", "suffix"), [("png", ".png"), ("jpeg", ".jpg"),
                                                 ("webp", ".webp")])
def test_images_are_written_in_each_format(job: DecodeConfig, tmp_path: Path, picture: str,
                                           suffix: str) -> None:
    decode_corpus(dataclasses.replace(job, picture=picture))
    with Image.open(tmp_path / f"out/img-000{suffix}") as image:
        assert image.format == picture.upper() and image.size == SIZE[::-1]


def test_the_index_says_which_file_holds_which_key(job: DecodeConfig, tmp_path: Path) -> None:
    decode_corpus(job)
    rows = pq.read_table(tmp_path / "out/_decode/data/part-00002-of-00003.parquet").to_pylist()
    assert [row["key"] for row in rows] == ["img-008", "img-009"]
    content = (tmp_path / "out" / rows[1]["image_file"]).read_bytes()
    assert rows[1]["image_bytes"] == len(content)


def test_several_modalities_have_a_folder_each(config: Settings, tmp_path: Path) -> None:
    make = config(maps={"segmentation": f"{tmp_path}/labels", "depth": f"{tmp_path}/depths"},
                  tokenizers={"segmentation": "seg-tok", "image": "tok", "depth": "depth-tok"})
    save_maps(tmp_path / "labels", tmp_path / "photos", lambda size: np.full(size, 5, np.uint8))
    save_maps(tmp_path / "depths", tmp_path / "photos", lambda size: np.full(size, 5, np.uint16))
    encode_corpus(make)
    job = DecodeConfig(tokens=make.output, output=str(tmp_path / "out"), picture="jpeg",
                       tokenizers={"image": "tok", "depth": "depth-tok"})
    assert decode_corpus(job).num_crops == 10
    assert images(tmp_path / "out") == [f"{name}/img-{index:03d}{suffix}" for name, suffix in (
        ("depth", ".png"), ("image", ".jpg")) for index in range(10)]
    decode_corpus(dataclasses.replace(job, output=str(tmp_path / "one"),
                                      tokenizers={"depth": "depth-tok"}))
    with Image.open(tmp_path / "one/img-000.png") as image:
        assert image.mode == "I;16"


def test_another_tokenizer_is_refused_with_both_fingerprints(job: DecodeConfig,
                                                             tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="by the tokenizer sha256:a; other-tok is sha256:b"):
        decode_corpus(dataclasses.replace(job, tokenizers={"image": "other-tok"}))
    assert not (tmp_path / "out").exists()


def test_a_modality_that_the_corpus_lacks_is_refused(job: DecodeConfig) -> None:
    with pytest.raises(ValueError, match="holds no depth codes, only image"):
        decode_corpus(dataclasses.replace(job, tokenizers={"depth": "depth-tok"}))


def test_keys_cannot_write_outside_the_output(job: DecodeConfig, tmp_path: Path) -> None:
    keys = ["../../etc/passwd", "/absolute", "a/../../b", "nul\0", "C:\\x", ".hidden", "Case",
            "case", "n" * 300, "", "twice", "twice", "_decode/_SUCCESS", "a.png/b"]
    save_corpus(tmp_path / "odd", keys)
    done = decode_corpus(dataclasses.replace(job, tokens=str(tmp_path / "odd")))
    assert done == Decoded(num_crops=11, dead_letters={"DuplicateKey": 1, "UnusableKey": 2})
    assert set(images(tmp_path / "out")) == {
        "%2E%2E/%2E%2E/etc/passwd.png", "%2Fabsolute.png", "a/%2E%2E/%2E%2E/b.png", "nul%00.png",
        "C%3A%5Cx.png", "%2Ehidden.png", "%43ase.png", "case.png", "twice.png",
        "%5Fdecode/_SUCCESS.png", "a%2Epng/b.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"odd", "out", "photos", "tokens"}


def test_several_crops_of_one_key_are_kept_apart(job: DecodeConfig, tmp_path: Path) -> None:
    save_corpus(tmp_path / "crops", ["tom", "tom", "tim"], [0, 1, 0])
    decode_corpus(dataclasses.replace(job, tokens=str(tmp_path / "crops")))
    assert images(tmp_path / "out") == ["tim.png", "tom.png", "tom~1.png"]


def test_the_same_command_changes_nothing(job: DecodeConfig, tmp_path: Path) -> None:
    decode_corpus(job)
    before = tree(tmp_path / "out")
    assert decode_corpus(job) == Decoded(num_crops=10, dead_letters={})
    assert tree(tmp_path / "out") == before


def test_files_that_were_lost_or_cut_are_made_again(job: DecodeConfig, tmp_path: Path) -> None:
    decode_corpus(job)
    before = tree(tmp_path / "out")
    (tmp_path / "out/img-005.png").unlink()
    (tmp_path / "out/img-009.png").write_bytes(b"short")
    decode_corpus(job)
    assert tree(tmp_path / "out") == before


def test_an_interrupt_loses_nothing(job: DecodeConfig, tmp_path: Path) -> None:
    decode_corpus(job)
    for num_writes in (0, 1, 4, 8, 11):
        again = dataclasses.replace(job, output=str(tmp_path / f"stopped-{num_writes}"))
        with writes_that_end(num_writes, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
            decode_corpus(again)
        rest = Path(again.output) / ".tmp-0123456789abcdef"
        rest.write_bytes(b"of a killed writer")
        os.utime(rest, (0, 0))
        decode_corpus(again)
        assert tree(Path(again.output)) == tree(tmp_path / "out")


def test_a_full_disk_keeps_the_finished_shards(job: DecodeConfig) -> None:
    with (writes_that_end(9, full_disk()),
          pytest.raises(JobFailed, match="takes no data: No space left on device")):
        decode_corpus(job)
    assert decode_corpus(job).num_crops == 10


def test_a_name_that_the_disk_refuses_is_a_dead_letter(
        job: DecodeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizer import storage
    write_bytes = storage.write_bytes

    def refuse_one(url: str, content: bytes) -> None:
        if url.endswith("img-003.png"):
            raise OSError(errno.EILSEQ, "Illegal byte sequence")
        write_bytes(url, content)
    monkeypatch.setattr(storage, "write_bytes", refuse_one)
    assert decode_corpus(job) == Decoded(num_crops=9, dead_letters={"OSError": 1})


def test_a_damaged_shard_fails_by_name_and_the_others_are_decoded(job: DecodeConfig,
                                                                  tmp_path: Path) -> None:
    decode_corpus(job)
    shard = tmp_path / "tokens/data/part-00001-of-00003.parquet"
    content = bytearray(shard.read_bytes())
    content[20] ^= 1
    shard.write_bytes(content)
    again = dataclasses.replace(job, output=str(tmp_path / "again"))
    with pytest.raises((JobFailed, ValueError), match=r"part-00001-of-00003\.parquet is damaged"):
        decode_corpus(again)


def test_an_unfinished_corpus_is_refused(job: DecodeConfig, tmp_path: Path) -> None:
    (tmp_path / "tokens/_SUCCESS").unlink()
    with pytest.raises(FileNotFoundError, match="run the same command again"):
        decode_corpus(job)


def test_other_settings_are_refused_and_overwritten_on_demand(job: DecodeConfig,
                                                              tmp_path: Path) -> None:
    decode_corpus(job)
    webp = dataclasses.replace(job, picture="webp")
    with pytest.raises(PlanMismatch, match="picture was 'png', now 'webp'"):
        decode_corpus(webp)
    decode_corpus(dataclasses.replace(webp, overwrite=True))
    assert images(tmp_path / "out") == [f"img-{index:03d}.webp" for index in range(10)]


@pytest.mark.parametrize("modalities", [("image",), ("image", "depth")])
def test_overwriting_leaves_no_files_of_unfinished_shards(
        config: Settings, tmp_path: Path, modalities: tuple[str, ...],
        monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizers = {"image": "tok", "depth": "depth-tok"}
    make = config(maps={"depth": f"{tmp_path}/depths"}, tokenizers=tokenizers)
    save_maps(tmp_path / "depths", tmp_path / "photos", lambda size: np.full(size, 5, np.uint16))
    encode_corpus(make)
    job = DecodeConfig(tokens=make.output, output=str(tmp_path / "out"), picture="webp",
                       tokenizers={name: tokenizers[name] for name in modalities}, batch_size=4)

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.decode.commit", die)
        with pytest.raises(KeyboardInterrupt):
            decode_corpus(job)
    assert images(tmp_path / "out")
    other = dataclasses.replace(job, picture="jpeg", overwrite=True)
    decode_corpus(other)
    assert images(tmp_path / "out") == [
        (f"{name}/" if len(modalities) > 1 else "") + f"img-{index:03d}{suffix}"
        for name, suffix in (("depth", ".png"), ("image", ".jpg")) if name in modalities
        for index in range(10)]
    (tmp_path / "out/_decode/_plan/plan.json").write_text("3")
    decode_corpus(other)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_written_to(job: DecodeConfig, tmp_path: Path,
                                                        overwrite: bool) -> None:
    before = tree(tmp_path / "photos")
    into_photos = dataclasses.replace(job, output=str(tmp_path / "photos"), overwrite=overwrite)
    with pytest.raises(ValueError, match=r"holds other files, such as img-000\.png"):
        decode_corpus(into_photos)
    assert tree(tmp_path / "photos") == before


def test_the_output_must_not_lie_in_the_corpus(job: DecodeConfig) -> None:
    with pytest.raises(ValueError, match="lies in the corpus"):
        decode_corpus(dataclasses.replace(job, output=f"{job.tokens}/images"))


@pytest.mark.parametrize(("settings", "words"), [
    ({"picture": "bmp"}, "images are written as png, jpeg, webp, got 'bmp'"),
    ({"tokenizers": {}}, "at least one modality"),
    ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
])
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], words: str) -> None:
    defaults = {"tokens": "t", "output": "o", "tokenizers": {"image": "tok"}}
    with pytest.raises(ValueError, match=words):
        DecodeConfig(**(defaults | settings))  # type: ignore[arg-type]


def test_images_on_an_object_store_are_the_same(job: DecodeConfig, tmp_path: Path) -> None:
    import fsspec
    memory = fsspec.filesystem("memory")
    memory.rm("/", recursive=True)
    decode_corpus(job)
    decode_corpus(dataclasses.replace(job, output="memory://images"))
    found = {path.removeprefix("/images/"): memory.cat_file(path)
             for path in memory.find("/images")}
    assert found == tree(tmp_path / "out")
    assert Image.open(io.BytesIO(found["img-000.png"])).size == SIZE[::-1]


def test_a_filter_decodes_the_rows_that_it_takes_from_every_shard(job: DecodeConfig,
                                                                  tmp_path: Path) -> None:
    decode_corpus(job)
    some = dataclasses.replace(job, output=str(tmp_path / "some"),
                               filter="key in ('img-003', 'img-008', 'img-001')")
    assert decode_corpus(some) == Decoded(num_crops=3, dead_letters={})
    assert images(tmp_path / "some") == ["img-001.png", "img-003.png", "img-008.png"]
    whole, part = tree(tmp_path / "out"), tree(tmp_path / "some")
    assert all(part[path] == whole[path] for path in images(tmp_path / "some"))


def test_names_are_those_of_the_rows_that_a_filter_takes(tmp_path: Path, fakes: object,
                                                         without_beam: None) -> None:
    save_corpus(tmp_path / "tokens", ["a", "A", "a"], [0, 0, 1])
    job = DecodeConfig(tokens=str(tmp_path / "tokens"), output=str(tmp_path / "out"),
                       tokenizers={"image": "tok"}, filter="key == 'A' or crop_index == 1")
    decode_corpus(job)
    assert len(images(tmp_path / "out")) == 2


def test_a_job_does_not_go_on_with_another_filter(job: DecodeConfig) -> None:
    some = dataclasses.replace(job, filter="crop_index == 0")
    decode_corpus(some)
    for filter in (None, "crop_index < 1"):
        with pytest.raises(PlanMismatch, match="filter was 'crop_index == 0', now"):
            decode_corpus(dataclasses.replace(job, filter=filter))
    assert decode_corpus(some).num_crops == 10


@pytest.mark.parametrize(("text", "words"), [
    ("key == 'none'", "takes none of the rows"), ("label == 'a'", "cannot be compared"),
    ("klass == 1", "no column klass")])
def test_a_filter_that_takes_nothing_or_does_not_fit_leaves_all_as_it_was(
        job: DecodeConfig, tmp_path: Path, text: str, words: str) -> None:
    decode_corpus(job)
    before = tree(tmp_path / "out")
    with pytest.raises(ValueError, match=words):
        decode_corpus(dataclasses.replace(job, filter=text, overwrite=True))
    assert tree(tmp_path / "out") == before


def test_what_is_sent_to_workers_does_not_grow_with_the_corpus(job: DecodeConfig) -> None:
    task = prepare_task(job)
    entry = task.corpus.manifest.shards[0]
    assert entry.sha256.encode() not in pickle.dumps(task)


def test_workers_find_the_corpus_of_the_job_also_when_it_has_grown_and_no_other(
        job: DecodeConfig, config: Settings, tmp_path: Path) -> None:
    sent = pickle.dumps(prepare_task(job))
    shutil.copy(tmp_path / "photos/img-000.png", tmp_path / "photos/more.png")
    encode_corpus(config(extend=True))
    assert TokenCorpus.open(job.tokens).num_shards == 4
    assert pickle.loads(sent).run(0).entry.rows == 4
    encode_corpus(config(overwrite=True, shard_size=5))
    decode._open_planned.cache_clear()  # as in a new process
    with pytest.raises(ValueError, match="holds other shards than when this job was planned"):
        pickle.loads(sent).run(1)
