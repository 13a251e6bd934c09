"""Receipts: what commits the shards of a job, one small file each, or packed a thousand to a file.

    _receipts/00003.json                    the receipt of shard 3
    _receipts/packed-02000-02999.jsonl      those of shards 2000 to 2999, one a line, in order

A shard's receipt is written by itself, last of all its files. The driver of a job of very many
shards packs receipts when it begins and when it ends, so that the next one opens few files. Both
forms count alike; where a shard has both, the receipt by itself counts. A pack is there, whole,
before what it holds is removed, so that a job that is stopped meanwhile loses nothing.
"""
import json
from collections.abc import Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tokenizer import configs, storage
from tokenizer.schema import ShardEntry

RECEIPTS = "_receipts"

RECEIPTS_PER_PACK = 1000
"""Shards of one pack; the last one holds fewer."""

FEWEST_SHARDS_TO_PACK = 10_000
"""A job of fewer shards keeps each receipt by itself."""

NUM_READERS = 16
"""Receipts read, written or removed at once: a store takes its time for each, however small."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The commit of one shard, written last.

    Attributes:
        shard: its index in the plan.
        fingerprint: of the plan it belongs to.
        entry: path, rows, bytes and SHA-256 of its file.
        dead_letters: how many of its inputs failed, by error class.
        dead_file: the same of its dead letters; nothing when no input failed.
        num_crops: rows of each input that did not fail.
    """
    shard: int
    fingerprint: str
    entry: ShardEntry
    dead_letters: dict[str, int]
    dead_file: ShardEntry | None = None
    num_crops: int = 1

    def __post_init__(self) -> None:
        if self.num_crops < 1:
            raise ValueError(f"num_crops must be at least 1, got {self.num_crops}")

    @property
    def num_dead_letters(self) -> int:
        """Inputs of this shard that failed."""
        return sum(self.dead_letters.values())

    @property
    def num_inputs(self) -> int:
        """Inputs that this shard accounts for: those of its rows and dead letters."""
        return self.entry.rows // self.num_crops + self.num_dead_letters


def receipt_name(shard: int) -> str:
    """Path of a shard's receipt below its corpus."""
    return f"{RECEIPTS}/{shard:05d}.json"


def pack_name(shards: range) -> str:
    """Path of the pack with the receipts of these shards, which follow one another."""
    return f"{RECEIPTS}/packed-{shards[0]:05d}-{shards[-1]:05d}.jsonl"


def write_receipt(url: str, receipt: Receipt) -> None:
    """Commit a shard whose other files are written.

    Raises:
        OSError: the store refuses.
    """
    text = json.dumps(configs.to_dict(receipt), indent=1, sort_keys=True) + "\n"
    storage.write_bytes(storage.join(url, receipt_name(receipt.shard)), text.encode())


def read_receipts(url: str, fingerprint: str | None, known: Container[int] = (),
                  wanted: Container[int] | None = None) -> dict[int, Receipt]:
    """The receipts of a corpus by shard; one listing, then files read side by side.

    A receipt that cannot be read counts as absent, so that its shard is made again.

    Args:
        fingerprint: of their plan; ``None`` fits any.
        known: shards whose receipts need not be read again.
        wanted: shards whose receipts are read; nothing for all.
    Raises:
        ValueError: a receipt belongs to another plan.
    """
    def is_missing(shard: int) -> bool:
        return shard not in known and (wanted is None or shard in wanted)
    listed, packs = _listed(url)
    singles = [shard for shard in listed if is_missing(shard)]
    found: dict[int, Receipt] = {}
    with ThreadPoolExecutor(NUM_READERS) as pool:
        read = list(pool.map(lambda shard: read_receipt(url, shard, fingerprint), singles))
        if None in read:  # damaged, or packed by another driver since it was listed
            packs = _listed(url)[1]
        packs = [pack for pack in packs if any(map(is_missing, pack))]
        for receipts in pool.map(lambda pack: _read_pack(url, pack, fingerprint), packs):
            found |= {shard: receipt for shard, receipt in receipts.items() if is_missing(shard)}
    found |= {shard: receipt for shard, receipt in zip(singles, read, strict=True)
              if receipt is not None}
    return dict(sorted(found.items()))


def receipted_shards(url: str) -> list[int]:
    """Shards of a corpus that have a receipt, whether it can be read or not; one listing."""
    singles, packs = _listed(url)
    return sorted({*singles, *(shard for pack in packs for shard in pack)})


def read_receipt(url: str, shard: int, fingerprint: str | None) -> Receipt | None:
    """The receipt of one shard by itself, or nothing where there is none that can be read.

    Raises:
        ValueError: it belongs to another plan.
    """
    name = storage.join(url, receipt_name(shard))
    try:
        receipt = _parsed(storage.read_bytes(name), name, fingerprint)
    except FileNotFoundError:
        return None
    return receipt if receipt is not None and receipt.shard == shard else None


def pack_receipts(url: str, receipts: Mapping[int, Receipt], num_shards: int) -> None:
    """Pack the receipts of every thousand shards that all have one; nothing where shards are few.

    Args:
        receipts: as `read_receipts` has found them.
        num_shards: of the whole plan.
    Raises:
        OSError: the store refuses; whatever was there still counts.
    """
    if num_shards < FEWEST_SHARDS_TO_PACK:
        return
    singles, packs = _listed(url)
    present = {*map(receipt_name, singles), *map(pack_name, packs)}
    for first in range(0, num_shards, RECEIPTS_PER_PACK):
        shards = range(first, min(first + RECEIPTS_PER_PACK, num_shards))
        inside = {*map(receipt_name, shards), *(pack_name(pack) for pack in packs if pack[0] in
                                                shards and pack != shards)} & present
        if inside and all(shard in receipts for shard in shards):
            _write_pack(url, shards, receipts)
            _remove_all(url, inside)


def remove_receipts(url: str, shards: Iterable[int]) -> None:
    """Remove the receipts of these shards, so that they are made again; others stay.

    Raises:
        OSError: the store refuses.
    """
    unwanted = set(shards)
    for pack in _listed(url)[1]:
        if unwanted.isdisjoint(pack):
            continue
        receipts = _read_pack(url, pack, None)
        for rest in _stretches(shard for shard in pack if shard in receipts.keys() - unwanted):
            _write_pack(url, rest, receipts)
        storage.remove(storage.join(url, pack_name(pack)))
    _remove_all(url, map(receipt_name, unwanted))


def _listed(url: str) -> tuple[list[int], list[range]]:
    """Shards with a receipt by itself, and the shards of each pack, in order."""
    singles: list[int] = []
    packs: list[range] = []
    for name in storage.list_files(storage.join(url, RECEIPTS)):
        stem, _, suffix = name.partition(".")
        numbers = stem.removeprefix("packed-").split("-")
        if suffix == "json" and stem.isdecimal():
            singles.append(int(stem))
        elif suffix == "jsonl" and len(numbers) == 2 and all(map(str.isdecimal, numbers)):
            pack = range(int(numbers[0]), int(numbers[1]) + 1)
            packs += [pack] if 0 < len(pack) <= RECEIPTS_PER_PACK else []
    return sorted(singles), sorted(packs, key=lambda pack: pack.start)


def _parsed(text: bytes, name: str, fingerprint: str | None) -> Receipt | None:
    """A receipt of the file ``name``, or nothing where it is none; ``None`` fits any plan."""
    try:
        receipt = configs.from_dict(Receipt, json.loads(text))
    except (ValueError, RecursionError):
        return None
    if fingerprint not in (None, receipt.fingerprint):
        raise ValueError(f"{name} belongs to the plan {receipt.fingerprint}, this one is "
                         f"{fingerprint}: start over with --overwrite")
    return receipt


def _read_pack(url: str, pack: range, fingerprint: str | None) -> dict[int, Receipt]:
    """The receipts in a pack; of a damaged one those that can be read."""
    name = storage.join(url, pack_name(pack))
    try:
        lines = storage.read_bytes(name).splitlines()
    except FileNotFoundError:  # packed otherwise since it was listed
        return {}
    receipts = (_parsed(line, name, fingerprint) for line in lines)
    return {receipt.shard: receipt for receipt in receipts
            if receipt is not None and receipt.shard in pack}


def _write_pack(url: str, shards: range, receipts: Mapping[int, Receipt]) -> None:
    lines = (configs.canonical_json(configs.to_dict(receipts[shard])) for shard in shards)
    content = "".join(f"{line}\n" for line in lines).encode()
    storage.write_bytes(storage.join(url, pack_name(shards)), content)


def _remove_all(url: str, names: Iterable[str]) -> None:
    with ThreadPoolExecutor(NUM_READERS) as pool:
        list(pool.map(lambda name: storage.remove(storage.join(url, name)), names))


def _stretches(shards: Iterable[int]) -> list[range]:
    """Numbers in order as ranges of those that follow one another."""
    found: list[range] = []
    for shard in shards:
        if found and found[-1].stop == shard:
            found[-1] = range(found[-1].start, shard + 1)
        else:
            found.append(range(shard, shard + 1))
    return found
