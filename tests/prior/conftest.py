"""A small corpus, and a prior that has learned it."""
from collections.abc import Callable
from pathlib import Path

import pytest
from drawn_codes import conditions, tiny_training, write_corpus

from prior.model import Prior, PriorConfig
from prior.recipes import tiny
from prior.training import train_prior
from tokenizer.tokens import TokenCorpus


@pytest.fixture
def corpus(tmp_path: Path) -> TokenCorpus:
    return write_corpus(str(tmp_path / "tokens"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TokenCorpus, str]:
    """A corpus, and the folder of a prior that has learned it: conditioned on label and map."""
    folder = tmp_path_factory.mktemp("trained")
    corpus = write_corpus(str(folder / "tokens"), 200)
    config = PriorConfig.of(corpus, conditions=conditions("label", "segmentation"),
                            transformer=tiny().transformer)
    train_prior(corpus, str(folder / "prior"), config,
                tiny_training("steps=400", "evaluate_every=200"))
    return corpus, str(folder / "prior")


@pytest.fixture
def prior(trained: tuple[TokenCorpus, str]) -> Prior:
    return Prior.load(trained[1])


@pytest.fixture
def make_corpus(tmp_path: Path) -> Callable[..., TokenCorpus]:
    """Writes further corpora: ``make_corpus(name, ...)`` as `write_corpus`."""
    return lambda name, *arguments, **options: write_corpus(str(tmp_path / name), *arguments,
                                                            **options)
