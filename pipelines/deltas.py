"""Deltas of a token corpus: planning what is tried again or added, and making all there is.

    plans of all generations -> the corpus listed anew -> the plan of one more -> shards -> audit

A delta's plan is one like any other, in a folder of its own; see `tokenizer.deltas`. Nothing that
an earlier generation wrote is touched. Memory grows with the dead letters, not with the corpus.
"""
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pipelines.differences import differences
from pipelines.entries import PLAN_SCHEMA
from pipelines.job import Engine, Job, ShardTask
from pipelines.plan import (
    STAMPS,
    Plan,
    PlanMismatch,
    fixed_size_shards,
    load_plan,
    make_plan,
)
from tokenizer import storage, tokens
from tokenizer.deltas import EXTEND, RETRY, Generation, delta_folder, job_url
from tokenizer.receipts import Receipt, remove_receipts
from tokenizer.tokens import AuditFailure, TokenCorpus, read_dead_letters

Row = dict[str, Any]
Listing = Callable[[], Iterator[Row]]
"""Lists the corpus as it is now, at each call anew: rows of `entries.PLAN_SCHEMA`."""

Result = TypeVar("Result")

OF_INPUTS = ("inputs", "classes", "files")
"""Settings of a plan that follow from its inputs, and may be others in a delta."""

RETRIED = "Retried"
"""Error of a dead letter whose shard was lost after a delta had tried its input again."""


def load_plans(url: str) -> list[Plan]:
    """The plans of all generations of a corpus, in order; none where there is no job.

    Raises:
        ValueError: one is damaged, or a delta belongs to another corpus.
    """
    plans: list[Plan] = []
    while (plan := load_plan(job_url(url, len(plans)))) is not None:
        if plans and plan.settings.get("delta", {}).get("follows") != plans[-1].fingerprint:
            raise ValueError(f"{plan.url} is no delta of {url}, which was made anew since; remove "
                             f"{storage.join(url, delta_folder(1))} and those after it")
        plans.append(plan)
    return plans


def kind_of(plan: Plan) -> str:
    """``extend`` or ``retry``; empty for the plan of the job itself."""
    return str(plan.settings.get("delta", {}).get("kind", ""))


def num_finished(url: str) -> int:
    """Generations that the manifest of a complete corpus counts; 0 where there is none."""
    try:
        return 1 + len(TokenCorpus.open(url).manifest.deltas)
    except FileNotFoundError:
        return 0


def require_same_settings(plan: Plan, settings: Mapping[str, Any]) -> None:
    """Refuse to add to a corpus what was made otherwise.

    Raises:
        PlanMismatch: names what differs.
    """
    old, new = ({name: value for name, value in some.items() if name not in OF_INPUTS}
                for some in (plan.settings, settings))
    if changes := differences(old, new):
        raise PlanMismatch(f"{plan.url} was made otherwise: {'; '.join(changes)}. Run with what it "
                           "was made with, or choose another folder")


def merged_classes(known: Sequence[str], found: Sequence[str]) -> list[str]:
    """Classes of the rows there are, whose labels stay, then those that are new."""
    return [*known, *(name for name in found if name not in set(known))]


def relabelled(rows: Iterable[Row], found: Sequence[str], merged: Sequence[str]) -> Iterator[Row]:
    """Rows whose labels are indices into ``found``, with those into ``merged``."""
    places = {name: index for index, name in enumerate(merged)}
    for row in rows:
        label = row["label"]
        if label is not None and 0 <= label < len(found):
            row = {**row, "label": places[found[label]]}
        yield row


def plan_delta(plans: Sequence[Plan], kind: str, settings: Mapping[str, Any],
               rows: Callable[[], Iterable[Row]]) -> Plan:
    """Write the plan of one more generation, or find that another process has written it.

    Args:
        plans: of all generations so far.
        settings: of the first, with classes and files as they are now.
    Raises:
        PlanMismatch: another process has planned otherwise.
    """
    url = job_url(plans[0].url, len(plans))
    delta = {"number": len(plans), "kind": kind, "follows": plans[-1].fingerprint}
    try:
        return make_plan(url, "encode", {**settings, "delta": delta},
                         lambda: fixed_size_shards(rows(), PLAN_SCHEMA, settings["shard_size"]))
    except PlanMismatch as mismatch:
        raise PlanMismatch(f"another process has just planned {url} otherwise; run the same "
                           "command again, which goes on with that") from mismatch


def plan_retry(plans: Sequence[Plan], settings: Mapping[str, Any], listing: Listing) -> Plan:
    """Plan to try all dead letters again.

    An input is taken as it is listed now; where its key is listed no more, or was planned several
    times, as it was planned.

    Raises:
        OSError, ValueError: the corpus cannot be listed.
    """
    rows = list(dead_rows(plans))
    wanted = {row["key"] for row in rows}
    if any(row["error"] for row in rows):  # among these are keys that occur several times
        planned = Counter(key for plan in plans if kind_of(plan) != RETRY
                          for shard in range(plan.num_shards) for key in plan.keys(shard)
                          if key in wanted)
        wanted = {key for key in wanted if planned[key] == 1}
    found: dict[str, list[Row]] = defaultdict(list)
    for row in listing():
        if row["key"] in wanted:
            found[row["key"]].append(row)
    again = [found[row["key"]][0] if len(found.get(row["key"], ())) == 1 else row for row in rows]
    return plan_delta(plans, RETRY, settings, lambda: again)


def grow(plans: list[Plan], settings: Mapping[str, Any], listing: Listing,
         extend: bool) -> list[Plan]:
    """The plans of a corpus, with one more where it has new inputs.

    Args:
        extend: whether new inputs may be added.
    Raises:
        PlanMismatch: settings, or inputs that have rows, are others than they were or are gone; or
            there are new ones that may not be added.
    """
    require_same_settings(plans[0], settings)
    changed = changed_files(plans, settings)
    rows = new_rows(plans, listing, changed)
    if (first := next(rows, None)) is None:
        return plans
    if not extend:
        raise PlanMismatch(f"the input {first['key']!r} of {plans[0].url} is new: add --extend to "
                           "add it and all others")
    deque(rows, maxlen=0)  # refuses what is gone before anything is written
    return [*plans, plan_delta(plans, EXTEND, settings,
                               lambda: new_rows(plans, listing, changed))]


def changed_files(plans: Sequence[Plan], settings: Mapping[str, Any]) -> list[str]:
    """Files with many inputs that are gone, or others than they were."""
    known: dict[str, str] = plans[-1].settings.get("files", {})
    files: Mapping[str, str] = settings.get("files", {})
    return [url for url in known if files.get(url) != known[url]]


def new_rows(plans: Sequence[Plan], listing: Listing,
             changed_files: Sequence[str]) -> Iterator[Row]:
    """Inputs that no plan holds, in the order of the listing, which that of each plan follows.

    Raises:
        PlanMismatch: an input that has rows is another than it was, or one is gone.
    """
    known = [known_rows(plans, plan) for plan in plans if kind_of(plan) != RETRY]
    heads = [next(rows, None) for rows in known]
    for row in listing():
        for place, head in enumerate(heads):
            if head is not None and head[0]["key"] == row["key"]:
                before, died = head
                if not died:
                    _require_equal(before, row, changed_files)
                heads[place] = next(known[place], None)
                break
        else:
            yield row
    for head in filter(None, heads):
        raise PlanMismatch(f"the input {head[0]['key']!r} of {plans[0].url} is gone, or stands "
                           "elsewhere in the order of the corpus; put it back: a delta adds, and "
                           "takes nothing away")


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

    Of a shard without a receipt nobody knows: ``None``.
    """
    receipts = tokens.read_receipts(plan.url, plan.fingerprint)
    for shard in range(plan.num_shards):
        receipt = receipts.get(shard)
        rows = plan.rows(shard)
        if receipt is None or receipt.dead_file is None:
            yield from ((row, None if receipt is None else False) for row in rows)
            continue
        alive = Counter(row["key"] for row in rows)
        alive.subtract(letter.key for letter in read_dead_letters(plan.corpus_url,
                                                                  receipt.dead_file))
        for row in rows:  # of a key planned several times, the first ones live
            alive[row["key"]] -= 1
            yield row, alive[row["key"]] < 0


def dead_rows(plans: Sequence[Plan]) -> Iterator[Row]:
    """The inputs of all dead letters that no retry has taken the place of, as planned."""
    last = max((plan.delta for plan in plans if kind_of(plan) == RETRY), default=0)
    for plan in plans[last:]:
        yield from (row for row, died in fates(plan) if died)


def without_retried(rows: list[Row], plan: Plan, later: Sequence[Plan]) -> list[Row]:
    """Inputs of a shard that is made again, where those that a later retry holds stay dead."""
    retry = next((item for item in later if item.delta > plan.delta and kind_of(item) == RETRY),
                 None)
    if retry is None:
        return rows
    keys = {row["key"] for row in rows}
    taken = Counter(key for shard in range(retry.num_shards) for key in retry.keys(shard)
                    if key in keys)
    message = f"its shard was lost and made anew after {delta_folder(retry.delta)} was planned"
    kept = []
    for row in reversed(rows):
        taken[row["key"]] -= 1
        kept.append({**row, "error": RETRIED, "message": message} if taken[row["key"]] >= 0
                    else row)
    return kept[::-1]


def make_all(tasks: Sequence[tuple[Plan, ShardTask]], engine: Engine,
             max_errors: int | float | None,
             complete: Callable[[Sequence[Receipt], Sequence[Generation]], Result]) -> Result:
    """Make what no generation has a receipt of, then audit all of them together.

    Args:
        tasks: plan and task of each generation.
        max_errors: how many inputs of the last one may fail; of a retry any number by default.
        complete: checks and completes the corpus, from the receipts of the first generation and
            the deltas; shards that it finds damaged are made again, once.
    Raises:
        OSError, ValueError: see `job.Job.run`.
    """
    try:
        return _made_and_completed(tasks, engine, max_errors, complete)
    except AuditFailure as failure:
        damaged = {0: failure.shards, **failure.shards_of_deltas}
        if not any(damaged.values()):
            raise
        storage.remove(storage.join(tasks[0][0].url, tokens.SUCCESS))
        for number, shards in damaged.items():
            remove_receipts(tasks[number][0].url, shards)
    return _made_and_completed(tasks, engine, max_errors, complete)


def _made_and_completed(tasks: Sequence[tuple[Plan, ShardTask]], engine: Engine,
                        max_errors: int | float | None,
                        complete: Callable[[Sequence[Receipt], Sequence[Generation]], Result],
                        ) -> Result:
    made: list[Generation] = []
    for plan, task in tasks:
        is_last = plan is tasks[-1][0]
        any_number = not is_last or (max_errors is None and kind_of(plan) == RETRY)
        receipts: list[Receipt] = []
        Job(plan, task, engine, 1.0 if any_number else max_errors).run(receipts.extend)
        receipts.sort(key=lambda receipt: receipt.shard)
        made.append(Generation(number=plan.delta, kind=kind_of(plan), receipts=receipts,
                               fingerprint=plan.fingerprint, num_inputs=plan.num_inputs,
                               planned=plan.keys))
    return complete(made[0].receipts, made[1:])


def _require_equal(before: Row, now: Row, changed_files: Sequence[str]) -> None:
    key = before["key"]
    for name in (name for name in now if name != STAMPS):
        if before.get(name) != now[name]:
            raise PlanMismatch(f"{name} of the input {key!r} was {before.get(name)!r}, now "
                               f"{now[name]!r}: put back what it was; a delta changes nothing")
    sources, stamps = dict(now["sources"]), dict(now.get(STAMPS) or ())
    for url in sources.values():
        for file in changed_files:
            if url.startswith(file):
                raise PlanMismatch(f"{file}, which holds the input {key!r}, is gone or another "
                                   "than it was: put the old one back, and add new files beside it")
    for modality, was in before.get(STAMPS) or ():
        if stamps.get(modality, was) != was:
            raise PlanMismatch(f"{sources[modality]} was {was}, is {stamps[modality]}: put back "
                               "the old one, with its time; a delta changes nothing")
