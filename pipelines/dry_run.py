"""A dry run of the encode job: what it would do and write, and how long it would take.

    listing -> counts -> would the output be refused? -> trial of a few batches -> forecast

The corpus is listed, and a few images are encoded in this process; nothing is written.
"""
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.deltas import (
    grow,
    load_plans,
    merged_classes,
    relabelled,
    require_same_settings,
)
from pipelines.encode import (
    EncodeConfig,
    EncodeTask,
    open_task,
    require_apart,
    require_no_output,
    settings_of,
)
from pipelines.entries import PLAN_SCHEMA, row_of
from pipelines.fates import changed_files, new_rows
from pipelines.folders import require_usable
from pipelines.plan import Plan, fixed_size_shards, make_plan
from tokenizer import tokens
from tokenizer.receipts import receipted_shards
from tokenizer.tokens import DeadLetter

MAX_TRIED = 4096
"""Inputs drawn for the trial, of which it takes as many as it has time for."""

SECONDS_OF_TRIAL = 5.0
"""How long the trial may go on, but for its first batch, in which everything is loaded."""


@dataclass(kw_only=True)
class Forecast:
    """What an encode command would do.

    Attributes:
        buckets: names of those that images may take, in order; none where all have one size.
        num_inputs: of the corpus, or of them those that are new with ``extend``.
        num_shards: that these inputs fill; ``num_left`` those that have no receipt yet.
        problems: inputs that the listing has found unusable, by error class.
        num_tried: inputs of the trial; ``failures`` those of them that failed, by error class.
        num_bytes: of all these shards' files.
        seconds: for the shards that are left; nothing where the trial gave no row.
        refusal: why the command would end before it writes anything; empty where it would not.
    """
    buckets: tuple[str, ...] = ()
    num_inputs: int = 0
    num_shards: int = 0
    num_left: int = 0
    num_rows: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    num_tried: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    num_bytes: int = 0
    seconds: float | None = None
    refusal: str = ""


def foresee(config: EncodeConfig) -> Forecast:
    """What encoding would do; see `Forecast`.

    Raises:
        OSError, ValueError: the corpus or a tokenizer is missing or does not fit.
    """
    require_apart(config)
    task = open_task(config)
    plans = [] if config.overwrite else load_plans(config.output)
    forecast = Forecast(buckets=task.spec.buckets)
    try:
        require_usable(config.output, config.overwrite)
        require_no_output(config, task.source)
        sample = count(to_encode(config, task, plans), forecast)
    except ValueError as error:
        forecast.refusal = str(error)
        sample = count(listed(task), forecast)
    forecast.num_shards = forecast.num_left = -(-forecast.num_inputs // config.shard_size)
    if plans and not config.extend:
        forecast.num_shards = sum(plan.num_shards for plan in plans)
        forecast.num_left = forecast.num_shards - sum(len(receipted_shards(plan.url))
                                                      for plan in plans)
    try_some(config, task, sample, forecast)
    return forecast


def listed(task: EncodeTask) -> Iterator[dict[str, Any]]:
    """The inputs of a corpus as rows of a plan."""
    return map(row_of, task.source.entries())


def to_encode(config: EncodeConfig, task: EncodeTask,
              plans: list[Plan]) -> Iterator[dict[str, Any]]:
    """The inputs that the job would be about: all of them, or with ``extend`` those that are new.

    Raises:
        PlanMismatch: inputs or settings are others than were planned; or once all are listed.
    """
    found = task.source.classes()
    classes = merged_classes(plans[-1].settings["classes"], found) if plans else found
    settings = settings_of(config, task.source, task.spec, classes)

    def relisted() -> Iterator[dict[str, Any]]:
        return relabelled(listed(task), found, classes)
    if plans and config.extend:
        require_same_settings(plans[0], settings)
        return new_rows(plans, relisted, changed_files(plans, settings), set())
    if len(plans) > 1:
        grow(plans, settings, relisted, extend=False)
    elif plans:  # as there is one, it is compared and not written
        make_plan(config.output, "encode", {**settings, "classes": found},
                  lambda: fixed_size_shards(listed(task), PLAN_SCHEMA, config.shard_size))
    return listed(task)


class Sample:
    """So many rows of a stream, each with even odds, drawn with a fixed seed."""

    def __init__(self, size: int) -> None:
        self._size, self._seen, self._random = size, 0, random.Random(0)
        self.rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Take a row into account."""
        self._seen += 1
        if len(self.rows) < self._size:
            self.rows.append(row)
        elif (place := self._random.randrange(self._seen)) < self._size:
            self.rows[place] = row


def count(rows: Iterator[dict[str, Any]], forecast: Forecast) -> list[dict[str, Any]]:
    """Count inputs and their problems; returns some of those without."""
    forecast.num_inputs, forecast.problems, sample = 0, Counter(), Sample(MAX_TRIED)
    for row in rows:
        forecast.num_inputs += 1
        if row["error"] is None:
            sample.add(row)
        else:
            forecast.problems[row["error"]] += 1
    return sample.rows


def try_some(config: EncodeConfig, task: EncodeTask, sample: Sequence[dict[str, Any]],
             forecast: Forecast) -> None:
    """Encode some inputs, by as many as fill a batch of each bucket, and foresee from them rows,
    bytes and seconds of all."""
    size, tables, seconds = config.batch_size * len(task.spec.grids), [], 0.0
    encode_some(task, sample[:size])
    for start in range(0, len(sample), size):
        began = time.perf_counter()
        table, dead = encode_some(task, sample[start:start + size])
        seconds += time.perf_counter() - began
        tables.append(table)
        forecast.failures.update(letter.error for letter in dead)
        forecast.num_tried += len(sample[start:start + size])
        if seconds > SECONDS_OF_TRIAL:
            break
    table = pa.concat_tables(tables) if tables else None
    if table is None or not table.num_rows:
        return
    usable = forecast.num_inputs - forecast.problems.total()
    forecast.num_rows = round(usable * table.num_rows / forecast.num_tried)
    empty = len(tokens.parquet_bytes(table.slice(0, 0)))
    each = (len(tokens.parquet_bytes(table)) - empty) / table.num_rows
    forecast.num_bytes = round(forecast.num_shards * empty + forecast.num_rows * each)
    share = forecast.num_left / max(1, forecast.num_shards)
    forecast.seconds = usable * share * seconds / forecast.num_tried / config.num_workers


def encode_some(task: EncodeTask, rows: Sequence[dict[str, Any]],
                ) -> tuple[pa.Table, list[DeadLetter]]:
    """Encode some inputs in this process; nothing is written."""
    return task.encode(rows, may_all_be_gone=True)
