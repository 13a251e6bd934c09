"""The encode job with modalities computed from images: no files of their own, one read for all."""
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from job_fakes import SIZE, FakeCodec, save_maps, tree

from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.plan import load_plan
from tokenizer import storage
from tokenizer.corpus.images import centre_crop
from tokenizer.corpus.modalities import Edges, LowRes
from tokenizer.schema import codes_array
from tokenizer.tokens import TokenCorpus

Settings = Callable[..., EncodeConfig]
BOTH = {"image": "tok", "edges": "edges-tok"}


@pytest.fixture(autouse=True)
def computing(fakes: dict[str, FakeCodec]) -> None:
    fakes["edges-tok"] = FakeCodec(Edges(sigma=0.5), "e")
    fakes["low-tok"] = FakeCodec(LowRes(factor=4), "l")


def codes_of(url: str, modality: str) -> np.ndarray:
    corpus = TokenCorpus.open(url)
    return np.concatenate([codes_array(corpus.spec[modality], table) for table in corpus.tables()])


def test_edges_come_from_the_files_of_the_images(config: Settings, tmp_path: Path,
                                                 fakes: dict[str, FakeCodec]) -> None:
    make = config(tokenizers=BOTH)
    manifest = encode_corpus(make)
    assert manifest.spec.modalities == ("image", "edges") and manifest.num_rows == 10
    codec, expected = fakes["edges-tok"], []
    for photo in sorted((tmp_path / "photos").iterdir()):
        raw = codec.modality.read(photo.read_bytes(), photo.name)
        crop = centre_crop(*raw.shape[:2], SIZE)
        expected.append(codec.encode(codec.modality.fit(raw, crop, SIZE)[None])[0])
    found = codes_of(make.output, "edges")
    assert np.array_equal(found, expected) and len(np.unique(found)) > 3


def test_images_get_the_same_codes_with_edges_as_without(config: Settings, tmp_path: Path) -> None:
    encode_corpus(config(tokenizers=BOTH))
    encode_corpus(config(output=str(tmp_path / "alone")))
    assert np.array_equal(codes_of(str(tmp_path / "tokens"), "image"),
                          codes_of(str(tmp_path / "alone"), "image"))


def test_each_image_is_read_and_decoded_once(config: Settings, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    decoded: list[int] = []

    def read_bytes(url: str) -> bytes:
        reads.append(Path(url).name)
        return Path(url).read_bytes()

    def decode(payload: bytes, route: str) -> np.ndarray:
        decoded.append(len(payload))
        return decode_image(payload, route)
    make = config(tokenizers={**BOTH, "low_res": "low-tok"})
    from tokenizer.corpus.modalities.image import decode_image
    monkeypatch.setattr("tokenizer.corpus.sources.storage.read_bytes", read_bytes)
    monkeypatch.setattr("tokenizer.corpus.modalities.image.decode_image", decode)
    encode_corpus(make)
    photos = [photo.name for photo in (tmp_path / "photos").iterdir()]
    assert sorted(name for name in reads if name in photos) == sorted(photos)
    assert len(decoded) == len(photos)


def test_edges_can_be_encoded_without_their_images(config: Settings, tmp_path: Path) -> None:
    encode_corpus(config(tokenizers=BOTH))
    alone = config(tokenizers={"edges": "edges-tok"}, output=str(tmp_path / "alone"))
    assert encode_corpus(alone).spec.modalities == ("edges",)
    assert np.array_equal(codes_of(alone.output, "edges"),
                          codes_of(str(tmp_path / "tokens"), "edges"))
    row = next(iter(load_plan(alone.output).rows(0)))
    assert dict(row["sources"]) == {"image": f"{alone.corpus}/img-000.png"}


@pytest.mark.parametrize(("tokenizers", "maps", "expected"), [
    (("edges", "image"), (), ("image", "edges")),
    (("low_res", "edges"), (), ("edges", "low_res")),
    (("depth", "edges", "image", "low_res"), ("depth",), ("image", "edges", "low_res", "depth")),
    (("depth", "edges"), ("depth",), ("edges", "depth")),
    (("edges", "depth", "image"), ("image",), ("depth", "edges", "image")),
    (("edges", "depth"), ("image",), ("depth", "edges"))])
def test_columns_begin_with_the_corpus_itself_and_what_is_computed_from_it(
        tokenizers: tuple[str, ...], maps: tuple[str, ...], expected: tuple[str, ...]) -> None:
    config = EncodeConfig(corpus="c", output="o", tokenizers=dict.fromkeys(tokenizers, "t"),
                          maps=dict.fromkeys(maps, "m"))
    assert config.modalities == expected


def test_edges_can_come_from_images_that_lie_beside_the_corpus(config: Settings,
                                                               tmp_path: Path) -> None:
    make = config(tokenizers=BOTH)
    encode_corpus(make)
    save_maps(tmp_path / "depths", tmp_path / "photos",
              lambda size: np.arange(size[0] * size[1], dtype=np.uint16).reshape(size))
    beside = config(corpus=str(tmp_path / "depths"), maps={"image": str(tmp_path / "photos")},
                    tokenizers={"depth": "depth-tok", "edges": "edges-tok"},
                    output=str(tmp_path / "beside"))
    manifest = encode_corpus(beside)
    assert manifest.spec.modalities == ("depth", "edges") and manifest.num_dead_letters == 0
    assert np.array_equal(codes_of(beside.output, "edges"), codes_of(make.output, "edges"))


@pytest.mark.parametrize(("settings", "words"), [
    ({"tokenizers": BOTH, "maps": {"edges": "drawn"}},
     "edges are computed from image files .*; leave out --maps edges=drawn"),
    ({"tokenizers": {"edges": "e", "depth": "d"}},
     "without --maps are image, depth: add --maps NAME=FOLDER"),
    ({"tokenizers": {"sound": "s"}}, "unknown modality 'sound'; known are depth, edges")])
def test_what_cannot_be_meant_is_refused_with_the_remedy(
        config: Settings, settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**settings)


def test_a_damaged_image_is_one_dead_letter(config: Settings, tmp_path: Path) -> None:
    make = config(tokenizers=BOTH)
    (tmp_path / "photos/img-003.png").write_bytes(b"no image")
    manifest = encode_corpus(make)
    assert manifest.dead_letters == {"UnreadableImage": 1} and manifest.num_rows == 9
    letter, = TokenCorpus.open(make.output).dead_letters()
    assert (letter.key, letter.stage) == ("img-003", "decode")
    assert letter.source.endswith("photos/img-003.png")


def test_two_runs_with_any_number_of_threads_write_the_same_bytes(
        config: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode_corpus(config(tokenizers=BOTH))
    monkeypatch.setattr("pipelines.encode.DECODE_THREADS", (1, 1))
    encode_corpus(config(tokenizers=BOTH, output=str(tmp_path / "again")))
    assert tree(tmp_path / "again") == tree(tmp_path / "tokens")
    assert storage.exists(str(tmp_path / "again/_SUCCESS"))
