"""Trainings of a prior that one process or several can do; for tests."""
import os
import sys

from prior.model import Condition, PriorConfig
from prior.state import TrainingConfig
from prior.training import train_prior
from prior.transformer import TransformerConfig
from tokenizer.tokens import TokenCorpus
from tokenizer.training.optim import OptimizerConfig

WHOLE, HALF = 8, 4
"""Steps."""


def train(url: str, out: str, steps: int) -> None:
    """Train on label and map, both dropped at times, in windows, with batches in two parts."""
    corpus = TokenCorpus.open(url)
    config = PriorConfig.of(
        corpus, conditions=[Condition(name="label", dropout=0.3), Condition(name="segmentation")],
        transformer=TransformerConfig(num_layers=2, width=32, num_heads=2))
    training = TrainingConfig(
        steps=steps, batch_size=8, accumulation=2, log_every=1, evaluate_every=100, ema_decay=0.9,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=2))
    train_prior(corpus, out, config, training)


if __name__ == "__main__":
    train(*sys.argv[1:3], int(sys.argv[3]))
    print(os.environ["WORLD_SIZE"])
