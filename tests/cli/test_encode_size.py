"""``img2tokens encode --size``: pictures of another size than the tokenizer's, and back."""
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from random_tokenizers import save_tokenizer

from cli.main import main

ImageFolder = Callable[[int], Path]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_pictures_of_another_shape_are_encoded_and_decoded(image_folder: ImageFolder,
                                                           tmp_path: Path) -> None:
    from tokenizer.codec import Codec
    from tokenizer.corpus.images import centre_crop
    from tokenizer.schema import codes_array
    from tokenizer.tokens import TokenCorpus
    photos, out, tok = image_folder(3), tmp_path / "tokens", save_tokenizer(tmp_path / "tok")
    command = ("encode", photos, out, "--tokenizer", f"image={tok}")
    done = run(*command, "--size", "16x48")
    assert done.exit_code == 0, done.output
    corpus, codec = TokenCorpus.open(str(out)), Codec.load(tok).at_size((16, 48))
    assert corpus.spec["image"] == codec.spec
    codes = codes_array(codec.spec, corpus.read_shard(0))
    for path, found in zip(sorted(photos.iterdir()), codes, strict=True):
        raw = codec.modality.read(path.read_bytes(), path.name)
        crop = centre_crop(*raw.shape[:2], (16, 48))
        assert np.array_equal(codec.encode(codec.modality.fit(raw, crop, (16, 48))[None])[0], found)
    done = run("decode", out, tmp_path / "pictures", "--tokenizer", f"image={tok}")
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "pictures/img-001.png") as image:
        assert np.array_equal(np.asarray(image), codec.decode(codes)[1])
    refused = run(*command)
    assert refused.exit_code == 1 and "codes.image.image_size was [16, 48], now [" in refused.output


def test_priors_learn_and_show_pictures_of_the_shape_of_the_tokens(image_folder: ImageFolder,
                                                                   tmp_path: Path) -> None:
    photos, out, tok = image_folder(6), tmp_path / "tokens", save_tokenizer(tmp_path / "tok")
    for arguments in (
            ("encode", photos, out, "--tokenizer", f"image={tok}", "--size", "16x48"),
            ("train-prior", out, tmp_path / "prior", "--recipe", "tiny", "--steps", 2,
             "--held-out", 1, "--tokenizer", tok),
            ("sample", tmp_path / "prior", tmp_path / "samples", "--tokenizer", tok, "--num", 2)):
        done = run(*arguments)
        assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "samples/images/sample-00001.png") as image:
        assert image.size == (48, 16)


@pytest.mark.parametrize(("size", "code", "words"), [
    ("30x50", 1, "--size 30x50: a code of the image tokenizer is of"),
    ("0x32", 1, "both sides are multiples of"),
    ("80000x80000", 1, "--size 80000x80000: pictures have at most 178000000 pixels"),
    ("32", 2, "'32' is no height and width, for example 256x384"),
    ("axb", 2, "'axb' is no height and width")])
def test_a_size_that_the_tokenizer_cannot_take_is_refused(
        image_folder: ImageFolder, tmp_path: Path, size: str, code: int, words: str) -> None:
    tok = save_tokenizer(tmp_path / "tok")
    done = run("encode", image_folder(1), tmp_path / "tokens", "--tokenizer", f"image={tok}",
               "--size", size)
    assert done.exit_code == code and words in done.output
    assert not (tmp_path / "tokens").exists()
