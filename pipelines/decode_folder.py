"""The folder of a decode job: whose it is, and what of earlier work is removed from it."""
import contextlib
import itertools
from collections.abc import Iterator

import pyarrow as pa

from pipelines.decode_plan import names_of
from pipelines.names import RESERVED
from pipelines.plan import Plan, load_plan
from pipelines.sinks import SINKS, FolderSink, Sink
from tokenizer import storage, tokens


def job_folder(output: str) -> str:
    """Folder of the job's own files."""
    return storage.join(output, RESERVED)


def prepare_folder(output: str, overwrite: bool) -> None:
    """Make sure that the job may write here; remove the files of a job that is to be overwritten.

    Raises:
        ValueError: the folder holds something else.
    """
    names = [name for name in storage.list_names(output) if not name.startswith(".")]
    if names and RESERVED not in names:
        raise ValueError(f"{output} holds other files, such as {names[0]}: choose an empty "
                         "folder for the images")
    if overwrite and names:
        remove_decoded(output)


def remove_decoded(output: str) -> None:
    """Remove the files that an earlier decode job has written, and what it knew of them."""
    for path in itertools.chain(indexed_files(output), unfinished_files(output)):
        if ".." not in path.split("/"):
            storage.remove(storage.join(output, path.lstrip("/")))
    storage.remove(job_folder(output))


def indexed_files(output: str) -> Iterator[str]:
    """Files that the shards of a job have written, by their indices, whichever its sink was."""
    sinks = [sink(output=output, modalities=(), num_shards=0) for sink in SINKS.values()]
    folder = storage.join(job_folder(output), tokens.DATA)
    for name in storage.list_files(folder):
        if (index := read_index(storage.join(folder, name))) is not None:
            yield from (path for sink in sinks for path, _ in sink.written(index))


def read_index(url: str) -> pa.Table | None:
    """The index of a shard; nothing where there is none, or a damaged one."""
    try:
        return tokens.read_parquet(storage.read_bytes(url))
    except (FileNotFoundError, ValueError):
        return None


def unfinished_files(output: str) -> Iterator[str]:
    """Files that shards without an index may have written; none where the plan is damaged."""
    with contextlib.suppress(ValueError):  # starting over is the remedy for a damaged plan
        if (plan := load_plan(job_folder(output))) is None:
            return
        modalities = tuple(code["modality"] for code in plan.settings["codes"])
        sink = SINKS[plan.settings.get("to", FolderSink.name)](
            output=output, modalities=modalities, num_shards=plan.num_shards)
        for shard in range(plan.num_shards):
            index = storage.join(plan.url, tokens.shard_name(shard, plan.num_shards))
            if read_index(index) is None:
                yield from sink.left(shard, names_of(plan, shard))
        yield from sink.beside


def remove_unfinished(plan: Plan, sink: Sink) -> None:
    """Remove what a killed run left of files that it had not finished."""
    done = tokens.read_receipts(plan.url, plan.fingerprint)
    folders = {folder for shard in range(plan.num_shards) if shard not in done
               for folder in sink.folders(names_of(plan, shard))}
    for folder in sorted(folders):
        storage.remove_unfinished(storage.join(sink.output, folder))
