"""What `torch.compile` makes kernels with, and what that needs."""
import os
import shutil

import torch

BACKEND = "inductor"
"""A backend of `torch.compile`; this one needs a C++ compiler on a CPU."""


def require_compiler(option: str, device: torch.device) -> None:
    """Refuse to compile where nothing can.

    Args:
        option: what asks for it, for the message.
    Raises:
        ValueError: there is no compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and BACKEND == "inductor" and not shutil.which(compiler):
        raise ValueError(f"{option} needs a C++ compiler on a CPU, and there is no {compiler}: "
                         "install one, name another in CXX, or leave it out")
