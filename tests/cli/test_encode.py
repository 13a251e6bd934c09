"""``img2tokens encode`` on real tokenizers: exact codes, one line of outcome, any interruption."""
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from forked import Forked
from PIL import Image
from random_tokenizers import encode, save_tokenizer, tree

from cli.main import main

ImageFolder = Callable[[int], Path]


def test_codes_are_those_of_the_codec_exactly(image_folder: ImageFolder, tokenizer: str,
                                              tmp_path: Path) -> None:
    from tokenizer.codec import Codec
    from tokenizer.corpus.images import centre_crop
    from tokenizer.schema import codes_array
    from tokenizer.tokens import TokenCorpus
    photos, out = image_folder(11), tmp_path / "tokens"
    done = encode(photos, out, "--tokenizer", f"image={tokenizer}", "--shard-size", 4)
    assert done.exit_code == 0, done.output
    assert f"{out}: 11 rows in 3 shards, 0 dead letters\n" in done.output
    codec, corpus = Codec.load(tokenizer), TokenCorpus.open(str(out))
    codes = np.concatenate([codes_array(codec.spec, table) for table in corpus.tables()])
    for path, found in zip(sorted(photos.iterdir()), codes, strict=True):
        raw = codec.modality.read(path.read_bytes(), path.name)
        crop = centre_crop(*raw.shape[:2], codec.spec.image_size)
        alone = codec.encode(codec.modality.fit(raw, crop, codec.spec.image_size)[None])
        assert (alone[0] == found).all()
    assert len(np.unique(codes)) > 4


def test_maps_and_classes_are_encoded_beside_images(image_folder: ImageFolder, tokenizer: str,
                                                    tmp_path: Path) -> None:
    from tokenizer.tokens import TokenCorpus
    photos, out = image_folder(4), tmp_path / "tokens"
    maps = save_tokenizer(tmp_path / "seg-tok", modality="segmentation", num_classes=4)
    (tmp_path / "labels").mkdir()
    for photo in photos.iterdir():
        with Image.open(photo) as image:
            Image.new("L", image.size, 3).save(tmp_path / "labels" / photo.name)
    done = encode(photos, out, "--tokenizer", f"image={tokenizer}",
                  "--maps", f"segmentation={tmp_path}/labels",
                  "--tokenizer", f"segmentation={maps}", "--labels", "regex:img-00([01])")
    assert done.exit_code == 0, done.output
    corpus = TokenCorpus.open(str(out))
    assert corpus.spec.modalities == ("image", "segmentation")
    assert corpus.read_shard(0)["class_name"].to_pylist() == ["0", "1", None, None]


def test_dead_letters_are_told_in_the_outcome(image_folder: ImageFolder, tokenizer: str,
                                              tmp_path: Path) -> None:
    photos = image_folder(3)
    (photos / "img-001.png").write_bytes(b"no image")
    arguments = (photos, tmp_path / "tokens", "--tokenizer", f"image={tokenizer}")
    done = encode(*arguments, "--max-errors", 0)
    assert done.exit_code == 1 and "1 of 3 images failed, more than the 0" in done.output
    done = encode(*arguments, "--max-errors", "33%")
    assert done.exit_code == 1 and "1 of 3 images failed, more than the 0 (33%)" in done.output
    assert encode(*arguments, "--max-errors", "34%").exit_code == 0
    assert encode(*arguments, "--max-errors", "0.4").exit_code == 0
    done = encode(*arguments)
    assert done.exit_code == 0
    assert "2 rows in 1 shard, 1 dead letter (1 UnreadableImage)" in done.output


@pytest.mark.parametrize(("options", "words"), [
    ((), "Missing option '--tokenizer'"),
    (("--tokenizer", "image="), "'image=' names no folder"),
    (("--tokenizer", "image=a", "--tokenizer", "image=b"), "image= is given twice: a and b"),
    (("--tokenizer", "image=a", "--shard-size", "0"), "0 is not in the range x>=1"),
    *((("--tokenizer", "image=a", "--max-errors", wrong), f"'{wrong}' is neither a number of")
      for wrong in ("-1", "1.0", "1.5", "101%", "-1%", "many", "%", "nan")),
])
def test_wrong_usage_is_exit_code_2(tmp_path: Path, options: Sequence[str], words: str) -> None:
    done = encode(tmp_path, tmp_path / "tokens", *options)
    assert done.exit_code == 2 and words in done.output


def test_failures_are_one_line_and_exit_code_1(image_folder: ImageFolder, tokenizer: str,
                                               tmp_path: Path) -> None:
    photos, out = image_folder(2), tmp_path / "tokens"
    broken = tmp_path / "broken-tok"
    save_tokenizer(broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    for corpus, given, words in (
            (tmp_path / "nowhere", tokenizer, "nowhere does not exist"),
            (photos, tmp_path / "no-tok", "no-tok holds no tokenizer (no config.json)"),
            (photos, broken, "model.safetensors is damaged"),
            (photos, save_tokenizer(tmp_path / "depth", modality="depth"),
             "is a tokenizer of depth, not of image")):
        done = encode(corpus, out, "--tokenizer", f"image={given}")
        assert done.exit_code == 1 and words in done.output
        assert done.output.startswith("Error: ") and done.output.count("\n") == 1
        assert not out.exists()


def test_another_tokenizer_is_refused_by_fingerprint(image_folder: ImageFolder, tokenizer: str,
                                                     tmp_path: Path) -> None:
    photos, out = image_folder(2), tmp_path / "tokens"
    assert encode(photos, out, "--tokenizer", f"image={tokenizer}").exit_code == 0
    other = save_tokenizer(tmp_path / "other", seed=1)
    done = encode(photos, out, "--tokenizer", f"image={other}")
    assert done.exit_code == 1 and "codes.image.tokenizer was 'sha256:" in done.output
    done = encode(photos, out, "--tokenizer", f"image={other}", "--overwrite")
    assert done.exit_code == 0


@pytest.mark.slow
def test_one_and_two_processes_write_the_same_bytes(image_folder: ImageFolder, tokenizer: str,
                                                    tmp_path: Path) -> None:
    photos = image_folder(23)
    (photos / "img-007.png").write_bytes(b"no image")
    for num_workers in (1, 2):
        done = encode(photos, tmp_path / f"by-{num_workers}", "--tokenizer", f"image={tokenizer}",
                      "--shard-size", 3, "--num-workers", num_workers)
        assert done.exit_code == 0, done.output
    assert tree(tmp_path / "by-1") == tree(tmp_path / "by-2")


@pytest.mark.slow  # several processes are killed in test_faults.py
def test_a_job_killed_in_mid_run_continues_to_the_same_bytes(image_folder: ImageFolder,
                                                             tokenizer: str,
                                                             tmp_path: Path) -> None:
    photos = image_folder(80)
    (photos / "img-007.png").write_bytes(b"no image")
    options = ("--tokenizer", f"image={tokenizer}", "--shard-size", 1)
    assert encode(photos, tmp_path / "undisturbed", *options).exit_code == 0
    killed = tmp_path / "killed"
    num_done = stop_in_mid_run([photos, killed, *options], killed, signal.SIGKILL)
    assert 3 <= num_done < 80 and not (killed / "_SUCCESS").exists()
    done = encode(photos, killed, *options)
    assert done.exit_code == 0, done.output
    assert tree(killed) == tree(tmp_path / "undisturbed")


def test_ctrl_c_says_how_to_continue_and_loses_nothing(image_folder: ImageFolder, tokenizer: str,
                                                       tmp_path: Path) -> None:
    photos, out = image_folder(80), tmp_path / "tokens"
    arguments = [photos, out, "--tokenizer", f"image={tokenizer}", "--shard-size", 1]
    num_done = stop_in_mid_run(arguments, out, signal.SIGINT)
    assert 3 <= num_done < 80
    done = encode(*arguments)
    assert done.exit_code == 0 and "80 rows in 80 shards" in done.output


def stop_in_mid_run(arguments: Sequence[object], out: Path, number: signal.Signals) -> int:
    """Run the command in a process, stop it once three shards are done; returns how many were."""
    process = Forked("cli", "encode", *arguments)
    receipts, deadline = out / "_receipts", time.monotonic() + 300
    while not (receipts.exists() and len(list(receipts.glob("*.json"))) >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)  # the workers too, as when a machine goes down
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert errors.strip().endswith("stopped; run the same command again to continue")
        assert "Traceback" not in errors
    return len(list(receipts.glob("*.json")))


def test_edges_are_computed_encoded_and_decoded_without_maps(
        image_folder: ImageFolder, tokenizer: str, tmp_path: Path) -> None:
    from tokenizer.codec import Codec
    from tokenizer.corpus.images import centre_crop
    from tokenizer.schema import codes_array
    from tokenizer.tokens import TokenCorpus
    photos, out = image_folder(5), tmp_path / "tokens"
    edges = save_tokenizer(tmp_path / "edges-tok", modality="edges", sigma=1.0)
    done = encode(photos, out, "--tokenizer", f"image={tokenizer}", "--tokenizer", f"edges={edges}")
    assert done.exit_code == 0, done.output
    corpus, codec = TokenCorpus.open(str(out)), Codec.load(edges)
    assert corpus.spec.modalities == ("image", "edges")
    assert corpus.spec["edges"].preprocessing == {
        "name": "edges", "sigma": 1.0, "low": 0.1, "high": 0.2, "crop": "centre",
        "resampling": "bilinear with antialiasing"}
    table = corpus.read_shard(0)
    for row, path in enumerate(sorted(photos.iterdir())):
        raw = codec.modality.read(path.read_bytes(), path.name)
        crop = centre_crop(*raw.shape[:2], codec.spec.image_size)
        alone = codec.encode(codec.modality.fit(raw, crop, codec.spec.image_size)[None])
        assert (alone[0] == codes_array(corpus.spec["edges"], table)[row]).all()
    pictures = tmp_path / "pictures"
    done = CliRunner().invoke(main, ["decode", str(out), str(pictures),
                                     "--tokenizer", f"edges={edges}"])
    assert done.exit_code == 0, done.output
    with Image.open(pictures / "img-000.png") as image:
        assert image.mode == "L" and image.size == (32, 32)


def test_maps_of_what_is_computed_are_refused(image_folder: ImageFolder, tokenizer: str,
                                              tmp_path: Path) -> None:
    done = encode(image_folder(2), tmp_path / "tokens", "--tokenizer", f"image={tokenizer}",
                  "--tokenizer", "edges=x", "--maps", "edges=drawn")
    assert done.exit_code == 1 and "leave out --maps edges=drawn" in done.output


def test_bf16_codes_are_those_of_a_bf16_codec_and_their_spec_says_so(
        image_folder: ImageFolder, tokenizer: str, tmp_path: Path) -> None:
    from tokenizer.codec import Codec
    from tokenizer.schema import codes_array
    from tokenizer.tokens import TokenCorpus
    photos, out = image_folder(3), tmp_path / "tokens"
    command = [photos, out, "--tokenizer", f"image={tokenizer}"]
    done = encode(*command, "--precision", "bf16")
    assert done.exit_code == 0, done.output
    corpus, codec = TokenCorpus.open(str(out)), Codec.load(tokenizer, precision="bf16")
    assert corpus.spec["image"] == codec.spec
    assert corpus.spec["image"].precision == "bf16"
    found = np.concatenate([codes_array(codec.spec, table) for table in corpus.tables()])
    assert found.shape == (3, *codec.spec.code_shape)
    refused = encode(*command)
    assert refused.exit_code == 1
    assert "codes.image.precision was 'bf16', now 'float32'" in refused.output


def test_another_backend_gives_the_same_codes_under_another_fingerprint(
        image_folder: ImageFolder, tokenizer: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from tokenizer.schema import codes_array
    from tokenizer.tokens import TokenCorpus
    photos, command = image_folder(3), ["--tokenizer", f"image={tokenizer}"]
    assert encode(photos, tmp_path / "a", *command).exit_code == 0
    done = encode(photos, tmp_path / "b", *command, "--backend", "onnxruntime")
    assert done.exit_code == 0, done.output
    plain, other = (TokenCorpus.open(str(tmp_path / name)) for name in "ab")
    assert plain.spec == other.spec
    codes = [np.concatenate([codes_array(corpus.spec["image"], table)
                             for table in corpus.tables()]) for corpus in (plain, other)]
    assert np.array_equal(*codes)
    assert plain.manifest.fingerprint != other.manifest.fingerprint
    refused = encode(photos, tmp_path / "a", *command, "--backend", "onnxruntime")
    assert refused.exit_code == 1
    assert "backend was None, now 'onnxruntime'" in refused.output


@pytest.mark.slow
def test_another_backend_gives_the_same_codes_in_buckets(
        image_folder: ImageFolder, tokenizer: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from tokenizer.tokens import TokenCorpus
    photos = image_folder(3)
    Image.open(photos / "img-001.png").resize((80, 36)).save(photos / "img-001.png")
    command = ["--tokenizer", f"image={tokenizer}", "--buckets", "16x32,32x32"]
    rows = []
    for backend in ("torch", "onnxruntime"):
        done = encode(photos, tmp_path / backend, *command, "--backend", backend)
        assert done.exit_code == 0, done.output
        corpus = TokenCorpus.open(str(tmp_path / backend))
        assert corpus.manifest.bucket_counts == {"16x32": 1, "32x32": 2}
        rows.append(corpus.read_shard(0))
    assert rows[0].equals(rows[1])


def test_stats_are_stored_and_filtered_by(tokenizer: str, image_folder: Callable[[int], Path],
                                          tmp_path: Path) -> None:
    from tokenizer.filters import RowFilter
    from tokenizer.tokens import TokenCorpus
    done = encode(image_folder(3), tmp_path / "tokens", "--tokenizer", f"image={tokenizer}",
                  "--stats")
    assert done.exit_code == 0, done.output
    corpus = TokenCorpus.open(str(tmp_path / "tokens"))
    table = corpus.read_shard(0)
    assert None not in table["image_margin"].to_pylist()
    least = min(table["image_psnr"].to_pylist())
    found = RowFilter.parse(f"image.psnr > {least + 1e-3}", corpus.spec.arrow_schema())
    assert found.mask(table).sum() == 2


def test_stats_are_the_same_bytes_in_parts_and_whole(tokenizer: str, tmp_path: Path,
                                                     image_folder: Callable[[int], Path]) -> None:
    photos, options = image_folder(5), ("--tokenizer", f"image={tokenizer}", "--stats",
                                        "--shard-size", 2)
    assert encode(photos, tmp_path / "whole", *options).exit_code == 0
    for index in (2, 0, 1):
        done = encode(photos, tmp_path / "parts", *options, "--array-index", index,
                      "--array-size", 3)
        assert done.exit_code == 0, done.output
    assert tree(tmp_path / "parts/data") == tree(tmp_path / "whole/data")
