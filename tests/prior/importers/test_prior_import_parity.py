"""Imported priors give the published scores, and sample what these say."""
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from published_coordinates import taming_coordinates
from published_files import write_lightning, write_llamagen, write_yaml
from published_priors import (
    CLASSES,
    CODEBOOK,
    MAP_CODES,
    NUM_CODES,
    SIDE,
    State,
    llamagen_scores,
    llamagen_state,
    taming_config,
    taming_scores,
    taming_state,
)
from safetensors.torch import save_file

from prior.generate import Generation, generate
from prior.givens import from_labels
from prior.guidance import Guidance
from prior.importers.base import PriorGivens
from prior.importers.importing import import_prior
from prior.likelihood import log_likelihoods
from prior.model import Prior
from prior.samplers import SAMPLERS
from prior.sequence import LABEL
from prior.windows import enlarged, generate_windows
from tokenizer.importers.report import ParityReport
from tokenizer.schema import UNKNOWN, CodeSpec

KINDS = ("class", "none", "depth", "segmentation", "coordinates")
ROWS = 3
IMAGES = CodeSpec(modality="image", grid=(SIDE, SIDE), codebook_size=CODEBOOK, image_size=(6, 6),
                  tokenizer="sha256:image")


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def import_taming(folder: Path, kind: str, **params: object) -> tuple[Prior, ParityReport, State]:
    state = taming_state()
    file = write_lightning(folder / "last.ckpt", state)
    report = import_prior(file, str(folder / "prior"), config=write_yaml(
        folder / "project.yaml", taming_config(kind, **params)))
    return Prior.load(str(folder / "prior")), report, state


def import_llamagen(folder: Path, state: State) -> tuple[Prior, ParityReport]:
    file = write_llamagen(folder / "c2i.pt", state)
    report = import_prior(file, str(folder / "prior"), givens=PriorGivens(specs={"image": IMAGES}),
                          config=write_yaml(folder / "shape.yaml", {"n_head": 2}))
    return Prior.load(str(folder / "prior")), report


def drawn(high: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(high, (ROWS, length), generator=torch.Generator().manual_seed(seed))


def given_to(prior: Prior) -> dict[str, torch.Tensor]:
    return {segment.name: drawn(segment.vocabulary, segment.length, 1)
            for segment in prior.config.layout.conditions}


def published_input(given: dict[str, torch.Tensor]) -> torch.Tensor:
    """The published condition ids ``(B, C)``; the start token of these configs is 3."""
    return torch.cat(list(given.values()), 1) if given else torch.full((ROWS, 1), 3)


def published_scores(folder: Path, kind: str
                     ) -> tuple[Prior, dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """An imported prior, what it is given, codes, and the published model's scores of these."""
    prior, _, state = import_taming(folder, kind)
    given, codes = given_to(prior), drawn(CODEBOOK, NUM_CODES)
    before = published_input(given)
    whole = taming_scores(state, torch.cat([before, codes], 1)[:, :-1])
    return prior, given, codes, whole[:, before.shape[1] - 1:, :CODEBOOK]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_published_prior(tmp_path: Path, kind: str) -> None:
    prior, given, codes, expected = published_scores(tmp_path, kind)
    found = prior.model(prior.config.layout.inputs(given, codes[:, :-1]))
    assert expected.std() > 0.5
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cached", [True, False])
def test_greedy_samples_are_those_of_the_published_loop(tmp_path: Path, kind: str,
                                                        cached: bool) -> None:
    prior, _, state = import_taming(tmp_path, kind)
    given = given_to(prior)
    ids = published_input(given)
    for _ in range(NUM_CODES):
        best = taming_scores(state, ids)[:, -1, :CODEBOOK].argmax(-1, keepdim=True)
        ids = torch.cat([ids, best], 1)
    settings = Generation(sampler=SAMPLERS["greedy"](), batch_size=4, cached=cached)
    found = generate(prior.model, {name: codes.numpy() for name, codes in given.items()},
                     [(row,) for row in range(ROWS)], settings)
    np.testing.assert_array_equal(found.reshape(ROWS, -1), ids[:, -NUM_CODES:].numpy())


@pytest.mark.parametrize("kind", ["depth", "coordinates"])
def test_larger_pictures_are_drawn_through_the_published_window(tmp_path: Path, kind: str) -> None:
    prior, _, state = import_taming(tmp_path, kind)
    size, pixels = (4, 5), (8, 10)
    config = enlarged(prior.config, pixels)
    if kind == "depth":
        given = torch.randint(MAP_CODES, size, generator=torch.Generator().manual_seed(3))
    else:
        given = taming_coordinates(pixels, (0, 0, *pixels), 2, MAP_CODES)
        told = from_labels(config, []).conditions[kind]
        np.testing.assert_array_equal(told, given.reshape(1, -1).numpy())
    codes = torch.zeros(size, dtype=torch.int64)
    for row in range(size[0]):
        for column in range(size[1]):
            top, left = (local_start(place, count) for place, count in
                         zip((row, column), size, strict=True))
            window = slice(top, top + SIDE), slice(left, left + SIDE)
            ids = torch.cat([given[window].flatten(), codes[window].flatten()])[None, :-1]
            place = (row - top) * SIDE + column - left
            scores = taming_scores(state, ids)[0, NUM_CODES - 1 + place, :CODEBOOK]
            codes[row, column] = scores.argmax()
    settings = Generation(sampler=SAMPLERS["greedy"](), batch_size=4)
    found = generate_windows(prior.model, config.layout, {kind: given.reshape(1, -1).numpy()},
                             [(0,)], settings, np.zeros((1, 0), np.int64))
    np.testing.assert_array_equal(found[0], codes.numpy())


def local_start(place: int, count: int) -> int:
    """Where the window of a row or column begins, as published for 16 cells, here for 3."""
    half = SIDE // 2
    if place <= half:
        local = place
    elif count - place < SIDE - half:
        local = SIDE - (count - place)
    else:
        local = half
    return place - local


@pytest.mark.parametrize("kind", KINDS)
def test_likelihoods_are_those_of_the_published_scores(tmp_path: Path, kind: str) -> None:
    prior, given, codes, expected = published_scores(tmp_path, kind)
    logs = expected.log_softmax(-1)
    found = log_likelihoods(prior.model, prior.config.layout,
                            {name: values.numpy() for name, values in given.items()},
                            codes.numpy(), 4)
    np.testing.assert_allclose(found, logs.gather(-1, codes[..., None])[..., 0], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_holes_are_filled_with_the_same_codes_with_and_without_a_cache(tmp_path: Path,
                                                                       kind: str) -> None:
    prior, _, _ = import_taming(tmp_path, kind)
    given = {name: codes.numpy() for name, codes in given_to(prior).items()}
    whole, hole = drawn(CODEBOOK, NUM_CODES).numpy(), np.arange(NUM_CODES) % 3 == 0
    filled = [generate(prior.model, given, [(row,) for row in range(ROWS)],
                       Generation(batch_size=4, cached=cached, passes=3), whole, hole)
              for cached in (True, False)]
    np.testing.assert_array_equal(*filled)
    np.testing.assert_array_equal(filled[0].reshape(ROWS, -1)[:, ~hole], whole[:, ~hole])


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_changes_no_sample(tmp_path: Path, kind: str) -> None:
    prior, _, _ = import_taming(tmp_path, kind)
    given = {name: codes.numpy() for name, codes in given_to(prior).items()}
    seeds = [(0, row) for row in range(ROWS)]
    samples = [generate(prior.model, given, seeds, Generation(batch_size=4, cached=cached))
               for cached in (True, False)]
    np.testing.assert_array_equal(*samples)
    assert len(np.unique(samples[0])) > 3


def test_the_report_says_what_was_found_and_left_out(tmp_path: Path) -> None:
    _, report, state = import_taming(tmp_path, "none")
    text = report.text()
    for words in ("Net2NetTransformer", "its 'state_dict'",
                  "3 x 3 image codes of 12 given nothing; 2 layers of 16 channels and 2 heads",
                  "29 found, 0 missing, 0 surplus",
                  "cond_stage_model (1), first_stage_model (2), masks (2)",
                  "start token is code 3", "of 14 scores those of the image's 12 codes are kept",
                  "of 20 positions the 9 of its sequences are kept", "9 codes scored"):
        assert words in text, words
    blocks = sum(tensor.numel() for name, tensor in state.items()
                 if ".blocks." in name and not name.endswith("mask"))
    assert report.parameters == {"blocks": blocks, "codes": 13 * 16, "head": 12 * 16, "norm": 32,
                                 "positions": 9 * 16}
    assert report.check.difference < 1e-4 and 0 < report.check.bits < report.check.most


def test_conditions_become_modalities_and_classes(tmp_path: Path) -> None:
    for kind, name in (("class", LABEL), *((name, name) for name in KINDS[2:])):
        (tmp_path / kind).mkdir()
        config = import_taming(tmp_path / kind, kind)[0].config
        assert [condition.name for condition in config.conditions] == [name]
        assert config.indispensable([name]) == [name]
        assert config.layout[name].vocabulary == (CLASSES if name == LABEL else MAP_CODES)
        assert config.spec["image"].tokenizer == UNKNOWN and config.spec["image"].grid == (3, 3)


def test_tokenizers_that_are_given_say_what_codes_mean(tmp_path: Path) -> None:
    depth = CodeSpec(modality="depth", grid=(SIDE, SIDE), codebook_size=MAP_CODES,
                     image_size=(6, 6), tokenizer="sha256:depth")
    file = write_lightning(tmp_path / "last.ckpt", taming_state())
    import_prior(file, str(tmp_path / "prior"), config=write_yaml(
        tmp_path / "c.yaml", taming_config("depth")), givens=PriorGivens(specs={
            "image": IMAGES, "depth": depth}))
    assert Prior.load(str(tmp_path / "prior")).config.spec.codes == (IMAGES, depth)


def test_weights_may_be_safetensors(tmp_path: Path) -> None:
    save_file(taming_state(), tmp_path / "prior.safetensors")
    config = write_yaml(tmp_path / "c.yaml", taming_config("class"))
    import_prior(str(tmp_path / "prior.safetensors"), str(tmp_path / "other"), config=config)
    expected = import_taming(tmp_path, "class")[0]
    assert Prior.load(str(tmp_path / "other")).fingerprint == expected.fingerprint


def test_llamagen_scores_are_those_of_the_published_prior(tmp_path: Path) -> None:
    state = llamagen_state()
    prior, report = import_llamagen(tmp_path, state)
    codes = drawn(CODEBOOK, NUM_CODES)
    for labels in (drawn(CLASSES, 1, 2), torch.full((ROWS, 1), CLASSES)):
        expected = llamagen_scores(state, labels[:, 0], codes[:, :-1])[..., :CODEBOOK]
        assert expected.std() > 0.5
        inputs = prior.config.layout.inputs({LABEL: labels}, codes[:, :-1])
        torch.testing.assert_close(prior.model(inputs), expected, rtol=1e-5, atol=1e-5)
    nothing = prior.config.layout.inputs({}, codes[:, :-1])
    torch.testing.assert_close(prior.model(nothing), expected, rtol=1e-5, atol=1e-5)
    assert "7 classes, and one row that stands for none" in report.text()


@pytest.mark.parametrize("cached", [True, False])
def test_llamagen_guidance_is_the_published_one(tmp_path: Path, cached: bool) -> None:
    state = llamagen_state()
    prior, _ = import_llamagen(tmp_path, state)
    labels, codes = drawn(CLASSES, 1, 2), torch.zeros(ROWS, 0, dtype=torch.int64)
    nothing = torch.full((ROWS,), CLASSES)
    for _ in range(NUM_CODES):
        given, without = (llamagen_scores(state, label, codes)[:, -1, :CODEBOOK]
                          for label in (labels[:, 0], nothing))
        best = (without + 4 * (given - without)).argmax(-1, keepdim=True)
        codes = torch.cat([codes, best], 1)
    settings = Generation(sampler=SAMPLERS["greedy"](), batch_size=4, cached=cached,
                          guidance=Guidance(scale=4.0))
    found = generate(prior.model, {LABEL: labels.numpy()}, [(row,) for row in range(ROWS)],
                     settings)
    np.testing.assert_array_equal(found.reshape(ROWS, -1), codes.numpy())
