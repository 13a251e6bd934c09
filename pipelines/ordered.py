"""A function over a stream of items on several threads, results in the order of the items."""
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def ordered(function: Callable[[Item], Result], items: Iterable[Item], num_threads: int,
            window: int) -> Iterator[Iterator[Result]]:
    """Results of ``function``, computed ahead of their use.

    Args:
        window: how many results are under way or waiting at most; it bounds the memory.
    Raises:
        Whatever ``function`` raises, when its result is taken; what has not begun is given up.
    """
    pool = ThreadPoolExecutor(num_threads)
    try:
        yield _results(pool, function, iter(items), window)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _results(pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterator[Item],
             window: int) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque(pool.submit(function, item)
                                           for item in islice(items, window))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(function, item) for item in islice(items, 1))
        yield result
