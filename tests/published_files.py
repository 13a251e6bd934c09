"""Files as the published programs write them, with all that training leaves in them."""
import argparse
import os
import sys
import types
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.folder,)


def write_lightning(path: Path, state: Mapping[str, Tensor], **surplus: Any) -> str:
    """A ``.ckpt`` of Lightning: weights, optimizer states, and callbacks keyed by their class."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    callback = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = callback  # type: ignore[attr-defined]
    rooms = ("pytorch_lightning", "pytorch_lightning.callbacks", module.__name__)
    sys.modules.update({rooms[0]: types.ModuleType(rooms[0]), rooms[1]: types.ModuleType(rooms[1]),
                        rooms[2]: module})
    moments = {0: {"step": 7, "exp_avg": torch.ones(3)}}
    try:
        torch.save({"epoch": 3, "global_step": 100, "pytorch-lightning_version": "1.0.8",
                    "callbacks": {callback: {"best_model_score": np.float64(0.5), "made": callback()
                                             }},
                    "optimizer_states": [{"state": moments, "param_groups": [{"lr": 4.5e-6}]}],
                    "lr_schedulers": [], "state_dict": OrderedDict(state), **surplus}, path)
    finally:
        for room in rooms:
            del sys.modules[room]
    return str(path)


def write_llamagen(path: Path, state: Mapping[str, Tensor], key: str = "model",
                   **surplus: Any) -> str:
    """A ``.pt`` of LlamaGen's training: weights, optimizer and the command line."""
    torch.save({key: OrderedDict(state), "optimizer": {"state": {0: torch.zeros(2)}}, "steps": 9,
                "discriminator": {"main.weight": torch.zeros(2)},
                "args": argparse.Namespace(vq_model="VQ-16", lr=1e-4), **surplus}, path)
    return str(path)


def write_yaml(path: Path, data: Mapping[str, Any]) -> str:
    path.write_text(yaml.safe_dump(dict(data)))
    return str(path)
