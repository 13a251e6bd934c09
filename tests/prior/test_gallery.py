"""Pictures of samples: files by key, and a grid of what was given beside what came of it."""
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from drawn_codes import GRID
from PIL import Image

from prior.dataset import CodeRows
from prior.gallery import check_decoders, grid, write_gallery, write_surprise
from prior.generate import Generation
from prior.givens import from_codes, from_corpus, from_labels
from prior.model import Prior
from prior.sampling import SamplingConfig, sample_corpus
from tokenizer.pictures import png_bytes
from tokenizer.schema import UNKNOWN, CodeSpec, SpecMismatch, TokenSpec
from tokenizer.tokens import TokenCorpus


class Squares:
    """Decodes each code to a grey square of 4 pixels; shows and writes pixels as they are."""

    def __init__(self, spec: CodeSpec, scale: int) -> None:
        self.spec, self.modality, self.scale = spec, self, scale
        self.num_decoded = 0

    def decode(self, codes: np.ndarray) -> np.ndarray:
        self.num_decoded += len(codes)
        return (codes.repeat(4, 1).repeat(4, 2) * self.scale).astype(np.uint8)

    def show(self, pixels: np.ndarray) -> np.ndarray:
        return np.repeat(pixels[..., None], 3, -1)

    def write(self, pixels: np.ndarray) -> tuple[bytes, str]:
        return png_bytes(pixels), ".png"


def decoders(prior: Prior) -> dict[str, Squares]:
    return {name: Squares(prior.config.spec[name], scale)
            for name, scale in (("image", 30), ("segmentation", 60))}


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())))


def test_every_sample_becomes_a_file_named_by_its_key(prior: Prior, tmp_path: Path) -> None:
    config = SamplingConfig(num=70, shard_size=40, generation=Generation(batch_size=35))
    manifest = sample_corpus(prior, from_labels(prior.config, ["dog"]), str(tmp_path), config)
    corpus = TokenCorpus(str(tmp_path), manifest)
    count = write_gallery(corpus, str(tmp_path), {"image": decoders(prior)["image"]})
    assert count == 70 and len(list((tmp_path / "images").iterdir())) == 70
    codes = np.array(corpus.read_shard(1)["image_codes"].to_pylist()[-1]).reshape(GRID)
    np.testing.assert_array_equal(read(tmp_path / "images" / "sample-00069.png")[::4, ::4],
                                  codes * 30)


def test_the_grid_shows_the_map_before_its_samples(prior: Prior, tmp_path: Path,
                                                   trained: tuple[TokenCorpus, str]) -> None:
    givens = from_corpus(prior.config, trained[0])
    config = SamplingConfig(num=4, samples_each=2, generation=Generation(batch_size=4))
    manifest = sample_corpus(prior, givens, str(tmp_path), config)
    write_gallery(TokenCorpus(str(tmp_path), manifest), str(tmp_path), decoders(prior),
                  samples_each=2)
    sheet = read(tmp_path / "grid.png")
    height, width = GRID[0] * 4, GRID[1] * 4
    assert sheet.shape == (height + 4, 6 * (width + 2) + 2, 3)
    for block in (0, 1):
        left = 2 + 3 * block * (width + 2)
        given = givens.conditions["segmentation"][block].reshape(GRID) * 60
        np.testing.assert_array_equal(sheet[2:2 + height:4, left:left + width:4, 0], given)
        first = read(tmp_path / "images" / f"sample-0000{2 * block}.png")
        np.testing.assert_array_equal(sheet[2:2 + height, left + width + 2:left + 2 * width + 2, 0],
                                      first)


def test_the_grid_shows_originals_before_their_completions(
        prior: Prior, tmp_path: Path, trained: tuple[TokenCorpus, str]) -> None:
    givens = from_corpus(prior.config, trained[0], keep=0.5)
    config = SamplingConfig(num=2, generation=Generation(batch_size=2))
    manifest = sample_corpus(prior, givens, str(tmp_path), config)
    write_gallery(TokenCorpus(str(tmp_path), manifest), str(tmp_path),
                  {"image": decoders(prior)["image"]}, originals=givens.originals)
    sheet, height, width = read(tmp_path / "grid.png"), GRID[0] * 4, GRID[1] * 4
    assert givens.originals is not None
    np.testing.assert_array_equal(sheet[2:2 + height:4, 2:2 + width:4, 0],
                                  givens.originals[0] * 30)
    np.testing.assert_array_equal(sheet[2:10, 2:2 + width], sheet[2:10, 4 + width:4 + 2 * width])


def test_the_grid_shows_a_hole_in_grey_between_original_and_samples(
        prior: Prior, tmp_path: Path, trained: tuple[TokenCorpus, str]) -> None:
    hole = np.array([[False, True], [True, False], [False, False]])
    givens = from_corpus(prior.config, trained[0], hole=hole)
    manifest = sample_corpus(prior, givens, str(tmp_path),
                             SamplingConfig(num=1, generation=Generation(batch_size=1)))
    write_gallery(TokenCorpus(str(tmp_path), manifest), str(tmp_path),
                  {"image": decoders(prior)["image"]}, originals=givens.originals, hole=hole)
    sheet, width = read(tmp_path / "grid.png")[2:14:4, 2::4, 0], GRID[1]
    original, painted, sample = (sheet[:, start:start + width] for start in (0, 3, 5))
    assert givens.originals is not None
    np.testing.assert_array_equal(original, givens.originals[0] * 30)
    np.testing.assert_array_equal(painted, np.where(hole, 128, original))
    np.testing.assert_array_equal(sample[~hole], original[~hole])


def test_unexpected_cells_are_bright_beside_their_samples(
        prior: Prior, tmp_path: Path, trained: tuple[TokenCorpus, str]) -> None:
    corpus, codec = trained[0], decoders(prior)["image"]
    rows = CodeRows.load(corpus, ["image", "segmentation"]).select(np.arange(2))
    odd = rows.codes["image"].copy()
    odd[0, 1, 0] = (odd[0, 1, 0] + 4) % 8
    givens = from_codes(prior.config, {"image": odd, "segmentation": rows.codes["segmentation"]},
                        {"image": list("ab"), "segmentation": list("cd")},
                        labels=[str(label) for label in rows.labels],
                        hole=np.array([[False] * 2, [False] * 2, [False, True]]))
    manifest = sample_corpus(prior, givens, str(tmp_path),
                             SamplingConfig(generation=Generation(batch_size=2)))
    write_surprise(prior, TokenCorpus(str(tmp_path), manifest), str(tmp_path), codec, 2)
    sheet, width = read(tmp_path / "likelihood.png"), GRID[1] * 4 + 2
    assert sheet.shape == (GRID[0] * 4 + 4, 4 * width + 2, 3)
    first, second = (sheet[2:14:4, 2 + place * width:2 + place * width + 8:4, 0]
                     for place in (1, 3))
    assert first[1, 0] > 200 and second[1, 0] < 60 and np.median(first) < 60


def test_unexpected_cells_are_shown_of_the_first_images_of_all_shards(prior: Prior,
                                                                       tmp_path: Path) -> None:
    manifest = sample_corpus(prior, from_labels(prior.config, ["dog"]), str(tmp_path),
                             SamplingConfig(num=5, shard_size=2,
                                            generation=Generation(batch_size=5)))
    write_surprise(prior, TokenCorpus(str(tmp_path), manifest), str(tmp_path),
                   decoders(prior)["image"], 5)
    width = 5 * 2 * (GRID[1] * 4 + 2) + 2
    assert read(tmp_path / "likelihood.png").shape == (GRID[0] * 4 + 4, width, 3)


def test_maps_are_decoded_for_the_grid_alone(prior: Prior, tmp_path: Path,
                                             trained: tuple[TokenCorpus, str]) -> None:
    config = SamplingConfig(generation=Generation(batch_size=100))
    manifest = sample_corpus(prior, from_corpus(prior.config, trained[0]), str(tmp_path), config)
    both = decoders(prior)
    write_gallery(TokenCorpus(str(tmp_path), manifest), str(tmp_path), both)
    assert (both["image"].num_decoded, both["segmentation"].num_decoded) == (200, 64)


def test_a_short_last_block_is_filled_with_white() -> None:
    samples = np.zeros((3, 2, 2, 3), np.uint8)
    sheet = grid(samples, [np.full((2, 4, 4, 3), 9, np.uint8)], 2)
    assert sheet.shape == (6, 6 * 4 + 2, 3)
    assert (sheet[2:4, 22:24] == 255).all() and (sheet[2:4, 18:20] == 0).all()


def test_decoders_of_other_tokenizers_are_refused_with_both_fingerprints(prior: Prior) -> None:
    import dataclasses
    spec = prior.config.spec
    other = dataclasses.replace(spec["image"], tokenizer="sha256:other")
    with pytest.raises(SpecMismatch, match="tokenizer sha256:image, given is sha256:other"):
        check_decoders(spec, {"image": Squares(other, 1)})
    with pytest.raises(SpecMismatch, match="given for image is one for segmentation"):
        check_decoders(spec, {"image": Squares(spec["segmentation"], 1)})
    with pytest.raises(ValueError, match="no depth codes"):
        check_decoders(spec, {"depth": Squares(spec["image"], 1)})


def test_codes_of_an_unknown_tokenizer_are_shown_by_one_of_their_codebook(prior: Prior) -> None:
    known = prior.config.spec["image"]
    unknown = TokenSpec(codes=(dataclasses.replace(known, tokenizer=UNKNOWN),))
    check_decoders(unknown, {"image": Squares(known, 30)})
    larger = dataclasses.replace(known, codebook_size=known.codebook_size + 1)
    with pytest.raises(SpecMismatch, match="the codebook_size of the image codes is"):
        check_decoders(unknown, {"image": Squares(larger, 30)})
