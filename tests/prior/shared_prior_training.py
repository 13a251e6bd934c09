"""Trainings of a prior that one process or several can do; for tests."""
import os
import sys

import prior.state
from prior.model import Condition, PriorConfig
from prior.sharding import share
from prior.state import TrainingConfig
from prior.training import train_prior
from prior.transformer import Transformer, TransformerConfig
from tokenizer.tokens import TokenCorpus
from tokenizer.training.optim import OptimizerConfig

WHOLE, HALF = 8, 4
"""Steps."""


def train(url: str, out: str, steps: int, shard_weights: bool = False) -> None:
    """Train on label and map, both dropped at times, in windows, with batches in two parts.

    With shared weights the second half keeps the inputs of blocks alone, which changes nothing.
    """
    corpus = TokenCorpus.open(url)
    config = PriorConfig.of(
        corpus, conditions=[Condition(name="label", dropout=0.3), Condition(name="segmentation")],
        transformer=TransformerConfig(num_layers=2, width=32, num_heads=2))
    training = TrainingConfig(
        steps=steps, batch_size=8, accumulation=2, log_every=1, evaluate_every=100, ema_decay=0.9,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=2),
        shard_weights=shard_weights,
        activation_checkpointing=shard_weights and steps == WHOLE)
    train_prior(corpus, out, config, training)


def tell_parts(model: Transformer, num_processes: int) -> None:
    """Share the weights, and print how many numbers there are and how many are left here."""
    share(model, num_processes)
    print(sum(parameter.numel() for parameter in model.parameters()),
          sum(parameter.to_local().numel() for parameter in model.parameters()))


if __name__ == "__main__":
    prior.state.share = tell_parts
    train(*sys.argv[1:3], int(sys.argv[3]), "sharded" in sys.argv)
    print(os.environ["WORLD_SIZE"])
