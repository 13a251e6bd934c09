"""Precision by hardware, settled once for a training."""
from pathlib import Path

import pytest
import torch

from tokenizer import checkpoints
from tokenizer.training import processes, resume
from tokenizer.training.settings import TrainingSettings


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
@pytest.mark.parametrize(("flags", "expected"), [
    ("fpu avx512f avx512_bf16 amx_tile", "bf16"), ("fpu amx_bf16", "bf16"),
    ("fpu avx2 avx512f", "no")])
def test_the_processor_decides_without_a_gpu(flags: str, expected: str, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name : any\nflags : {flags}\n")
    monkeypatch.setattr(processes, "CPU_INFO", tmp_path / "cpuinfo")
    assert processes.fastest_precision() == expected


def test_a_machine_that_does_not_say_computes_in_float32(monkeypatch: pytest.MonkeyPatch,
                                                         tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert processes.fastest_precision() == "no"


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "no")])
def test_a_gpu_decides_where_there_is_one(supported: bool, expected: str,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert processes.fastest_precision() == expected


def test_auto_is_settled_by_this_machine_and_then_by_what_was_begun(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    auto, out = TrainingSettings(mixed_precision="auto"), str(tmp_path)
    for precision in ("bf16", "no"):
        monkeypatch.setattr(resume, "fastest_precision", lambda found=precision: found)
        assert resume.settle_precision(auto, out).mixed_precision == precision
    checkpoints.save_state(out, {"run": {"training": {"mixed_precision": "bf16"}}})
    assert resume.settle_precision(auto, out).mixed_precision == "bf16"


def test_a_precision_that_was_given_stays(tmp_path: Path) -> None:
    checkpoints.save_state(str(tmp_path), {"run": {"training": {"mixed_precision": "bf16"}}})
    given = TrainingSettings(mixed_precision="no")
    assert resume.settle_precision(given, str(tmp_path)) is given
