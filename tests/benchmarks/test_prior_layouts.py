"""The contest of layouts trains each design as it says, and reports what the trainings found."""
import json
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from cli.demo import story
from prior.model import Prior
from tests.prior.drawn_codes import write_corpus

ROOT = Path(__file__).parents[2]


@pytest.fixture
def contest(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark; its commands run in this process, as starting one takes seconds."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import prior_layouts
    import trainings
    monkeypatch.setattr(trainings, "run", lambda arguments: story.run_command(tuple(arguments)))
    return prior_layouts


def test_both_designs_are_trained_on_the_same_rows_and_told_of(
        contest: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, out = write_corpus(str(tmp_path / "tokens")), tmp_path / "out"
    contest.main([corpus.url, "--minutes", "0.004", "--search-minutes", "0.002",
                  "--rates", "0.01", "0.002", "--recipe", "tiny", "--held-out", "8",
                  "--out", str(out), "--set", "training.batch_size=4"])
    found = json.loads((out / "results.json").read_text())["designs"]
    priors = {name: Prior.load(str(out / f"{name}-{row['learning_rate']:g}-0.004min"))
              for name, row in found.items()}
    ours, published = priors["ours"].config, priors["published"].config
    assert (ours.sequence, published.sequence) == ("cells", "taming")
    assert ours.transformer.rotary and published.transformer.is_mingpt
    assert ours.split == published.split and ours.conditions == published.conditions
    assert ours.transformer.width == published.transformer.width
    for row in found.values():
        assert set(row["searched"]) == {"0.01", "0.002"}
        assert row["learning_rate"] == float(min(row["searched"], key=row["searched"].get))
        assert row["gap"] == pytest.approx(row["shuffled"] - row["matched"])
        assert row["course"][-1]["step"] == row["steps"] > 0
    printed = capsys.readouterr().out
    lower = found["published"]["matched"] - found["ours"]["matched"]
    side = "lower" if lower >= 0 else "higher"
    assert f"ours: {abs(lower):.3f} bits per held-out code {side} (goal: 0.4 lower)" in printed
    assert f"| published | {found['published']['matched']:.3f} |" in printed
    assert np.asarray(Image.open(out / "curves.png")).std() > 0


def test_curves_go_by_seconds_as_far_as_both_were_measured(contest: ModuleType) -> None:
    from clip_guidance.curves import COLOURS, HEIGHT, WIDTH

    def going(slope: float, last: float) -> dict[str, list[dict[str, float]]]:
        return {"course": [{"seconds": second, "matched": 5 + slope * second, "shuffled": 5.0}
                           for second in (1.0, last)]}

    picture = contest.draw({"ours": going(-1, 3.0), "published": going(1, 9.0)})
    assert picture.shape == (2 * HEIGHT, WIDTH, 3)
    left, right = ([np.nonzero((part[20:HEIGHT] == colour).all(-1))[0].mean()
                    for colour in COLOURS[:2]]
                   for part in (picture[:, :WIDTH // 3], picture[:, 2 * WIDTH // 3:]))
    assert right[0] > left[0] + 10 and right[1] < left[1] - 10  # from the top, in pixels
    assert left[0] - left[1] < right[0] - right[1]


def test_the_corpus_of_the_demo_is_made_once_up_to_its_tokens(
        contest: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def note(arguments: Iterable[str]) -> None:
        ran.append(next(iter(arguments)))

    monkeypatch.setattr(story, "run_command", note)
    monkeypatch.setattr(story, "draw_corpus", lambda folder, count: ran.append("draw"))
    for _ in range(2):
        assert contest.demo_tokens(tmp_path / "demo") == str(tmp_path / "demo" / "tokens")
    assert ran == ["draw", *["train-tokenizer"] * 3, "encode"]
