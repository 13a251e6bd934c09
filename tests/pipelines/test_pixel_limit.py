"""The limit in pixels of a job: what is larger is a dead letter, and the job keeps its limit."""
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from delta_corpora import codes_by_key
from job_fakes import save_maps
from PIL import Image

from cli.encode import encode
from pipelines.contact_sheet import SheetConfig, contact_sheet
from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.plan import PlanMismatch
from pipelines.retry import retry_corpus
from tokenizer.corpus import limits
from tokenizer.tokens import TokenCorpus

Settings = Callable[..., EncodeConfig]
LIMIT = 40 * 46
"""Pixels of the largest images that are taken."""

LARGER = ("img-006", "img-009", "img-010")


@pytest.fixture
def limited(config: Settings, image_folder: Callable[[int], Path]) -> Callable[..., EncodeConfig]:
    """Configs over eleven images, three of which have more pixels than the limit."""
    folder = image_folder(11)
    for name in LARGER:
        Image.new("RGB", (46, 41), "navy").save(folder / f"{name}.png")
    for index in (5, 7, 8):
        Image.new("RGB", (46, 40), "teal").save(folder / f"img-{index:03d}.png")
    return lambda **settings: config(**{"max_pixels": LIMIT, **settings})


def test_what_is_larger_is_a_dead_letter_and_all_else_a_row(limited: Settings) -> None:
    make = limited()
    assert encode_corpus(make).dead_letters == {"UnreadableImage": 3}
    letters = list(TokenCorpus.open(make.output).dead_letters())
    assert tuple(letter.key for letter in letters) == LARGER
    assert letters[0].message == ("46 x 41 pixels; at most 1840 pixels are decoded: make it "
                                  "smaller, or raise --max-pixels")
    assert len(codes_by_key(make.output)) == 8
    unlimited = limited(max_pixels=limits.MAX_PIXELS, output=f"{make.output}-all")
    encode_corpus(unlimited)
    every = codes_by_key(unlimited.output)
    assert {key: every[key] for key in every if key not in LARGER} == codes_by_key(make.output)


def test_a_job_goes_on_with_the_same_limit_only(limited: Settings) -> None:
    make = limited()
    encode_corpus(make)
    with pytest.raises(PlanMismatch, match="max_pixels was 1840, now 1841"):
        encode_corpus(dataclasses.replace(make, max_pixels=LIMIT + 1))
    with pytest.raises(PlanMismatch, match="max_pixels was 1840, now None"):
        encode_corpus(dataclasses.replace(make, max_pixels=limits.MAX_PIXELS))
    assert encode_corpus(make).num_dead_letters == 3


def test_the_usual_limit_leaves_no_trace(limited: Settings) -> None:
    make = limited(max_pixels=limits.MAX_PIXELS)
    encode_corpus(make)
    plan = json.loads((Path(make.output) / "_plan/plan.json").read_text())
    assert "max_pixels" not in plan["settings"] and "max_pixels" not in plan["options"]


def test_retries_and_new_images_go_by_the_limit_of_the_corpus(limited: Settings) -> None:
    make = limited()
    encode_corpus(make)
    Image.new("RGB", (46, 40), "navy").save(Path(make.corpus) / f"{LARGER[0]}.png")
    done = retry_corpus(make.output, make.tokenizers)
    assert done.num_tried == 3 and done.manifest.dead_letters == {"UnreadableImage": 2}
    Image.new("RGB", (46, 41), "navy").save(Path(make.corpus) / "new.png")
    Image.new("RGB", (46, 40), "navy").save(Path(make.corpus) / "newer.png")
    manifest = encode_corpus(dataclasses.replace(make, extend=True))
    assert manifest.num_dead_letters == 3 and "newer" in codes_by_key(make.output)


def test_maps_count_as_well(limited: Settings, tmp_path: Path) -> None:
    save_maps(tmp_path / "depth", tmp_path / "photos", lambda size: np.zeros(size, np.uint16))
    make = limited(tokenizers={"depth": "depth-tok"}, corpus=str(tmp_path / "depth"))
    assert encode_corpus(make).dead_letters == {"UnreadableImage": 3}


def test_a_contact_sheet_shows_what_a_higher_limit_let_in(
        limited: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = limited(max_pixels=10_000)
    encode_corpus(make)
    monkeypatch.setattr(limits, "MAX_PIXELS", 100)
    sheet = contact_sheet(SheetConfig(tokens=make.output, output=str(tmp_path / "sheet.png"),
                                      tokenizers={"image": "tok"}))
    assert sheet.num_rows == 11 and not sheet.missing


def test_a_limit_of_no_pixels_is_refused(config: Settings) -> None:
    with pytest.raises(ValueError, match="max_pixels must be at least 1, got 0"):
        config(max_pixels=0)


def test_the_command_s_limit_is_that_of_the_library() -> None:
    option = next(param for param in encode.params if param.name == "max_pixels")
    assert isinstance(option, click.Option) and option.default == limits.MAX_PIXELS
