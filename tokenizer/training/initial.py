"""The tokenizer whose weights another training starts from, trained or imported before.

Only its weights are taken over; optimiser, average and notes on the use of codes begin anew.
"""
from typing import Any

from tokenizer import checkpoints, configs
from tokenizer.vqgan.model import KIND, VQGANConfig

TRAINING_ALONE = ("autoencoder.dropout",)
"""Settings of an autoencoder that may differ, as they decide nothing of its trained network."""

QUANTIZER_SHAPE = ("kind", "codebook_size", "code_dim", "levels", "depth")
"""Settings of a quantizer that must be equal; all others steer its training alone."""


def check_initial(url: str, config: VQGANConfig) -> str:
    """Make sure that a training of ``config`` can start from the tokenizer at ``url``.

    Returns:
        Its fingerprint.
    Raises:
        FileNotFoundError: no tokenizer is there.
        ValueError: its network is another one; the message names the first difference.
    """
    found = checkpoints.load_config(url, KIND, VQGANConfig)
    before, now = _network(found), _network(config)
    for name, value in before.items():
        if now[name] != value:
            raise ValueError(f"the tokenizer {url} has {name} {value}, this training {now[name]}; "
                             "a training starts from the weights of an equal network")
    return checkpoints.fingerprint(url)


def _network(config: VQGANConfig) -> dict[str, Any]:
    """What decides the shape and the meaning of the weights, by dotted names."""
    modality, quantizer = config.build_modality(), configs.to_dict(config.quantizer)
    shape = configs.flatten(configs.to_dict(config.autoencoder), "autoencoder")
    return {"channels": (modality.in_channels, modality.out_channels),
            **{name: value for name, value in shape.items() if name not in TRAINING_ALONE},
            **{f"quantizer.{name}": quantizer[name] for name in QUANTIZER_SHAPE}}
