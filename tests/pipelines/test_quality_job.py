"""`encode --stats`: further columns, and everything else as it is without them."""
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.plan import PlanMismatch, load_plan
from pipelines.retry import retry_corpus
from tokenizer.audit import verify
from tokenizer.schema import codes_array
from tokenizer.tokens import TokenCorpus

Settings = Callable[..., EncodeConfig]


def test_quality_columns_are_added_to_the_same_codes(config: Settings, tmp_path: Path) -> None:
    encode_corpus(config())
    plain = TokenCorpus.open(f"{tmp_path}/tokens")
    encode_corpus(config(stats=True, output=f"{tmp_path}/measured"))
    measured = TokenCorpus.open(f"{tmp_path}/measured")
    assert measured.spec.quality == ("image_psnr", "image_entropy", "image_distance",
                                     "image_margin")
    assert load_plan(measured.url).settings["quality"] == list(measured.spec.quality)
    assert not any(verify(measured))
    for old, new in zip(plain.tables(), measured.tables(), strict=True):
        assert new.drop_columns(list(measured.spec.quality)).equals(old)
        codes = codes_array(measured.spec["image"], new)
        assert new["image_distance"].to_pylist() == [1.0] * len(codes)
        assert np.allclose(new["image_margin"].to_pylist(), codes.mean((1, 2)))
        assert all(5 < decibels < 60 for decibels in new["image_psnr"].to_pylist())


def test_a_corpus_without_quality_columns_does_not_speak_of_them(config: Settings,
                                                                 tmp_path: Path) -> None:
    encode_corpus(config())
    for name in ("_plan/plan.json", "manifest.json", "_receipts/00000.json"):
        assert '"quality"' not in (tmp_path / "tokens" / name).read_text()


def test_a_job_does_not_go_on_with_other_columns(config: Settings) -> None:
    encode_corpus(config())
    with pytest.raises(PlanMismatch, match="quality was None, now"):
        encode_corpus(config(stats=True))


def test_a_dead_letter_of_a_batch_leaves_the_values_of_the_others(config: Settings,
                                                                  tmp_path: Path) -> None:
    encode_corpus(config(stats=True))
    whole = [row for table in TokenCorpus.open(f"{tmp_path}/tokens").tables()
             for row in table.to_pylist()]
    Image.new("RGB", (44, 40), "white").save(tmp_path / "photos/img-005.png")
    encode_corpus(config(stats=True, output=f"{tmp_path}/other"))
    other = TokenCorpus.open(f"{tmp_path}/other")
    assert [letter.key for letter in other.dead_letters()] == ["img-005"]
    rows = [row for table in other.tables() for row in table.to_pylist()]
    assert rows == [row for row in whole if row["key"] != "img-005"]


def test_dead_letters_that_are_tried_again_get_quality_columns_too(config: Settings,
                                                                   tmp_path: Path) -> None:
    job = config(stats=True)
    sound = (tmp_path / "photos/img-005.png").read_bytes()
    (tmp_path / "photos/img-005.png").write_bytes(b"broken")
    encode_corpus(job)
    (tmp_path / "photos/img-005.png").write_bytes(sound)
    retry_corpus(job.output, {"image": "tok"}, num_workers=1)
    corpus = TokenCorpus.open(job.output)
    assert not any(verify(corpus)) and corpus.manifest.num_rows == 10
    rows = [row for table in corpus.tables() for row in table.to_pylist()]
    assert rows[-1]["key"] == "img-005" and rows[-1]["image_psnr"] > 5
