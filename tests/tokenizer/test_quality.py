"""Quality columns: measured from what decoding gives, the codes left as they are."""
import numpy as np
import pytest
from test_codec import SETTINGS, build_codec, pixels_for

from tokenizer.corpus.modalities import MODALITIES
from tokenizer.quality import (
    code_entropy,
    encode_and_measure,
    lower_is_better,
    mean_distances,
    quality_columns,
)
from tokenizer.vqgan.quantizers import QUANTIZERS

WITHOUT_CODEBOOK = {"fsq", "lfq", "gumbel", "ibq"}
"""Kinds whose codes are not the nearest entries of a codebook."""


@pytest.mark.parametrize("kind", sorted(QUANTIZERS))
@pytest.mark.parametrize("modality", sorted(SETTINGS))
def test_codes_are_the_same_and_columns_those_of_the_decoded_pixels(modality: str,
                                                                    kind: str) -> None:
    codec = build_codec(modality=modality, kind=kind)
    pixels = pixels_for(codec, 3)
    codes, columns = encode_and_measure(codec, pixels)
    assert (codes == codec.encode(pixels)).all() and codes.dtype == codec.spec.dtype
    assert tuple(columns) == quality_columns(modality)
    figures, entropies, nearest, margins = columns.values()
    assert all(column.dtype == np.float32 and column.shape == (3,) for column in columns.values())
    expected = codec.modality.difference(codec.decode(codes)[1:2], pixels[1:2])
    assert figures[1] == np.float32(expected[codec.modality.quality])
    assert (entropies >= 0).all() and (entropies <= np.log2(codec.spec.num_codes)).all()
    if kind in WITHOUT_CODEBOOK:
        assert np.isnan(nearest).all() and np.isnan(margins).all()
    else:
        assert (nearest > 0).all() and (margins >= 0).all() and margins.any()


@pytest.mark.parametrize("kind", ["classic", "residual", "gumbel"])
def test_a_row_s_values_do_not_depend_on_its_company(kind: str) -> None:
    codec = build_codec(kind=kind, batch_size=3)
    pixels = pixels_for(codec, 7)
    together = encode_and_measure(codec, pixels)[1]
    for row in (0, 3, 6):
        alone = encode_and_measure(codec, pixels[row:row + 1])[1]
        for name, column in together.items():
            assert alone[name].tobytes() == column[row:row + 1].tobytes()


def test_nothing_is_measured_of_nothing() -> None:
    codec = build_codec()
    codes, columns = encode_and_measure(codec, pixels_for(codec, 0))
    assert len(codes) == 0 and all(column.shape == (0,) for column in columns.values())


def test_entropy_counts_cells_in_bits() -> None:
    assert code_entropy(np.full((4, 4), 7)) == 0 and not np.signbit(code_entropy(np.zeros((2, 2))))
    assert code_entropy(np.arange(16).reshape(4, 4)) == 4
    assert code_entropy(np.array([[0, 0], [1, 2]])) == 1.5
    several = np.stack([np.zeros((2, 2)), np.arange(4).reshape(2, 2)])
    assert code_entropy(several, depth=2) == 1  # the mean of 0 and 2, not that of all 8 codes


def test_distances_are_means_and_rounding_gives_no_negative_margin() -> None:
    distances = np.array([[[[1.0, 3.0]], [[2.0, 2.9999998]]]], np.float32)
    nearest, margins = mean_distances(distances, 1)
    assert nearest.tolist() == [2.0] and margins.tolist() == [0.5]


def test_every_modality_names_one_of_its_figures() -> None:
    for name, modality in MODALITIES.items():
        assert quality_columns(name)[0] == f"{name}_{modality.quality}"
        assert lower_is_better(f"{name}_{modality.quality}") == modality.lower_is_better
        assert not lower_is_better(f"{name}_entropy")
    kinds = {name: MODALITIES[name]() if name != "segmentation" else
             MODALITIES[name](num_classes=3) for name in MODALITIES}
    for name, modality in kinds.items():
        shape = (1, 8, 8, 3) if modality.out_channels == 3 and name != "segmentation" else (1, 8, 8)
        pixels = np.zeros(shape, modality.pixel_dtype)
        pixels[:, 4:] = 2 if name == "segmentation" else np.iinfo(pixels.dtype).max
        perfect, bad = (modality.difference(found, pixels)[modality.quality]
                        for found in (pixels, pixels[:, ::-1]))
        assert (bad > perfect) if modality.lower_is_better else (bad < perfect), name
