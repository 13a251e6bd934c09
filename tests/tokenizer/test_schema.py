"""The contract of a token corpus, held field by field."""
import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest

from tokenizer import configs
from tokenizer.schema import (
    CodeSpec,
    CodeUsage,
    Manifest,
    ShardEntry,
    SpecMismatch,
    TokenSpec,
    codes_array,
    codes_column,
    count_codes,
    rows_table,
)

IMAGE = CodeSpec(modality="image", grid=(2, 3), codebook_size=16, image_size=(8, 12),
                 tokenizer="sha256:a", preprocessing={"crop": "centre"})
DEPTH = CodeSpec(modality="depth", grid=(1, 2), codebook_size=1 << 17, image_size=(8, 16),
                 tokenizer="sha256:d")
SPEC = TokenSpec(codes=(IMAGE, DEPTH))


def columns(num_rows: int) -> dict[str, list[object]]:
    """The columns without codes of some rows."""
    numbers = {name: [index] * num_rows for index, name in enumerate(
        ("height", "width", "crop_index", "left", "top", "crop_width", "crop_height"))}
    return {"key": [f"k{row}" for row in range(num_rows)], "source": ["s"] * num_rows,
            "flipped": [False] * num_rows, **numbers}


def table(num_rows: int = 3) -> pa.Table:
    codes = {"image": np.arange(num_rows * 6).reshape(-1, 2, 3) % 16,
             "depth": np.arange(num_rows * 2).reshape(-1, 1, 2) + (1 << 16)}
    return rows_table(SPEC, codes, columns(num_rows))


def test_codes_take_the_smallest_type_that_holds_them() -> None:
    sizes = {1: np.uint16, 1 << 16: np.uint16, (1 << 16) + 1: np.uint32, 1 << 32: np.uint32}
    for size, dtype in sizes.items():
        assert dataclasses.replace(IMAGE, codebook_size=size).dtype == dtype


@pytest.mark.parametrize("settings", [{"codebook_size": 0}, {"codebook_size": (1 << 32) + 1},
                                      {"grid": (0, 3)}])
def test_impossible_specs_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"got (0|4294967297|\(0, 3\))"):
        dataclasses.replace(IMAGE, **settings)  # type: ignore[arg-type]


def test_the_schema_is_that_of_the_specification() -> None:
    schema = SPEC.arrow_schema()
    assert schema.names == [
        "key", "source", "image_codes", "depth_codes", "height", "width", "crop_index", "left",
        "top", "crop_width", "crop_height", "flipped", "label", "class_name", "caption"]
    assert str(schema.field("image_codes").type) == (
        "fixed_size_list<element: uint16 not null>[6]")
    assert str(schema.field("depth_codes").type) == (
        "fixed_size_list<element: uint32 not null>[2]")
    nullable = {field.name for field in schema if field.nullable}
    assert nullable == {"label", "class_name", "caption"}
    assert schema.field("label").type == schema.field("height").type == pa.int32()


def test_a_schema_carries_its_spec() -> None:
    assert TokenSpec.from_arrow(SPEC.arrow_schema(), "shard") == SPEC
    with pytest.raises(ValueError, match="other.parquet holds no img2tokens metadata"):
        TokenSpec.from_arrow(pa.schema([]), "other.parquet")


def test_codes_come_back_as_they_were_in_raster_order() -> None:
    codes = np.array([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]])
    column = codes_column(IMAGE, codes)
    assert column.to_pylist() == [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]
    back = codes_array(IMAGE, pa.table({"image_codes": column}))
    assert back.dtype == np.uint16 and (back == codes).all()


def test_codes_of_part_of_a_table_are_those_rows_alone() -> None:
    whole = codes_array(DEPTH, table(5))
    assert (codes_array(DEPTH, table(5).slice(2, 2)) == whole[2:4]).all()
    assert codes_array(DEPTH, table(5).slice(0, 0)).shape == (0, 1, 2)


@pytest.mark.parametrize(("codes", "words"), [
    (np.full((1, 2, 3), 16), r"must lie in \[0, 16\), got 16 to 16"),
    (np.full((1, 2, 3), -1), "got -1 to -1"),
    (np.zeros((1, 3, 2), int), r"shape \(..., 2, 3\), got int64 of shape \(1, 3, 2\)"),
    (np.zeros((1, 2, 3)), "got float64"),
])
def test_codes_outside_the_spec_are_refused(codes: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        codes_column(IMAGE, codes)


def test_labels_may_be_left_out_but_keys_may_not() -> None:
    assert table()["label"].to_pylist() == [None] * 3
    with pytest.raises(KeyError):
        rows_table(SPEC, {"image": np.zeros((0, 2, 3), int)}, {})


@pytest.mark.parametrize(("other", "words"), [
    (TokenSpec(codes=(dataclasses.replace(IMAGE, codebook_size=32), DEPTH)),
     "shard: codes.image.codebook_size is 32, expected 16"),
    (TokenSpec(codes=(dataclasses.replace(IMAGE, preprocessing={"crop": "none"}), DEPTH)),
     "shard: codes.image.preprocessing.crop is 'none', expected 'centre'"),
    (TokenSpec(codes=(IMAGE,)), "shard: codes.depth.codebook_size is None, expected 131072"),
])
def test_a_mismatch_names_the_field_and_both_values(other: TokenSpec, words: str) -> None:
    SPEC.require_equal(SPEC, "shard")
    with pytest.raises(SpecMismatch) as caught:
        SPEC.require_equal(other, "shard")
    assert str(caught.value) == words


def test_specs_of_a_later_version_are_refused() -> None:
    text = SPEC.to_json().replace('"format_version":1', '"format_version":2')
    with pytest.raises(SpecMismatch, match="format_version is 2; this program reads 1"):
        TokenSpec.from_json(text)


def test_what_a_later_version_added_is_refused_as_that_not_as_unknown() -> None:
    data = json.loads(SPEC.to_json())
    data["codes"][0]["novelty"] = 1
    with pytest.raises(ValueError, match=r"^shard cannot be read \(unknown setting codes?\.?"
                       ".*novelty.*another version of img2tokens"):
        TokenSpec.from_arrow(pa.schema([], {"img2tokens": json.dumps(data)}), "shard")
    data["format_version"] = 2
    later = json.loads(manifest().to_json()) | {"spec": data, "more": True}
    for read in (lambda: TokenSpec.from_arrow(pa.schema([], {"img2tokens": json.dumps(data)}), "x"),
                 lambda: Manifest.from_json(json.dumps(later), "x")):
        with pytest.raises(SpecMismatch, match="^x: format_version is 2; this program reads 1: use "
                           "the version of img2tokens that wrote it"):
            read()


def test_a_modality_is_held_once_and_found_by_name() -> None:
    assert SPEC["depth"] == DEPTH and SPEC.modalities == ("image", "depth")
    with pytest.raises(ValueError, match="no edges codes"):
        SPEC["edges"]
    for codes in ((IMAGE, IMAGE), ()):
        with pytest.raises(ValueError, match="each of its modalities once"):
            TokenSpec(codes=codes)


@pytest.mark.parametrize(("counts", "used", "perplexity"), [
    ([5, 5, 5, 5], 4, 4.0), ([9, 0, 0, 0], 1, 1.0), ([1, 1, 0, 0], 2, 2.0), ([0, 0], 0, 0.0),
    ([2, 1, 1], 3, 2 ** 1.5),
])
def test_perplexity_is_two_to_the_entropy(counts: list[int], used: int, perplexity: float) -> None:
    usage = CodeUsage.of(np.array(counts))
    assert usage.used == used and usage.perplexity == pytest.approx(perplexity)


def test_codes_are_counted_for_each_code_of_a_cell() -> None:
    codes = np.array([[[[0, 1]], [[3, 3]]], [[[1, 1]], [[3, 3]]]], np.uint16)  # (2, D 2, 1, 2)
    assert count_codes(codes, 4, 2).tolist() == [[1, 3, 0, 0], [0, 0, 0, 4]]
    assert count_codes(codes, 4).tolist() == [[1, 3, 0, 4]]
    assert count_codes(codes[:0], 4, 2).tolist() == [[0] * 4] * 2


def test_usage_is_that_of_the_least_used_codebook() -> None:
    usage = CodeUsage.of(np.array([[2, 2, 2, 2], [0, 0, 0, 8], [4, 4, 0, 0]]))
    assert usage == CodeUsage(used=1, perplexity=1.0, used_by_depth=(4, 1, 2))
    assert usage.by_depth == "; by depth 4, 1, 2"
    assert CodeUsage.of(np.array([[2, 2]])) == CodeUsage(used=2, perplexity=2.0)
    assert CodeUsage(used=2, perplexity=2.0).by_depth == ""


def manifest() -> Manifest:
    entry = ShardEntry(name="data/x.parquet", rows=3, bytes=9, sha256="00")
    return Manifest(spec=SPEC, fingerprint="sha256:f", num_inputs=4, num_rows=3, shards=(entry,),
                    dead_letters={"Broken": 1}, classes=("cat", "hünd"), class_counts={"cat": 2},
                    usage={"image": CodeUsage(used=3, perplexity=2.5)}, dead_files=(entry,))


def test_a_manifest_survives_its_file() -> None:
    text = manifest().to_json()
    assert Manifest.from_json(text, "manifest.json") == manifest()
    assert json.loads(text)["format"] == "img2tokens.tokens" and "hünd" in text


def test_a_manifest_without_later_fields_is_read() -> None:
    data = json.loads(manifest().to_json())
    del data["class_counts"], data["dead_files"]
    assert Manifest.from_json(json.dumps(data), "m").dead_files == ()


@pytest.mark.parametrize(("text", "words"), [
    ("{", "m.json is not JSON"), ("[]", "m.json is not a manifest"),
    ('{"format": "other"}', "m.json is not a manifest"),
    ('{"format": "img2tokens.tokens"}', r"m.json cannot be read \(spec is missing"),
    ("[" * 100_000, "m.json is not JSON"),
    ('{"format": "img2tokens.tokens", "more": 1}', "m.json .*unknown setting more.*version of img"),
])
def test_a_damaged_manifest_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Manifest.from_json(text, "m.json")


@pytest.mark.parametrize("name", ["../x.parquet", "/etc/passwd", "data/../../x", "s3://b/x",
                                  "data/x::y.zip"])
@pytest.mark.parametrize("field", ["shards", "dead_files", "superseded"])
def test_a_manifest_names_no_file_outside_of_its_corpus(name: str, field: str) -> None:
    data = json.loads(manifest().to_json())
    data[field] = [{"name": name, "rows": 1, "bytes": 1, "sha256": "00"}]
    with pytest.raises(ValueError, match=r"m\.json cannot be read \(files of a corpus lie in its"):
        Manifest.from_json(json.dumps(data), "m.json")


def test_quality_columns_stand_last_and_hold_null_for_nan() -> None:
    spec = dataclasses.replace(SPEC, quality=("image_psnr", "image_margin"))
    assert spec.arrow_schema().names[-3:] == ["caption", "image_psnr", "image_margin"]
    assert spec.arrow_schema().field("image_psnr").type == pa.float32()
    codes = {"image": np.zeros((2, 2, 3), int), "depth": np.zeros((2, 1, 2), int)}
    rows = rows_table(spec, codes, {**columns(2), "image_psnr": [1.5, 100.0],
                                    "image_margin": [float("nan"), 0.25]})
    assert rows["image_psnr"].to_pylist() == [1.5, 100.0]
    assert rows["image_margin"].to_pylist() == [None, 0.25]
    assert TokenSpec.from_arrow(rows.schema, "shard") == spec
    with pytest.raises(SpecMismatch, match="shard: quality is"):
        SPEC.require_equal(spec, "shard")


def test_without_quality_columns_the_spec_s_text_does_not_speak_of_them() -> None:
    assert "quality" not in SPEC.to_json() and "quality" not in str(configs.to_dict(SPEC))
    assert json.loads(dataclasses.replace(SPEC, quality=("a",)).to_json())["quality"] == ["a"]
