"""Where segments, ids and positions lie in a sequence."""
import numpy as np
import pytest
import torch

from prior.sequence import LABEL, Segment, SequenceLayout

IMAGE = Segment(name="image", grid=(2, 3), vocabulary=10)
MAP = Segment(name="segmentation", grid=(2, 3), vocabulary=4)
COARSE = Segment(name="depth", grid=(1, 1), vocabulary=7)
CLASS = Segment(name=LABEL, grid=(1, 1), vocabulary=5)
LAYOUT = SequenceLayout((CLASS, MAP), IMAGE)


def test_each_segment_takes_its_vocabulary_and_one_more_id() -> None:
    assert LAYOUT.offsets == {LABEL: 0, "segmentation": 6, "image": 11}
    assert LAYOUT.num_ids == 22


def test_conditions_come_first_and_the_last_code_is_left_out() -> None:
    assert (LAYOUT.prefix_length, LAYOUT.length) == (7, 13)
    assert LAYOUT.segment_ids.tolist() == [0] + [1] * 6 + [2] * 6


def test_a_map_shares_the_positions_of_the_cells_that_the_target_is_about_to_predict() -> None:
    assert LAYOUT.positions[1:7].tolist() == LAYOUT.positions[7:].tolist() == list(range(6))


def test_a_label_and_grids_of_another_size_have_positions_of_their_own() -> None:
    layout = SequenceLayout((CLASS, COARSE, MAP), IMAGE)
    assert layout.positions[:2].tolist() == [6, 7]
    assert layout.num_positions == 8


def test_coordinates_are_centres_of_cells_in_units_of_the_target() -> None:
    layout = SequenceLayout((COARSE,), IMAGE)
    assert layout.coordinates[0].tolist() == [1.0, 1.5]
    assert layout.coordinates[1:3].tolist() == [[0.5, 0.5], [0.5, 1.5]]
    np.testing.assert_array_equal(LAYOUT.coordinates[1:7], LAYOUT.coordinates[7:])


def test_inputs_end_with_the_position_that_predicts_the_next_code() -> None:
    given = {LABEL: torch.tensor([[2]]), "segmentation": torch.tensor([[0, 1, 2, 3, 3, 4]])}
    ids = LAYOUT.inputs(given, torch.tensor([[9, 0]]))
    assert ids.tolist() == [[2, 6, 7, 8, 9, 9, 10, 21, 20, 11]]


def test_a_condition_left_out_reads_as_its_null_id() -> None:
    ids = LAYOUT.inputs({}, torch.zeros(2, 0, dtype=torch.long))
    assert ids.tolist() == [[5] + [10] * 6 + [21]] * 2


def test_conditions_see_each_other_both_ways_and_the_target_sees_what_came_before() -> None:
    both, causal = LAYOUT.visible(True), LAYOUT.visible(False)
    assert both[:7, :7].all() and not both[:7, 7:].any()
    np.testing.assert_array_equal(both[7:], causal[7:])
    np.testing.assert_array_equal(causal, np.tri(13, dtype=bool))


def test_a_segment_twice_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="each segment once, got image, image"):
        SequenceLayout((IMAGE,), IMAGE)


@pytest.mark.parametrize("wrong", [{"grid": (0, 3)}, {"vocabulary": 0}])
def test_empty_segments_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="segment image needs a grid and a vocabulary"):
        Segment(**{"name": "image", "grid": (2, 3), "vocabulary": 10, **wrong})
