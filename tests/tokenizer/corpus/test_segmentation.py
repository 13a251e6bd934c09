"""Label maps with more than 256 classes, palettes, and memory of one-hot inputs."""
import numpy as np
import pytest
import torch
from corpus_files import encode
from PIL import Image

from tokenizer.corpus.images import Crop
from tokenizer.corpus.modalities import LabelOutOfRange, Segmentation


def test_ids_of_sixteen_bits_go_all_the_way_and_back() -> None:
    modality = Segmentation(num_classes=900, ignore_id=65535)
    labels = np.array([[0, 255, 256], [899, 65535, 300]], np.uint16)
    raw = modality.read(encode(labels), "map.png")
    pixels = modality.fit(raw, Crop(left=0, top=0, width=3, height=2), (2, 3))
    assert pixels.dtype == np.uint16 and np.array_equal(pixels, labels)
    inputs = modality.to_inputs(torch.from_numpy(pixels[None]))
    assert inputs.shape == (1, 900, 2, 3)
    assert inputs.argmax(1)[0].tolist() == [[0, 255, 256], [899, 0, 300]]
    assert inputs.sum(1)[0].tolist() == [[1, 1, 1], [1, 0, 1]]
    found = modality.to_pixels(inputs).numpy()
    assert found.dtype == np.uint16
    assert modality.difference(found, pixels[None]) == {"miou": 1.0, "pixel_accuracy": 1.0}
    payload, _ = modality.write(found[0])
    assert np.array_equal(modality.read(payload, "map.png"), found[0])


def test_a_palette_image_is_its_indices_and_is_written_with_one() -> None:
    labels = np.array([[0, 1, 2], [250, 255, 7]], np.uint8)
    image = Image.fromarray(labels)
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    modality = Segmentation(num_classes=251, ignore_id=255)
    raw = modality.read(encode(image), "map.png")
    assert np.array_equal(raw, labels)
    payload, suffix = modality.write(labels)
    assert suffix == ".png" and payload[25] == 3  # PNG's colour type of palettes
    assert np.array_equal(modality.read(payload, "map.png"), labels)


def test_an_id_beyond_sixteen_bit_classes_is_named() -> None:
    payload = encode(np.array([[900, 899]], np.uint16))
    with pytest.raises(LabelOutOfRange, match="class ids 900 at 1 pixels; num_classes=900 takes 0"):
        Segmentation(num_classes=900).read(payload, "map.png")


def test_a_crop_of_many_classes_is_cut_and_mirrored_by_centres() -> None:
    modality = Segmentation(num_classes=1000)
    raw = np.arange(960, dtype=np.uint16).reshape(24, 40)
    crop = Crop(left=4, top=2, width=20, height=20, flipped=True)
    assert np.array_equal(modality.fit(raw, crop, (10, 10)), raw[3:22:2, 5:24:2][:, ::-1])


def test_one_hot_inputs_are_float32_whatever_the_default() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        inputs = Segmentation(num_classes=3).to_inputs(torch.ones(1, 2, 2, dtype=torch.uint8))
    finally:
        torch.set_default_dtype(torch.float32)
    assert inputs.dtype == torch.float32
