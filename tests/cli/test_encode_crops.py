"""``img2tokens encode --crops`` on a real tokenizer."""
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from random_tokenizers import encode

ImageFolder = Callable[[int], Path]


def test_codes_of_ten_crop_are_those_of_the_codec_exactly(image_folder: ImageFolder, tokenizer: str,
                                                          tmp_path: Path) -> None:
    from tokenizer.codec import Codec
    from tokenizer.corpus.crops import TenCrop
    from tokenizer.schema import codes_array
    from tokenizer.tokens import TokenCorpus
    photos, out = image_folder(2), tmp_path / "tokens"
    done = encode(photos, out, "--tokenizer", f"image={tokenizer}", "--crops", "ten-crop")
    assert done.exit_code == 0, done.output
    assert f"{out}: 40 rows in 1 shard, 0 dead letters\n" in done.output
    codec, corpus = Codec.load(tokenizer), TokenCorpus.open(str(out))
    size = codec.spec.image_size
    assert corpus.spec["image"] == dataclasses.replace(
        codec.spec, preprocessing={**codec.spec.preprocessing, "crop": "ten-crop"})
    expected = []
    for path in sorted(photos.iterdir()):
        raw = codec.modality.read(path.read_bytes(), path.name)
        crops = TenCrop().crops(*raw.shape[:2], size, path.stem)
        expected += [codec.encode(codec.modality.fit(raw, crop, size)[None])[0] for crop in crops]
    assert np.array_equal(codes_array(codec.spec, corpus.read_shard(0)), expected)


@pytest.mark.parametrize(("options", "words"), [
    (("--crops", "five-crop"), "LEAST-MOST; got 'five-crop'"),
    (("--crops", "random:0"), "random:N takes N of at least 1, got 0"),
    (("--crops", "random:99999999999"), "random:N takes N of at most 10000, got 99999999999")])
def test_what_is_no_rule_names_its_option(tmp_path: Path, options: tuple[str, ...],
                                          words: str) -> None:
    done = encode(tmp_path, tmp_path / "tokens", "--tokenizer", "image=tok", *options)
    assert done.exit_code == 2 and "Invalid value for '--crops'" in done.output
    assert words in done.output


def test_rules_that_do_not_go_together_are_one_line(tmp_path: Path) -> None:
    done = encode(tmp_path, tmp_path / "tokens", "--tokenizer", "image=tok", "--crops", "ten-crop",
                  "--flips")
    assert done.exit_code == 1 and "leave out --flips" in done.output
    assert done.output.startswith("Error: ") and done.output.count("\n") == 1
