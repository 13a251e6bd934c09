"""The encode job with aspect-ratio buckets, and what is done with the tokens afterwards."""
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_fakes import FakeCodec, save_maps, tree
from PIL import Image

from pipelines import codecs, report
from pipelines.contact_sheet import TEXT_HEIGHT, SheetConfig, contact_sheet
from pipelines.decode import DecodeConfig, decode_corpus
from pipelines.dry_run import foresee
from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.exporting import ExportConfig, export_corpus
from pipelines.plan import PlanMismatch, load_plan
from pipelines.retry import retry_corpus
from pipelines.statistics import Asked, gather
from prior.dataset import CodeRows
from tokenizer import audit, tokens
from tokenizer.card import hub_metadata
from tokenizer.corpus.crops import crop_rule
from tokenizer.corpus.images import Crop
from tokenizer.corpus.modalities import RGB, Depth, Edges, fit_together
from tokenizer.grids import codes_of_rows
from tokenizer.schema import codes_array
from tokenizer.tokens import TokenCorpus

Settings = Callable[..., EncodeConfig]
BUCKETS = ((20, 20), (16, 32), (32, 16))
PHOTOS = {"a-wide": (30, 60), "b-square": (41, 41), "c-tall": (62, 31), "d-extreme": (1, 400),
          "e-turned": (30, 60), "f-between": (50, 60), "g-tall": (90, 45), "h-wide": (24, 50)}
"""Height and width of each, as stored."""

TAKEN = {"a-wide": "16x32", "b-square": "20x20", "c-tall": "32x16", "d-extreme": "16x32",
         "e-turned": "32x16", "f-between": "20x20", "g-tall": "32x16", "h-wide": "16x32"}
EXIF_TURN = {0x0112: 6}


@pytest.fixture
def photos(tmp_path: Path, drawn: Callable[..., np.ndarray]) -> Path:
    """Pictures of all shapes; one stands upright by its EXIF data alone."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, (name, (height, width)) in enumerate(PHOTOS.items()):
        exif = Image.Exif()
        exif.update(EXIF_TURN if name == "e-turned" else {})
        pixels = drawn(seed, max(60, height), max(60, width))[:height, :width]
        Image.fromarray(pixels).save(folder / f"{name}.png", exif=exif)
    return folder


@pytest.fixture
def bucketed(photos: Path, config: Settings) -> Settings:
    """Configs with the buckets above."""
    def make(**settings: Any) -> EncodeConfig:
        return config(**{"buckets": BUCKETS, **settings})
    return make


def rows_of(url: str) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for table in TokenCorpus.open(url).tables()
            for row in table.to_pylist()}


def shards(url: str) -> dict[str, bytes]:
    return {name: content for name, content in tree(Path(url)).items() if name.startswith("data")}


def require_sound(url: str) -> None:
    assert [problem for problem in audit.verify(TokenCorpus.open(url)) if problem] == []


def test_each_image_takes_the_nearest_bucket_and_its_row_says_which(bucketed: Settings) -> None:
    make = bucketed()
    manifest = encode_corpus(make)
    rows = rows_of(make.output)
    assert list(rows) == list(PHOTOS) and {key: row["bucket"] for key, row in rows.items()} == TAKEN
    assert manifest.bucket_counts == {"16x32": 3, "20x20": 2, "32x16": 3}
    for row in rows.values():
        height, width = map(int, row["bucket"].split("x"))
        grid = row["image_grid_height"], row["image_grid_width"]
        assert grid == (height // 4, width // 4) and len(row["image_codes"]) == grid[0] * grid[1]
    boxes = {key: tuple(rows[key][name] for name in ("left", "top", "crop_width", "crop_height"))
             for key in rows}
    assert boxes["a-wide"] == (0, 0, 60, 30) and boxes["b-square"] == (0, 0, 41, 41)
    assert boxes["e-turned"] == (0, 0, 30, 60) and boxes["f-between"] == (5, 0, 50, 50)
    assert boxes["h-wide"] == (1, 0, 48, 24) and boxes["d-extreme"] == (199, 0, 2, 1)
    require_sound(make.output)


def test_the_manifest_has_one_grid_for_each_bucket_from_the_widest(bucketed: Settings) -> None:
    make = bucketed()
    encode_corpus(make)
    data = json.loads((Path(make.output) / "manifest.json").read_text())
    assert data["spec"]["codes"][0]["buckets"] == [
        {"grid": [4, 8], "image_size": [16, 32]}, {"grid": [5, 5], "image_size": [20, 20]},
        {"grid": [8, 4], "image_size": [32, 16]}]
    shard = pq.read_schema(Path(make.output) / data["shards"][0]["name"])
    assert json.loads(shard.metadata[b"img2tokens"]) == data["spec"]
    assert "         3  16x32" in report.describe(TokenCorpus.open(make.output))


def test_codes_are_those_of_the_same_image_encoded_at_the_size_of_its_bucket(
        bucketed: Settings, tmp_path: Path) -> None:
    make = bucketed()
    encode_corpus(make)
    rows = rows_of(make.output)
    for size in BUCKETS:
        alone = bucketed(buckets=(), size=size, output=str(tmp_path / f"{size}"))
        encode_corpus(alone)
        for key, row in rows_of(alone.output).items():
            if rows[key]["bucket"] == f"{size[0]}x{size[1]}":
                assert {name: rows[key][name] for name in row} == row


def test_bytes_do_not_depend_on_the_batch_or_the_order_of_the_buckets(
        bucketed: Settings, tmp_path: Path) -> None:
    made = [bucketed(output=str(tmp_path / f"tokens-{number}"), **settings) for number, settings in
            enumerate([{"batch_size": 1}, {"batch_size": 3}, {"batch_size": 8},
                       {"batch_size": 8, "buckets": BUCKETS[::-1]}])]
    for make in made:
        encode_corpus(make)
    first, *others = (shards(make.output) for make in made)
    assert all(other == first for other in others)
    assert tree(Path(made[2].output)).keys() == tree(Path(made[3].output)).keys()
    fingerprints = [plan.fingerprint for make in made if (plan := load_plan(make.output))]
    assert fingerprints[2] == fingerprints[3] != fingerprints[1]


def test_each_batch_is_of_one_bucket_and_full_but_the_last(bucketed: Settings) -> None:
    encode_corpus(bucketed(shard_size=8, batch_size=2))
    batches = {codec.spec.image_size: codec.batches for codec in codecs._LOADED.values()
               if isinstance(codec, FakeCodec) and codec.batches}
    assert batches == {(20, 20): [2], (16, 32): [2, 1], (32, 16): [2, 1]}


def test_a_job_that_lost_shards_ends_with_the_same_bytes(bucketed: Settings) -> None:
    make = bucketed(shard_size=3)
    encode_corpus(make)
    whole = tree(Path(make.output))
    (Path(make.output) / "_receipts/00001.json").unlink()
    (Path(make.output) / "data/part-00001-of-00003.parquet").unlink()
    (Path(make.output) / "_SUCCESS").unlink()
    encode_corpus(make)
    assert tree(Path(make.output)) == whole


def test_other_buckets_or_none_are_refused_in_the_same_folder(bucketed: Settings) -> None:
    encode_corpus(bucketed())
    for buckets, words in (((), "None"), (BUCKETS[:2], r"\[16x32, 20x20\]")):
        with pytest.raises(PlanMismatch, match=r"codes\.image\.buckets was \[16x32, 20x20, 32x16\]"
                                               f", now {words}"):
            encode_corpus(bucketed(buckets=buckets))
    with pytest.raises(ValueError, match="leave out --size 20x20 or --buckets"):
        bucketed(size=(20, 20))
    with pytest.raises(ValueError, match="several buckets"):
        bucketed(buckets=BUCKETS[:1])


def test_without_buckets_no_file_speaks_of_them(config: Settings) -> None:
    make = config()
    encode_corpus(make)
    spoken = [name for name, content in tree(Path(make.output)).items() if b'"bucket' in content]
    assert not spoken and "bucket" not in TokenCorpus.open(make.output).spec.arrow_schema().names


@pytest.mark.parametrize("rule", [{"crops": "ten-crop"},
                                  {"crops": "random:3", "flips": True, "crop_seed": 5}],
                         ids=lambda rule: rule["crops"])
def test_every_row_can_be_made_again_in_all_modalities(
        bucketed: Settings, tmp_path: Path, photos: Path, fakes: dict[str, FakeCodec],
        rule: dict[str, Any]) -> None:
    fakes["edges-tok"] = FakeCodec(Edges(sigma=0.5), "e")
    generator = np.random.default_rng(0)
    shutil.move(photos / "e-turned.png", tmp_path)  # maps are saved as wide as it is stored
    save_maps(tmp_path / "depth", photos,
              lambda size: generator.integers(0, 65536, size).astype(np.uint16))
    make = bucketed(tokenizers={"image": "tok", "edges": "edges-tok", "depth": "depth-tok"},
                    maps={"depth": f"{tmp_path}/depth"}, **rule)
    assert encode_corpus(make).num_dead_letters == 0
    corpus = TokenCorpus.open(make.output)
    drawn = crop_rule(rule["crops"], rule.get("flips", False), rule.get("crop_seed", 0))
    assert corpus.manifest.num_crops == drawn.num_crops
    modalities = {"image": RGB(), "edges": Edges(sigma=0.5), "depth": Depth()}
    for table in corpus.tables():
        codes = {name: codes_of_rows(corpus.spec[name], table) for name in modalities}
        for number, row in enumerate(table.to_pylist()):
            crop = Crop(index=row["crop_index"], left=row["left"], top=row["top"],
                        width=row["crop_width"], height=row["crop_height"], flipped=row["flipped"])
            size = tuple(map(int, row["bucket"].split("x")))
            assert drawn.crops(row["height"], row["width"], size, row["key"])[crop.index] == crop
            files = {"image": row["source"], "edges": row["source"],
                     "depth": f"{tmp_path}/depth/{row['key']}.png"}
            raws = {name: modality.read(Path(files[name]).read_bytes(), "x.png")
                    for name, modality in modalities.items()}
            pixels = fit_together(modalities, raws, crop, dict.fromkeys(modalities, size))
            for name, modality in modalities.items():
                again = FakeCodec(modality, grid=(size[0] // 4, size[1] // 4))
                assert np.array_equal(again.encode(pixels[name][None])[0], codes[name][number])
    require_sound(make.output)


def test_dead_letters_are_the_same_with_buckets(bucketed: Settings, photos: Path,
                                                tmp_path: Path) -> None:
    (photos / "b-square.png").write_bytes(b"no image")
    Image.new("RGB", (60, 30), "white").save(photos / "a-wide.png")  # refused by the encoder
    letters = []
    for buckets in (BUCKETS, ()):
        make = bucketed(buckets=buckets, output=str(tmp_path / f"tokens-{len(buckets)}"))
        encode_corpus(make)
        letters.append(list(TokenCorpus.open(make.output).dead_letters()))
        assert len(rows_of(make.output)) == len(PHOTOS) - 2
        require_sound(make.output)
    assert letters[0] == letters[1] and {letter.key: letter.stage for letter in letters[0]} == {
        "a-wide": "encode", "b-square": "decode"}


def test_new_and_mended_images_take_the_same_buckets(bucketed: Settings, photos: Path,
                                                     tmp_path: Path) -> None:
    good = (photos / "c-tall.png").read_bytes()
    (photos / "c-tall.png").write_bytes(b"no image")
    make = bucketed()
    assert encode_corpus(make).num_dead_letters == 1
    Image.new("RGB", (77, 33), "teal").save(photos / "i-new.png")
    assert encode_corpus(dataclasses.replace(make, extend=True)).num_rows == len(PHOTOS)
    (photos / "c-tall.png").write_bytes(good)
    assert retry_corpus(make.output, make.tokenizers).manifest.num_dead_letters == 0
    buckets = {key: row["bucket"] for key, row in rows_of(make.output).items()}
    assert buckets == {**TAKEN, "i-new": "16x32"}
    require_sound(make.output)


def test_a_row_that_says_another_grid_fails_the_audit(bucketed: Settings) -> None:
    make = bucketed(shard_size=8)
    encode_corpus(make)
    corpus = TokenCorpus.open(make.output)
    table = corpus.read_shard(0)
    column = table.column_names.index("image_grid_width")
    wrong = table.set_column(column, table.schema.field(column),
                             pa.array([9] * table.num_rows, pa.int32()))
    receipt = tokens.commit_shard(make.output, 0, 1, corpus.manifest.fingerprint, wrong)
    problem = tokens.check_shard(make.output, receipt.entry, corpus.spec)
    assert problem and "image_grid_width of a row is 9, that of its bucket" in problem


def test_rows_decode_to_pictures_of_the_size_of_their_bucket_in_order(
        bucketed: Settings, tmp_path: Path, fakes: dict[str, FakeCodec]) -> None:
    make = bucketed(shard_size=5)
    encode_corpus(make)
    for number, settings in enumerate([{"batch_size": 1}, {"batch_size": 3},
                                       {"filter": 'bucket != "20x20"'}]):
        done = decode_corpus(DecodeConfig(tokens=make.output, output=str(tmp_path / f"{number}"),
                                          tokenizers={"image": "tok"}, **settings))
        assert done.num_crops == (6 if "filter" in settings else len(PHOTOS))
        for key, row in rows_of(make.output).items():
            path = tmp_path / f"{number}" / f"{key}.png"
            if "filter" in settings and row["bucket"] == "20x20":
                assert not path.exists()
                continue
            grid = (row["image_grid_height"], row["image_grid_width"])
            codes = np.array(row["image_codes"]).reshape(1, *grid)
            with Image.open(path) as image:
                assert np.array_equal(np.asarray(image), fakes["tok"].decode(codes)[0])
    assert tree(tmp_path / "0").keys() == tree(tmp_path / "1").keys()


def test_a_contact_sheet_shows_rows_of_all_buckets(bucketed: Settings, tmp_path: Path) -> None:
    make = bucketed()
    encode_corpus(make)
    sheet = contact_sheet(SheetConfig(tokens=make.output, output=str(tmp_path / "sheet.png"),
                                      tokenizers={"image": "tok"}, columns=2))
    assert sheet.num_rows == len(PHOTOS) and not sheet.missing
    assert len(sheet.figures["image"]) == len(PHOTOS)


def test_rows_of_a_contact_sheet_are_as_tall_as_what_they_hold(
        bucketed: Settings, tmp_path: Path, fakes: dict[str, FakeCodec]) -> None:
    make = bucketed()
    encode_corpus(make)
    contact_sheet(SheetConfig(tokens=make.output, output=str(tmp_path / "sheet.png"),
                              tokenizers={"image": "tok"}, columns=1))
    with Image.open(tmp_path / "sheet.png") as image:
        whole = np.asarray(image)
    top, width, padding = 4, 96, 4
    for key, row in sorted(rows_of(make.output).items()):
        grid = (row["image_grid_height"], row["image_grid_width"])
        decoded = fakes["tok"].decode(np.array(row["image_codes"]).reshape(1, *grid))[0]
        factor = -(-width // decoded.shape[1])
        height, left = factor * decoded.shape[0], padding + factor * decoded.shape[1] + 2
        shown = whole[top:top + height, left:left + factor * decoded.shape[1]]
        assert np.array_equal(shown[::factor, ::factor], decoded), key
        top += height + TEXT_HEIGHT + padding
    assert len(whole) == top


def test_quality_columns_and_statistics_go_by_the_grid_of_each_row(bucketed: Settings,
                                                                   tmp_path: Path) -> None:
    make = bucketed(stats=True)
    encode_corpus(make)
    rows, corpus = rows_of(make.output), TokenCorpus.open(make.output)
    for row in rows.values():
        counts = np.unique(row["image_codes"], return_counts=True)[1] / len(row["image_codes"])
        assert row["image_entropy"] == pytest.approx(-(counts * np.log2(counts)).sum())
    found = gather(corpus, Asked(stats=True, codes=True, filter='bucket == "16x32"'))
    assert found["selected"]["num_rows"] == found["quality"]["num_rows"] == 3
    codes = [code for row in rows.values() if row["bucket"] == "16x32"
             for code in row["image_codes"]]
    assert found["codes"]["image"]["used"] == len(set(codes))
    with pytest.raises(ValueError, match=r"rows of one grid are needed.*3 of 16x32, 2 of 20x20"):
        gather(corpus, Asked(entropy_map=str(tmp_path / "map.png")))
    gather(corpus, Asked(entropy_map=str(tmp_path / "map.png"), filter='bucket == "16x32"'))
    with Image.open(tmp_path / "map.png") as image:
        assert image.width - 4 == 2 * (image.height - 4)  # a margin of 4


def test_what_needs_one_grid_says_so(bucketed: Settings, tmp_path: Path) -> None:
    make = bucketed()
    encode_corpus(make)
    corpus = TokenCorpus.open(make.output)
    with pytest.raises(ValueError, match=r"several grids, 4 x 8, 5 x 5, 8 x 4.*--filter.*--size"):
        CodeRows.load(corpus, ["image"])
    with pytest.raises(ValueError, match="take one bucket, as with --filter 'bucket == \"16x32\"'"):
        gather(corpus, Asked(duplicates=0))
    for layout in ("llamagen", "webdataset"):
        with pytest.raises(ValueError, match=f"{layout} holds codes of one grid.*16x32, 20x20"):
            export_corpus(ExportConfig(tokens=make.output, output=str(tmp_path / layout),
                                       format=layout))
        assert not (tmp_path / layout).exists()


def test_a_dry_run_foresees_the_rows_of_all_buckets(bucketed: Settings) -> None:
    make = bucketed()
    forecast = foresee(make)
    assert forecast.num_rows == len(PHOTOS) and not forecast.refusal
    assert not Path(make.output).exists()


def test_datasets_reads_rows_of_several_grids(bucketed: Settings, tmp_path: Path) -> None:
    import datasets
    make = bucketed()
    encode_corpus(make)
    rows = rows_of(make.output)
    for streaming in (False, True):
        found = datasets.load_dataset(make.output, split="train", streaming=streaming,
                                      cache_dir=str(tmp_path / "cache"))
        assert {row["key"]: row["image_codes"] for row in found} == {
            key: row["image_codes"] for key, row in rows.items()}


def test_the_card_says_grids_and_bytes_of_all_buckets(bucketed: Settings) -> None:
    make = bucketed()
    manifest = encode_corpus(make)
    card = (Path(make.output) / "README.md").read_text()
    assert "| image | 4 x 8, 5 x 5, 8 x 4 |" in card and "`MODALITY_grid_height`" in card
    num_codes = sum(len(row["image_codes"]) for row in rows_of(make.output).values())
    assert hub_metadata(manifest, "data")["dataset_info"]["dataset_size"] == 2 * num_codes


def test_a_corpus_without_buckets_reads_as_before(config: Settings) -> None:
    make = config()
    encode_corpus(make)
    corpus = TokenCorpus.open(make.output)
    for table in corpus.tables():
        assert np.array_equal(np.stack(codes_of_rows(corpus.spec["image"], table)),
                              codes_array(corpus.spec["image"], table))
