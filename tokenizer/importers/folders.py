"""The folder that an import or export writes: empty, or holding only what it may replace."""
from collections.abc import Iterable

from tokenizer import storage


def claim_folder(url: str, ours: Iterable[str], *, overwrite: bool, dry_run: bool = False) -> None:
    """Make sure that ``url`` may be written to; with ``overwrite``, remove what is replaced.

    Args:
        ours: names that may be replaced, removed in this order: the first is what makes the others
            a whole.
        dry_run: only check.
    Raises:
        ValueError: the folder holds other files, or may not be overwritten; or it is a file.
    """
    if storage.exists(url) and not storage.is_folder(url):
        raise ValueError(f"{url} is a file; give a folder")
    ours = tuple(ours)
    names = [name for name in storage.list_names(url) if not name.startswith(".")]
    if foreign := [name for name in names if name not in ours]:
        raise ValueError(f"{url} holds other files, such as {foreign[0]}: choose an empty folder")
    if names and not overwrite:
        raise ValueError(f"{url} holds {', '.join(names)} already: choose another folder, or "
                         "replace them with --overwrite")
    if not dry_run:
        storage.remove_unfinished(url)
        for name in ours:
            storage.remove(storage.join(url, name))
