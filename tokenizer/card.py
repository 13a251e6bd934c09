"""README.md of a token corpus: what people see of it, and what tells the Hub where its rows lie."""
from tokenizer.schema import Manifest


def dataset_card(manifest: Manifest, data: str) -> str:
    """README.md of a corpus: with it, `datasets.load_dataset` and the Hub read the shards as is.

    Args:
        data: folder of the shards below the corpus.
    """
    crops = f" of {manifest.num_crops} crops each" if manifest.num_crops > 1 else ""
    lines = ["---", "configs:", "- config_name: default", f"  data_files: {data}/*.parquet",
             "tags:", "- img2tokens", "---", "", "# Token corpus", "",
             f"{manifest.num_rows} rows from {manifest.num_inputs} inputs{crops}, "
             f"{manifest.num_dead_letters} dead letters, {len(manifest.shards)} shards.", "",
             "| modality | grid | codebook | used | perplexity | tokenizer |",
             "|---|---|---|---|---|---|"]
    for spec in manifest.spec.codes:
        usage = manifest.usage[spec.modality]
        shape = " x ".join(map(str, spec.code_shape))
        lines.append(f"| {spec.modality} | {shape} | {spec.codebook_size} "
                     f"| {usage.used}{usage.by_depth} | {usage.perplexity:.1f} "
                     f"| `{spec.tokenizer}` |")
    return "\n".join([*lines, "", "Codes are stored in raster order; `manifest.json` holds the "
                      "spec, and each shard's metadata repeats it.", ""])
