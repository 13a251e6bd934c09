"""What `img2tokens inspect` finds out beyond the manifest: as JSON values, and in words for people.

`gather` reads the rows, once for each thing that is asked for; `describe` puts what it found into
lines. To add one, add a field to `Asked`, and an entry to both.
"""
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.report import MAX_CLASSES_SHOWN, count
from tokenizer import pictures
from tokenizer.code_statistics import census_of, count_corpus, entropy_picture
from tokenizer.distributions import quality_statistics
from tokenizer.duplicates import find_duplicates
from tokenizer.filters import RowFilter
from tokenizer.one_bucket import one_bucket
from tokenizer.quality import lower_is_better
from tokenizer.tokens import TokenCorpus

SHOWN = ("0.05", "0.5", "0.95")
"""Quantiles that people see; JSON has more."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to find out.

    Attributes:
        filter: of which rows, an expression of `tokenizer.filters`; ``None`` for all.
        stats: how the quality columns are distributed.
        worst: how many of the worst rows to list; more than 0 implies ``stats``.
        codes: usage, dead codes, codes that are typical of classes, entropy by place.
        entropy_map: PNG file for the entropy by place of the first modality; implies ``codes``.
        duplicates: rows whose codes differ in at most so many places; ``None`` not to look.
        dead_letters: how many of the inputs that failed to list, with their reasons.
    """
    filter: str | None = None
    stats: bool = False
    worst: int = 0
    codes: bool = False
    entropy_map: str | None = None
    duplicates: int | None = None
    dead_letters: int = 0


def gather(corpus: TokenCorpus, asked: Asked) -> dict[str, Any]:
    """What was asked for, as JSON values: ``selected``, ``quality``, ``codes``, ``duplicates``,
    ``failed``.

    Raises:
        ValueError: the filter does not fit or takes no row, or there are no quality columns.
        OSError: a shard cannot be read, or the picture not be written.
    """
    rows = (None if asked.filter is None else
            RowFilter.parse(asked.filter, corpus.spec.arrow_schema()))
    found: dict[str, Any] = {}
    if asked.entropy_map or asked.duplicates is not None:
        corpus = one_bucket(corpus, rows)
    if rows is not None:
        found["selected"] = census_of(corpus, rows)
    if asked.stats or asked.worst:
        found["quality"] = quality_statistics(corpus, rows, asked.worst)
    first = corpus.spec.codes[0]
    if asked.codes or asked.entropy_map:
        counts = count_corpus(corpus, rows)
        found["codes"] = {name: item.summary() for name, item in counts.items()}
        entropies = counts[first.modality].entropy_by_place()
        if asked.entropy_map:
            if entropies is None:
                raise ValueError(f"the entropy by place of the {first.modality} codes was not "
                                 "counted: there are no rows, or too many places and codes")
            pictures.save_png(asked.entropy_map, entropy_picture(entropies, first.codebook_size))
    if asked.duplicates is not None:
        found["duplicates"] = find_duplicates(corpus, first.modality, asked.duplicates, rows)
    if asked.dead_letters:
        found["failed"] = [dataclasses.asdict(letter) for letter in
                           itertools.islice(corpus.dead_letters(), asked.dead_letters)]
    return found


def describe(corpus: TokenCorpus, found: Mapping[str, Any]) -> str:
    """What `gather` found, in words."""
    lines: list[str] = []
    if "selected" in found:
        lines += _describe_selected(found["selected"])
    if "quality" in found:
        lines += _describe_quality(found["quality"])
    for modality, counts in found.get("codes", {}).items():
        lines += _describe_codes(modality, corpus.spec[modality].codebook_size, counts)
    if "duplicates" in found:
        lines += _describe_duplicates(found["duplicates"])
    if "failed" in found:
        lines += _describe_failed(found["failed"], corpus.manifest.num_dead_letters)
    return "\n".join(lines)


def _describe_selected(selected: Mapping[str, Any]) -> Iterator[str]:
    yield f"filter {selected['filter']!r}: {count(selected['num_rows'], 'row')}"
    for modality, usage in selected["usage"].items():
        yield f"  {modality}: {usage['used']} codes used, perplexity {usage['perplexity']:.1f}"
    classes = sorted(selected["class_counts"].items(), key=lambda item: (-item[1], item[0]))
    yield from (f"  {number:>8}  {name}" for name, number in classes[:MAX_CLASSES_SHOWN])
    yield from _more(len(classes), "class")


def _describe_quality(quality: Mapping[str, Any]) -> Iterator[str]:
    width = max(map(len, (*quality["columns"], *quality["classes"])))
    heads = ("rows", "mean", "least", *(f"{float(share):.0%}" for share in SHOWN), "greatest")
    yield f"quality of {count(quality['num_rows'], 'row')}"
    yield f"  {'':{width}}" + "".join(f"{head:>10}" for head in heads)
    for name, summary in quality["columns"].items():
        yield f"  {name:{width}}" + _figures(summary)
    for figure, worst in quality["worst"].items() or [(next(iter(quality["columns"])), [])]:
        if quality["classes"]:
            yield f"{figure} by class, from the worst mean"
        for name, summary in _from_worst(figure, quality["classes"])[:MAX_CLASSES_SHOWN]:
            yield f"  {name:{width}}" + _figures(summary)
        yield from _more(len(quality["classes"]), "class")
        if worst:
            yield f"worst by {figure}"
        for row in worst:
            yield (f"  {row[figure]:10.4f}  {_named(row)}  {row['class_name'] or '-'}  "
                   f"{row['source']}")


def _from_worst(figure: str, classes: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Each class with the distribution of one figure, by its mean; those without any come last."""
    found = [(name, summaries[figure]) for name, summaries in classes.items()]
    sign = -1.0 if lower_is_better(figure) else 1.0
    return sorted(found, key=lambda item: sign * item[1].get("mean", sign * np.inf))


def _figures(summary: Mapping[str, Any]) -> str:
    """Columns of one distribution; a mark where its quantiles are those of a sample."""
    if not summary["count"]:
        return f"{0:>10}      none has a value"
    values = (summary["mean"], summary["min"], *(summary["quantiles"][share] for share in SHOWN),
              summary["max"])
    return (f"{summary['count']:>10}" + "".join(f"{value:10.4f}" for value in values)
            + ("  (quantiles of a sample)" if summary["sampled"] else ""))


def _describe_codes(modality: str, size: int, counts: Mapping[str, Any]) -> Iterator[str]:
    dead = ", ".join(str(len(codes)) for codes in counts["dead_codes"])
    yield (f"{modality} codes: {counts['used']} of {size} used, perplexity "
           f"{counts['perplexity']:.1f}, dead {dead}")
    if counts["entropy_by_place"] is not None:
        bits = np.array(counts["entropy_by_place"])
        yield (f"  entropy by place: {bits.min():.2f} to {bits.max():.2f} bits, mean "
               f"{bits.mean():.2f}, of at most {np.log2(size):.2f}")
    for name, found in list(counts["classes"].items())[:MAX_CLASSES_SHOWN]:
        typical = ", ".join(f"{item['code']} ({item['share']:.1%}, x{item['lift']:.1f})"
                            for item in found["specific_codes"])
        yield (f"  {name}: {count(found['num_rows'], 'row')}, perplexity "
               f"{found['perplexity']:.1f}; typical: {typical or 'none'}")
    yield from _more(len(counts["classes"]), "class")
    if counts["num_classes_left_out"]:
        yield f"  {counts['num_classes_left_out']} rarer classes were not counted, to save memory"


def _describe_duplicates(found: Mapping[str, Any]) -> Iterator[str]:
    exact, near, most = found["exact"], found["near"], found["max_distance"]
    yield (f"equal {found['modality']} codes: {count(exact['num_groups'], 'group')} of rows, "
           f"{exact['num_copies']} of which repeat another, of {count(found['num_rows'], 'row')}")
    for group in exact["listed"]:
        names = ", ".join(map(_named, group["rows"]))
        dots = ", ..." if len(group["rows"]) < group["size"] else ""
        yield f"  {group['size']:>8}  {names}{dots}"
    if most:
        least = "" if near["complete"] else "at least "
        yield f"codes that differ in 1 to {most} places: {least}{count(near['num_pairs'], 'pair')}"
    for pair in near["listed"]:
        yield f"  {pair['distance']:>8}  {', '.join(map(_named, pair['rows']))}"


def _describe_failed(listed: Sequence[Mapping[str, Any]], number: int) -> Iterator[str]:
    if listed:
        yield f"{len(listed)} of {count(number, 'dead letter')}"
    for letter in listed:
        yield (f"  {letter['key']}  {letter['source']}  ({letter['stage']})  {letter['error']}: "
               f"{letter['message']}")


def _named(row: Mapping[str, Any]) -> str:
    """A row by its key, and its crop where it is not the first."""
    return row["key"] + (f" (crop {row['crop_index']})" if row["crop_index"] else "")


def _more(number: int, what: str) -> Iterator[str]:
    if number > MAX_CLASSES_SHOWN:
        yield f"  ... and {number - MAX_CLASSES_SHOWN} more {what}es; --json has all"
