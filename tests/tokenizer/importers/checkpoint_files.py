"""Files as the published programs write them, with all that training leaves in them."""
import argparse
import sys
import types
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from published import Network
from torch import Tensor


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


def taming_config(net: Network, target: str = "taming.models.vqgan.VQModel",
                  **params: Any) -> dict[str, Any]:
    """The config that goes with a taming checkpoint."""
    resolution = 32
    shape = {"double_z": False, "z_channels": net.z, "resolution": resolution,
             "in_channels": net.channels, "out_ch": net.channels, "ch": net.width,
             "ch_mult": list(net.multipliers), "num_res_blocks": net.blocks,
             "attn_resolutions": [resolution >> level for level in net.attention], "dropout": 0.0}
    return {"model": {"base_learning_rate": 4.5e-6, "target": target, "params": {
        "embed_dim": net.code_dim, "n_embed": net.codes, "ddconfig": shape,
        "lossconfig": {"target": "taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator",
                       "params": {"disc_start": 10000}}, **params}}}


def write_yaml(path: Path, data: Mapping[str, Any]) -> str:
    path.write_text(yaml.safe_dump(dict(data)))
    return str(path)
