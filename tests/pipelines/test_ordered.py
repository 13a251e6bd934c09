"""Results come in order, ahead of their use, and never too many."""
import threading
import time

import pytest

from pipelines.ordered import ordered


def test_results_come_in_the_order_of_the_items() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item % 5 == 0 else 0)
        return item * item
    with ordered(slow_first, range(40), 4, 8) as results:
        assert list(results) == [item * item for item in range(40)]


def test_no_more_than_the_window_is_ahead() -> None:
    begun = []
    with ordered(begun.append, range(100), 2, 5) as results:
        next(results)
        time.sleep(0.05)
        assert len(begun) <= 6


def test_work_is_done_on_several_threads() -> None:
    together = threading.Barrier(3, timeout=5)
    with ordered(lambda _: together.wait(), range(3), 3, 3) as results:
        assert sorted(results) == [0, 1, 2]


def test_an_error_is_raised_at_its_place_and_the_rest_given_up() -> None:
    begun = []

    def fail_at_three(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise OSError("gone")
        return item
    taken = []
    with pytest.raises(OSError, match="gone"), ordered(fail_at_three, range(1000), 2, 6) as results:
        taken.extend(results)  # ends early
    assert len(begun) < 20


def test_no_items_give_no_results() -> None:
    with ordered(str, [], 2, 4) as results:
        assert list(results) == []
