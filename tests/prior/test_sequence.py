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
DEEP = Segment(name="image", grid=(1, 3), vocabulary=10, depth=2)
FLAT = Segment(name="segmentation", grid=(1, 3), vocabulary=4)
DEEP_LAYOUT = SequenceLayout((FLAT,), DEEP)


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


# Several codes a cell


def test_a_sequence_takes_all_codes_of_a_cell_before_the_next() -> None:
    stored = np.array([[[[1, 2, 3]], [[7, 8, 9]]]], np.uint16)
    found = DEEP.to_sequence(stored)
    assert found.tolist() == [[1, 7, 2, 8, 3, 9]] and found.dtype == np.int64
    np.testing.assert_array_equal(DEEP.to_stored(found), stored)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_sequence_and_what_is_stored_are_converted_without_loss(depth: int) -> None:
    segment = Segment(name="image", grid=(4, 5), vocabulary=1000, depth=depth)
    shape = (4, 5) if depth == 1 else (depth, 4, 5)
    stored = np.random.default_rng(0).integers(0, 1000, (6, *shape))
    found = segment.to_sequence(stored)
    assert found.shape == (6, 20 * depth) == (6, segment.length)
    np.testing.assert_array_equal(segment.to_stored(found), stored)
    top_half = stored[..., :2, :]
    np.testing.assert_array_equal(np.sort(found[:, :10 * depth]),
                                  np.sort(top_half.reshape(6, -1)))


def test_all_codes_of_a_cell_are_at_its_position_and_place() -> None:
    assert DEEP_LAYOUT.positions.tolist() == [0, 1, 2, 0, 0, 1, 1, 2, 2]
    assert DEEP_LAYOUT.num_positions == 3
    assert DEEP_LAYOUT.coordinates[3:, 1].tolist() == [0.5, 0.5, 1.5, 1.5, 2.5, 2.5]
    assert (DEEP_LAYOUT.coordinates[:, 0] == 0.5).all()
    assert DEEP_LAYOUT.depth_ids.tolist() == [0, 0, 0, 0, 1, 0, 1, 0, 1]
    assert DEEP_LAYOUT.depth == 2


def test_each_code_of_a_cell_has_ids_of_its_own() -> None:
    assert DEEP_LAYOUT.offsets == {"segmentation": 0, "image": 5} and DEEP_LAYOUT.num_ids == 26
    ids = DEEP_LAYOUT.inputs({}, torch.tensor([[3, 3, 4, 4, 9]]))
    assert ids.tolist() == [[4, 4, 4, 25, 8, 18, 9, 19, 14]]


def test_a_deep_condition_left_out_reads_as_its_null_id_at_every_code() -> None:
    layout = SequenceLayout((DEEP,), FLAT)
    none = torch.zeros(1, 0, dtype=torch.long)
    given = layout.inputs({"image": torch.tensor([[0, 0, 9, 9, 10, 10]])}, none)
    assert given.tolist() == [[0, 10, 9, 19, 20, 20, 25]]
    assert layout.inputs({}, none).tolist() == [[20] * 6 + [25]]


@pytest.mark.parametrize("wrong", [{"grid": (0, 3)}, {"vocabulary": 0}, {"depth": 0}])
def test_empty_segments_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="segment image needs a grid, a vocabulary and"):
        Segment(**{"name": "image", "grid": (2, 3), "vocabulary": 10, **wrong})
