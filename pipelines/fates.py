"""What became of the inputs of a token corpus and its deltas, and which listed ones are new.

    plans, receipts, dead letters -> each input as it was last tried, and whether it failed
    the corpus as it is listed now -> what no plan holds

Whatever has rows must still be what it was; what failed may have changed, or be gone. Memory grows
with the dead letters, not with the corpus.
"""
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipelines.plan import STAMPS, Plan, PlanMismatch
from tokenizer import tokens
from tokenizer.deltas import RETRY
from tokenizer.receipts import Receipt
from tokenizer.tokens import read_checked, read_dead_letters

Row = dict[str, Any]
Listing = Callable[[], Iterator[Row]]
"""Lists the corpus as it is now, at each call anew: rows of `entries.PLAN_SCHEMA`."""


class InputMoved(PlanMismatch):
    """An input is gone, or is listed at another place among the others."""


def kind_of(plan: Plan) -> str:
    """``extend`` or ``retry``; empty for the plan of the job itself."""
    return str(plan.settings.get("delta", {}).get("kind", ""))


def changed_files(plans: Sequence[Plan], settings: Mapping[str, Any]) -> list[str]:
    """Files with many inputs that are gone, or others than they were."""
    known: dict[str, str] = plans[-1].settings.get("files", {})
    files: Mapping[str, str] = settings.get("files", {})
    return [url for url in known if files.get(url) != known[url]]


def new_rows(plans: Sequence[Plan], listing: Listing, changed_files: Sequence[str],
             gone: set[str]) -> Iterator[Row]:
    """Inputs that no plan holds, in the order of the listing, which that of each plan follows.

    Args:
        gone: keys that failed and are not where they were are added; none of them may be new, so
            that what is listed earlier now is found when the rows are gone through once more.
    Raises:
        PlanMismatch: an input that has rows is another than it was, or is gone; or one that failed
            stands elsewhere.
    """
    known = [_Known(known_rows(plans, plan), gone) for plan in plans if kind_of(plan) != RETRY]
    for row in listing():
        for inputs in known:
            if (before := inputs.take(row["key"])) is not None:
                if not before[1]:
                    _require_equal(before[0], row, changed_files)
                break
        else:
            if row["key"] in gone:
                raise _moved(plans, row["key"])
            yield row
    for inputs in known:
        if (key := inputs.alive()) is not None:
            raise _moved(plans, key)


class _Known:
    """The inputs of one plan, taken in order; those that failed may be gone, and are passed over.

    Args:
        rows: of `known_rows`.
        gone: keys that were passed over are added.
    """

    def __init__(self, rows: Iterator[tuple[Row, bool | None]], gone: set[str]) -> None:
        self._rows, self._gone = rows, gone
        self._next: deque[tuple[Row, bool | None]] = deque()  # those that failed, and one more
        self._keys: Counter[str] = Counter()

    def take(self, key: str) -> tuple[Row, bool | None] | None:
        """The input of this key and whether it failed, where it may be the next one."""
        self._look_ahead()
        if not self._keys[key]:
            return None
        while True:
            row, died = self._next.popleft()
            self._keys[row["key"]] -= 1
            if row["key"] == key:
                return row, died
            self._gone.add(row["key"])

    def alive(self) -> str | None:
        """Key of the next input that has not failed, if one is left; the others are gone."""
        self._look_ahead()
        self._gone.update(row["key"] for row, died in self._next if died)
        return next((row["key"] for row, died in self._next if not died), None)

    def _look_ahead(self) -> None:
        while not self._next or self._next[-1][1]:
            if (found := next(self._rows, None)) is None:
                return
            self._next.append(found)
            self._keys[found[0]["key"]] += 1


def known_rows(plans: Sequence[Plan], plan: Plan) -> Iterator[tuple[Row, bool | None]]:
    """The inputs of one plan as they were when they were last tried, and whether they failed."""
    retries = []
    for retry in plans[plan.delta + 1:]:
        if kind_of(retry) == RETRY:
            outcome: dict[str, deque[tuple[Row, bool | None]]] = defaultdict(deque)
            for row, died in fates(retry):
                outcome[row["key"]].append((row, died))
            retries.append(outcome)
    for row, died in fates(plan):
        for outcome in retries:
            if died is not False and outcome[row["key"]]:
                row, died = outcome[row["key"]].popleft()
        yield row, died


def fates(plan: Plan) -> Iterator[tuple[Row, bool | None]]:
    """The inputs of a plan in order, and of each whether it became a dead letter of that plan.

    Of a shard without a receipt, or whose dead letters were lost, nobody knows: ``None``.
    """
    receipts = tokens.read_receipts(plan.url, plan.fingerprint)
    for shard in range(plan.num_shards):
        dead = _dead_keys(plan, receipts.get(shard))
        rows = plan.rows(shard)
        if not dead:
            yield from ((row, None if dead is None else False) for row in rows)
            continue
        alive = Counter(row["key"] for row in rows)
        alive.subtract(dead)
        for row in rows:  # of a key planned several times, the first ones live
            alive[row["key"]] -= 1
            yield row, alive[row["key"]] < 0


def dead_rows(plans: Sequence[Plan]) -> Iterator[Row]:
    """The inputs of all dead letters that no retry has taken the place of, as planned."""
    for plan in _standing(plans):
        yield from (row for row, died in fates(plan) if died)


def are_known(plans: Sequence[Plan]) -> bool:
    """Whether `dead_rows` can tell of every input what became of it."""
    for plan in _standing(plans):
        receipts = tokens.read_receipts(plan.url, plan.fingerprint)
        if any(_dead_keys(plan, receipts.get(shard)) is None for shard in range(plan.num_shards)):
            return False
    return True


def _require_equal(before: Row, now: Row, changed_files: Sequence[str]) -> None:
    key = before["key"]
    for name in (name for name in now if name != STAMPS):
        if before.get(name) != now[name]:
            raise PlanMismatch(f"{name} of the input {key!r} was {before.get(name)!r}, now "
                               f"{now[name]!r}: put back what it was; a delta changes nothing")
    sources, stamps = dict(now["sources"]), dict(now.get(STAMPS) or ())
    if (file := file_of(now, changed_files)) is not None:
        raise PlanMismatch(f"{file}, which holds the input {key!r}, is gone or another than it "
                           "was: put the old one back, and add new files beside it")
    for modality, was in before.get(STAMPS) or ():
        if stamps.get(modality, was) != was:
            raise PlanMismatch(f"{sources[modality]} was {was}, is {stamps[modality]}: put back "
                               "the old one, with its time; a delta changes nothing")


def _dead_keys(plan: Plan, receipt: Receipt | None) -> list[str] | None:
    """Keys of a shard's dead letters; nothing where they cannot be read."""
    if receipt is None or receipt.dead_file is None:
        return None if receipt is None else []
    if read_checked(plan.corpus_url, receipt.dead_file)[0] is None:
        return None
    return [letter.key for letter in read_dead_letters(plan.corpus_url, receipt.dead_file)]


def _standing(plans: Sequence[Plan]) -> Sequence[Plan]:
    """Plans whose dead letters no later retry has taken the place of."""
    return plans[max((plan.delta for plan in plans if kind_of(plan) == RETRY), default=0):]


def retry_after(plan: Plan, later: Sequence[Plan]) -> Plan | None:
    """The first retry after a plan."""
    return next((item for item in later if item.delta > plan.delta and kind_of(item) == RETRY),
                None)


def file_of(row: Row, files: Sequence[str]) -> str | None:
    """Which one of these files with many inputs holds this one."""
    return next((file for url, file in itertools.product(dict(row["sources"]).values(), files)
                 if url.startswith(file)), None)


def _moved(plans: Sequence[Plan], key: str) -> InputMoved:
    return InputMoved(f"the input {key!r} of {plans[0].url} is gone, or stands elsewhere in the "
                        "order of the corpus; put it back: a delta adds, and takes nothing away")
