"""Which bucket an image takes, on every machine the same."""
import math
import random
from fractions import Fraction

import pytest

from tokenizer.buckets import Size, in_order, nearest, sizes_of_area

SIZES = in_order([(8, 8), (16, 8), (8, 16)])


def test_buckets_are_ordered_from_the_widest_however_they_are_given() -> None:
    assert SIZES == ((8, 16), (8, 8), (16, 8)) == in_order(SIZES[::-1]) and in_order([]) == ()


@pytest.mark.parametrize(("height", "width", "bucket"), [
    (100, 200, (8, 16)), (7, 7, (8, 8)), (4000, 2000, (16, 8)),  # exact ratios
    (100, 150, (8, 16)), (100, 140, (8, 8)), (100, 70, (16, 8)), (100, 71, (8, 8)),
    (1, 65500, (8, 16)), (65500, 1, (16, 8)), (1, 1, (8, 8))])
def test_an_image_takes_the_bucket_nearest_to_its_ratio(height: int, width: int,
                                                        bucket: tuple[int, int]) -> None:
    assert SIZES[nearest(height, width, SIZES)] == bucket


def test_of_two_buckets_that_are_equally_near_it_is_the_wider_one() -> None:
    assert nearest(50, 50, in_order([(384, 256), (256, 384)])) == 0
    assert nearest(2, 1, in_order([(8, 8), (32, 8)])) == 0  # 2 is as far from 1 as from 4


def test_the_logarithms_of_the_ratios_are_what_is_compared() -> None:
    generator = random.Random(0)
    sizes = in_order([(8, 40), (16, 32), (24, 24), (32, 24), (40, 8)])
    for _ in range(300):
        height, width = generator.randrange(1, 5000), generator.randrange(1, 5000)
        distances = [abs(math.log(height / width) - math.log(h / w)) for h, w in sizes]
        if sorted(distances)[1] - min(distances) > 1e-9:
            assert nearest(height, width, sizes) == distances.index(min(distances))


@pytest.mark.parametrize(("sizes", "words"), [
    ([(256, 384)], "several buckets, got 256x384 alone: use --size 256x384"),
    ([(8, 8), (16, 16)], "got 8x8 and 16x16: leave out one"),
    ([(8, 16), (8, 8), (8, 16)], "got 8x16 and 8x16"),
    ([(0, 8), (8, 8)], "at least 1 pixel, got 0x8")])
def test_buckets_that_no_image_could_tell_apart_are_refused(
        sizes: list[tuple[int, int]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        in_order(sizes)


def test_sizes_of_an_area_are_the_published_ones() -> None:
    """As kohya-ss/sd-scripts makes them of 512 x 512 pixels, with sides from 256 to 1024."""
    wide = [(256, 1024), (256, 960), (256, 896), (256, 832), (320, 768), (320, 704), (384, 640),
            (448, 576)]
    assert sizes_of_area(512 * 512) == (*wide, (512, 512), *((w, h) for h, w in wide[::-1]))


@pytest.mark.parametrize(("num_pixels", "step", "ratio"), [
    (256 * 256, 32, Fraction(2)), (512 * 768, 64, Fraction(4)), (1000, 7, Fraction(5, 2))])
def test_sizes_of_an_area_fill_it_as_far_as_steps_and_ratio_allow(num_pixels: int, step: int,
                                                                  ratio: Fraction) -> None:
    def fits(size: Size) -> bool:
        return size[0] * size[1] <= num_pixels and max(size) <= ratio * min(size)
    square = math.isqrt(num_pixels) // step * step
    widest = [(height, num_pixels // height // step * step)
              for height in range(step, num_pixels // step + 1, step)]
    expected = {size for h, w in widest if fits((h, w)) for size in ((h, w), (w, h))}
    assert set(sizes_of_area(num_pixels, step, ratio)) == expected | {(square, square)}


@pytest.mark.parametrize(("num_pixels", "settings", "words"), [
    (100, {}, "an area of 100 pixels holds no square of 64"),
    (64 * 64, {}, "got 64x64 alone"),
    (10 ** 12, {"step": 8}, "sides of up to 250000 steps of 8 .* a step of 2000 or more"),
    (10 ** 6, {"ratio": Fraction(1, 2)}, "ratio at least 1, got 64 and 0.5"),
    (10 ** 6, {"step": 0}, "step is at least 1 pixel .* got 0 and 4")])
def test_areas_without_sizes_are_refused(num_pixels: int, settings: dict[str, int],
                                         words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sizes_of_area(num_pixels, **settings)
