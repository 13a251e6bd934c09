"""The audit of a token corpus, which completes it; and `verify`, which checks a completed one.

`complete` holds every shard of every generation against its receipt and its plan, then writes the
dataset card, the manifest and ``_SUCCESS``. `verify` needs the manifest alone.
"""
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from tokenizer import storage
from tokenizer.card import dataset_card
from tokenizer.census import Census
from tokenizer.deltas import (
    DELTAS,
    RETRY,
    Generation,
    delta_folder,
    delta_mark,
    retried,
    standing,
)
from tokenizer.receipts import Receipt
from tokenizer.schema import Manifest, ShardEntry, TokenSpec
from tokenizer.tokens import (
    CARD,
    DATA,
    MANIFEST,
    SUCCESS,
    AuditFailure,
    TokenCorpus,
    check_shard,
    dead_folder,
    dead_letters_in,
    read_checked,
    read_dead_letters,
)

NUM_AUDIT_THREADS = 4
"""Shards checked at once: reading and hashing overlap with the delays of a store."""

RECEIPTS_AT_ONCE = 1000
"""Checks begun or waiting at most, however many shards there are."""


def check_receipt(url: str, receipt: Receipt, spec: TokenSpec, census: Census | None = None,
                  planned: Sequence[str] | None = None) -> str | None:
    """What is wrong with a shard's file or its dead letters, or nothing.

    Args:
        planned: keys of the shard's inputs in order, with repeats; each must have its rows or a
            dead letter.
    """
    dead = Counter[str]()
    if receipt.dead_file is not None:
        content, problem = read_checked(url, receipt.dead_file)
        if content is None:
            return problem
        dead = Counter(letter.key for letter in dead_letters_in(content, receipt.dead_file.name))
        if planned is not None and dead - Counter(planned):
            return f"{receipt.dead_file.name} holds keys that its plan does not"
    return check_shard(url, receipt.entry, spec, census, planned, receipt.num_crops, dead)


def complete(url: str, spec: TokenSpec, fingerprint: str, receipts: Iterable[Receipt],
             classes: Sequence[str], num_inputs: int,
             planned: Callable[[int], Sequence[str]] | None = None,
             deltas: Sequence[Generation] = ()) -> Manifest:
    """Check every shard, then write the dataset card, the manifest and ``_SUCCESS``.

    Where another process has completed the corpus with more deltas in the meantime, its manifest
    stays.

    Args:
        receipts: one for each shard of the plan.
        num_inputs: inputs of the plan; those of rows and dead letters must add up to it.
        planned: the keys of a shard's inputs in the order of the plan; each must have its rows or a
            dead letter, and the rows must be in this order.
        deltas: what was added since, in order.
    Raises:
        AuditFailure: a shard is missing, damaged or surplus, or inputs are unaccounted for.
    """
    receipts = sorted(receipts, key=lambda receipt: receipt.shard)
    first = Generation(fingerprint=fingerprint, receipts=receipts, num_inputs=num_inputs,
                       planned=planned)
    generations = [first, *deltas]
    census = check_corpus(url, spec, generations)
    manifest = summed_up(spec, generations, classes, census)
    name = storage.join(url, MANIFEST)
    if storage.exists(storage.join(url, SUCCESS)) and storage.exists(name):
        with contextlib.suppress(ValueError):  # a damaged one is replaced
            found = Manifest.from_json(storage.read_bytes(name), name)
            if len(found.deltas) > len(deltas):
                return found
    storage.write_bytes(storage.join(url, CARD), dataset_card(manifest, DATA).encode())
    storage.write_bytes(name, manifest.to_json().encode())
    storage.write_bytes(storage.join(url, SUCCESS), b"")
    return manifest


def summed_up(spec: TokenSpec, generations: Sequence[Generation], classes: Sequence[str],
              census: Census) -> Manifest:
    """The manifest of a corpus that `check_corpus` has found sound."""
    current = standing(generations)
    dead = sum((item.dead_letters for item in current), Counter[str]())
    entries = [receipt.entry for item in generations for receipt in item.receipts]
    return Manifest(
        spec=spec, fingerprint=generations[-1].fingerprint,
        num_inputs=sum(item.num_inputs for item in generations if item.kind != RETRY),
        num_rows=sum(entry.rows for entry in entries), shards=tuple(entries),
        dead_letters=dict(sorted(dead.items())), classes=tuple(classes), usage=census.usage,
        class_counts=census.class_counts, bucket_counts=census.bucket_counts,
        dead_files=tuple(file for item in current for file in item.dead_files),
        num_crops=max((receipt.num_crops for item in generations for receipt in item.receipts),
                      default=1),
        deltas=tuple(item.entry() for item in generations[1:]),
        superseded=tuple(file for item in generations if item not in current
                         for file in item.dead_files))


def check_corpus(url: str, spec: TokenSpec, generations: Sequence[Generation]) -> Census:
    """Check every shard against its receipt, and the receipts against the plans; see `complete`.

    Returns:
        What the rows hold.
    Raises:
        AuditFailure: names everything that is wrong.
    """
    census = Census(spec)
    problems: list[str] = []
    damaged: dict[int, list[int]] = {}
    for item in generations:
        found = list(check_generation(url, spec, item, census))
        problems += [problem for _, problem in found]
        damaged[item.number] = [shard for shard, _ in found if shard is not None]
    problems += surplus_files(url, DATA, [receipt.entry for item in generations
                                          for receipt in item.receipts], len(generations))
    for item in generations:
        problems += surplus_files(url, dead_folder(item.number), item.dead_files)
    problems += [] if problems else check_retries(url, generations)
    if problems:
        raise AuditFailure(url, problems, damaged.pop(0), damaged)
    return census


def check_generation(url: str, spec: TokenSpec, generation: Generation,
                     census: Census) -> Iterator[tuple[int | None, str]]:
    """What is wrong with the shards of one plan: the shard, and words; no shard for a sum."""
    planned = generation.planned

    def check(receipt: Receipt) -> str | None:
        keys = planned(receipt.shard) if planned is not None else None
        return check_receipt(url, receipt, spec, census, keys)
    for receipt, problem in _each(check, generation.receipts):
        if problem:
            yield receipt.shard, problem
    accounted = sum(receipt.num_inputs for receipt in generation.receipts)
    if accounted != generation.num_inputs:
        yield None, f"{accounted} of {generation.num_inputs} inputs are accounted for"


def check_retries(url: str, generations: Sequence[Generation]) -> Iterator[str]:
    """Retries whose inputs are not the dead letters that they take the place of."""
    for retry, before in retried(generations):
        dead = Counter(letter.key for item in before for file in item.dead_files
                       for letter in read_dead_letters(url, file))
        planned = Counter(key for receipt in retry.receipts if retry.planned
                          for key in retry.planned(receipt.shard))
        if dead != planned:
            key = next(iter((dead - planned) or (planned - dead)))
            yield (f"the inputs of {delta_folder(retry.number)} are not the dead letters before "
                   f"it; the first that differs is {key!r}")


def _each(check: Callable[[Receipt], str | None],
          receipts: Sequence[Receipt]) -> Iterator[tuple[Receipt, str | None]]:
    """Receipts with what is wrong, several checked at once, and few waiting."""
    with ThreadPoolExecutor(NUM_AUDIT_THREADS) as pool:
        for start in range(0, len(receipts), RECEIPTS_AT_ONCE):
            some = receipts[start:start + RECEIPTS_AT_ONCE]
            yield from zip(some, pool.map(check, some), strict=True)


def surplus_files(url: str, folder: str, entries: Sequence[ShardEntry],
                  num_generations: int = 1) -> list[str]:
    """Files of a folder of the corpus that belong to no shard, nor to a delta in the making."""
    known = {entry.name for entry in entries}
    listed = sorted(storage.list_files(storage.join(url, folder)))  # first: a delta may begin now
    numbers = (int(name) for name in storage.list_names(storage.join(url, DELTAS))
               if name.isdecimal() and int(name) >= num_generations)
    making = tuple(f"{DATA}/part-{delta_mark(number)}" for number in numbers)
    found = (f"{folder}/{name}" for name in listed)
    return [f"{name} is surplus: no receipt names it; remove it" for name in found
            if name not in known and not name.startswith(making)]


def verify(corpus: TokenCorpus) -> Iterator[str | None]:
    """Check every file of a completed corpus.

    Yields:
        One item for each shard and each file of dead letters, ``None`` for a sound one, else what
        is wrong; then one for each surplus file, and for each sum that does not add up.
    """
    manifest = corpus.manifest
    for entry in manifest.shards:
        yield check_shard(corpus.url, entry, corpus.spec)
    for entry in (*manifest.dead_files, *manifest.superseded):
        yield read_checked(corpus.url, entry)[1]
    dead_files = (*manifest.dead_files, *manifest.superseded)
    num_generations = 1 + len(manifest.deltas)
    yield from surplus_files(corpus.url, DATA, manifest.shards, num_generations)
    for number in range(num_generations):
        yield from surplus_files(corpus.url, dead_folder(number), dead_files)
    num_rows, num_dead = (sum(entry.rows for entry in entries)
                          for entries in (manifest.shards, manifest.dead_files))
    sums = {"num_rows": (manifest.num_rows, num_rows),
            "num_inputs": (manifest.num_inputs, num_rows // manifest.num_crops + num_dead),
            "dead_letters": (manifest.num_dead_letters, num_dead)}
    for name, (stated, found) in sums.items():
        if stated != found:
            yield f"{MANIFEST} says {name} {stated}, its files add up to {found}"
