"""``img2tokens import-tokenizer`` and ``export-tokenizer``: reports, folders, refusals."""
import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from random_tokenizers import save_tokenizer, tree
from safetensors.torch import load_file

from cli import export_tokenizer, import_tokenizer
from cli.main import main


def run(command: str, *arguments: object) -> Result:
    return CliRunner().invoke(main, [command, *map(str, arguments)])


def random_weights() -> dict[str, torch.Tensor]:
    """Weights of a small network; ours have taming's names."""
    from tokenizer.vqgan.autoencoder import AutoencoderConfig
    from tokenizer.vqgan.model import VQGAN, VQGANConfig
    from tokenizer.vqgan.quantizers import QuantizerConfig
    torch.manual_seed(0)
    shape = AutoencoderConfig(width=32, channel_multipliers=(1, 2), num_res_blocks=1,
                              attention_levels=(1,), latent_channels=6, norm_groups=32)
    return VQGAN(VQGANConfig(image_size=(32, 32), autoencoder=shape, quantizer=QuantizerConfig(
        kind="classic", codebook_size=24, code_dim=4))).codec_weights()


def write_checkpoint(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    torch.save({"state_dict": {**weights, "loss.logvar": torch.zeros(1)}, "epoch": 3,
                "args": argparse.Namespace(lr=1e-4)}, path)
    return path


@pytest.fixture
def published_file(tmp_path: Path) -> Path:
    """A taming checkpoint, ``last.ckpt``, with its ``model.yaml``."""
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"model": {
        "target": "taming.models.vqgan.VQModel",
        "params": {"embed_dim": 4, "n_embed": 24, "ddconfig": {"resolution": 32, "ch": 32}}}}))
    return write_checkpoint(tmp_path / "last.ckpt", random_weights())


def convert(file: Path, out: Path, *options: object) -> Result:
    return run("import-tokenizer", file, out, "--config", file.parent / "model.yaml", *options)


def test_the_report_says_what_was_found_left_out_and_checked(published_file: Path,
                                                            tmp_path: Path) -> None:
    done = convert(published_file, tmp_path / "tok")
    assert done.exit_code == 0, done.output
    num = sum(tensor.numel() for tensor in random_weights().values())
    for words in ("taming-transformers", "last.ckpt, its 'state_dict'", f"{num:,}: encoder",
                  "image 32 x 32 px to 16 x 16 codes of 24 in 4 channels (classic)",
                  "found, 0 missing, 0 surplus", "loss (1)", "argparse.Namespace",
                  "256 codes of a test pattern", "encoded twice 0 differ", "psnr",
                  f"tokenizer in {tmp_path / 'tok'}"):
        assert words in done.output, words


def test_what_was_imported_is_a_tokenizer_with_its_origin(published_file: Path,
                                                          tmp_path: Path) -> None:
    convert(published_file, tmp_path / "tok")
    assert set(tree(tmp_path / "tok")) == {"config.json", "import.json", "model.safetensors"}
    origin = json.loads((tmp_path / "tok" / "import.json").read_text())
    assert origin["url"] == str(published_file) and len(origin["sha256"]) == 64
    assert origin["check"]["num_unstable"] == 0


def test_two_imports_write_the_same_bytes(published_file: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        convert(published_file, tmp_path / name)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_folder_in_use_is_refused_and_kept(published_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "tok"
    convert(published_file, out)
    before = tree(out)
    done = convert(published_file, out)
    assert done.exit_code == 1 and "--overwrite" in done.output and done.output.count("\n") == 1
    assert tree(out) == before
    (out / "notes.txt").write_text("mine")
    done = convert(published_file, out, "--overwrite")
    assert done.exit_code == 1 and "holds other files, such as notes.txt" in done.output
    assert tree(out) == {**before, "notes.txt": b"mine"}


def test_overwriting_replaces_a_trained_and_evaluated_tokenizer_whole(
        published_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "tok"
    save_tokenizer(out)
    (out / "training").mkdir()
    (out / "training" / "state.pt").write_bytes(b"of the former one")
    (out / "evaluation").mkdir()
    (out / "evaluation" / "evaluation.json").write_text("{}")
    assert convert(published_file, out, "--overwrite").exit_code == 0
    assert set(tree(out)) == {"config.json", "import.json", "model.safetensors"}


def test_a_failed_import_leaves_the_former_tokenizer(published_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "tok"
    convert(published_file, out)
    before = tree(out)
    weights = random_weights()
    weights["decoder.conv_out.bias"][0] = float("nan")
    write_checkpoint(published_file, weights)
    done = convert(published_file, out, "--overwrite")
    assert done.exit_code == 1 and "decoder.conv_out.bias" in done.output
    assert "not finite" in done.output
    assert tree(out) == before


def test_a_write_that_fails_leaves_no_half_a_tokenizer(published_file: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizer import checkpoints

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device", "tok")
    monkeypatch.setattr(checkpoints, "save_weights", full)
    done = convert(published_file, tmp_path / "tok")
    assert done.exit_code == 1 and "No space left" in done.output
    assert not (tmp_path / "tok" / "config.json").exists()


def test_files_that_are_not_there_are_one_line(published_file: Path, tmp_path: Path) -> None:
    missing = run("import-tokenizer", tmp_path / "none.ckpt", tmp_path / "tok")
    assert missing.exit_code == 1 and missing.output.count("\n") == 1
    (tmp_path / "empty").mkdir()
    empty = run("import-tokenizer", tmp_path / "empty", tmp_path / "tok")
    assert empty.exit_code == 1 and "holds no weights" in empty.output
    text = tmp_path / "text.pt"
    text.write_text("no weights here")
    wrong = run("import-tokenizer", text, tmp_path / "tok")
    assert wrong.exit_code == 1 and "neither a safetensors file nor one of torch.save" in (
        wrong.output)


def test_a_training_goes_on_from_what_was_imported(published_file: Path, tmp_path: Path,
                                                   image_folder: Callable[[int], Path]) -> None:
    convert(published_file, tmp_path / "tok")
    done = run("train-tokenizer", image_folder(6), tmp_path / "mine", "--init-from",
               tmp_path / "tok", "--recipe", "tiny", "--steps", 1, "--held-out", 2,
               "--set", "training.optimizer.learning_rate=1e-6")
    assert done.exit_code == 0, done.output
    found = load_file(tmp_path / "mine" / "model.safetensors")
    for name, tensor in random_weights().items():
        assert found[name].numpy() == pytest.approx(tensor.numpy(), abs=1e-5), name


def test_a_tokenizer_goes_out_and_back(published_file: Path, tmp_path: Path) -> None:
    convert(published_file, tmp_path / "tok")
    done = run("export-tokenizer", tmp_path / "tok", tmp_path / "vq")
    assert done.exit_code == 0 and "pixels lie in [-1, 1]" in done.output
    assert set(tree(tmp_path / "vq")) == {"config.json", "diffusion_pytorch_model.safetensors"}
    back = run("import-tokenizer", tmp_path / "vq", tmp_path / "back")
    assert back.exit_code == 0 and "diffusers: VQModel" in back.output
    weights = [tree(tmp_path / name)["model.safetensors"] for name in ("tok", "back")]
    assert weights[0] == weights[1]
    again = run("export-tokenizer", tmp_path / "tok", tmp_path / "vq")
    assert again.exit_code == 1 and "--overwrite" in again.output
    assert run("export-tokenizer", tmp_path / "tok", tmp_path / "vq", "--overwrite").exit_code == 0


def test_what_cannot_be_exported_is_one_line(tmp_path: Path) -> None:
    done = run("export-tokenizer", save_tokenizer(tmp_path / "tok"), tmp_path / "vq")
    assert done.exit_code == 1 and "cannot express the stem of 4 x 4 pixels" in done.output
    assert "--format onnx refuses none of this" in done.output


def test_the_formats_of_the_commands_are_those_of_the_tables() -> None:
    from tokenizer.corpus.images import ROUTES
    from tokenizer.importers.exporting import EXPORTERS
    from tokenizer.importers.formats import IMPORTERS
    assert tuple(IMPORTERS) == import_tokenizer.FORMATS
    assert tuple(ROUTES) == import_tokenizer.ROUTES
    assert tuple(EXPORTERS) == export_tokenizer.FORMATS
