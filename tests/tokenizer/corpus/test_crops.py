"""Crop rules: exact boxes, numbers in order, and draws from seed, key and number alone."""
import hashlib
from typing import Any

import numpy as np
import pytest

from tokenizer.corpus.crops import CENTRE, CROPS, Random, TenCrop, crop_rule
from tokenizer.corpus.images import Crop, centre_crop

TEXTS = ["centre", "ten-crop", "random:5", "random:5:0.4", "random:5:0.25-0.5"]
DRAWN = [(2, 8, 103, 52, False), (7, 29, 112, 56, False), (1, 22, 115, 58, True)]


def boxes(crops: list[Crop]) -> list[tuple[int, int, int, int, bool]]:
    return [(crop.left, crop.top, crop.width, crop.height, crop.flipped) for crop in crops]


def test_every_rule_is_tested_here() -> None:
    assert {text.partition(":")[0] for text in TEXTS} == set(CROPS)


def test_ten_crop_is_the_published_one() -> None:
    # At 256 pixels the whole, 281 x 281 at left 9, is 281 pixels wide at 1.1 and 268 at 1.05: boxes
    # of 256 / 281 of 281 pixels, then of 256 / 268 of them.
    corners = [(9, 0), (34, 0), (9, 25), (34, 25)]
    nearer = [(9, 0), (22, 0), (9, 13), (22, 13)]
    expected = []
    for places, centre, side in ((corners, (21, 12), 256), (nearer, (15, 6), 268)):
        top_left, top_right, bottom_left, bottom_right = places
        expected += [(*place, side, side, False) for place in (*places, centre)]
        expected += [(*place, side, side, True) for place in (
            top_right, top_left, bottom_right, bottom_left, centre)]
    assert boxes(TenCrop().crops(281, 300, (256, 256), "tom")) == expected


def test_each_box_of_ten_crop_is_there_with_its_mirror_image() -> None:
    crops = boxes(TenCrop().crops(90, 61, (48, 64), "tom"))
    plain, mirrored = ([box[:4] for box in crops if box[4] is flipped] for flipped in (False, True))
    assert sorted(plain) == sorted(mirrored) and len(set(plain)) == 10


def test_ten_crop_reaches_the_edges_of_the_whole_and_no_further() -> None:
    whole = centre_crop(90, 61, (48, 64))
    crops = TenCrop().crops(90, 61, (48, 64), "tom")[:10]
    assert {crop.left for crop in crops} >= {whole.left}
    assert max(crop.left + crop.width for crop in crops) == whole.left + whole.width
    assert min(crop.top for crop in crops) == whole.top
    assert max(crop.top + crop.height for crop in crops) == whole.top + whole.height


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("height, width", [(1, 1), (3, 700), (40, 48), (97, 64)])
def test_crops_are_numbered_and_lie_within_the_image(text: str, height: int, width: int) -> None:
    rule = crop_rule(text)
    crops = rule.crops(height, width, (32, 32), "tom")
    assert [crop.index for crop in crops] == list(range(rule.num_crops))
    assert 0 < rule.sides[0] <= rule.sides[1] <= 1
    assert all(crop.left + crop.width <= width and crop.top + crop.height <= height
               for crop in crops)


@pytest.mark.parametrize("text", TEXTS)
def test_crops_keep_the_ratio_of_the_tokenizer(text: str) -> None:
    rule = crop_rule(text)
    for crop in rule.crops(900, 1000, (256, 384), "tom"):
        assert crop.width / crop.height == pytest.approx(1.5, abs=0.01)
        assert rule.sides[0] - 0.005 <= crop.width / 1000 <= rule.sides[1] + 0.005


def test_one_crop_without_flips_is_the_centre() -> None:
    for height, width in ((40, 48), (7, 3), (500, 333)):
        assert CENTRE.crops(height, width, (8, 12), "tom") == [centre_crop(height, width, (8, 12))]


def test_draws_do_not_change_between_versions() -> None:
    drawn = crop_rule("random:3", flips=True, seed=1).crops(100, 120, (32, 64), "cats/tom")
    assert boxes(drawn) == DRAWN


def test_draws_are_those_of_the_specification() -> None:
    for index, box in enumerate(DRAWN):
        number = int.from_bytes(hashlib.sha256(f"{index}\ncats/tom".encode()).digest()[:8], "big")
        side, down, right, mirror = np.random.default_rng((1, number)).random(4)
        height, width = (round((0.8 + 0.2 * side) * whole) for whole in (60, 120))
        assert box == (int(right * (121 - width)), int(down * (101 - height)), width, height,
                       mirror < 0.5)


def test_a_draw_depends_on_seed_key_and_number_alone() -> None:
    def draw(count: int, seed: int, key: str) -> list[Crop]:
        return Random(count=count, flips=True, seed=seed).crops(400, 500, (32, 32), key)
    many = draw(6, 1, "tom")
    assert draw(2, 1, "tom") == many[:2] and draw(6, 1, "tom") == many
    others = [*many, *draw(6, 2, "tom"), *draw(6, 1, "tim")]
    assert len(set(boxes(others))) == 18


def test_drawn_crops_vary_in_side_and_place_and_half_are_mirrored() -> None:
    crops = crop_rule("random:300", flips=True).crops(400, 800, (32, 32), "tom")
    sides = [crop.width for crop in crops]
    assert 320 <= min(sides) < 325 and 395 < max(sides) <= 400
    assert min(crop.left for crop in crops) < 20
    assert max(crop.left + crop.width for crop in crops) > 780
    assert 120 < sum(crop.flipped for crop in crops) < 180
    assert not any(crop.flipped for crop in crop_rule("random:99").crops(40, 80, (32, 32), "tom"))


@pytest.mark.parametrize(("text", "least", "most"), [("random:300:0.4", 160, 160),
                                                     ("random:300:0.25-0.5", 100, 200),
                                                     ("random:300:1", 400, 400)])
def test_boxes_of_other_sides_lie_anywhere_too(text: str, least: int, most: int) -> None:
    crops = crop_rule(text).crops(400, 800, (32, 32), "tom")
    sides = [crop.width for crop in crops]
    assert least <= min(sides) <= least + 5 and most - 5 <= max(sides) <= most
    assert min(crop.left for crop in crops) < 20
    assert max(crop.left + crop.width for crop in crops) > 780
    assert max(crop.top + crop.height for crop in crops) > 390


def test_boxes_of_the_same_draws_differ_by_their_sides_alone() -> None:
    usual, small = (crop_rule(text, True, 1).crops(1000, 1200, (320, 640), "cats/tom")
                    for text in ("random:3", "random:3:0.5"))
    assert {(crop.height, crop.width) for crop in small} == {(300, 600)}
    for box, other in zip(usual, small, strict=True):
        assert box.flipped == other.flipped
        assert other.top / 701 == pytest.approx(box.top / (1001 - box.height), abs=0.003)


def test_flips_of_the_centre_are_drawn_by_key() -> None:
    rule, keys = crop_rule("centre", flips=True), [f"img-{number}" for number in range(200)]
    crops = [rule.crops(40, 60, (32, 32), key)[0] for key in keys]
    assert {box[:4] for box in boxes(crops)} == {(10, 0, 40, 40)}
    assert 70 < sum(crop.flipped for crop in crops) < 130


@pytest.mark.parametrize(("text", "flips", "seed", "expected"), [
    ("centre", False, 3, {"crop": "centre"}),
    ("centre", True, 3, {"crop": "centre", "flips": True, "crop_seed": 3}),
    ("ten-crop", False, 3, {"crop": "ten-crop"}),
    ("random:4", False, 0, {"crop": "random:4", "crop_seed": 0}),
    ("random:4", True, 9, {"crop": "random:4", "flips": True, "crop_seed": 9}),
    ("random:4:0.8-1", False, 0, {"crop": "random:4", "crop_seed": 0}),
    ("random:4:.50", False, 0, {"crop": "random:4:0.5", "crop_seed": 0}),
    ("random:4:0.00001-1.0", False, 0, {"crop": "random:4:0.00001-1", "crop_seed": 0}),
])
def test_settings_say_what_decides_the_crops_and_no_more(text: str, flips: bool, seed: int,
                                                         expected: dict[str, Any]) -> None:
    rule = crop_rule(text, flips, seed)
    assert rule.settings() == expected
    assert crop_rule(rule.text, flips, seed) == rule


@pytest.mark.parametrize("text", ["five-crop", "", "random", "random:", "random:x", "random:-1",
                                  "centre:2", "ten-crop:", "random:2:", "random:2:0.5-",
                                  "random:2:-0.5", "random:2:half", "random:2:1e-1",
                                  "random:2:0.5:0.6"])
def test_an_unknown_rule_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        crop_rule(text)
    assert str(caught.value) == ("crops are centre, ten-crop, random:N, random:N:SIDE, "
                                 f"random:N:LEAST-MOST; got {text!r}")


@pytest.mark.parametrize(("text", "flips", "seed", "words"), [
    ("random:0", False, 0, "N of at least 1, got 0"),
    ("ten-crop", True, 0, "leave out --flips"),
    ("random:2", False, -1, "must be at least 0, got -1"),
    ("random:2:0", False, 0, "above 0, at most 1 and the lesser first, got 0-0"),
    ("random:2:1.5", False, 0, "at most 1 and the lesser first, got 1.5-1.5"),
    ("random:2:0.5-0.4", False, 0, "the lesser first, got 0.5-0.4"),
])
def test_settings_out_of_range_are_refused(text: str, flips: bool, seed: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        crop_rule(text, flips, seed)
