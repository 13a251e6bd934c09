"""The encode job with several crops of each image: all there, in order, the same in all maps."""
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from job_fakes import FakeCodec, save_maps, tree
from PIL import Image

from pipelines import report
from pipelines.decode import DecodeConfig, decode_corpus
from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.plan import PlanMismatch
from tokenizer import audit, tokens
from tokenizer.corpus.crops import crop_rule
from tokenizer.corpus.images import Crop
from tokenizer.corpus.modalities import RGB, Depth, Edges, Normals, fit_together
from tokenizer.schema import codes_array
from tokenizer.tokens import AuditFailure, TokenCorpus

Settings = Callable[..., EncodeConfig]
GRID = (5, 6)
RULES = [{"crops": "ten-crop"}, {"crops": "random:3", "flips": True, "crop_seed": 5},
         {"crops": "random:2:0.25-0.5", "flips": True}, {"crops": "centre", "flips": True}]


@pytest.fixture(autouse=True)
def larger(fakes: dict[str, FakeCodec]) -> None:
    """Tokenizers of 20 x 24 pixels, in place of the smaller ones."""
    fakes.update({"tok": FakeCodec(RGB(), grid=GRID),
                  "depth-tok": FakeCodec(Depth(), "d", grid=GRID),
                  "normals-tok": FakeCodec(Normals(), "n", grid=GRID),
                  "edges-tok": FakeCodec(Edges(sigma=0.5), "e", grid=GRID)})


def rows_of(url: str) -> list[dict[str, object]]:
    return [row for table in TokenCorpus.open(url).tables() for row in table.to_pylist()]


def test_each_input_has_a_row_for_each_crop(config: Settings) -> None:
    make = config(crops="ten-crop")
    manifest = encode_corpus(make)
    assert (manifest.num_inputs, manifest.num_rows, manifest.num_crops) == (10, 200, 20)
    assert [entry.rows for entry in manifest.shards] == [80, 80, 40]
    assert [(row["key"], row["crop_index"]) for row in rows_of(make.output)] == [
        (f"img-{image:03d}", crop) for image in range(10) for crop in range(20)]
    assert manifest.spec["image"].preprocessing["crop"] == "ten-crop"
    assert list(audit.verify(TokenCorpus.open(make.output))) == [None] * 3


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["crops"])
def test_every_row_can_be_made_again_from_its_columns_and_the_spec(
        config: Settings, tmp_path: Path, fakes: dict[str, FakeCodec],
        rule: dict[str, object]) -> None:
    make = config(tokenizers={"image": "tok", "edges": "edges-tok", "depth": "depth-tok",
                              "normals": "normals-tok"},
                  maps={"depth": f"{tmp_path}/depth", "normals": f"{tmp_path}/normals"}, **rule)
    generator = np.random.default_rng(0)
    save_maps(tmp_path / "depth", tmp_path / "photos",
              lambda size: generator.integers(0, 65536, size).astype(np.uint16))
    save_maps(tmp_path / "normals", tmp_path / "photos",
              lambda size: generator.integers(0, 256, (*size, 3)).astype(np.uint8))
    assert encode_corpus(make).num_dead_letters == 0
    corpus = TokenCorpus.open(make.output)
    settings = corpus.spec["image"].preprocessing
    drawn = crop_rule(settings["crop"], settings.get("flips", False), settings.get("crop_seed", 0))
    codecs = {name: fakes[folder] for name, folder in make.tokenizers.items()}
    sizes = {name: codec.spec.image_size for name, codec in codecs.items()}
    flips = set()
    for table in corpus.tables():
        codes = {name: codes_array(codec.spec, table) for name, codec in codecs.items()}
        for number, row in enumerate(table.to_pylist()):
            crop = Crop(index=row["crop_index"], left=row["left"], top=row["top"],
                        width=row["crop_width"], height=row["crop_height"],
                        flipped=row["flipped"])
            assert drawn.crops(row["height"], row["width"], sizes["image"],
                               row["key"])[crop.index] == crop
            files = {name: tmp_path / ("photos" if name in ("image", "edges") else name)
                     / f"{row['key']}.png" for name in codecs}
            raws = {name: codec.modality.read(files[name].read_bytes(), "x.png")
                    for name, codec in codecs.items()}
            pixels = fit_together({name: codec.modality for name, codec in codecs.items()}, raws,
                                  crop, sizes)
            for name, codec in codecs.items():
                assert np.array_equal(codec.encode(pixels[name][None])[0], codes[name][number])
            flips.add(crop.flipped)
    assert flips == {True, False}


def test_normals_of_mirrored_rows_point_the_other_way(config: Settings, tmp_path: Path) -> None:
    make = config(tokenizers={"image": "tok", "normals": "normals-tok"},
                  maps={"normals": f"{tmp_path}/normals"}, crops="ten-crop")
    to_the_right = np.array([255, 128, 128], np.uint8)  # of mean level 170, mirrored of 85
    save_maps(tmp_path / "normals", tmp_path / "photos",
              lambda size: np.broadcast_to(to_the_right, (*size, 3)).copy())
    encode_corpus(make)
    for row in rows_of(make.output):
        assert set(row["normals_codes"]) == ({5} if row["flipped"] else {10})


def test_each_image_is_decoded_once_and_batches_are_full(
        config: Settings, fakes: dict[str, FakeCodec], monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizer.corpus.modalities.image import decode_image
    decoded: list[int] = []

    def decode(payload: bytes, route: str) -> np.ndarray:
        decoded.append(len(payload))
        return decode_image(payload, route)
    monkeypatch.setattr("tokenizer.corpus.modalities.image.decode_image", decode)
    encode_corpus(config(crops="random:3"))
    assert len(decoded) == 10
    assert fakes["tok"].batches == [4, 4, 4, 4, 4, 4, 4, 2]  # 12, 12 and 6 rows of three shards


@pytest.mark.parametrize("num_threads", [1, 3, 8])
def test_rows_do_not_depend_on_the_number_of_threads(
        config: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        num_threads: int) -> None:
    encode_corpus(config(crops="ten-crop"))
    monkeypatch.setattr("pipelines.encode.DECODE_THREADS", (num_threads, num_threads))
    encode_corpus(config(crops="ten-crop", output=str(tmp_path / "again")))
    assert tree(tmp_path / "again") == tree(tmp_path / "tokens")


def test_an_input_of_which_one_crop_fails_is_one_dead_letter(config: Settings,
                                                             tmp_path: Path) -> None:
    make = config(crops="ten-crop")
    (tmp_path / "photos/img-002.png").write_bytes(b"no image")
    striped = np.full((40, 48, 3), 255, np.uint8)
    striped[:, :2] = 0  # crops of the right side are white, which the encoder refuses
    Image.fromarray(striped).save(tmp_path / "photos/img-005.png")
    manifest = encode_corpus(make)
    assert (manifest.num_inputs, manifest.num_rows) == (10, 160)
    assert manifest.dead_letters == {"UnreadableImage": 1, "ValueError": 1}
    letters = list(TokenCorpus.open(make.output).dead_letters())
    assert [(letter.key, letter.stage) for letter in letters] == [("img-002", "decode"),
                                                                  ("img-005", "encode")]
    assert not {"img-002", "img-005"} & {row["key"] for row in rows_of(make.output)}
    assert list(audit.verify(TokenCorpus.open(make.output))) == [None] * 5


@pytest.mark.parametrize("lost", ["_receipts/00001.json", "data/part-00001-of-00003.parquet",
                                  "_SUCCESS", "manifest.json"])
def test_what_was_lost_is_made_again(config: Settings, tmp_path: Path, lost: str) -> None:
    make = config(crops="random:3", flips=True)
    encode_corpus(make)
    before = tree(tmp_path / "tokens")
    (tmp_path / "tokens" / lost).unlink()
    encode_corpus(make)
    assert tree(tmp_path / "tokens") == before


def test_other_crops_are_another_plan(config: Settings) -> None:
    encode_corpus(config(crops="random:3"))
    for changes, words in (({"crops": "random:4"}, "crop was 'random:3', now 'random:4'"),
                           ({"crops": "random:3", "crop_seed": 1}, "crop_seed was 0, now 1"),
                           ({"crops": "random:3", "flips": True}, "flips was None, now True"),
                           ({}, "crop was 'random:3', now 'centre'")):
        with pytest.raises(PlanMismatch, match=f"codes.image.preprocessing.{words}"):
            encode_corpus(config(**changes))


@pytest.mark.parametrize("change", [lambda rows: rows[:-1], lambda rows: [*rows[1:], rows[0]],
                                    lambda rows: [rows[0], *rows[:-1]]])
def test_the_audit_misses_no_crop(config: Settings, tmp_path: Path,
                                  change: Callable[[list[int]], list[int]]) -> None:
    make = config(crops="ten-crop")
    encode_corpus(make)
    corpus, url = TokenCorpus.open(make.output), make.output
    table = corpus.read_shard(1)
    wrong = table.take(change(list(range(table.num_rows))))
    tokens.commit_shard(url, 1, 3, corpus.manifest.fingerprint, wrong, num_crops=20)
    receipts = tokens.read_receipts(url, corpus.manifest.fingerprint)
    planned = [[f"img-{image:03d}" for image in shard] for shard in (range(4), range(4, 8), (8, 9))]
    with pytest.raises(AuditFailure, match="each 20 times, its crops and in order") as caught:
        audit.complete(url, corpus.spec, corpus.manifest.fingerprint, receipts.values(), [], 10,
                       planned.__getitem__)
    assert caught.value.shards == [1]


def test_people_and_programs_read_how_many_crops_there_are(config: Settings) -> None:
    make = config(crops="random:3", flips=True, crop_seed=4)
    encode_corpus(make)
    corpus = TokenCorpus.open(make.output)
    assert "30 rows from 10 inputs of 3 crops each in 3 shards" in report.describe(corpus)
    assert "crop random:3, crop_seed 4, flips True, resampling" in report.describe(corpus)
    assert json.loads(json.dumps(report.summary(corpus)))["num_crops"] == 3
    card = Path(make.output, "README.md").read_text()
    assert "30 rows from 10 inputs of 3 crops each, 0 dead letters" in card
    receipt = json.loads(Path(make.output, "_receipts/00000.json").read_text())
    assert receipt["num_crops"] == 3 and receipt["entry"]["rows"] == 12


def test_manifests_and_receipts_without_the_number_mean_one(config: Settings,
                                                            tmp_path: Path) -> None:
    encode_corpus(config())
    for path in (*sorted((tmp_path / "tokens/_receipts").iterdir()),
                 tmp_path / "tokens/manifest.json"):
        data = json.loads(path.read_text())
        assert data.pop("num_crops") == 1
        path.write_text(json.dumps(data))
    assert TokenCorpus.open(config().output).manifest.num_crops == 1
    (tmp_path / "tokens/_SUCCESS").unlink()
    assert encode_corpus(config()).num_rows == 10


def test_crops_of_one_image_are_decoded_to_files_of_their_own(config: Settings,
                                                              tmp_path: Path) -> None:
    make = config(crops="random:3")
    encode_corpus(make)
    done = decode_corpus(DecodeConfig(tokens=make.output, output=str(tmp_path / "out"),
                                      tokenizers={"image": "tok"}))
    assert done.num_crops == 30 and not done.dead_letters
    names = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert names == {f"img-{image:03d}{crop}.png" for image in range(10)
                     for crop in ("", "~1", "~2")}
    index = pq.read_table(tmp_path / "out/_decode/data").to_pylist()
    assert len({row["image_file"] for row in index}) == 30


def test_priors_hold_out_all_crops_of_an_image_or_none(config: Settings) -> None:
    from prior.dataset import CodeRows
    from tokenizer.splits import Split
    make = config(crops="ten-crop")
    encode_corpus(make)
    rows = CodeRows.load(TokenCorpus.open(make.output), ["image"])
    held_out = rows.is_held_out(Split(held_out=3)).reshape(10, 20)
    assert sorted(held_out.sum(1).tolist()) == [0] * 7 + [20] * 3


@pytest.mark.parametrize(("settings", "words"), [
    ({"crops": "nine-crop"}, "crops are centre, ten-crop, random:N, .*; got 'nine-crop'"),
    ({"crops": "ten-crop", "flips": True}, "leave out --flips")])
def test_what_is_no_rule_is_refused(config: Settings, settings: dict[str, object],
                                    words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**settings)
