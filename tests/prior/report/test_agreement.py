"""Maps read off pictures against those given: the modality's own scores, over all batches."""
from dataclasses import dataclass

import numpy as np
import pytest

from prior.dataset import CodeRows
from prior.report import agreement as module
from prior.report.agreement import Agreement, agreement, agreement_figures, other_maps
from tokenizer.corpus.modalities import RGB, Depth, Modality

LEVELS = np.array([1000, 20000, 40000, 65535], np.uint16)


@dataclass(frozen=True)
class Table:
    """Decodes codes of one cell by a table."""
    modality: Modality
    values: np.ndarray

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return self.values[codes]


class Offset:
    """Reads depth off grey pictures, too great by a factor."""
    words = "mine:depth"

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        return (LEVELS[pictures[..., 0]] * self.factor).clip(0, 65535).astype(np.uint16)


def rows() -> CodeRows:
    codes = np.random.default_rng(0).integers(0, 3, (7, 2, 3)).astype(np.uint16)
    return CodeRows([str(row) for row in range(7)], {"image": codes, "depth": codes},
                    np.zeros(7, np.int32), ())


def compare(factor: float) -> Agreement:
    grey = Table(RGB(), np.repeat(np.arange(4, dtype=np.uint8)[:, None], 3, 1))
    return agreement(rows(), "depth", ("image", grey), Table(Depth(), LEVELS), Offset(factor),
                     by_chance=True)


def measure(factor: float) -> dict[str, float]:
    return compare(factor).own


def test_depth_read_exactly_has_no_error() -> None:
    assert measure(1.0) == {"abs_rel": 0.0, "rmse": 0.0, "delta1": 1.0}


def test_errors_of_depth_are_those_worked_out_by_hand() -> None:
    scores = measure(1.5)
    true = LEVELS[rows().codes["depth"]] / 65535
    assert scores["abs_rel"] == pytest.approx(0.5, rel=1e-4)
    assert scores["rmse"] == pytest.approx(np.sqrt(np.square(0.5 * true).mean()), rel=1e-4)
    assert scores["delta1"] == 0.0
    assert measure(1.2)["delta1"] == 1.0


def test_scores_are_over_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compare(1.5)
    monkeypatch.setattr(module, "DECODED_AT_ONCE", 2)
    parts = compare(1.5)
    assert parts.own == pytest.approx(whole.own, rel=1e-9)
    assert parts.others == pytest.approx(whole.others, rel=1e-9)


def test_maps_of_other_rows_show_what_agrees_by_chance() -> None:
    true = LEVELS[rows().codes["depth"]] / 65535
    codes = other_maps(rows().codes["depth"])
    assert codes is not None
    others = LEVELS[codes] / 65535
    found = compare(1.0)
    assert found.own["rmse"] == 0.0
    assert found.others["rmse"] == pytest.approx(np.sqrt(np.square(true - others).mean()), rel=1e-6)
    assert found.others["abs_rel"] == pytest.approx((abs(true - others) / others).mean(), rel=1e-6)


def test_every_row_is_compared_with_a_map_that_is_not_its_own() -> None:
    codes = rows().codes["depth"]
    for given in (codes, codes.repeat(2, 0), np.concatenate([codes, codes, codes[:1]])):
        others = other_maps(given)
        assert others is not None and others.shape == given.shape
        assert (others != given).any((1, 2)).all()
        assert len(np.unique(others, axis=0)) == len(codes)
    assert other_maps(codes[:1].repeat(5, 0)) is None


def test_scores_become_figures_of_samples_and_of_held_out_rows() -> None:
    scores = {"samples": {"abs_rel": 0.5, "odd": 2.0}, "held_out": {"abs_rel": 0.25, "odd": 1.0},
              "others": {"abs_rel": 0.9, "odd": 3.0}}
    found = agreement_figures("depth", scores, {"samples": {"seed": 1}, "held_out": {},
                                                "others": {}})
    assert list(found) == [f"depth_{score}_{which}" for score in ("abs_rel", "odd")
                           for which in ("samples", "held_out", "others")]
    assert found["depth_abs_rel_others"].better == ""
    figure = found["depth_abs_rel_samples"]
    assert (figure.label, figure.better) == ("depth AbsRel, samples", "lower")
    assert figure.conditions == {"seed": 1} and found["depth_odd_held_out"].better == ""
