"""A prior over codes of residual tokenizers: it learns them, and completes images from the top."""
from pathlib import Path

import numpy as np
import pytest
from drawn_codes import GRID, SIZES, conditions, tiny_training, write_corpus

from prior.dataset import CodeRows
from prior.evaluation import held_out_bits
from prior.generate import Generation, generate
from prior.givens import from_corpus
from prior.model import Prior, PriorConfig
from prior.recipes import tiny
from prior.samplers import GreedySampler
from prior.sampling import SamplingConfig, sample_corpus
from prior.training import train_prior
from tokenizer.audit import verify
from tokenizer.pictures import colour_codes
from tokenizer.schema import codes_array
from tokenizer.tokens import TokenCorpus

DEPTHS = {"image": 3, "segmentation": 2}
SHAPE = (3, *GRID)
"""Of the codes of one image."""


def picture(codes: np.ndarray) -> np.ndarray:
    """Codes ``(N, 3, h, w)`` as pictures of the first of each cell."""
    assert codes.shape[1:] == SHAPE
    return colour_codes(codes[:, 0], SIZES["image"], (2 * GRID[0], 2 * GRID[1]))


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> tuple[TokenCorpus, Path]:
    """A corpus with several codes a cell, and a prior that has learned it with pictures."""
    folder = tmp_path_factory.mktemp("deep")
    corpus = write_corpus(str(folder / "tokens"), 200, depths=DEPTHS)
    config = PriorConfig.of(corpus, conditions=conditions("label", "segmentation"),
                            transformer=tiny().transformer)
    train_prior(corpus, str(folder / "prior"), config,
                tiny_training("steps=300", "evaluate_every=150"), {"image": picture})
    return corpus, folder / "prior"


def test_training_shows_samples_and_learns_all_codes_of_a_cell(
        deep: tuple[TokenCorpus, Path]) -> None:
    corpus, folder = deep
    assert (folder / "samples.png").exists()
    prior, rows = Prior.load(str(folder)), CodeRows.load(corpus, list(DEPTHS))
    bits = held_out_bits(prior.model, rows, 20, 20)
    # Label and map tell all; without them each cell takes 2 bits and each image one, of 18 codes.
    assert bits.matched < 0.2
    assert bits.without is not None and bits.without > (6 * 2 + 1) / 18 - 0.1


def test_generated_codes_have_the_shape_of_stored_ones_and_follow_their_map(
        deep: tuple[TokenCorpus, Path]) -> None:
    corpus, folder = deep
    prior, rows = Prior.load(str(folder)), CodeRows.load(corpus, list(DEPTHS))
    given = {segment.name: rows.segment(segment, np.arange(8))
             for segment in prior.config.layout.conditions}
    settings = Generation(sampler=GreedySampler(), batch_size=4)
    found = generate(prior.model, given, [(0, row) for row in range(8)], settings)
    assert found.shape == (8, *SHAPE)
    assert (found == rows.codes["image"][:8]).mean() > 0.9
    without = Generation(sampler=GreedySampler(), batch_size=4, cached=False)
    again = generate(prior.model, given, [(0, row) for row in range(8)], without)
    np.testing.assert_array_equal(again, found)


def test_completions_keep_the_upper_rows_of_every_depth_and_no_more(
        deep: tuple[TokenCorpus, Path], tmp_path: Path) -> None:
    corpus, folder = deep
    prior = Prior.load(str(folder))
    originals = CodeRows.load(corpus, ["image"]).codes["image"][:6]
    sample_corpus(prior, from_corpus(prior.config, corpus, keep=0.34), str(tmp_path),
                  SamplingConfig(num=6, generation=Generation(batch_size=4)))
    samples = TokenCorpus.open(str(tmp_path))
    assert not any(verify(samples)) and samples.spec["image"].depth == 3
    table = samples.read_shard(0)
    found = codes_array(samples.spec["image"], table)
    np.testing.assert_array_equal(found[:, :, :1], originals[:, :, :1])
    assert all("&kept=6" in source for source in table["source"].to_pylist())
    maps = CodeRows.load(corpus, ["segmentation"]).codes["segmentation"]
    np.testing.assert_array_equal(codes_array(samples.spec["segmentation"], table), maps[:6])
