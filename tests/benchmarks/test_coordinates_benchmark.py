"""The trial of coordinates trains its priors on the same crops, and judges pictures by row."""
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from cli.demo import story
from prior.model import Prior
from prior.sequence import COORDINATES
from tests.cli.random_tokenizers import save_tokenizer
from tokenizer.tokens import TokenCorpus

ROOT = Path(__file__).parents[2]


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark; its commands run in this process, as starting one takes seconds."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import coordinates

    def run(arguments: list[str]) -> None:
        story.run_command(tuple(arguments))

    monkeypatch.setattr("trainings.run", run)
    monkeypatch.setattr(coordinates, "run", run)
    return coordinates


def test_all_priors_learn_the_same_crops_and_draw_wholes(
        trial: ModuleType, image_folder: Callable[[int], Path], tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    trial.main([str(image_folder(10)), "--tokenizer", save_tokenizer(tmp_path / "tokenizer"),
                "--minutes", "0.003", "--crops", "4", "--side", "0.5", "--recipe", "tiny",
                "--held-out", "3", "--num", "2", "--shown", "1", "--out", str(out),
                "--set", "training.batch_size=4"])
    found = json.loads((out / "results.json").read_text())["found"]
    assert set(found) == {"the images", *trial.PRIORS, *trial.DRAWN}
    assert found["same-steps"]["step"] == found["coordinates"]["step"] > 0
    assert found["unconditional"]["shuffled"] is None and found["coordinates"]["shuffled"] > 0
    corpus = TokenCorpus.open(str(out / "tokens"))
    assert corpus.spec["image"].preprocessing["crop"] == "random:4:0.5"
    told, plain, longer = (Prior.load(str(out / name)).config for name in trial.PRIORS)
    assert [condition.name for condition in told.conditions] == [COORDINATES]
    assert plain == longer and plain.conditions == () and plain.corpus == told.corpus
    assert plain.split == told.split and plain.transformer == told.transformer
    grid, side = corpus.spec["image"].grid, corpus.spec["image"].image_size
    for folder in out.glob("drawn/*"):
        assert TokenCorpus.open(str(folder)).spec["image"].grid == (2 * grid[0], 4 * grid[1])
    assert np.asarray(Image.open(out / "pictures.png")).shape == (
        3 * (2 * side[0] + 2) + 2, 4 * side[1] + 4, 3)
    printed = capsys.readouterr().out
    assert f"| coordinates | {found['coordinates']['matched']:.3f} | " in printed
    assert f"| same-steps | {found['same-steps']['matched']:.3f} |  |  | " in printed


def test_pictures_are_judged_by_their_brightness_from_top_to_bottom(trial: ModuleType) -> None:
    usual = np.linspace(40, 200, 8).repeat(15).reshape(8, 5, 3).astype(np.uint8)
    grey, noise = np.full_like(usual, 90), np.zeros_like(usual)
    noise[::2] = 9
    rows = trial.brightness(np.stack([usual, usual // 2, usual[::-1], grey]))
    assert rows.shape == (4, 8)
    alike = trial.likeness(rows[:2], rows[0])
    assert alike["likeness"] == pytest.approx(1, abs=1e-3)
    assert trial.likeness(rows, rows[0]) == pytest.approx({"likeness": 0.25, "lowest": -1},
                                                          abs=1e-3)
    found = trial.likeness(trial.brightness(noise[None]), rows[0])["lowest"]
    assert found == pytest.approx(np.corrcoef(noise[:, 0, 0], rows[0])[0, 1])


def test_what_is_no_image_is_left_out(trial: ModuleType, image_folder: Callable[[int], Path]
                                      ) -> None:
    folder = image_folder(3)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture")
    assert trial.image_brightness(str(folder), (6, 12)).shape == (3, 6)
