"""The limit in pixels: exact, of a thread by itself, and told alike whatever others have done."""
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from corpus_files import encode, noise
from PIL import Image

from tokenizer.corpus import limits
from tokenizer.corpus.images import UnreadableImage, decode_image


def test_another_limit_holds_within_its_block_and_on_its_thread_alone() -> None:
    payload = encode(noise(8))
    with limits.at_most(24 * 32 - 1):
        with pytest.raises(UnreadableImage, match="32 x 24 pixels; at most 767"):
            decode_image(payload)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(decode_image, payload).result().shape == (24, 32, 3)
        with limits.at_most(24 * 32):
            assert decode_image(payload).shape == (24, 32, 3)
        assert limits.pixel_limit() == 24 * 32 - 1
    assert limits.pixel_limit() == limits.MAX_PIXELS == 178_000_000


def test_a_higher_limit_is_not_held_back_by_pillow_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(limits, "MAX_PIXELS", 200)
    payload = encode(noise(8))
    with pytest.raises(UnreadableImage, match="more than 200 pixels, the most"):
        decode_image(payload)
    with limits.at_most(1000):
        assert decode_image(payload).shape == (24, 32, 3)
    with pytest.raises(UnreadableImage, match="32 x 24 pixels; at most 200"):
        decode_image(payload)


def test_what_is_said_does_not_depend_on_the_limits_of_other_jobs(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr(limits, "PILLOW_PIXELS", 100)
    monkeypatch.setattr(limits, "MAX_PIXELS", 199)
    payloads = [encode(noise(8)), encode(noise(8, 5, 40)), encode(noise(8), "JPEG")]

    def told() -> list[str]:
        words = []
        for payload in payloads:
            with pytest.raises(UnreadableImage) as caught:
                decode_image(payload)
            words.append(str(caught.value))
        return words
    before = told()
    with limits.at_most(1000):
        assert decode_image(payloads[0]).shape == (24, 32, 3)
    assert told() == before
    assert before[1].startswith("40 x 5 pixels") and before[0].startswith("more than 199 pixels")


def test_of_two_jobs_that_raise_pillow_s_limit_at_once_neither_lowers_it(
        monkeypatch: pytest.MonkeyPatch) -> None:
    def enter(max_pixels: int) -> None:
        with limits.at_most(max_pixels):
            pass
    other = threading.Thread(target=enter, args=(1000,))

    class Pillow:
        """Begins the other job where the first one has read the limit and not yet written it."""
        limit = 100

        @property
        def MAX_IMAGE_PIXELS(self) -> int:
            found = self.limit
            if other.ident is None:
                other.start()
                other.join(0.3)
            return found

        @MAX_IMAGE_PIXELS.setter
        def MAX_IMAGE_PIXELS(self, value: int) -> None:
            self.limit = value
    pillow = Pillow()
    monkeypatch.setattr(limits, "Image", pillow)
    enter(400)
    other.join()
    assert pillow.limit == 500
