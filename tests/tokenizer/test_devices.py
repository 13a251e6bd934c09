"""Arithmetic of the whole process, which several threads share."""
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tokenizer.codec import reproducible
from tokenizer.devices import AUTO, full_float32, usable_device

CPU = torch.device("cpu")
EXACT = ("highest", False, False, True)


def arithmetic() -> tuple[str, bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return (torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark,
            cudnn.deterministic)


@pytest.fixture
def rough() -> Iterator[tuple[str, bool, bool, bool]]:
    """The arithmetic of a process that prefers speed, put back afterwards."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False,
                                    allow_tf32=True):
        torch.set_float32_matmul_precision("medium")
        yield arithmetic()
        torch.set_float32_matmul_precision("highest")


def test_float32_is_full_within_and_as_before_afterwards(
        rough: tuple[str, bool, bool, bool]) -> None:
    assert rough == ("medium", True, True, False)
    with full_float32():
        assert arithmetic() == EXACT
        with full_float32():
            assert arithmetic() == EXACT
        assert arithmetic() == EXACT
    assert arithmetic() == rough


def test_an_error_within_puts_the_arithmetic_back(rough: tuple[str, bool, bool, bool]) -> None:
    with pytest.raises(ZeroDivisionError), full_float32():
        _ = 1 // 0
    assert arithmetic() == rough


def test_a_thread_keeps_full_float32_when_one_that_came_before_it_leaves(
        rough: tuple[str, bool, bool, bool]) -> None:
    is_first_within, is_second_within, has_first_left = (threading.Event() for _ in range(3))

    def first() -> None:
        with reproducible(CPU):
            is_first_within.set()
            assert is_second_within.wait(10)
        has_first_left.set()

    def second() -> tuple[str, bool, bool, bool]:
        assert is_first_within.wait(10)
        with reproducible(CPU):
            is_second_within.set()
            assert has_first_left.wait(10)
            return arithmetic()

    with ThreadPoolExecutor(2) as pool:
        early = pool.submit(first)
        assert pool.submit(second).result() == EXACT
        early.result()
    assert arithmetic() == rough


def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    assert usable_device(AUTO).type == kind
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_device(AUTO) == CPU


def test_a_device_that_is_not_there_is_refused_with_what_to_give() -> None:
    assert usable_device("cpu") == CPU
    with pytest.raises(ValueError, match="device 'nowhere' cannot be used .*give cpu"):
        usable_device("nowhere")
