"""Deltas of a token corpus: planning what is tried again or added, and making all there is.

    plans of all generations -> the corpus listed anew -> the plan of one more -> shards -> audit

A delta's plan is one like any other, in a folder of its own; see `tokenizer.deltas`. Nothing that
an earlier generation wrote is touched. Memory grows with the dead letters, not with the corpus.
"""
import contextlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pipelines.differences import differences
from pipelines.entries import PLAN_SCHEMA
from pipelines.fates import (
    InputMoved,
    Listing,
    Row,
    changed_files,
    dead_rows,
    file_of,
    kind_of,
    new_rows,
    retry_after,
)
from pipelines.job import Engine, Job, ShardTask
from pipelines.plan import Plan, PlanMismatch, fixed_size_shards, load_plan, make_plan
from tokenizer import storage, tokens
from tokenizer.corpus.sources import SourceChanged
from tokenizer.deltas import EXTEND, RETRY, Generation, delta_folder, job_url
from tokenizer.receipts import Receipt, receipted_shards, remove_receipts
from tokenizer.tokens import AuditFailure, DeadLetter, TokenCorpus

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
                             "it and those after it")
        plans.append(plan)
    return plans


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
    except InputMoved:
        raise
    except PlanMismatch as mismatch:
        raise PlanMismatch(f"another process has just planned {url} otherwise; run the same "
                           "command again, which goes on with that") from mismatch


def plan_retry(plans: Sequence[Plan], settings: Mapping[str, Any], listing: Listing) -> Plan:
    """Plan to try all dead letters again.

    An input is taken as it is listed now; where its key is listed no more, or was planned several
    times, as it was planned, unless it lay in a file that is another by now.

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
    changed = [file for plan in plans for file in changed_files([plan], settings)]
    again = [found[row["key"]][0] if len(found.get(row["key"], ())) == 1
             else _without_place(row, changed) for row in rows]
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
    gone: set[str] = set()
    rows = new_rows(plans, listing, changed, gone)
    if (first := next(rows, None)) is None:
        return plans
    if not extend:
        raise PlanMismatch(f"the input {first['key']!r} of {plans[0].url} is new: add --extend to "
                           "add it and all others")
    deque(rows, maxlen=0)  # refuses what is gone before anything is written
    return [*plans, plan_delta(plans, EXTEND, settings,
                               lambda: new_rows(plans, listing, changed, gone))]


def without_retried(rows: list[Row], plan: Plan, later: Sequence[Plan]) -> list[Row]:
    """Inputs of a shard that is made again, where those that a later retry holds stay dead."""
    if (retry := retry_after(plan, later)) is None:
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


def require_rows(dead: Sequence[DeadLetter], plan: Plan, later: Sequence[Plan]) -> None:
    """Refuse dead letters of a shard that is made again, where a later retry does not hold them.

    They had rows when it was planned, and no generation would account for them.

    Raises:
        OSError: there is one.
    """
    lost = next((letter for letter in dead if letter.error != RETRIED), None)
    if lost is not None and retry_after(plan, later) is not None:
        raise OSError(f"the input {lost.key!r} had rows before its shard was lost, and now fails: "
                      f"{lost.message} ({lost.error}); bring back what it was")


def require_same_files(rows: Iterable[Row], changed_files: Sequence[str]) -> None:
    """Refuse to read inputs where they were planned, in files that are others by now.

    Raises:
        SourceChanged: there is such an input.
    """
    for row in rows if changed_files else ():
        if row["error"] is None and (file := file_of(row, changed_files)) is not None:
            raise SourceChanged(f"{file}, which holds the input {row['key']!r}, is gone or another "
                                "than it was when its shard was planned: put the old one back")


def make_all(tasks: Sequence[tuple[Plan, ShardTask]], engine: Engine,
             max_errors: int | float | None,
             complete: Callable[[Sequence[Receipt], Sequence[Generation]], Result]) -> Result:
    """Make what no generation has a receipt of, then audit all of them together.

    Args:
        tasks: plan and task of each generation.
        max_errors: how many inputs of the last one may fail; of a delta any number by default.
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
    _withdraw_if_incomplete([plan for plan, _ in tasks])
    for plan, task in tasks:
        limit = max_errors if plan is tasks[-1][0] else 1.0
        receipts = Job(plan, task, engine, limit).run(
            lambda found: sorted(found, key=lambda receipt: receipt.shard))
        made.append(Generation(number=plan.delta, kind=kind_of(plan), receipts=receipts,
                               fingerprint=plan.fingerprint, num_inputs=plan.num_inputs,
                               planned=plan.keys))
    return complete(made[0].receipts, made[1:])


def _withdraw_if_incomplete(plans: Sequence[Plan]) -> None:
    """A corpus whose manifest counts a delta of which receipts were lost is complete no more."""
    url = plans[0].url
    with contextlib.suppress(ValueError):  # a damaged manifest is written anew
        counted = plans[1:num_finished(url)]
        if any(len(receipted_shards(plan.url)) < plan.num_shards for plan in counted):
            storage.remove(storage.join(url, tokens.SUCCESS))


def _without_place(row: Row, changed_files: Sequence[str]) -> Row:
    """An input as it was planned; where another may stand in its place by now, with an error."""
    if row["error"] is not None or (file := file_of(row, changed_files)) is None:
        return row
    return {**row, "error": SourceChanged.__name__,
            "message": f"{file} is gone or another than it was, and has no such key any more"}
