"""ONNX models of a tokenizer give its codes and its images."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from random_models import small_model

from tokenizer import checkpoints
from tokenizer.importers.exporting import export_tokenizer
from tokenizer.vqgan.model import VQGAN

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def save(folder: Path, model: VQGAN) -> str:
    checkpoints.save_config(str(folder), "tokenizer", model.config)
    checkpoints.save_weights(str(folder), model.codec_weights())
    return str(folder)


def run(path: Path, argument: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (given,), (result,) = session.get_inputs(), session.run(None, {
        session.get_inputs()[0].name: argument})
    assert given.name in ("inputs", "codes")
    found: np.ndarray = result
    return found


@pytest.mark.parametrize("settings", [
    {},
    {"has_attention": False, "kind": "residual", "depth": 2},
    {"has_attention": False, "kind": "fsq", "levels": (16, 16), "code_dim": 2}])
def test_exported_models_give_codes_and_images_of_the_tokenizer(
        tmp_path: Path, settings: dict[str, object]) -> None:
    model = small_model(**settings)  # type: ignore[arg-type]
    line = export_tokenizer(save(tmp_path / "tok", model), str(tmp_path / "out"), "onnx")
    assert "encoder.onnx" in line and "decoder.onnx" in line
    inputs = torch.randn(3, 3, 32, 48)
    with torch.no_grad():
        codes, images = model.encode(inputs), model.decode(model.encode(inputs))
    found = [run(tmp_path / "out/encoder.onnx", inputs[index:index + 1].numpy())
             for index in range(3)]
    assert np.array_equal(np.concatenate(found), codes.numpy())
    outputs = run(tmp_path / "out/decoder.onnx", codes.numpy())
    assert outputs.shape == images.shape
    assert np.abs(outputs - images.numpy()).max() < 1e-4


def test_settings_beside_the_models_say_what_they_take(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenizer.backends.onnx_files.onnx_bytes", lambda *given, **more: b"")
    export_tokenizer(save(tmp_path / "tok", small_model("depth")), str(tmp_path / "out"), "onnx")
    settings = json.loads((tmp_path / "out/onnx.json").read_text())
    assert settings["modality"]["name"] == "depth"
    assert (settings["image_size"], settings["code_shape"]) == ([32, 48], [8, 12])
    assert (settings["codebook_size"], settings["in_channels"]) == (256, 1)


def test_a_folder_with_other_files_is_refused_before_any_work(tmp_path: Path) -> None:
    tokenizer = save(tmp_path / "tok", small_model())
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files, such as notes.txt"):
        export_tokenizer(tokenizer, str(tmp_path / "out"), "onnx")
    assert (tmp_path / "out/notes.txt").read_text() == "mine"


def test_a_missing_package_is_named_with_its_remedy(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"onnxscript.*pip install 'img2tokens\[onnx\]'"):
        export_tokenizer(save(tmp_path / "tok", small_model()), str(tmp_path / "out"), "onnx")
    assert not (tmp_path / "out").exists()
