"""The folder of a token corpus before its job: whether it may be used, and emptying it."""
from pipelines.job import FAILED
from pipelines.plan import holds_plan, is_unplanned
from tokenizer import storage, tokens
from tokenizer.deltas import DELTAS
from tokenizer.schema import Manifest

PARTS = (tokens.SUCCESS, tokens.MANIFEST, tokens.CARD, tokens.RECEIPTS, FAILED, tokens.DEAD,
         tokens.DATA, DELTAS, tokens.PLAN)
"""What a token corpus consists of; ``--overwrite`` removes these, in this order, nothing else."""


def prepare_folder(url: str, overwrite: bool) -> None:
    """Make sure that the job may write here; remove a token corpus that is to be overwritten.

    Raises:
        ValueError: the folder holds something else.
    """
    if require_usable(url, overwrite):
        for part in PARTS:
            storage.remove(storage.join(url, part))


def require_usable(url: str, overwrite: bool) -> bool:
    """Refuse a folder that the job may not write to.

    Returns:
        Whether a token corpus has to be removed first.
    Raises:
        ValueError: the folder holds something else.
    """
    is_planned = holds_plan(url)
    is_ours = is_planned or _holds_manifest(url)
    if overwrite and is_ours:
        return True
    if not (is_planned or is_unplanned(url) or holds_plan(url)):  # planned by others just now
        first = next(name for name in storage.list_names(url) if not name.startswith("."))
        what = "a token corpus without a plan" if is_ours else f"other files, such as {first}"
        remedy = "add --overwrite to replace it" if is_ours else "choose another folder"
        raise ValueError(f"{url} holds {what}: {remedy}")
    return False


def _holds_manifest(url: str) -> bool:
    name = storage.join(url, tokens.MANIFEST)
    if not storage.exists(name):
        return False
    try:
        Manifest.from_json(storage.read_bytes(name), name)
    except ValueError:
        return False
    return True
