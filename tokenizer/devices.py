"""Devices that torch can compute on here."""
import torch


def usable_device(name: str) -> torch.device:
    """The device called ``name``, such as ``cpu`` or ``cuda:1``.

    Raises:
        ValueError: this machine or this build of torch does not have it.
    """
    try:
        return torch.zeros((), device=name).device
    except (RuntimeError, AssertionError) as error:  # torch raises either, by how it was built
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}); give cpu, or a device that "
                         "this machine and this build of torch have") from error
