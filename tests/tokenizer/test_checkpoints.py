"""Checkpoints come back as they were saved, say what is wrong, and run no code."""
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tokenizer import checkpoints, storage


@dataclass(frozen=True, kw_only=True)
class Tiny:
    width: int = 3


@pytest.fixture
def folder(tmp_path: Path) -> str:
    url = str(tmp_path / "tok")
    checkpoints.save_config(url, "tokenizer", Tiny(width=5))
    checkpoints.save_weights(url, {"w": torch.arange(6.0).reshape(2, 3).T, "n": torch.tensor(3)})
    return url


def test_config_and_weights_come_back(folder: str) -> None:
    assert checkpoints.load_config(folder, "tokenizer", Tiny) == Tiny(width=5)
    tensors = checkpoints.load_weights(folder)
    assert torch.equal(tensors["w"], torch.arange(6.0).reshape(2, 3).T)
    assert tensors["n"].dtype == torch.int64


def test_the_fingerprint_depends_on_config_and_weights_alone(folder: str, tmp_path: Path) -> None:
    before = checkpoints.fingerprint(folder)
    os.rename(folder, tmp_path / "moved")
    moved = str(tmp_path / "moved")
    assert checkpoints.fingerprint(moved) == before
    checkpoints.save_config(moved, "tokenizer", Tiny(width=6))
    changed_config = checkpoints.fingerprint(moved)
    checkpoints.save_weights(moved, {"w": torch.zeros(1)})
    assert len({before, changed_config, checkpoints.fingerprint(moved)}) == 3


def test_weights_that_a_training_replaces_meanwhile_keep_their_own_fingerprint(
        folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, read = checkpoints.fingerprint(folder), storage.read_bytes

    def replaced(url: str) -> bytes:
        content = read(url)
        if url.endswith(checkpoints.WEIGHTS):
            checkpoints.save_weights(folder, {"w": torch.zeros(1)})
        return content
    monkeypatch.setattr(storage, "read_bytes", replaced)
    weights, fingerprint = checkpoints.load_fingerprinted(folder)
    assert set(weights) == {"w", "n"} and fingerprint == before != checkpoints.fingerprint(folder)


def test_weights_of_a_type_that_torch_lacks_are_damaged(folder: str) -> None:
    header = b'{"w": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}'
    Path(folder, checkpoints.WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + b"0")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged .*again"):
        checkpoints.load_weights(folder)


def test_a_missing_checkpoint_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer .*train-tokenizer"):
        checkpoints.load_config(str(tmp_path), "tokenizer", Tiny)


def test_another_kind_is_refused(folder: str) -> None:
    with pytest.raises(ValueError, match=r"is not a prior: .*'img2tokens.tokenizer'"):
        checkpoints.load_config(folder, "prior", Tiny)


def test_another_version_is_refused(folder: str) -> None:
    path = Path(folder, checkpoints.CONFIG)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    with pytest.raises(ValueError, match="version 99; this program reads 1"):
        checkpoints.load_config(folder, "tokenizer", Tiny)


def test_settings_that_nobody_knows_are_named_with_their_file(folder: str) -> None:
    path = Path(folder, checkpoints.CONFIG)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config": {"depth": 2}}))
    with pytest.raises(ValueError, match=rf"^{path}: .*depth.*; another version of img2tokens"):
        checkpoints.load_config(folder, "tokenizer", Tiny)


def test_a_config_cut_short_is_damaged(folder: str) -> None:
    path = Path(folder, checkpoints.CONFIG)
    path.write_text(path.read_text()[:20])
    with pytest.raises(ValueError, match="is not JSON .* damaged"):
        checkpoints.load_config(folder, "tokenizer", Tiny)


def test_weights_cut_short_are_damaged(folder: str) -> None:
    path = Path(folder, checkpoints.WEIGHTS)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="is damaged"):
        checkpoints.load_weights(folder)


def test_weights_not_yet_saved_are_named(tmp_path: Path) -> None:
    checkpoints.save_config(str(tmp_path), "tokenizer", Tiny())
    with pytest.raises(FileNotFoundError, match="no weights were saved yet"):
        checkpoints.load_weights(str(tmp_path))


def test_training_state_comes_back(folder: str) -> None:
    assert checkpoints.load_state(folder) is None
    checkpoints.save_state(folder, {"step": 3, "moments": [torch.ones(2)], "seconds": 1.5})
    state = checkpoints.load_state(folder)
    assert state is not None and state["step"] == 3
    assert torch.equal(state["moments"][0], torch.ones(2))


@pytest.mark.parametrize("keep", [0, 10, -20])
def test_a_training_state_cut_short_is_damaged(folder: str, keep: int) -> None:
    checkpoints.save_state(folder, {"step": 3, "moments": torch.ones(50)})
    path = Path(folder, checkpoints.STATE)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="damaged or no training state.*another folder"):
        checkpoints.load_state(folder)


@pytest.mark.parametrize("pickled", [b"\x80\x02.", b"\x80\x02h\x05.", b"\x80\x02K\x01K\x02s."])
def test_a_training_state_whose_pickle_is_nonsense_is_damaged(folder: str, pickled: bytes) -> None:
    checkpoints.save_state(folder, {"step": 3})
    path = Path(folder, checkpoints.STATE)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else content)
    with pytest.raises(ValueError, match="damaged or no training state"):
        checkpoints.load_state(folder)


def test_a_config_without_its_parts_is_refused(folder: str) -> None:
    Path(folder, checkpoints.CONFIG).write_text('{"format": "img2tokens.tokenizer"}')
    with pytest.raises(ValueError, match="format version None"):
        checkpoints.load_config(folder, "tokenizer", Tiny)


def test_a_hostile_training_state_does_not_run(folder: str, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)
    Path(folder, "training").mkdir()
    torch.save({"step": Hostile()}, Path(folder, checkpoints.STATE))
    with pytest.raises(ValueError, match="damaged or no training state"):
        checkpoints.load_state(folder)
    assert not (tmp_path / "owned").exists()
