"""A training's folder: what it was started with, its checkpoint, and going on from it.

Resuming is refused when the settings or the corpus are not those of the checkpoint, naming what
changed; settings of `HOUSEKEEPING` may change.
"""
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizer import checkpoints, configs, storage
from tokenizer.training.config import HOUSEKEEPING, TrainingConfig
from tokenizer.training.state import TrainingState
from tokenizer.vqgan.model import KIND, VQGANConfig

MAX_SHOWN = 4
"""Changed settings that a message names."""

ABSENT = "absent"


def describe_run(config: VQGANConfig, training: TrainingConfig,
                 corpus: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides the weights, as JSON values; resuming demands that it is unchanged.

    Args:
        corpus: what identifies the training images and those held out.
    """
    settings = {name: value for name, value in configs.to_dict(training).items()
                if name not in HOUSEKEEPING}
    return {"model": configs.to_dict(config), "training": settings, "corpus": dict(corpus)}


def prepare_folder(out: str, config: VQGANConfig) -> None:
    """Write the tokenizer's config, unless the folder has a training state to go on from.

    Raises:
        ValueError: the folder is not local, or holds a tokenizer that cannot be trained on.
    """
    if "://" in out:
        raise ValueError(f"training writes its journal to a local folder, got {out}; copy the "
                         "finished tokenizer there afterwards")
    if storage.exists(storage.join(out, checkpoints.STATE)):
        return
    if storage.exists(storage.join(out, checkpoints.WEIGHTS)):
        raise ValueError(f"{out} holds a tokenizer without its training state, which cannot be "
                         "trained on; give another folder")
    checkpoints.save_config(out, KIND, config)


def save_progress(out: str, state: TrainingState, run: Mapping[str, Any]) -> None:
    """Write the averaged weights and the state, each atomically.

    Args:
        run: what `describe_run` returned.
    Raises:
        OSError: the disk refuses; the previous checkpoint stays whole.
    """
    checkpoints.save_weights(out, state.averaged_model().codec_weights())
    checkpoints.save_state(out, {"run": dict(run), **state.state_dict()})


def load_progress(out: str, state: TrainingState, run: Mapping[str, Any]) -> None:
    """Go on from the checkpoint in ``out``, if there is one.

    Raises:
        ValueError: it was trained with other settings or images.
    """
    saved = checkpoints.load_state(out)
    if saved is None:
        return
    before, now = dict(_flat(saved["run"])), dict(_flat(run))
    changed = [f"{name} was {before.get(name, ABSENT)}, now {now.get(name, ABSENT)}"
               for name in sorted(before.keys() | now.keys(), key=_settings_first)
               if before.get(name, ABSENT) != now.get(name, ABSENT)]
    if changed:
        more = f"; and {len(changed) - MAX_SHOWN} more" if len(changed) > MAX_SHOWN else ""
        raise ValueError(f"{out} was trained with other settings: {'; '.join(changed[:MAX_SHOWN])}"
                         f"{more}; give the same to go on, or another folder to start anew")
    state.load_state_dict(saved)


def _settings_first(name: str) -> tuple[bool, str]:
    """Orders names so that settings precede what follows from them, the division of the corpus."""
    return name.startswith("corpus."), name


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of nested dicts by dotted name."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
