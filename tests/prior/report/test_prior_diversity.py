"""Copies of rows of training show as such; what is as new as held-out rows does not."""
import dataclasses

import numpy as np
import pytest
from drawn_codes import conditions, draw_codes

from prior.dataset import CodeRows
from prior.model import PriorConfig
from prior.recipes import tiny
from prior.report.diversity import Compared, neighbour_figures, search, usage_figures
from prior.report.rows import TrainingCodes, training_codes
from tokenizer.schema import CodeSpec
from tokenizer.splits import Split
from tokenizer.tokens import TokenCorpus


@pytest.fixture
def training(corpus: TokenCorpus) -> TrainingCodes:
    config = PriorConfig.of(corpus, conditions=conditions("label"), split=Split(held_out=6),
                            transformer=tiny().transformer)
    found = training_codes(config, corpus)
    assert found is not None
    return found


def new_codes(num_rows: int, seed: int) -> np.ndarray:
    """Codes as those of the corpus, of other rows."""
    return draw_codes(num_rows, seed)[0]["image"].reshape(num_rows, -1).astype(np.uint16)


def rows_of(codes: np.ndarray) -> CodeRows:
    return CodeRows([f"k{row}" for row in range(len(codes))],
                    {"image": codes.reshape(len(codes), 3, 2)}, np.zeros(len(codes), np.int32), ())


def test_memorised_samples_show_as_such(corpus: TokenCorpus, training: TrainingCodes) -> None:
    everything = CodeRows.load(corpus, ["image"]).codes["image"].reshape(60, -1)
    copied = np.flatnonzero(training.taken)[[5, 20, 30]]
    samples = np.concatenate([everything[copied], new_codes(20, 9)])
    found = search(training, samples, new_codes(40, 3), 100)
    assert found.equal[:3].tolist() == copied.tolist()
    assert found.samples.shares[:3].tolist() == [1.0] * 3
    assert found.samples.rows[:3].tolist() == copied.tolist()
    figures = neighbour_figures(found, {"seed": 4})
    brute = (samples[:, None] == everything[training.taken]).all(-1).any(1)
    assert figures["memorised"].value == brute.sum() >= 3
    nearer = figures["nearer_than_held_out"]
    assert nearer.conditions["threshold"] < 1.0
    assert nearer.conditions["caution"] == "by no more than 40 held-out rows"
    assert nearer.value == (found.samples.shares > nearer.conditions["threshold"]).mean() >= 3 / 23
    assert figures["memorised"].conditions == {"seed": 4, "num_training": 48}


def test_new_rows_are_no_nearer_than_held_out_ones(training: TrainingCodes) -> None:
    found = search(training, new_codes(200, 9), new_codes(200, 3), 200)
    figures = neighbour_figures(found, {})
    assert figures["nearest_samples"].value == figures["nearest_held_out"].value
    assert figures["nearer_than_held_out"].value is not None
    assert figures["nearer_than_held_out"].value < 0.05
    assert "caution" not in figures["nearer_than_held_out"].conditions


def test_nearest_rows_are_found_without_those_held_out(corpus: TokenCorpus,
                                                       training: TrainingCodes) -> None:
    everything = CodeRows.load(corpus, ["image"]).codes["image"].reshape(60, -1)
    held_out = everything[~training.taken]
    seen: list[int] = []
    found = search(training, new_codes(9, 5), held_out, 100, seen.append)
    equal = (held_out[:, None] == everything[training.taken]).sum(-1)
    np.testing.assert_array_equal(found.held_out.shares, equal.max(1) / 6)
    np.testing.assert_array_equal(found.held_out.rows,
                                  np.flatnonzero(training.taken)[equal.argmax(1)])
    assert sum(seen) == found.num_training == 48


def test_a_limit_compares_rows_spread_evenly_but_looks_for_copies_of_all(
        corpus: TokenCorpus, training: TrainingCodes) -> None:
    everything = CodeRows.load(corpus, ["image"]).codes["image"].reshape(60, -1)
    samples = new_codes(10, 9)
    samples[7] = everything[training.taken][11]
    found = search(training, samples, new_codes(4, 3), 2)
    assert found.samples.places.tolist() == [0, 5] and found.held_out.places.tolist() == [0, 2]
    assert found.equal[7] == np.flatnonzero(training.taken)[11]


def test_usage_counts_as_many_rows_of_both(corpus: TokenCorpus) -> None:
    spec = corpus.spec["image"]
    samples = rows_of(np.zeros((9, 6), np.uint16))
    held_out = rows_of(np.arange(24, dtype=np.uint16).reshape(4, 6) % 8)
    figures = usage_figures(spec, samples, held_out, {"seed": 1})
    assert figures["entropy_samples"].value == 0.0
    assert figures["entropy_held_out"].value == pytest.approx(3.0)
    assert figures["codes_used_samples"].value == 1 / 8
    assert figures["codes_used_held_out"].value == 1.0
    assert figures["duplicates"].value == 8
    assert {figure.conditions.get("rows_counted") for name, figure in figures.items()
            if name != "duplicates"} == {4}


def test_of_several_codebooks_the_least_used_one_counts(corpus: TokenCorpus) -> None:
    spec: CodeSpec = dataclasses.replace(corpus.spec["image"], depth=2)
    codes = np.zeros((4, 2, 3, 2), np.uint16)
    codes[:, 0] = np.arange(24).reshape(4, 3, 2) % 8
    rows = CodeRows(["a"] * 4, {"image": codes}, np.zeros(4, np.int32), ())
    figures = usage_figures(spec, rows, rows, {})
    assert figures["codes_used_samples"].value == 1 / 8
    assert "least of 2" in figures["codes_used_samples"].conditions["codebooks"]


def test_a_distribution_is_told_by_quantiles_and_a_histogram() -> None:
    compared = Compared(np.arange(4), np.array([0.0, 0.5, 0.5, 1.0]), np.arange(4))
    summary = compared.summary()
    assert summary["num_rows"] == 4 and summary["mean"] == 0.5
    assert summary["quantiles"]["0.5"] == 0.5
    histogram = summary["histogram"]
    assert (histogram[0], histogram[25], histogram[-1], sum(histogram)) == (1, 2, 1, 4)
