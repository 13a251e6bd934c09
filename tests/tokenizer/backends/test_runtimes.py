"""Other runtimes give the codes of torch, in float32, for any number of images."""
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from random_models import small_model

from tokenizer.backends import onnx_files, runtimes
from tokenizer.backends.runtimes import EXTRAS, RUNTIMES, LatentsOf, open_runtime
from tokenizer.codec import Codec
from tokenizer.vqgan.model import VQGAN


@pytest.fixture(scope="module", autouse=True)
def exported_once() -> Iterator[None]:
    """Each network is exported once, for both runtimes: equal models have equal weights here."""
    known: dict[object, bytes] = {}

    def latents_onnx(model: VQGAN, shape: tuple[int, ...]) -> bytes:
        key = (str(model.config), shape)
        known[key] = known.get(key) or onnx_files.latents_onnx(model, shape)
        return known[key]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtimes, "latents_onnx", latents_onnx)
        yield


def codec(backend: str, batch_size: int = 4, **model: object) -> Codec:
    for package in ("onnxscript", backend):
        if backend != "torch":
            pytest.importorskip(package)
    return Codec(small_model(**model), "sha256:0", batch_size,  # type: ignore[arg-type]
                 backend=backend)


def pixels(num: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (num, 32, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize("backend", sorted(RUNTIMES))
def test_codes_equal_those_of_torch(backend: str) -> None:
    other, images = codec(backend), pixels(10)
    codes = codec("torch").encode(images)
    assert len(np.unique(codes)) > 20
    found = other.encode(images)
    assert np.array_equal(found, codes)
    assert other.spec == codec("torch").spec
    assert np.array_equal(other.decode(found), codec("torch").decode(codes))
    assert np.array_equal(other.encode(images[3:4])[0], codes[3])  # whatever else is in the call


@pytest.mark.parametrize("backend", sorted(RUNTIMES))
def test_latents_are_those_of_float32(backend: str) -> None:
    pytest.importorskip(backend)
    pytest.importorskip("onnxscript")
    model = small_model(patch=4)
    inputs = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        expected = model.encode_to_latents(inputs).numpy()
    found = open_runtime(backend, model, (2, 3, 32, 48))(inputs.numpy())
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("factor", [1.1, float("nan")])
def test_a_runtime_that_computes_something_else_is_refused(
        monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """As did ONNX files of an exporter that did not go with its torch: every code was another."""
    def scaled(model: VQGAN, shape: tuple[int, ...]) -> LatentsOf:
        return lambda inputs: model.encode_to_latents(
            torch.from_numpy(inputs)).detach().numpy() * np.float32(factor)

    monkeypatch.setitem(RUNTIMES, "openvino", scaled)
    with pytest.raises(ValueError, match="openvino computes other latents than torch, .* install"):
        open_runtime("openvino", small_model(), (2, 3, 32, 48))


@pytest.mark.parametrize("backend", sorted(RUNTIMES))
def test_several_threads_share_one_runtime(backend: str) -> None:
    other, images = codec(backend), pixels(12)
    codes = other.encode(images)
    starts = [0, 3, 6, 9] * 3
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda start: other.encode(images[start:start + 3]), starts))
    assert all(np.array_equal(part, codes[3 * (index % 4):][:3])
               for index, part in enumerate(found))


@pytest.mark.parametrize("backend", sorted(RUNTIMES))
def test_a_missing_runtime_is_named_with_its_remedy(
        backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(ValueError, match=rf"{backend}.*pip install 'img2tokens\[{EXTRAS[backend]}"):
        Codec(small_model(), "sha256:0", backend=backend)


def test_an_unknown_backend_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="torch, openvino or onnxruntime, got 'tensorrt'"):
        Codec(small_model(), "sha256:0", backend="tensorrt")


def test_backends_compute_in_float32_alone() -> None:
    with pytest.raises(ValueError, match="openvino computes on cpu in float32, got cpu and bf16"):
        Codec(small_model(), "sha256:0", backend="openvino", precision="bf16")


def test_every_runtime_has_an_extra() -> None:
    assert EXTRAS.keys() == RUNTIMES.keys()
