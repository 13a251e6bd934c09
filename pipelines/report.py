"""What a token corpus holds, in words for people and as JSON for programs."""
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.plan import load_plan
from tokenizer import configs
from tokenizer.deltas import EXTEND, RETRY, job_url
from tokenizer.schema import CodeSpec, CodeUsage, Manifest
from tokenizer.tokens import TokenCorpus

if TYPE_CHECKING:
    from pipelines.dry_run import Forecast

MAX_CLASSES_SHOWN = 20


def describe(corpus: TokenCorpus) -> str:
    """Counts, spec, codebook usage, classes and dead letters, a few lines each."""
    manifest = corpus.manifest
    num_bytes = sum(entry.bytes for entry in manifest.shards)
    crops = f" of {manifest.num_crops} crops each" if manifest.num_crops > 1 else ""
    lines = [f"{corpus.url}: {manifest.num_rows} rows from {manifest.num_inputs} inputs{crops} in "
             f"{count(len(manifest.shards), 'shard')}, {num_bytes:,} bytes"]
    for code in manifest.spec.codes:
        lines += describe_codes(code, manifest.usage[code.modality])
    if manifest.spec.quality:
        lines.append(f"quality columns (--stats): {', '.join(manifest.spec.quality)}")
    lines += describe_buckets(manifest)
    lines += describe_classes(manifest)
    lines += describe_deltas(manifest)
    lines += describe_begun(corpus)
    lines.append(f"dead letters: {manifest.num_dead_letters or 'none'}")
    lines += [f"  {number:>8}  {error}" for error, number in sorted(
        manifest.dead_letters.items(), key=lambda item: (-item[1], item[0]))]
    if passed_over := notes(corpus.url):
        lines.append("passed over while listing:")
        lines += [f"  {number:>8}  {what}" for what, number in sorted(passed_over.items())]
    return "\n".join(lines)


def describe_codes(code: CodeSpec, usage: CodeUsage) -> list[str]:
    """Two lines about the codes of one modality, and one about each of their origins."""
    used = usage.used / code.codebook_size
    settings = ", ".join(f"{name} {value}" for name, value in sorted(code.preprocessing.items())
                         if name != "name" and value is not None)
    sizes = ", ".join(" x ".join(map(str, part.image_size)) for part in code.grids)
    return [f"{code.modality}: {code.shapes} {code.dtype} codes of {code.codebook_size}, "
            f"from {sizes} pixels",
            f"  codebook: {usage.used} used ({used:.1%}{usage.by_depth}), "
            f"perplexity {usage.perplexity:.1f}",
            f"  pixels: {settings or 'as they are'}; {code.precision}",
            f"  tokenizer: {code.tokenizer}"]


def describe_buckets(manifest: Manifest) -> list[str]:
    """Rows of each bucket, from the widest to the tallest."""
    names = manifest.spec.buckets
    return ["buckets (--buckets), height x width in pixels:"] * bool(names) + [
        f"  {manifest.bucket_counts.get(name, 0):>8}  {name}" for name in names]


def describe_classes(manifest: Manifest) -> list[str]:
    """Rows of the most frequent classes, and how many rows have none."""
    counts = sorted(manifest.class_counts.items(), key=lambda item: (-item[1], item[0]))
    without = manifest.num_rows - sum(number for _, number in counts)
    if not counts:
        return ["classes: none"]
    lines = [f"classes: {len(counts)} of {len(manifest.classes)} occur"
             + (f", {without} rows have none" if without else "")]
    lines += [f"  {number:>8}  {name}" for name, number in counts[:MAX_CLASSES_SHOWN]]
    if len(counts) > MAX_CLASSES_SHOWN:
        rest = sum(number for _, number in counts[MAX_CLASSES_SHOWN:])
        lines.append(f"  {rest:>8}  in {len(counts) - MAX_CLASSES_SHOWN} more")
    return lines


def summary(corpus: TokenCorpus) -> dict[str, Any]:
    """The manifest as JSON values, with what was passed over while listing."""
    return {"url": corpus.url, **configs.to_dict(corpus.manifest), "passed_over": notes(corpus.url)}


def notes(url: str) -> dict[str, int]:
    """Files of the image corpus that were no inputs, by kind; none where a prior made the codes."""
    plan = load_plan(url)
    return {} if plan is None else plan.notes


def count(number: int, what: str) -> str:
    """A number and a noun: ``1 shard``, ``2 shards``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def outcome(url: str, manifest: Manifest) -> str:
    """What an encode job says at its end: one line, and one more each about dead letters
    and files that were passed over."""
    line = (f"{url}: {count(manifest.num_rows, 'row')} in {count(len(manifest.shards), 'shard')}, "
            + failures(manifest.dead_letters))
    if manifest.num_dead_letters:
        line += f"\n`img2tokens inspect {url} --dead-letters 20` shows which and why"
    passed_over = ", ".join(f"{number} {what}" for what, number in sorted(notes(url).items()))
    return f"{line}\npassed over: {passed_over}" if passed_over else line


def foreseen(forecast: "Forecast", num_workers: int) -> str:
    """What a dry run has found: a line each about inputs, rows and bytes, time, and the trial."""
    lines = [f"inputs: {count(forecast.num_inputs, 'input')} in "
             f"{count(forecast.num_shards, 'shard')}, {forecast.num_left} of them left to make"]
    if forecast.problems:
        lines[0] += f"; unusable: {by_class(forecast.problems)}"
    if forecast.buckets:
        lines.append(f"buckets: {', '.join(forecast.buckets)}")
    trial = f"from a trial of {count(forecast.num_tried, 'input')}"
    if forecast.seconds is None:
        lines.append(f"no forecast: the trial of {count(forecast.num_tried, 'input')} gave no row")
    else:
        lines.append(f"output: about {count(forecast.num_rows, 'row')}, {forecast.num_bytes:,} "
                     f"bytes of shards, {trial}")
        lines.append(f"time: about {duration(forecast.seconds)} with "
                     f"{count(num_workers, 'worker')}, {trial}, and as long as it takes to start")
    if forecast.failures:
        lines.append(f"failed in the trial: {by_class(forecast.failures)}")
    return "\n".join([*lines, "nothing was written"])


def duration(seconds: float) -> str:
    """``42 s``, ``5.1 min``, ``3.2 h`` or ``12.0 days``."""
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def by_class(numbers: Mapping[str, int]) -> str:
    """``1 MissingMap, 1 UnreadableImage``."""
    return ", ".join(f"{number} {error}" for error, number in sorted(numbers.items()))


def retried(num_tried: int, manifest: Manifest) -> str:
    """``3 of 5 dead letters now encoded``."""
    if not num_tried:
        return "there is no dead letter to try again"
    mended = manifest.deltas[-1].num_rows // manifest.num_crops
    return f"{mended} of {count(num_tried, 'dead letter')} now encoded"


def describe_deltas(manifest: Manifest) -> list[str]:
    """One line about each delta."""
    kinds = {EXTEND: ("new input", "added"), RETRY: ("dead letter", "tried again")}
    return [f"delta {number}: {count(delta.num_inputs, kinds[delta.kind][0])} "
            f"{kinds[delta.kind][1]}, {count(delta.num_rows, 'row')} in "
            f"{count(delta.num_shards, 'shard')}"
            for number, delta in enumerate(manifest.deltas, 1)]


def describe_begun(corpus: TokenCorpus) -> list[str]:
    """One line about a delta that is not finished, and which the manifest does not count."""
    number = 1 + len(corpus.manifest.deltas)
    if (plan := load_plan(job_url(corpus.url, number))) is None:
        return []
    return [f"delta {number}: of {count(plan.num_inputs, 'input')}, not finished and not counted "
            "here; the encode command or `img2tokens retry` goes on with it"]


def failures(dead_letters: Mapping[str, int]) -> str:
    """``2 dead letters (1 MissingMap, 1 UnreadableImage)``."""
    reasons = ", ".join(f"{number} {error}" for error, number in dead_letters.items())
    return count(sum(dead_letters.values()), "dead letter") + (f" ({reasons})" if reasons else "")
