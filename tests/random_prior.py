"""A prior that nobody has trained, but that finds some codes much likelier than others."""
from pathlib import Path

import torch

from prior.model import KIND, Condition, Prior, PriorConfig
from prior.recipes import tiny
from prior.sequence import SequenceLayout
from prior.transformer import Transformer, TransformerConfig
from tokenizer import checkpoints
from tokenizer.schema import CodeSpec, TokenSpec


def random_transformer(layout: SequenceLayout, config: TransformerConfig | None = None,
                       seed: int = 0) -> Transformer:
    """In evaluation mode; its scores spread over some nats."""
    torch.manual_seed(seed)
    model = Transformer(config or tiny().transformer, layout)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    torch.nn.init.normal_(model.codes.weight, std=0.5)
    return model.eval()


def random_prior(codes: CodeSpec, classes: tuple[str, ...] = (), seed: int = 0) -> Prior:
    """Over these codes, conditioned on the class if there are any."""
    config = PriorConfig(spec=TokenSpec(codes=(codes,)), classes=classes, corpus="sha256:corpus",
                         conditions=(Condition(name="label"),) if classes else (),
                         transformer=tiny().transformer)
    return Prior(config, random_transformer(config.layout, seed=seed), f"sha256:prior{seed}")


def save_prior(folder: Path, prior: Prior) -> Path:
    """Write it as training does; returns the folder."""
    checkpoints.save_config(str(folder), KIND, prior.config)
    checkpoints.save_weights(str(folder), prior.model.state_dict())
    return folder
