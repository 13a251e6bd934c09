"""Files of a published tokenizer: which of a folder's files are meant, and what is in them.

Weights are a safetensors file or one of ``torch.save``; told apart by their first bytes, not by
their names. Configs are YAML or JSON, and plain data: tags that would make objects are refused.
"""
import fnmatch
import json
from collections.abc import Mapping
from typing import Any

from tokenizer import storage
from tokenizer.importers.pickles import Stored, read_pickled
from tokenizer.importers.source import Source, Tensors

WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin",
                "diffusion_pytorch_model.fp16.safetensors", "model.safetensors",
                "pytorch_model.bin", "checkpoints/last.ckpt", "last.ckpt", "model.ckpt")
"""Where a folder has its weights; the first of these that is there."""

CONFIG_FILES = ("config.json", "config.yaml", "model.yaml", "configs/model.yaml",
                "configs/*-project.yaml")
"""Where a folder has its config, likewise; of several that match, the last by name."""

PARTS = ("ema", "model", "state_dict")
"""Names under which files keep their weights beside other things; averaged weights come first."""

WRAPPERS = ("_orig_mod.", "module.")
"""What torch puts before the names of compiled and of distributed models."""


def open_source(url: str, config: str | None = None) -> Source:
    """The tokenizer at ``url``.

    Args:
        url: a file of weights, or a folder that holds one beside its config.
        config: its config, where it lies apart.
    Raises:
        FileNotFoundError: there is no such file, or none in the folder.
        ValueError: a file is damaged or holds no tensors.
    """
    weights = url
    if storage.is_folder(url):
        weights = _first(url, WEIGHT_FILES) or ""
        if not weights:
            raise FileNotFoundError(f"{url} holds no weights ({', '.join(WEIGHT_FILES)}); give the "
                                    "file itself")
        config = config or _first(url, CONFIG_FILES)
    settings = read_settings(config) if config else {}
    if _is_zip(weights):
        pickled = read_pickled(weights)
        part, tensors = _choose(weights, pickled.content)
        return Source(weights, _unwrapped(tensors), settings, part, pickled.ignored)
    return Source(weights, _unwrapped(_read_safetensors(weights)), settings)


def read_settings(url: str) -> dict[str, Any]:
    """The config in a YAML or JSON file, as plain data.

    Raises:
        ValueError: it is neither, asks for objects, or is no mapping.
    """
    import yaml
    text = storage.read_bytes(url)
    try:
        data = json.loads(text) if url.endswith(".json") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{url} cannot be read as plain settings ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{url} must hold settings by name, got {type(data).__name__}")
    return data


def _first(url: str, patterns: tuple[str, ...]) -> str | None:
    for pattern in patterns:
        folder, _, last = pattern.rpartition("/")
        room = storage.join(url, folder) if folder else url
        found = sorted(fnmatch.filter(storage.list_files(room), last))
        if found:
            return storage.join(room, found[-1])
    return None


def _is_zip(url: str) -> bool:
    """Whether the file is an archive of ``torch.save``; a pickle of before torch 1.6 is refused."""
    start = next(storage.read_chunks(url, 8), b"")
    if start[:1] == b"\x80":
        raise ValueError(f"{url} was written by torch before 1.6; load it where you trust it and "
                         "save it again with safetensors")
    return start[:2] == b"PK"


def _read_safetensors(url: str) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.torch import load
    try:
        tensors = load(storage.read_bytes(url))
    except SafetensorError as error:
        raise ValueError(f"{url} is neither a safetensors file nor one of torch.save ({error})"
                         ) from error
    return {name: Stored(tuple(tensor.shape), lambda tensor=tensor: tensor)  # type: ignore[misc]
            for name, tensor in tensors.items()}


def _choose(url: str, content: Any) -> tuple[str, Tensors]:
    """Of what a file holds, the part with the weights and its name."""
    if isinstance(content, Mapping):
        for part in (*PARTS, ""):
            inner = content.get(part) if part else content
            tensors = {name: item for name, item in inner.items() if isinstance(item, Stored)
                       and isinstance(name, str)} if isinstance(inner, Mapping) else {}
            if tensors:
                return part, tensors
    raise ValueError(f"{url} holds no tensors by name, neither at its top nor under "
                     f"{', '.join(PARTS)}")


def _unwrapped(tensors: Tensors) -> Tensors:
    """Tensors without what torch put before all of their names, in whatever order it did."""
    while tensors:
        wrapper = next((wrapper for wrapper in WRAPPERS
                        if all(name.startswith(wrapper) for name in tensors)), None)
        if wrapper is None:
            break
        tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors
