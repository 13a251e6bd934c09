"""Held-out figures are cross-entropies in bits, and sheets hold what they say."""
import math

import numpy as np
import pytest
import torch
from drawn_codes import GRID

from prior.dataset import CodeRows, assemble, spread
from prior.evaluation import (
    HeldOutBits,
    held_out_bits,
    num_passes,
    resample,
    sample_sheet,
    sequence_loss,
)
from prior.model import Condition, Prior, PriorConfig
from prior.recipes import tiny
from prior.transformer import Transformer
from tokenizer.tokens import TokenCorpus

MODALITIES = ("image", "segmentation")


def untrained(prior: Prior) -> Transformer:
    return Transformer(prior.config.transformer, prior.config.layout).eval()


def test_an_untrained_prior_needs_the_bits_of_the_codebook(
        prior: Prior, trained: tuple[TokenCorpus, str]) -> None:
    rows = CodeRows.load(trained[0], MODALITIES)
    bits = held_out_bits(untrained(prior), rows, 16, 50)
    assert bits.num_rows == 50
    assert bits.scalars() == pytest.approx({
        "matched": 3.0, "shuffled": 3.0, "without": 3.0, "bits_per_image": 18.0, "gap": 0.0,
        "gap_label": 0.0, "gap_segmentation": 0.0}, abs=1e-5)


def test_each_condition_is_exchanged_by_itself(prior: Prior,
                                               trained: tuple[TokenCorpus, str]) -> None:
    rows = CodeRows.load(trained[0], MODALITIES)
    bits = held_out_bits(prior.model, rows, 16, 60)
    assert bits.shuffled is not None and bits.codes_per_image == 6
    # A label tells one bit of each code, a map two.
    assert bits.matched + 0.3 < bits.shuffled_each["label"] < bits.shuffled + 0.3
    assert bits.matched + 0.6 < bits.shuffled_each["segmentation"] < bits.shuffled + 0.3
    assert bits.scalars()["gap_label"] == bits.shuffled_each["label"] - bits.matched
    assert bits.bits_per_image == 6 * bits.matched


def test_each_condition_is_left_out_by_itself_and_passes_are_counted(
        prior: Prior, trained: tuple[TokenCorpus, str]) -> None:
    rows, seen = CodeRows.load(trained[0], MODALITIES), []
    bits = held_out_bits(prior.model, rows, 16, 40, drop_each=True, done=seen.append)
    assert sum(seen) == 40 * num_passes(prior.config.layout, drop_each=True) == 40 * 7
    assert bits.without is not None and bits.without_each.keys() == {"label", "segmentation"}
    for name, value in bits.without_each.items():
        assert bits.matched < value < bits.without + 0.3
        assert bits.scalars()[f"without_{name}"] == value
    seen.clear()
    plain = held_out_bits(prior.model, rows, 16, 40, done=seen.append)
    assert plain.without_each == {} and plain.matched == bits.matched
    assert sum(seen) == 40 * num_passes(prior.config.layout) == 40 * 5


def test_sequences_without_a_code_for_nothing_are_not_measured_without_conditions(
        trained: tuple[TokenCorpus, str]) -> None:
    config = PriorConfig.of(trained[0], conditions=[Condition(name="label", dropout=0.0)],
                            drop_all=0.0, sequence="taming", transformer=tiny().transformer)
    model = Transformer(config.transformer, config.layout).eval()
    scalars = held_out_bits(model, CodeRows.load(trained[0], ["image"]), 16, 20).scalars()
    assert scalars["matched"] == pytest.approx(3.0) and "without" not in scalars


@pytest.mark.parametrize("num_rows", [1, 2])
def test_crops_of_one_image_have_no_other_image_s_conditions(
        prior: Prior, trained: tuple[TokenCorpus, str], num_rows: int) -> None:
    rows = CodeRows.load(trained[0], MODALITIES).select(np.arange(num_rows))
    bits = held_out_bits(prior.model, rows, 16, 9, drop_each=True)
    assert bits.shuffled is None and bits.shuffled_each == {}
    assert bits.without is not None and len(bits.without_each) == 2
    assert not [name for name in bits.scalars() if name.startswith("gap")]
    assert bits.describe() == f"{bits.matched:.3f} bits per held-out code"


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_figures_do_not_depend_on_the_batch_size(prior: Prior, batch_size: int,
                                                 trained: tuple[TokenCorpus, str]) -> None:
    rows = CodeRows.load(trained[0], MODALITIES).select(np.arange(20))
    expected = held_out_bits(prior.model, rows, 20, 20).scalars()
    found = held_out_bits(prior.model, rows, batch_size, 20).scalars()
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("num_rows", "limit", "expected"), [
    (10, 4, [0, 2, 5, 7]), (3, 8, [0, 1, 2]), (100, 1, [0]), (0, 5, [])])
def test_rows_are_spread_over_a_corpus(num_rows: int, limit: int, expected: list[int]) -> None:
    assert spread(num_rows, limit).tolist() == expected


def test_a_limit_measures_rows_of_the_whole_corpus(prior: Prior,
                                                   trained: tuple[TokenCorpus, str]) -> None:
    rows = CodeRows.load(trained[0], MODALITIES)
    chosen = rows.select(spread(len(rows), 12))
    assert held_out_bits(prior.model, rows, 5, 12) == held_out_bits(prior.model, chosen, 5, 12)
    first = held_out_bits(prior.model, rows.select(np.arange(12)), 5, 12)
    assert held_out_bits(prior.model, rows, 5, 12) != first


def test_matched_bits_are_the_loss_in_base_two(prior: Prior,
                                               trained: tuple[TokenCorpus, str]) -> None:
    rows = CodeRows.load(trained[0], MODALITIES).select(np.arange(8))
    with torch.no_grad():
        loss = sequence_loss(prior.model, prior.config.layout,
                             assemble(rows, prior.config.layout, np.arange(8)))
    assert held_out_bits(prior.model, rows, 8, 8).matched == pytest.approx(
        loss.item() / math.log(2), rel=1e-5)


def test_the_loss_is_taken_on_the_target_alone(prior: Prior,
                                               trained: tuple[TokenCorpus, str]) -> None:
    rows = CodeRows.load(trained[0], MODALITIES)
    batch = assemble(rows, prior.config.layout, np.arange(4))
    scores = prior.model(prior.config.layout.inputs(batch.conditions, batch.codes[:, :-1]))
    assert scores.shape == (4, GRID[0] * GRID[1], 8)


def test_figures_in_words_name_what_was_given() -> None:
    bits = HeldOutBits(num_rows=9, matched=3.6, shuffled=5.69, without=4.8)
    assert bits.describe() == ("3.600 bits per held-out code (5.690 with the conditions of other "
                               "rows, 4.800 without any)")
    plain = HeldOutBits(num_rows=9, matched=3.6, shuffled=None, without=None)
    assert plain.describe() == "3.600 bits per held-out code"
    assert plain.scalars() == {"matched": 3.6}


def test_a_sheet_shows_maps_originals_and_two_samples_of_each_row(
        prior: Prior, trained: tuple[TokenCorpus, str]) -> None:
    rows = CodeRows.load(trained[0], MODALITIES)

    def flat(codes: np.ndarray, scale: int) -> np.ndarray:
        side = codes.repeat(2, 1).repeat(2, 2)[..., None] * scale
        return np.broadcast_to(side, (*side.shape[:3], 3)).astype(np.uint8)

    sheet = sample_sheet(prior.model, rows, 3, {"image": lambda codes: flat(codes, 30),
                                                "segmentation": lambda codes: flat(codes, 60)}, 0)
    height, width = GRID[0] * 2, GRID[1] * 2
    assert sheet.shape == (3 * (height + 2) + 2, 4 * (width + 2) + 2, 3)
    given = sheet[2:2 + height, 2:2 + width, 0]
    np.testing.assert_array_equal(given[::2, ::2], rows.codes["segmentation"][0] * 60)
    top = 2 + 2 * (height + 2)
    third = sheet[top:top + height, 2:2 + width, 0]
    np.testing.assert_array_equal(third[::2, ::2],
                                  rows.codes["segmentation"][2 * len(rows) // 3] * 60)


def test_resampling_takes_the_nearest_pixel() -> None:
    image = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
    assert resample(image, (4, 2))[0, :, :, 0].tolist() == [[0, 1], [0, 1], [2, 3], [2, 3]]
    np.testing.assert_array_equal(resample(image, (2, 2)), image)
