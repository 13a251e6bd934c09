"""The journal of a stopped and continued run is that of an uninterrupted one."""
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tokenizer.training.journal import Journal, read_metrics


def test_lines_after_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    folder = str(tmp_path)
    with Journal(folder) as journal:
        for step in (1, 2, 3):
            journal.scalars(step, {"train/loss": 1.0 / step})
    with Journal(folder, step=2) as journal:
        journal.scalars(3, {"train/loss": 0.5})
    assert read_metrics(folder) == [{"step": 1, "train/loss": 1.0}, {"step": 2, "train/loss": 0.5},
                                    {"step": 3, "train/loss": 0.5}]


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "a": 2.0}\n{"step": 2, "a"')
    assert read_metrics(str(tmp_path)) == [{"step": 1, "a": 2.0}]
    Journal(str(tmp_path), step=1).close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "a": 2.0}\n'


def test_a_fresh_start_drops_an_older_journal(tmp_path: Path) -> None:
    with Journal(str(tmp_path)) as journal:
        journal.scalars(5, {"a": 1.0})
    Journal(str(tmp_path)).close()
    assert read_metrics(str(tmp_path)) == []


def test_what_is_not_finite_is_null_in_the_lines(tmp_path: Path) -> None:
    with Journal(str(tmp_path)) as journal:
        journal.scalars(1, {"norm": float("inf"), "loss": 2.0})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "norm": null, "loss": 2.0}\n'


def test_remarks_are_lines_of_their_own_and_dropped_like_others(tmp_path: Path) -> None:
    with Journal(str(tmp_path)) as journal:
        journal.remark(4, "codebook collapse")
        journal.remark(6, "divergence")
    Journal(str(tmp_path), step=5).close()
    assert read_metrics(str(tmp_path)) == [{"step": 4, "remark": "codebook collapse"}]


def test_scalars_and_images_reach_tensorboard(tmp_path: Path) -> None:
    with Journal(str(tmp_path)) as journal:
        journal.scalars(4, {"held_out/psnr": 20.5})
        journal.image(4, "reconstructions", np.zeros((8, 9, 3), np.uint8))
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("held_out/psnr")] == [(4, 20.5)]
    assert events.Images("reconstructions")[0].width == 9
