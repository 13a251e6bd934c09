"""The retry of a token corpus: its dead letters are encoded again, into a delta.

    plans -> what is unfinished -> dead letters -> plan of a delta -> shards on an engine -> audit

What the plan of the corpus says is enough to reach the inputs; tokenizers are given anew, and must
be those that made it.
"""
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.deltas import (
    load_plans,
    merged_classes,
    num_finished,
    plan_retry,
    relabelled,
    require_same_settings,
)
from pipelines.encode import EncodeConfig, EncodeTask, encode_deltas, open_task, settings_of
from pipelines.entries import row_of
from pipelines.fates import are_known, kind_of
from pipelines.job import was_stopped
from pipelines.plan import Plan
from tokenizer import storage
from tokenizer.deltas import RETRY
from tokenizer.schema import Manifest
from tokenizer.tokens import TokenCorpus

GIVEN_UP = "_given_up"
"""In the folder of a retry of which too many failed, while the next one makes what it has left."""


@dataclass(frozen=True)
class Retried:
    """What a retry has come to.

    Attributes:
        num_tried: dead letters that were tried again.
        manifest: of the completed corpus.
    """
    num_tried: int
    manifest: Manifest


def retry_corpus(url: str, tokenizers: Mapping[str, str], **run: Any) -> Retried:
    """Encode the dead letters of a corpus again; what still fails stays one, with its new reason.

    A retry that was interrupted goes on. Whatever else is unfinished is made first, and so is a
    retry of which too many failed: its dead letters are tried again like all others.

    Args:
        url: folder of the token corpus.
        tokenizers: folder of the tokenizer of each modality, the one that made the codes.
        run: settings of `EncodeConfig` that concern this run alone, such as ``num_workers``.
    Raises:
        OSError: the corpus, its images or a tokenizer is missing, a store refuses, or shards could
            not be made.
        ValueError: a tokenizer is another one, the plan does not say how it was made, or more
            failed than ``max_errors``.
    """
    if not (plans := load_plans(url)) or plans[0].job not in ("encode", "import"):
        raise FileNotFoundError(f"{url} holds no plan of an encode job: give the folder that "
                                "`img2tokens encode` wrote")
    config = config_of(plans[0], tokenizers, run)
    task = dataclasses.replace(open_task(config), plan=plans[0], deltas=tuple(plans[1:]))
    require_same_settings(plans[0], settings_of(config, task.source, task.spec, ()))
    is_finished = num_finished(url) == len(plans)
    if not is_finished and kind_of(plans[-1]) == RETRY and not was_given_up(plans[-1]):
        return Retried(plans[-1].num_inputs, encode_deltas(task, config))
    if not (is_finished and are_known(plans)):
        manifest = encode_deltas(task, dataclasses.replace(config, max_errors=1.0))
    else:
        manifest = TokenCorpus.open(url).manifest
    storage.remove(storage.join(plans[-1].url, GIVEN_UP))
    if not manifest.num_dead_letters:
        return Retried(0, manifest)
    plan = plan_again(config, task, plans)
    task = dataclasses.replace(task, deltas=(*task.deltas, plan))
    return Retried(plan.num_inputs, encode_deltas(task, config))


def was_given_up(plan: Plan) -> bool:
    """Whether too many inputs of an unfinished retry failed; noted, since to go on forgets it."""
    noted = storage.join(plan.url, GIVEN_UP)
    if was_stopped(plan.url):
        storage.write_bytes(noted, b"")
    return storage.exists(noted)


def config_of(plan: Plan, tokenizers: Mapping[str, str], run: Mapping[str, Any]) -> EncodeConfig:
    """How a corpus was made, by its plan.

    Raises:
        ValueError: the plan does not say it, or asks for what this program does not know.
    """
    if plan.job != "encode":
        raise ValueError(f"the inputs of {plan.url}, which an {plan.job} job made, cannot be tried "
                         "again by themselves: mend them and run its `img2tokens convert` with "
                         "--overwrite")
    if not plan.options:
        raise ValueError(f"the plan of {plan.url} is of an early version and does not say how the "
                         "corpus was made: run its encode command once more, which notes it")
    options = dict(plan.options)
    if options.get("size") is not None:
        options["size"] = tuple(options["size"])
    options["buckets"] = tuple(map(tuple, options.get("buckets", ())))
    if unknown := options.keys() - {field.name for field in dataclasses.fields(EncodeConfig)}:
        raise ValueError(f"{plan.url} was made with {sorted(unknown)[0]}, which this version of "
                         "img2tokens does not know: use the version that made it")
    return EncodeConfig(**options, output=plan.url, tokenizers=tokenizers, **run)


def plan_again(config: EncodeConfig, task: EncodeTask, plans: list[Plan]) -> Plan:
    """Plan one more delta, of all dead letters there are."""
    found = task.source.classes()
    classes = merged_classes(plans[-1].settings["classes"], found)
    settings = settings_of(config, task.source, task.spec, classes)
    return plan_retry(plans, settings, lambda: relabelled(
        map(row_of, task.source.entries()), found, classes))
