"""Precision by hardware, settled once for a training; processes that fail and end together."""
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from tokenizer import checkpoints
from tokenizer.training import processes, resume
from tokenizer.training.processes import NUM_PROCESSES
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


@pytest.mark.parametrize("name", NUM_PROCESSES)
def test_processes_started_together_that_find_no_others_are_refused(
        name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "2")
    with pytest.raises(ValueError, match=f"{name} is 2, .*set ACCELERATE_USE_CPU=true to train in "
                                         f"2 processes .*or unset {name} to train in one"):
        processes.build_accelerator(TrainingSettings())
    for harmless in ("1", ""):
        monkeypatch.setenv(name, harmless)
        assert processes.build_accelerator(TrainingSettings()).num_processes == 1


def test_what_one_process_does_alone_fails_with_its_own_error_after_saving() -> None:
    accelerator, saved = processes.build_accelerator(TrainingSettings()), []
    with processes.alone(accelerator, lambda: saved.append("no")):
        pass
    with (pytest.raises(RuntimeError, match="out of memory"),
          processes.alone(accelerator, lambda: saved.append("yes"))):
        raise RuntimeError("out of memory")
    with pytest.raises(OSError, match="gone"), processes.alone(accelerator):
        raise OSError("gone")
    assert saved == ["yes"]


def test_the_others_end_too_and_say_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator, saved = processes.build_accelerator(TrainingSettings()), []
    monkeypatch.setattr(processes, "agree", lambda *_: 1.0)
    with (pytest.raises(processes.FirstProcessFailed, match="its message says why"),
          processes.alone(accelerator, lambda: saved.append("yes"))):
        pass
    assert saved == ["yes"]


@pytest.mark.parametrize("kind", processes.SHARDED)
def test_weights_shared_among_processes_are_refused(kind: DistributedType,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "distributed_type", property(lambda self: kind))
    with pytest.raises(ValueError, match=f"whole weights in each, got {kind.value}"):
        processes.build_accelerator(TrainingSettings())
