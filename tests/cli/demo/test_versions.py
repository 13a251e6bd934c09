"""Clean and spoiled versions of pictures: which codes are wrong, and which scenes are held out."""
from pathlib import Path

import numpy as np
import pytest

from cli.demo.scenes import CAPTIONS, draw, write_corpus
from cli.demo.versions import NUM_CLEAN, NUM_VERSIONS, SHARES, read_scenes, spoil
from tokenizer.codec import Codec
from tokenizer.splits import Split


@pytest.fixture(scope="module")
def codec(tokenizer: str) -> Codec:
    return Codec.load(tokenizer)


class Recorder:
    """A codec whose pictures are its codes, 8 x 8 of 32."""

    class spec:
        codebook_size = 32

    def encode(self, images: np.ndarray) -> np.ndarray:
        return images[..., 0].astype(np.uint16)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return np.stack([codes] * 3, -1).astype(np.uint8)


def wrong_codes() -> np.ndarray:
    """Which codes differ from the right ones, ``(N, V, h, w)``."""
    images = np.random.default_rng(1).integers(0, 32, (40, 8, 8, 1)).repeat(3, -1).astype(np.uint8)
    versions = spoil(Recorder(), images, np.random.default_rng(2))  # type: ignore[arg-type]
    return versions[..., 0] != images[:, None, ..., 0]


def test_clean_versions_have_no_wrong_code_and_others_have_their_share() -> None:
    wrong = wrong_codes()
    assert wrong.shape[1] == NUM_VERSIONS and not wrong[:, :NUM_CLEAN].any()
    shares = wrong[:, NUM_CLEAN:].mean((2, 3))
    assert (shares <= [high + 0.15 for _, high in SHARES]).all()
    assert (np.diff(shares.mean(0)) > 0.1).all()


def test_codes_that_are_wrong_stay_wrong() -> None:
    wrong = wrong_codes()
    for version in range(NUM_CLEAN, NUM_VERSIONS - 1):
        assert not (wrong[:, version] & ~wrong[:, version + 1]).any()


def test_scenes_are_divided_as_all_commands_divide_them(tmp_path: Path, codec: Codec) -> None:
    assert list(write_corpus(tmp_path, 12))[-1] == 12
    trained, held = read_scenes(tmp_path, codec, held_out=5, most=4)
    keys = [line.split(",")[0] for line in (tmp_path / CAPTIONS).read_text().splitlines()[1:]]
    expected = Split(held_out=5).divide(keys)[1]
    assert held.captions == [draw(int(key.rpartition("/")[2])).caption for key in expected]
    assert held.versions.shape == (5, NUM_VERSIONS, 32, 32, 3)
    assert len(trained) == 4  # every second one of 7
