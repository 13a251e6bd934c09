"""Arrangements of sequences as published."""
import numpy as np
import pytest
import torch

from prior.layouts import LAYOUTS, LlamaGenLayout, TamingLayout, layout_class
from prior.sequence import LABEL, Segment

LABELS = Segment(name=LABEL, grid=(1, 1), vocabulary=5)
DEPTH = Segment(name="depth", grid=(2, 2), vocabulary=6)
IMAGE = Segment(name="image", grid=(2, 3), vocabulary=10)
CODES = torch.tensor([[7, 8, 9]])


def test_taming_conditions_and_image_share_their_ids_and_the_last_condition_predicts_the_first_code(
        ) -> None:
    layout = TamingLayout((DEPTH,), IMAGE)
    ids = layout.inputs({"depth": torch.tensor([[0, 1, 2, 3]])}, CODES)
    assert ids.tolist() == [[0, 1, 2, 3, 7, 8, 9]]
    assert (layout.prefix_length, layout.length, layout.num_ids) == (3, 9, 10)
    assert layout.positions.tolist() == list(range(9)) and layout.num_positions == 9


def test_taming_label_takes_the_place_of_the_start() -> None:
    layout = TamingLayout((LABELS,), IMAGE)
    assert layout.inputs({LABEL: torch.tensor([[4]])}, CODES).tolist() == [[4, 7, 8, 9]]
    assert (layout.prefix_length, layout.length) == (0, 6)


def test_taming_without_conditions_has_a_start_of_its_own() -> None:
    layout = TamingLayout((), IMAGE)
    assert layout.inputs({}, CODES).tolist() == [[10, 7, 8, 9]]
    assert (layout.prefix_length, layout.length, layout.num_ids) == (0, 6, 11)


@pytest.mark.parametrize("given", [{}, {"depth": torch.tensor([[0, 1, 2, 6]])}])
def test_taming_has_no_id_for_what_is_not_given(given: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="give depth for every image"):
        TamingLayout((DEPTH,), IMAGE).inputs(given, CODES)


def test_taming_coordinates_are_those_of_the_cell_that_is_read_or_predicted() -> None:
    layout = TamingLayout((DEPTH,), IMAGE)
    assert layout.coordinates.shape == (9, 2)
    np.testing.assert_allclose(layout.coordinates[2:5], [[1.5, 0.75], [0.5, 0.5], [0.5, 1.5]])


def test_llamagen_labels_have_ids_of_their_own_and_one_that_stands_for_none() -> None:
    layout = LlamaGenLayout((LABELS,), IMAGE)
    assert layout.inputs({LABEL: torch.tensor([[4]])}, CODES).tolist() == [[4, 13, 14, 15]]
    assert layout.inputs({}, CODES)[0, 0] == 5
    assert (layout.prefix_length, layout.length, layout.num_ids) == (0, 6, 16)


def test_llamagen_codes_turn_by_their_own_cell_and_labels_are_zero() -> None:
    layout = LlamaGenLayout((LABELS,), IMAGE)
    assert layout.coordinates.tolist() == [[0, 0], [0, 0], [0, 1], [0, 2], [1, 0], [1, 1]]
    assert layout.turned.tolist() == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("conditions", [(), (DEPTH,), (LABELS, DEPTH)])
def test_llamagen_takes_the_label_alone(conditions: tuple[Segment, ...]) -> None:
    with pytest.raises(ValueError, match="the label as their one condition"):
        LlamaGenLayout(conditions, IMAGE)


@pytest.mark.parametrize("name", ["taming", "llamagen"])
def test_published_sequences_have_one_code_a_cell(name: str) -> None:
    deep = Segment(name="image", grid=(2, 3), vocabulary=10, depth=2)
    with pytest.raises(ValueError, match="one code a cell, got 2"):
        LAYOUTS[name]((LABELS,), deep)


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="no layout of sequences is named 'rows'"):
        layout_class("rows")
