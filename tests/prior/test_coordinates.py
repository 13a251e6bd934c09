"""Coordinates are those of a row's crop, as published, in training and in sampling alike."""
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_codes import GRID, conditions, draw_codes, tiny_training
from published_coordinates import taming_coordinates

from prior.coordinates import RECORD, CoordinateSegment, CropColumn, whole_image, window_sides
from prior.gallery import write_surprise
from prior.generate import Generation
from prior.givens import from_codes, from_corpus, from_labels
from prior.model import Condition, Prior, PriorConfig
from prior.recipes import tiny
from prior.report.rows import measured_rows
from prior.sampling import SamplingConfig, sample_corpus
from prior.sequence import COORDINATES
from prior.training import train_prior
from prior.windows import Windows, enlarged
from tokenizer import configs
from tokenizer.splits import Split
from tokenizer.tokens import TokenCorpus

Make = Callable[..., TokenCorpus]
NUM_ROWS = 24
CROPS = {"height": [30] * NUM_ROWS, "width": [40] * NUM_ROWS,
         "top": [row % 18 for row in range(NUM_ROWS)], "left": [row for row in range(NUM_ROWS)],
         "flipped": [row % 2 == 1 for row in range(NUM_ROWS)]}
"""Of 12 x 8 pixels each, as the corpora of `drawn_codes` have them."""


def segment(grid: tuple[int, int] = (4, 6), cell: int = 8, levels: int = 1024) -> CoordinateSegment:
    return CoordinateSegment(name=COORDINATES, grid=grid, vocabulary=levels,
                             image_size=(grid[0] * cell, grid[1] * cell))


def record(height: int, width: int, top: int, left: int, crop_height: int, crop_width: int,
           flipped: bool = False) -> np.ndarray:
    return np.array([[height, width, top, left, crop_height, crop_width, flipped]])


def coordinates_of(corpus: TokenCorpus) -> np.ndarray:
    """Coordinates of all rows, by the published program."""
    return np.stack([taming_coordinates((30, 40), (
        top, 40 - left - 8 if flipped else left, 12, 8), 4, 1024).flatten().numpy()
        for top, left, flipped in zip(CROPS["top"], CROPS["left"], CROPS["flipped"], strict=True)])


def config_of(corpus: TokenCorpus, *names: str, **options: object) -> PriorConfig:
    return PriorConfig.of(corpus, conditions=conditions(*names), transformer=tiny().transformer,
                          **options)


@pytest.mark.parametrize("levels", [10, 1024, 16384])
def test_codes_are_those_of_the_published_stage(levels: int) -> None:
    generator = np.random.default_rng(levels)
    for _ in range(20):
        height, width = generator.integers((32, 48), 300)
        top, left = generator.integers(0, (height - 31, width - 47))
        found = segment(levels=levels).to_sequence(record(height, width, top, left, 32, 48))
        expected = taming_coordinates((height, width), (top, left, 32, 48), 8, levels)
        assert found.reshape(4, 6).tolist() == expected.clamp(max=levels - 1).tolist()


def test_they_do_not_depend_on_the_size_of_the_original() -> None:
    small = segment().to_sequence(record(64, 96, 16, 24, 32, 48))
    assert np.array_equal(segment().to_sequence(record(192, 288, 48, 72, 96, 144)), small)


def test_a_mirrored_crop_is_one_of_the_mirrored_image() -> None:
    mirrored = segment().to_sequence(record(64, 96, 16, 8, 32, 48, flipped=True))
    assert np.array_equal(mirrored, segment().to_sequence(record(64, 96, 16, 40, 32, 48)))


def test_the_last_cell_of_a_tall_image_keeps_within_the_codes() -> None:
    assert segment().to_sequence(record(9600, 4800, 9568, 0, 32, 48)).max() == 1023


@pytest.mark.parametrize("change", [{"height": 0, "crop_height": 0}, {"left": -1},
                                    {"top": 1}, {"crop_width": 9}])
def test_a_crop_that_is_no_part_of_its_image_is_refused(
        make_corpus: Make, change: dict[str, int]) -> None:
    corpus = make_corpus("odd", 8, crops={name: [value] * 8 for name, value in change.items()})
    with pytest.raises(ValueError, match="a row says of its crop: height .* leave this condition"):
        from_corpus(config_of(corpus, COORDINATES), corpus)


def test_a_config_with_coordinates_is_read_back_and_others_do_not_name_them(
        corpus: TokenCorpus) -> None:
    config = config_of(corpus, "segmentation", COORDINATES)
    finer = dataclasses.replace(config, conditions=(Condition(name=COORDINATES, levels=64),))
    for each in (config, finer):
        assert configs.from_dict(PriorConfig, configs.to_dict(each)) == each
    assert config.columns == ("image", "segmentation", COORDINATES)
    assert finer.layout[COORDINATES].vocabulary == 64
    assert config_of(corpus, "segmentation").columns == ("image", "segmentation")
    assert "levels" not in str(configs.to_dict(config))


@pytest.mark.parametrize(("name", "levels"), [("label", 64), (COORDINATES, 0)])
def test_levels_are_those_of_coordinates(name: str, levels: int) -> None:
    with pytest.raises(ValueError, match=f"levels are those of coordinates.* got {levels} of"):
        Condition(name=name, levels=levels)


@pytest.fixture
def cropped(make_corpus: Make) -> TokenCorpus:
    return make_corpus("cropped", NUM_ROWS, crops=CROPS)


@pytest.mark.parametrize("order", ["exact", "windowed"])
def test_training_gives_each_row_the_coordinates_of_its_crop(
        cropped: TokenCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    from prior import state
    seen = []
    step = state.TrainingState.train_step

    def note(self: state.TrainingState, batch: state.Batch, progress: float) -> None:
        seen.append(batch)
        step(self, batch, progress)

    monkeypatch.setattr(state.TrainingState, "train_step", note)
    config = config_of(cropped, "segmentation", COORDINATES, drop_all=0.3)
    train_prior(cropped, str(tmp_path / "prior"), config, tiny_training(
        "steps=4", f"loader.order={order}", "evaluate_rows=4"))
    maps, given = (torch.cat([batch.conditions[name] for batch in seen]).numpy()
                   for name in ("segmentation", COORDINATES))
    is_dropped = (given == 1024).all(1)
    assert 0 < is_dropped.sum() < len(given) and not (given[~is_dropped] == 1024).any()
    both = ~is_dropped & (maps != 4).all(1)
    own = np.concatenate([draw_codes(NUM_ROWS)[0]["segmentation"].reshape(NUM_ROWS, -1),
                          coordinates_of(cropped)], 1)
    pairs = {tuple(row) for row in np.concatenate([maps, given], 1)[both].tolist()}
    assert pairs <= {tuple(row) for row in own.tolist()} and len(pairs) > NUM_ROWS // 2
    assert Prior.load(str(tmp_path / "prior")).config == config


def test_rows_of_a_corpus_bring_those_of_their_crops(cropped: TokenCorpus) -> None:
    givens = from_corpus(config_of(cropped, COORDINATES), cropped)
    assert np.array_equal(givens.conditions[COORDINATES], coordinates_of(cropped))
    assert givens.crops is not None and givens.crops[:, 2].tolist() == CROPS["top"]


def test_a_prior_is_measured_with_the_coordinates_of_each_row(cropped: TokenCorpus) -> None:
    config = config_of(cropped, COORDINATES, split=Split(held_out=4))
    givens = measured_rows(config, cropped, limit=6).givens(config, 6)
    assert len(givens) == 6
    assert np.array_equal(givens.conditions[COORDINATES], coordinates_of(cropped)[givens.rows])
    assert givens.crops[:, 3].tolist() == givens.rows.tolist()  # what is left of the crop of row i


def test_what_comes_from_no_corpus_is_a_whole_image(corpus: TokenCorpus) -> None:
    config = config_of(corpus, "label", "segmentation", COORDINATES)
    whole = taming_coordinates((12, 8), (0, 0, 12, 8), 4, 1024).flatten().tolist()
    maps = {"segmentation": np.zeros((3, *GRID), np.int64)}
    files = {"segmentation": ["map.png"] * 3}
    for givens, count in ((from_labels(config, ["cat", "dog"]), 2),
                          (from_codes(config, maps, files), 3)):
        assert givens.conditions[COORDINATES].tolist() == [whole] * count
        assert np.array_equal(givens.crops, [whole_image((12, 8))] * count)


def test_every_window_of_a_larger_image_has_the_coordinates_of_its_place(
        corpus: TokenCorpus) -> None:
    config = config_of(corpus, COORDINATES)
    large = enlarged(config, (36, 40))
    whole = from_labels(large, []).conditions[COORDINATES].reshape(9, 10)
    windows = Windows.of(large.layout, config.layout)
    for top, left in {*zip(*windows.corners(np.arange(90)), strict=True)}:
        own = config.layout[COORDINATES].to_sequence(
            record(36, 40, 4 * top, 4 * left, 12, 8)).reshape(GRID)
        assert np.array_equal(whole[top:top + GRID[0], left:left + GRID[1]], own)


@pytest.mark.parametrize(("crop", "shares", "side"), [
    ((64, 96, 0, 0, 64, 96), (1, 1), 1), ((64, 96, 8, 8, 32, 32), (1, 1), 0.5),
    ((160, 320, 0, 0, 160, 320), (0.4, 0.2), 0.4), ((320, 160, 0, 0, 320, 160), (0.2, 0.4), 0.4),
    ((100, 100, 0, 0, 50, 50), (0.5, 0.5), 0.25)])
def test_the_side_of_a_window_is_a_share_of_the_largest_box_of_its_shape(
        crop: tuple[int, ...], shares: tuple[float, float], side: float) -> None:
    assert window_sides(record(*crop), shares).tolist() == pytest.approx([side])


def test_samples_keep_the_crops_whose_coordinates_they_were_given(
        cropped: TokenCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(cropped, COORDINATES)
    train_prior(cropped, str(tmp_path / "prior"), config, tiny_training("steps=1"))
    prior = Prior.load(str(tmp_path / "prior"))
    givens = from_corpus(config, cropped)
    sample_corpus(prior, givens, str(tmp_path / "samples"), SamplingConfig(
        num=8, generation=Generation(batch_size=8), likelihood=True))
    samples = TokenCorpus.open(str(tmp_path / "samples"))
    table = next(samples.tables(list(RECORD)))
    assert np.array_equal(CropColumn().read(table), givens.crops[:8])
    assert samples.spec.modalities == ("image",)
    told = []
    monkeypatch.setattr("prior.gallery.show",
                        lambda decoder, codes: np.zeros((8, 12, 8, 3), np.uint8))
    monkeypatch.setattr("prior.gallery.log_likelihoods", lambda model, layout, given, *rest: (
        told.append(given), np.zeros((8, layout.target.length)))[1])
    write_surprise(prior, samples, str(tmp_path), None, 8)
    assert np.array_equal(told[0][COORDINATES], givens.conditions[COORDINATES][:8])
