"""Checkpoints: a folder with ``config.json`` and ``model.safetensors``, and its fingerprint.

``config.json`` is written once, before training; the weights are replaced atomically. Nothing that
is loaded here can run code: weights are safetensors, training state is read weights-only.

    DIR/config.json          kind, format version and config
    DIR/model.safetensors    the weights that encode and sample (the averaged ones when EMA is on)
    DIR/training/            what training needs to go on; may be deleted when it is done
"""
import hashlib
import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokenizer import configs, storage
from tokenizer.weights import DAMAGED

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS, TRAINING = "config.json", "model.safetensors", "training"
STATE = f"{TRAINING}/state.pt"
FORMAT_VERSION = 1


def save_config(url: str, kind: str, config: Any) -> None:
    """Write ``config.json``.

    Args:
        url: folder of the checkpoint.
        kind: ``tokenizer`` or ``prior``.
        config: a config dataclass.
    """
    data = {"format": f"img2tokens.{kind}", "format_version": FORMAT_VERSION,
            "config": configs.to_dict(config)}
    storage.write_bytes(storage.join(url, CONFIG), (json.dumps(data, indent=1) + "\n").encode())


def load_config(url: str, kind: str, cls: type[configs.Config]) -> configs.Config:
    """The config of type ``cls`` in the checkpoint of this kind at ``url``.

    Raises:
        FileNotFoundError: no checkpoint is there.
        ValueError: it is of another kind or version, or damaged.
    """
    name = storage.join(url, CONFIG)
    try:
        data = json.loads(storage.read_bytes(name))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{url} holds no {kind} (no {CONFIG}); give the folder that "
                                f"`img2tokens train-{kind}` wrote") from error
    except ValueError as error:
        raise ValueError(f"{name} is not JSON ({error}): the file is damaged") from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != f"img2tokens.{kind}":
        raise ValueError(f"{url} is not a {kind}: {CONFIG} says format {found!r}, "
                         f"expected 'img2tokens.{kind}'")
    if data.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{name} has format version {data.get('format_version')}; this program "
                         f"reads {FORMAT_VERSION}: use the version of img2tokens that wrote it")
    try:
        return configs.from_dict(cls, data.get("config", {}))
    except ValueError as error:
        raise ValueError(f"{name}: {error}; another version of img2tokens wrote it, or it was "
                         "changed by hand") from error


def save_weights(url: str, tensors: Mapping[str, "Tensor"]) -> None:
    """Write ``model.safetensors`` atomically; tensors are stored as they are, on the CPU."""
    from safetensors.torch import save
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    storage.write_bytes(storage.join(url, WEIGHTS), content)


def load_weights(url: str) -> "dict[str, Tensor]":
    """The tensors of ``model.safetensors``.

    Raises:
        FileNotFoundError: training has not saved any weights yet.
        ValueError: the file is damaged.
    """
    return _tensors(url, _read_weights(url))


def load_fingerprinted(url: str) -> "tuple[dict[str, Tensor], str]":
    """The tensors of ``model.safetensors``, and the `fingerprint` of the checkpoint with just
    these, though a training may replace them at this moment.

    Raises:
        OSError, ValueError: see `load_weights`.
    """
    content = _read_weights(url)
    return _tensors(url, content), _fingerprint(url, storage.sha256(content))


def fingerprint(url: str) -> str:
    """``sha256:...`` over config and weights: equal for equal tokenizers, wherever they lie."""
    return _fingerprint(url, storage.sha256_of_file(storage.join(url, WEIGHTS)))


def _fingerprint(url: str, sha256_of_weights: str) -> str:
    config = json.loads(storage.read_bytes(storage.join(url, CONFIG)))
    digest = hashlib.sha256(configs.canonical_json(config).encode())
    digest.update(sha256_of_weights.encode())
    return f"sha256:{digest.hexdigest()}"


def _read_weights(url: str) -> bytes:
    name = storage.join(url, WEIGHTS)
    try:
        return storage.read_bytes(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name} is missing: no weights were saved yet") from error


def _tensors(url: str, content: bytes) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load
    try:
        return load(content)
    except (SafetensorError, *DAMAGED) as error:
        raise ValueError(f"{storage.join(url, WEIGHTS)} is damaged ({error}); copy the checkpoint "
                         "again") from error


def save_state(url: str, state: Mapping[str, Any]) -> None:
    """Write what training needs to go on exactly: tensors, numbers and containers of these."""
    import torch
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    storage.write_bytes(storage.join(url, STATE), buffer.getvalue())


def load_state(url: str) -> dict[str, Any] | None:
    """What `save_state` wrote, on the CPU, or nothing where training has not saved yet.

    Raises:
        ValueError: the file is damaged, or holds anything but tensors, numbers and containers.
    """
    import torch
    name = storage.join(url, STATE)
    if not storage.exists(name):
        return None
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(storage.read_bytes(name)),
                                           map_location="cpu", weights_only=True)
    except DAMAGED as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name} is damaged or no training state ({reason}); train into another "
                         "folder") from error
    return state
