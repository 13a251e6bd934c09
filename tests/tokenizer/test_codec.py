"""The codec: codes that depend on their image alone, from any thread; and what it refuses."""
import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from tokenizer import checkpoints
from tokenizer.codec import Codec, reproducible
from tokenizer.corpus.modalities import MODALITIES
from tokenizer.vqgan.autoencoder import AutoencoderConfig
from tokenizer.vqgan.model import VQGAN, VQGANConfig
from tokenizer.vqgan.quantizers import QUANTIZERS, QuantizerConfig

SETTINGS: dict[str, dict[str, Any]] = {
    "image": {"name": "image"}, "depth": {"name": "depth"},
    "segmentation": {"name": "segmentation", "num_classes": 5, "ignore_id": 255}}

OWN: dict[str, dict[str, Any]] = {"fsq": {"levels": (16, 16), "code_dim": 2},
                                  "residual": {"depth": 2}}
"""Settings that a kind of quantizer needs for 256 codes."""


def build_model(modality: str = "image", kind: str = "cosine", patch: int = 2,
                codebook_size: int = 256) -> VQGAN:
    torch.manual_seed(0)
    shape = AutoencoderConfig(width=16, channel_multipliers=(1, 2), num_res_blocks=1,
                              attention_levels=(1,), latent_channels=16, patch=patch)
    return VQGAN(VQGANConfig(
        modality=SETTINGS[modality], image_size=(32, 48), autoencoder=shape,
        quantizer=QuantizerConfig(kind=kind, codebook_size=codebook_size, **OWN.get(kind, {}))))


def build_codec(batch_size: int = 4, **model: Any) -> Codec:
    return Codec(build_model(**model), "sha256:0", batch_size=batch_size)


def pixels_for(codec: Codec, num: int, seed: int = 0) -> np.ndarray:
    """Smooth noise, so that neighbouring latents are near each other as in photographs."""
    rng = np.random.default_rng(seed)
    height, width = codec.spec.image_size
    if codec.modality.name == "segmentation":
        coarse = rng.integers(0, 5, (num, height // 8, width // 8))
        return coarse.repeat(8, 1).repeat(8, 2).astype(np.uint8)
    most = np.iinfo(codec.modality.pixel_dtype).max
    channels = (3,) if codec.modality.name == "image" else ()
    ramp = np.linspace(0, 1, width).reshape(1, 1, width, *(1 for _ in channels))
    noise = rng.random((num, height, width, *channels)) * 0.2
    levels = rng.random((num, 1, 1, *channels)) * 0.5 + 0.3 * ramp + noise
    return (levels * most).astype(codec.modality.pixel_dtype)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("modality", sorted(SETTINGS))
@pytest.mark.parametrize("kind", sorted(QUANTIZERS))
def test_codes_of_an_image_alone_equal_those_in_any_batch(modality: str, kind: str) -> None:
    codec = build_codec(modality=modality, kind=kind)
    pixels = pixels_for(codec, 11)
    codes = codec.encode(pixels)
    assert len(np.unique(codes)) > 5
    for index in range(len(pixels)):
        assert np.array_equal(codec.encode(pixels[index:index + 1])[0], codes[index])


def test_residual_codes_come_depth_after_depth_and_decode() -> None:
    codec = build_codec(kind="residual")
    codes = codec.encode(pixels_for(codec, 3))
    assert codes.shape == (3, *codec.spec.code_shape) == (3, 2, 8, 12)
    assert codec.spec.num_codes == 192
    assert codec.decode(codes).shape == (3, 32, 48, 3)
    with pytest.raises(ValueError, match=r"\(N, 2, 8, 12\), got \(3, 8, 12\)"):
        codec.decode(codes[:, 0])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize("patch", [1, 4])
def test_codes_do_not_depend_on_position_or_company(batch_size: int, patch: int) -> None:
    codec = build_codec(batch_size=batch_size, patch=patch)
    pixels = pixels_for(codec, 9)
    codes = codec.encode(pixels)
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(9)
        strangers = pixels_for(codec, seed, seed=100 + seed)
        found = codec.encode(np.concatenate([strangers, pixels[order]]))
        assert np.array_equal(found[seed:], codes[order])


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_latents_are_bit_equal_at_every_position(batch_size: int) -> None:
    codec, model = build_codec(), build_model().eval()
    pixels = torch.from_numpy(pixels_for(codec, batch_size))
    with reproducible(torch.device("cpu")):
        latents = model.encode_to_latents(codec.modality.to_inputs(pixels))
        turned = model.encode_to_latents(codec.modality.to_inputs(pixels.flip(0)))
    assert torch.equal(turned.flip(0), latents)


def test_decoded_images_do_not_depend_on_the_batch() -> None:
    codec = build_codec()
    codes = np.random.default_rng(0).integers(0, 256, (7, 8, 12))
    images = codec.decode(codes)
    for index in range(7):
        assert np.array_equal(codec.decode(codes[index:index + 1])[0], images[index])


def test_codes_do_not_depend_on_threads_precision_or_autocast(two_threads: None) -> None:
    codec = build_codec()
    pixels = pixels_for(codec, 5)
    codes = codec.encode(pixels)
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert np.array_equal(codec.encode(pixels), codes)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_callers_number_of_threads_is_put_back(two_threads: None) -> None:
    codec = build_codec()
    codec.encode(pixels_for(codec, 2))
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), reproducible(torch.device("cpu")):
        assert torch.get_num_threads() == 1
        assert torch.is_inference_mode_enabled()
        _ = 1 // 0
    assert torch.get_num_threads() == 2
    assert not torch.is_inference_mode_enabled()


def test_several_threads_share_one_codec() -> None:
    codec = build_codec()
    pixels = pixels_for(codec, 12)
    codes = codec.encode(pixels)
    images = codec.decode(codes)

    def round_trip(index: int) -> bool:
        start = index % 12
        found = codec.encode(pixels[start:start + 3])
        return (np.array_equal(found, codes[start:start + 3])
                and np.array_equal(codec.decode(found), images[start:start + 3]))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(round_trip, range(24)))


@pytest.mark.parametrize("modality", sorted(SETTINGS))
def test_types_and_shapes_are_those_of_spec_and_modality(modality: str) -> None:
    codec = build_codec(modality=modality)
    pixels = pixels_for(codec, 3)
    codes = codec.encode(pixels)
    assert (codes.dtype, codes.shape) == (codec.spec.dtype, (3, *codec.spec.grid))
    images = codec.decode(codes)
    assert (images.dtype, images.shape) == (pixels.dtype, pixels.shape)


def test_no_images_give_no_codes_and_back() -> None:
    codec = build_codec()
    codes = codec.encode(pixels_for(codec, 0))
    assert codes.shape == (0, 8, 12)
    assert codec.decode(codes).shape == (0, 32, 48, 3)


def test_large_codebooks_take_wide_codes() -> None:
    codec = build_codec(codebook_size=70_000)
    assert codec.encode(pixels_for(codec, 1)).dtype == np.uint32


def test_the_spec_says_what_the_codes_mean() -> None:
    spec = build_codec(modality="segmentation").spec
    assert (spec.modality, spec.grid, spec.image_size) == ("segmentation", (8, 12), (32, 48))
    assert (spec.codebook_size, spec.precision, spec.tokenizer) == (256, "float32", "sha256:0")
    assert spec.preprocessing == MODALITIES["segmentation"](
        num_classes=5, ignore_id=255).preprocessing()  # type: ignore[call-arg]


def save(url: str, model: VQGAN) -> None:
    checkpoints.save_config(url, "tokenizer", model.config)
    checkpoints.save_weights(url, model.codec_weights())


def test_a_saved_codec_gives_the_same_codes(tmp_path: Path) -> None:
    model = build_model()
    save(str(tmp_path), model)
    codec, loaded = Codec(model, "sha256:0"), Codec.load(str(tmp_path))
    pixels = pixels_for(codec, 3)
    assert np.array_equal(loaded.encode(pixels), codec.encode(pixels))
    assert loaded.spec.tokenizer == checkpoints.fingerprint(str(tmp_path))
    assert loaded.batch_size == 8


def test_codes_are_told_to_be_of_the_weights_that_made_them_though_others_replace_these(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(str(tmp_path), build_model())
    before, from_weights = checkpoints.fingerprint(str(tmp_path)), VQGAN.from_weights

    def replaced(config: VQGANConfig, weights: dict[str, torch.Tensor]) -> VQGAN:
        checkpoints.save_weights(str(tmp_path), {"w": torch.zeros(1)})
        return from_weights(config, weights)
    monkeypatch.setattr(VQGAN, "from_weights", replaced)
    assert Codec.load(str(tmp_path)).spec.tokenizer == before


def test_a_codec_loads_from_any_fsspec_url() -> None:
    url = "memory://codec-test/run"
    save(url, build_model())
    codec = Codec.load(url, batch_size=2)
    assert codec.encode(pixels_for(codec, 3)).shape == (3, 8, 12)
    fsspec.filesystem("memory").rm("/codec-test", recursive=True)


def test_another_size_takes_other_pictures_with_the_same_weights(tmp_path: Path) -> None:
    model = build_model()
    save(str(tmp_path), model)
    own = Codec.load(str(tmp_path))
    wide = own.at_size((16, 64))
    assert wide.spec == dataclasses.replace(own.spec, image_size=(16, 64), grid=(4, 16))
    config = dataclasses.replace(model.config, image_size=(16, 64))
    made_so = Codec(VQGAN.from_weights(config, model.codec_weights()), "sha256:0")
    pixels = pixels_for(wide, 3)
    assert pixels.shape == (3, 16, 64, 3)
    codes = wide.encode(pixels)
    assert codes.shape == (3, 4, 16) and np.array_equal(codes, made_so.encode(pixels))
    assert np.array_equal(wide.decode(codes), made_so.decode(codes))
    assert own.spec.image_size == (32, 48) and own.encode(pixels_for(own, 1)).shape == (1, 8, 12)


@pytest.mark.parametrize("size", [(30, 48), (32, 2), (0, 48)])
def test_a_size_that_is_no_multiple_of_a_code_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 4 .* got"):
        build_codec().at_size(size)


def test_notes_on_code_usage_do_not_change_the_fingerprint(tmp_path: Path) -> None:
    model = build_model()
    save(str(tmp_path / "a"), model)
    model.train()(torch.randn(1, 3, 32, 48))
    save(str(tmp_path / "b"), model)
    prints = {checkpoints.fingerprint(str(tmp_path / name)) for name in "ab"}
    assert len(prints) == 1


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        Codec.load(str(tmp_path))


@pytest.mark.parametrize(("shape", "dtype", "message"), [
    ((1, 32, 48, 3), np.float32, "image pixels must be uint8, got float32"),
    ((1, 48, 32, 3), np.uint8, r"of shape \(N, 32, 48, 3\), got \(1, 48, 32, 3\); crop and resize"),
    ((32, 48, 3), np.uint8, r"of shape \(N, 32, 48, 3\), got \(32, 48, 3\)")])
def test_pixels_of_another_type_or_size_are_refused(shape: tuple[int, ...], dtype: type,
                                                    message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_codec().encode(np.zeros(shape, dtype))


def test_class_ids_beyond_the_classes_are_refused_but_the_ignored_one_is_not() -> None:
    codec = build_codec(modality="segmentation")
    labels = np.full((1, 32, 48), 255, np.uint8)
    assert codec.encode(labels).shape == (1, 8, 12)
    labels[0, 0, 0] = 5
    with pytest.raises(ValueError, match="class ids 5 at 1 pixels"):
        codec.encode(labels)


@pytest.mark.parametrize(("codes", "message"), [
    (np.full((1, 8, 12), 256), r"image codes must lie in \[0, 256\), got 256 to 256"),
    (np.full((1, 8, 12), -1), r"must lie in \[0, 256\), got -1 to -1"),
    (np.zeros((1, 8, 12)), "must be integers of shape .* got float64"),
    (np.zeros((1, 12, 8), int), r"got int64 of shape \(1, 12, 8\)"),
    (np.zeros((8, 12), int), r"shape \(N, 8, 12\), got \(8, 12\)")])
def test_codes_outside_the_codebook_or_grid_are_refused(codes: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_codec().decode(codes)


def test_large_images_pass_one_at_a_time_whatever_the_batch_size(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenizer.codec.FEATURES_AT_ONCE", 1)
    codec, alone = build_codec(batch_size=8), build_codec(batch_size=1)
    seen: list[int] = []
    encoder = codec._model.encoder
    encoder.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    pixels = pixels_for(codec, 3)
    assert np.array_equal(codec.encode(pixels), alone.encode(pixels))
    assert seen == [1, 1, 1]


def test_small_images_pass_in_batches_of_the_size_asked_for() -> None:
    codec = build_codec(batch_size=2)
    seen: list[int] = []
    encoder = codec._model.encoder
    encoder.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    codec.encode(pixels_for(codec, 3))
    assert seen == [2, 2]


def test_the_largest_feature_map_is_counted() -> None:
    shape = AutoencoderConfig(width=16, channel_multipliers=(1, 8), attention_levels=(), patch=2)
    assert VQGANConfig(image_size=(32, 48), autoencoder=shape).num_features == 128 * 8 * 12
    assert VQGANConfig().num_features == 128 * 256 * 256


def test_codes_in_bf16_are_near_those_in_float32_and_their_spec_says_so() -> None:
    model = build_model()
    plain, rough = Codec(model, "sha256:0"), Codec(model, "sha256:0", precision="bf16")
    pixels = pixels_for(plain, 8)
    codes, other = plain.encode(pixels), rough.encode(pixels)
    assert (plain.spec.precision, rough.spec.precision) == ("float32", "bf16")
    assert 0 < (codes != other).mean() < 0.5
    images = plain.decode(codes).astype(int)
    assert 0 < np.abs(rough.decode(codes) - images).mean() < 2


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision is float32 or bf16, got 'fp8'"):
        Codec(build_model(), "sha256:0", precision="fp8")


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        build_codec(batch_size=0)


def test_a_device_that_is_not_there_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="device 'nowhere' cannot be used") as caught:
        Codec(build_model(), "sha256:0", device="nowhere")
    assert "\n" not in str(caught.value)
