"""Each process loads a codec once, and only the one that the job was planned with."""
import dataclasses
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
from job_fakes import FakeCodec

from pipelines import codecs
from tokenizer.buckets import Bucket
from tokenizer.corpus.modalities import RGB, Depth
from tokenizer.schema import TokenSpec


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders of which tokenizers were loaded; a folder's name is the fingerprint's."""
    loaded: list[str] = []

    class Codec:
        @staticmethod
        def load(url: str, batch_size: int = 8) -> FakeCodec:
            loaded.append(url)
            time.sleep(0.01)  # others may begin meanwhile
            return FakeCodec(Depth() if "depth" in url else RGB(), url, batch_size)
    module = types.ModuleType("tokenizer.codec")
    module.Codec = Codec  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tokenizer.codec", module)
    monkeypatch.setattr(codecs, "_LOADED", {})
    return loaded


def test_a_codec_is_loaded_once_for_all_shards(loads: list[str]) -> None:
    spec = FakeCodec(RGB(), "a").spec
    first = codecs.codec_of("a", spec, 8)
    assert all(codecs.codec_of("a", spec, 8) is first for _ in range(3)) and loads == ["a"]


def test_another_batch_size_is_another_codec(loads: list[str]) -> None:
    spec = FakeCodec(RGB(), "a").spec
    assert codecs.codec_of("a", spec, 4).batch_size == 4
    assert codecs.codec_of("a", spec, 8).batch_size == 8


def test_threads_share_one_codec(loads: list[str]) -> None:
    spec = FakeCodec(RGB(), "a").spec
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: codecs.codec_of("a", spec, 8), range(16)))
    assert len({id(codec) for codec in found}) == 1 and loads == ["a"]


def test_a_worker_of_many_jobs_lets_go_of_the_tokenizers_it_loaded_first(loads: list[str]) -> None:
    for name in "abcdefghiba":
        codecs.codec_of(name, FakeCodec(RGB(), name).spec, 8)
    assert "".join(loads) == "abcdefghia"
    assert len(codecs._LOADED) == codecs.MOST_TOKENIZERS


def test_a_codec_is_made_once_for_each_size(loads: list[str]) -> None:
    spec = FakeCodec(RGB(), "a", grid=(3, 5)).spec
    first = codecs.codec_of("a", spec, 8)
    assert first.spec == spec and codecs.codec_of("a", spec, 8) is first
    own = codecs.open_codecs({"image": "a"}, 8)
    assert own["image"].spec.image_size == (8, 12)
    assert codecs.at_size(own, (12, 20), 8)["image"] is first


def test_a_tokenizer_is_loaded_once_for_all_buckets(loads: list[str]) -> None:
    sizes = (Bucket(image_size=(4, 8), grid=(1, 2)), Bucket(image_size=(8, 4), grid=(2, 1)))
    spec = TokenSpec(codes=(dataclasses.replace(FakeCodec(RGB(), "a", grid=(1, 2)).spec,
                                                buckets=sizes),))
    found = codecs.codecs_by_bucket({"image": "a"}, spec, 8)
    assert [own["image"].spec.image_size for own in found] == [(4, 8), (8, 4)] and loads == ["a"]
    assert codecs.codecs_by_bucket({"image": "a"}, spec, 8) == found and loads == ["a"]


def test_another_tokenizer_than_planned_is_refused(loads: list[str]) -> None:
    spec = FakeCodec(RGB(), "a").spec
    with pytest.raises(ValueError, match="image tokenizer b is sha256:b, .* with sha256:a; put"):
        codecs.codec_of("b", spec, 8)


def test_codecs_come_in_the_order_of_the_spec(loads: list[str]) -> None:
    spec = TokenSpec(codes=(FakeCodec(RGB(), "a").spec, FakeCodec(Depth(), "depth").spec))
    found = codecs.codecs_of({"depth": "depth", "image": "a"}, spec, 8)
    assert list(found) == ["image", "depth"]
    assert list(codecs.codecs_of({"depth": "depth"}, spec, 8)) == ["depth"]


def test_a_tokenizer_given_for_another_modality_is_refused(loads: list[str]) -> None:
    assert list(codecs.open_codecs({"image": "a", "depth": "depth"}, 8)) == ["image", "depth"]
    with pytest.raises(ValueError, match="depth is a tokenizer of depth, not of image: write"):
        codecs.open_codecs({"image": "depth"}, 8)


@pytest.mark.parametrize(("size", "nearest"), [
    ((30, 48), "32x48"), ((0, 8), "4x8"), ((8, 9), "8x8"), ((1, 1), "4x4")])
def test_pictures_that_codes_do_not_fill_are_refused_with_the_option_and_the_nearest(
        size: tuple[int, int], nearest: str) -> None:
    own = {"image": FakeCodec(RGB())}
    codecs.require_whole_codes(own, [(8, 12), (4, 400)], "--buckets")
    name = f"{size[0]}x{size[1]}"
    with pytest.raises(ValueError, match=f"^--size {name}: a code of the image tokenizer is of "
                       f"4 x 4 pixels, and both sides are multiples of 4, the nearest {nearest}$"):
        codecs.require_whole_codes(own, [(8, 12), size], "--size")


def test_a_precision_and_a_backend_make_other_codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, str]] = []

    class Codec:
        @staticmethod
        def load(url: str, batch_size: int, **arithmetic: str) -> FakeCodec:
            asked.append(arithmetic)
            return FakeCodec(RGB(), url, batch_size)
    module = types.ModuleType("tokenizer.codec")
    module.Codec = Codec  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tokenizer.codec", module)
    monkeypatch.setattr(codecs, "_LOADED", {})
    spec = FakeCodec(RGB(), "a").spec
    plain = codecs.codec_of("a", spec, 8)
    rough = codecs.codec_of("a", spec, 8, precision="bf16")
    assert rough is not plain
    assert codecs.codec_of("a", spec, 8, precision="bf16") is rough
    assert asked == [{}, {"precision": "bf16"}]
