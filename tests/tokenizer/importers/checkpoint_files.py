"""Configs that go with the published tokenizers' files."""
from typing import Any

from published import Network


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
