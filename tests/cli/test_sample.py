"""``img2tokens sample``: tokens, images and a grid, and errors in one line."""
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cli.main import main
from cli.sampling_inputs import find_hole
from tokenizer.codec import Codec
from tokenizer.corpus.images import centre_crop
from tokenizer.schema import codes_array
from tokenizer.tokens import TokenCorpus


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def prior(tokenized: Path) -> Path:
    """A prior of a few steps, conditioned on label and segmentation."""
    result = run("train-prior", tokenized / "tokens", tokenized / "prior", "--condition", "label",
                 "--condition", "segmentation", "--recipe", "tiny", "--steps", 3, "--held-out", 4)
    assert result.exit_code == 0, result.output
    return tokenized / "prior"


def sample(prior: Path, out: Path, *arguments: object) -> Result:
    return run("sample", prior, out, "--batch-size", 4, *arguments)


def test_samples_can_be_inspected_and_decoded_like_any_corpus(tokenized: Path, prior: Path,
                                                              tmp_path: Path) -> None:
    out = tmp_path / "samples"
    result = sample(prior, out, "--tokenizer", tokenized / "image", "--num", 6, "--label", "dog")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"6 images in {out}; see {out}/grid.png"
    shown = run("inspect", out, "--verify")
    assert shown.exit_code == 0 and "verified" in shown.output
    decoded = run("decode", out, tmp_path / "decoded", "--tokenizer",
                  f"image={tokenized / 'image'}")
    assert decoded.exit_code == 0, decoded.output
    for path in sorted((out / "images").iterdir()):
        np.testing.assert_array_equal(np.asarray(Image.open(path)),
                                      np.asarray(Image.open(tmp_path / "decoded" / path.name)))


def test_images_are_the_decoded_codes(tokenized: Path, prior: Path, tmp_path: Path) -> None:
    sample(prior, tmp_path, "--tokenizer", f"image={tokenized / 'image'}", "--num", 3)
    corpus = TokenCorpus.open(str(tmp_path))
    codec = Codec.load(str(tokenized / "image"))
    pixels = codec.decode(codes_array(corpus.spec["image"], corpus.read_shard(0)))
    shown = np.asarray(Image.open(tmp_path / "images" / "sample-00002.png"))
    np.testing.assert_array_equal(shown, pixels[2])


def test_maps_are_shown_beside_their_samples(tokenized: Path, prior: Path, tmp_path: Path) -> None:
    result = sample(prior, tmp_path, "--tokenizer", tokenized / "image", "--tokenizer",
                    f"segmentation={tokenized / 'segmentation'}", "--condition-from",
                    tokenized / "tokens", "--held-out", "--samples-each", 2)
    assert result.exit_code == 0, result.output
    assert TokenCorpus.open(str(tmp_path)).manifest.num_rows == 8
    assert Image.open(tmp_path / "grid.png").size == (12 * 34 + 2, 34 + 2)


def test_halves_are_completed(tokenized: Path, prior: Path, tmp_path: Path) -> None:
    result = sample(prior, tmp_path, "--complete-from", tokenized / "tokens", "--num", 5,
                    "--keep", 0.25)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"5 images in {tmp_path}"
    found, given = (codes_array(corpus.spec["image"], corpus.read_shard(0))
                    for corpus in (TokenCorpus.open(str(tmp_path)),
                                   TokenCorpus.open(str(tokenized / "tokens"))))
    np.testing.assert_array_equal(found[:, :1], given[:5, :1])


@pytest.fixture
def files(tokenized: Path, tmp_path: Path) -> Path:
    """A folder with the first image and map of the corpus as files, and a mask."""
    corpus = TokenCorpus.open(str(tokenized / "tokens"))
    for name in ("image", "segmentation"):
        codec = Codec.load(str(tokenized / name))
        pixels = codec.decode(codes_array(corpus.spec[name], corpus.read_shard(0)))[0]
        (tmp_path / f"{name}.png").write_bytes(codec.modality.write(pixels)[0])
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16, 8:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path


def encoded(tokenized: Path, name: str, path: Path) -> np.ndarray:
    """Codes of one file as it stands."""
    codec = Codec.load(str(tokenized / name))
    raw = codec.modality.read(path.read_bytes(), str(path))
    whole = centre_crop(raw.shape[0], raw.shape[1], raw.shape[:2])
    return codec.encode(codec.modality.fit(raw, whole, raw.shape[:2])[None])


def test_maps_are_given_as_files(tokenized: Path, prior: Path, files: Path) -> None:
    path = files / "segmentation.png"
    result = sample(prior, files / "out", "--condition", f"segmentation={path}", "--tokenizer",
                    tokenized / "image", "--tokenizer",
                    f"segmentation={tokenized / 'segmentation'}", "--samples-each", 2)
    assert result.exit_code == 0, result.output
    corpus = TokenCorpus.open(str(files / "out"))
    rows = corpus.read_shard(0)
    maps = codes_array(corpus.spec["segmentation"], rows)
    np.testing.assert_array_equal(maps, encoded(tokenized, "segmentation", path).repeat(2, 0))
    assert f"&files={path}" in rows["source"].to_pylist()[0]


@pytest.mark.parametrize("hole", [["--hole", "8,8,8,24"], ["--mask", "mask.png"]])
def test_a_hole_in_an_image_file_is_filled(tokenized: Path, prior: Path, files: Path,
                                           hole: list[str]) -> None:
    option, value = hole
    result = sample(prior, files / "out", "--tokenizer", tokenized / "image", "--complete-from",
                    files / "image.png", option, files / value if option == "--mask" else value,
                    "--passes", 1, "--num", 3)
    assert result.exit_code == 0, result.output
    corpus = TokenCorpus.open(str(files / "out"))
    found = codes_array(corpus.spec["image"], corpus.read_shard(0))
    given = encoded(tokenized, "image", files / "image.png")
    cell = 32 // given.shape[1]
    inside = np.zeros(given.shape[1:], bool)
    inside[8 // cell:16 // cell, 8 // cell:] = True
    np.testing.assert_array_equal(found[:, ~inside], given.repeat(3, 0)[:, ~inside])
    assert (found[:, inside] != given[:, inside]).any()
    with Image.open(files / "out/grid.png") as grid:  # given, given with its hole, three samples
        assert grid.size == (5 * 34 + 2, 34 + 2)


def test_a_mask_over_a_whole_photo_is_cropped_as_the_photo(tokenized: Path,
                                                           tmp_path: Path) -> None:
    spec = TokenCorpus.open(str(tokenized / "tokens")).spec["image"]
    mask = np.zeros((32, 64), np.uint8)
    mask[:, 40:] = 255  # of the centre, columns 16 to 47, the right quarter
    Image.fromarray(mask).save(tmp_path / "mask.png")
    hole = find_hole(spec, {"holes": (), "mask": str(tmp_path / "mask.png")})
    assert hole is not None and hole.shape == (4, 4)
    assert hole[:, 3].all() and not hole[:, :3].any()


def test_one_row_of_a_corpus_is_varied(tokenized: Path, prior: Path, tmp_path: Path) -> None:
    result = sample(prior, tmp_path, "--complete-from", f"{tokenized / 'tokens'}#photos/005",
                    "--num", 4)
    assert result.exit_code == 0, result.output
    sources = TokenCorpus.open(str(tmp_path)).read_shard(0)["source"].to_pylist()
    assert all("condition=photos/005&row=5&kept=" in source for source in sources)


def test_conditions_come_from_the_rows_that_a_filter_takes(tokenized: Path, prior: Path,
                                                           tmp_path: Path) -> None:
    result = sample(prior, tmp_path, "--condition-from", tokenized / "tokens", "--num", 3,
                    "--filter", "key in ('photos/004', 'photos/007')")
    assert result.exit_code == 0, result.output
    sources = TokenCorpus.open(str(tmp_path)).read_shard(0)["source"].to_pylist()
    rows = ["photos/004&row=4", "photos/007&row=7", "photos/004&row=4"]
    assert all(f"condition={row}" in source for source, row in zip(sources, rows, strict=True))


def test_larger_images_are_drawn_alike_by_both_schedules(tokenized: Path, prior: Path,
                                                         tmp_path: Path) -> None:
    for schedule in ("raster", "wavefront"):
        result = sample(prior, tmp_path / schedule, "--size", "48x64", "--schedule", schedule,
                        "--num", 1, "--label", "dog", "--tokenizer", tokenized / "image")
        assert result.exit_code == 0, result.output
    raster, wavefront = (TokenCorpus.open(str(tmp_path / name)) for name in ("raster", "wavefront"))
    assert raster.manifest.shards == wavefront.manifest.shards
    assert Image.open(tmp_path / "raster" / "images" / "sample-00000.png").size == (64, 48)


def test_ranked_images_show_their_likelihood_and_tasks_share_a_folder(
        tokenized: Path, prior: Path, tmp_path: Path) -> None:
    results = [sample(prior, tmp_path, "--num", 4, "--best-of", 3, "--likelihood", "--shard-size",
                      2, "--array-index", index, "--array-size", 2, "--tokenizer",
                      tokenized / "image") for index in (0, 1)]
    assert [result.exit_code for result in results] == [0, 0], results[1].output
    assert "shards are left to the others" in results[0].output
    assert "4 images in" in results[1].output and (tmp_path / "likelihood.png").exists()
    assert TokenCorpus.open(str(tmp_path)).spec.quality == ("log_likelihood",)


def test_a_seed_gives_the_same_codes_again(prior: Path, tmp_path: Path) -> None:
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        sample(prior, tmp_path / name, "--num", 4, "--seed", seed, "--temperature", 0.9,
               "--top-k", 20, "--top-p", 0.95, "--min-p", 0.01, "--guidance", 1.5, "--label", "cat",
               "--guidance-schedule", "cosine")
    first, again, other = (TokenCorpus.open(str(tmp_path / name)).manifest
                           for name in ("first", "again", "other"))
    assert first.shards == again.shards and first.shards != other.shards


def test_samples_are_started_over_only_when_told(prior: Path, tmp_path: Path) -> None:
    assert sample(prior, tmp_path, "--num", 2).exit_code == 0
    refused = sample(prior, tmp_path, "--num", 3)
    assert refused.exit_code == 1 and "num was 2, now 3" in refused.output
    assert sample(prior, tmp_path, "--num", 3, "--overwrite").exit_code == 0
    assert TokenCorpus.open(str(tmp_path)).manifest.num_rows == 3


def test_compiled_steps_draw_the_same_codes_as_another_job(
        prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prior.compiling.BACKEND", "aot_eager")
    for name, options in (("plain", []), ("compiled", ["--compile"])):
        result = sample(prior, tmp_path / name, "--num", 6, "--label", "dog", *options)
        assert result.exit_code == 0, result.output
    plain, compiled = (TokenCorpus.open(str(tmp_path / name)) for name in ("plain", "compiled"))
    np.testing.assert_array_equal(*(codes_array(corpus.spec["image"], corpus.read_shard(0))
                                    for corpus in (plain, compiled)))
    assert compiled.manifest.fingerprint != plain.manifest.fingerprint
    refused = sample(prior, tmp_path / "plain", "--num", 6, "--label", "dog", "--compile")
    assert refused.exit_code == 1 and "compile" in refused.output


def test_a_size_refuses_compiled_steps_before_anything_is_written(prior: Path,
                                                                  tmp_path: Path) -> None:
    result = sample(prior, tmp_path / "out", "--num", 1, "--size", "48x64", "--compile")
    assert result.exit_code == 1 and "leave out compile or the size" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("options", "message"), [
    (["--condition-from", "a", "--complete-from", "b"], "images to complete bring their own"),
    (["--held-out"], "--held-out chooses rows of --condition-from or --complete-from"),
    (["--filter", "label == 1"], "--filter chooses rows of --condition-from or --complete-from"),
    (["--sampler", "beam"], "no sampler is named 'beam'; known are random, greedy"),
    (["--sampler", "greedy", "--top-k", "3"], "the greedy sampler has no --top-k"),
    (["--hole", "1,2,3"], "is no top,left,height,width in pixels"),
    (["--hole", "0,0,8,8"], "--hole and --mask lie in the image of --complete-from"),
    (["--complete-from", "a", "--passes", "2"], "give --hole or --mask"),
    (["--keep", "0.3"], "nothing is completed without --complete-from, and --keep would change"),
    (["--condition", "segmentation=a.png", "--condition-from", "b"], "leave out --condition-from"),
    (["--condition", "segmentation=a.png"], "its tokenizer is needed: --tokenizer segmentation="),
    (["--condition-from", "a.png"], "a file is given by --condition NAME=a.png"),
    (["--array-index", "1"], "--array-index and --array-size belong together"),
    (["--guidance", "label=high"], "neither SCALE nor NAME=SCALE"),
    (["--guidance", "2", "--guidance", "3"], "--guidance is given twice: 2.0 and 3.0"),
    (["--temperature", "0"], "0.0 is not in the range x>0")])
def test_options_that_do_not_fit_are_wrong_usage(prior: Path, tmp_path: Path, options: list[str],
                                                 message: str) -> None:
    result = sample(prior, tmp_path, *options)
    assert result.exit_code == 2 and message in " ".join(result.output.split())


def test_a_map_alone_cannot_be_decoded(tokenized: Path, prior: Path, tmp_path: Path) -> None:
    result = sample(prior, tmp_path, "--tokenizer", f"segmentation={tokenized / 'segmentation'}")
    assert result.exit_code == 2 and "give the tokenizer of the image codes too" in result.output


def test_a_map_that_is_not_given_cannot_be_shown(tokenized: Path, prior: Path,
                                                 tmp_path: Path) -> None:
    result = sample(prior, tmp_path / "samples", "--tokenizer", tokenized / "image", "--tokenizer",
                    f"segmentation={tokenized / 'segmentation'}", "--label", "dog")
    assert result.exit_code == 2
    assert "--tokenizer segmentation= shows the segmentation" in " ".join(result.output.split())
    assert not (tmp_path / "samples").exists()


def test_overwrite_leaves_what_was_not_sampled(tokenized: Path, prior: Path,
                                               tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.csv").write_text("1")
    refused = sample(prior, tmp_path, "--num", 2, "--overwrite")
    assert refused.exit_code == 1
    assert "holds other files, such as data: choose another folder" in refused.output
    assert (tmp_path / "data" / "mine.csv").exists()
    tokens = tokenized / "tokens"
    for option in ("--condition-from", "--complete-from"):
        inside = sample(prior, tokens / "samples", option, tokens, "--overwrite")
        assert inside.exit_code == 1 and "lies in the token corpus" in inside.output
    assert not (tokens / "samples").exists() and (tokens / "manifest.json").exists()


@pytest.mark.parametrize("options", [["--label", "bird"], ["--tokenizer", "nowhere"],
                                     ["--condition-from", "nowhere"]])
def test_samples_stay_when_the_command_cannot_run(prior: Path, tmp_path: Path,
                                                  options: list[str]) -> None:
    assert sample(prior, tmp_path, "--num", 2).exit_code == 0
    assert sample(prior, tmp_path, "--num", 2, "--overwrite", *options).exit_code == 1
    assert TokenCorpus.open(str(tmp_path)).manifest.num_rows == 2


@pytest.mark.parametrize(("options", "message"), [
    (["--label", "bird"], "'bird' is none of the prior's 2 classes"),
    (["--condition-from", "nowhere"], "nowhere holds no completed token corpus"),
    (["--size", "8x8"], "at least of the prior's 32 x 32 pixels, got 8 x 8"),
    (["--best-of", "1", "--samples-each", "2"], "drawn to keep 2, got 1"),
    (["--guidance-schedule", "linear"], "no schedule of guidance is named 'linear'"),
    (["--device", "cuda:99"], "device 'cuda:99' cannot be used")])
def test_what_is_not_there_is_one_line(prior: Path, tmp_path: Path, options: list[str],
                                       message: str) -> None:
    result = sample(prior, tmp_path, *options)
    assert result.exit_code == 1
    assert message in result.output and len(result.output.strip().splitlines()) == 1


def test_guidance_of_what_is_not_given_is_refused_before_anything_is_written(
        prior: Path, tmp_path: Path) -> None:
    result = sample(prior, tmp_path, "--label", "cat", "--guidance", "segmentation=2")
    assert result.exit_code == 1 and not list(tmp_path.iterdir())
    assert "guidance of segmentation needs segmentation among what is given" in result.output


def test_a_folder_without_a_prior_is_one_line(tokenized: Path, tmp_path: Path) -> None:
    result = sample(tokenized / "image", tmp_path)
    assert result.exit_code == 1 and "is not a prior: config.json says" in result.output
