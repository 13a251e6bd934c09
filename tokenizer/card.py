"""README.md of a token corpus: what people see of it, and what tells the Hub where its rows lie.

Above stands YAML for the Hub and for `datasets`, after the dataset card specification: which files
hold rows, the type of each column, how many rows there are. With it `datasets.load_dataset` reads
the shards as they are, streaming or not.
"""
from typing import Any

import pyarrow as pa
import yaml

from tokenizer.deltas import delta_mark
from tokenizer.schema import Manifest

MAX_CLASSES_NAMED = 2000
"""Classes whose names the card gives to `datasets`; of more, labels are plain numbers there."""

SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B",
         "1B<n<10B", "10B<n<100B", "100B<n<1T", "n>1T")
"""What the Hub calls data sets of up to a thousand rows, ten thousand, and so on."""


def dataset_card(manifest: Manifest, data: str) -> str:
    """README.md of a corpus.

    Args:
        data: folder of the shards below the corpus.
    """
    header = yaml.safe_dump(hub_metadata(manifest, data), sort_keys=False, allow_unicode=True,
                            width=100)
    crops = f" of {manifest.num_crops} crops each" if manifest.num_crops > 1 else ""
    lines = ["# Token corpus", "",
             f"{manifest.num_rows} rows from {manifest.num_inputs} inputs{crops}, "
             f"{manifest.num_dead_letters} dead letters, {len(manifest.shards)} shards.", "",
             "| modality | grid | codebook | used | perplexity | tokenizer |",
             "|---|---|---|---|---|---|"]
    for spec in manifest.spec.codes:
        usage = manifest.usage[spec.modality]
        lines.append(f"| {spec.modality} | {spec.shapes} | {spec.codebook_size} "
                     f"| {usage.used}{usage.by_depth} | {usage.perplexity:.1f} "
                     f"| `{spec.tokenizer}` |")
    if manifest.spec.buckets:
        lines += ["", "Each row has the grid of its `bucket`, `MODALITY_grid_height` by "
                  "`MODALITY_grid_width`."]
    lines += ["", "Codes are stored in raster order; `manifest.json` holds the spec, and each "
              "shard's metadata repeats it.", "", "```python", "from datasets import load_dataset",
              'rows = load_dataset("REPO or folder", split="train", streaming=True)', "```", ""]
    return f"---\n{header}---\n\n" + "\n".join(lines)


def hub_metadata(manifest: Manifest, data: str) -> dict[str, Any]:
    """What the card says to the Hub and to `datasets`, as YAML values.

    Source: the dataset card specification of huggingface/hub-docs, ``datasetcard.md``.
    """
    num_bytes = sum(entry.bytes for entry in manifest.shards)
    split = {"name": "train", "num_bytes": _size_in_memory(manifest),
             "num_examples": manifest.num_rows}
    return {"tags": ["img2tokens", "image-tokens", *manifest.spec.modalities],
            "size_categories": [size_category(manifest.num_rows)],
            "configs": [{"config_name": "default", "data_files":
                         [{"split": "train", "path": shard_patterns(manifest, data)}]}],
            "dataset_info": {"features": features(manifest), "splits": [split],
                             "download_size": num_bytes, "dataset_size": split["num_bytes"]}}


def shard_patterns(manifest: Manifest, data: str) -> list[str]:
    """Which files hold the rows, generation by generation; none of a delta in the making."""
    marks = ["[0-9]", *(delta_mark(number) for number in range(1, 1 + len(manifest.deltas)))]
    return [f"{data}/part-{mark}*.parquet" for mark in marks]


def size_category(num_rows: int) -> str:
    """The Hub's name for this number of rows."""
    return SIZES[min(max(0, len(str(max(0, num_rows - 1))) - 3), len(SIZES) - 1)]


def features(manifest: Manifest) -> list[dict[str, Any]]:
    """The columns of a corpus as features of `datasets`."""
    schema = manifest.spec.arrow_schema()
    names = manifest.classes
    has_names = 0 < len(names) <= MAX_CLASSES_NAMED and len(set(names)) == len(names)
    labels = {"class_label": {"names": {str(label): name for label, name in enumerate(names)}}}
    return [{"name": field.name, "dtype": labels} if has_names and field.name == "label" else
            {"name": field.name, **_feature(field.type)} for field in schema]


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_fixed_size_list(kind):
        return {"sequence": _dtype(kind.value_type), "length": kind.list_size}
    if pa.types.is_list(kind):
        return {"sequence": _dtype(kind.value_type)}
    return {"dtype": _dtype(kind)}


def _dtype(kind: pa.DataType) -> str:
    """Name of a type in `datasets`, which is that of Arrow but for floating point."""
    return {"float": "float32", "double": "float64", "halffloat": "float16"}.get(
        str(kind), str(kind))


def _size_in_memory(manifest: Manifest) -> int:
    """Bytes of the codes of all rows, which are most of what there is."""
    spec = manifest.spec
    num_rows = ([manifest.bucket_counts.get(name, 0) for name in spec.buckets]
                or [manifest.num_rows])
    return sum(rows * sum(code.num_codes * code.dtype.itemsize for code in part.codes)
               for rows, part in zip(num_rows, spec.grids, strict=True))
