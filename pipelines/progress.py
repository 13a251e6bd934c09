"""The progress of a job: a bar on standard error, and the records that are kept, if any.

The bar shows images a second, the time that is left, shards and dead letters.
"""
from collections.abc import Collection
from types import TracebackType

from pipelines import records
from tokenizer.bars import is_terminal, progress_bar
from tokenizer.tokens import Receipt

DELAY = 0.5
"""Seconds before a bar shows at all; what ends sooner needs none."""


class Progress:
    """A bar that shows what receipts say; it neither knows nor cares who writes them.

    Args:
        url: folder of the job.
        num_inputs: inputs of the job; ``num_shards`` likewise.
        unit: what an input is called, in the plural.
    """

    def __init__(self, url: str, num_inputs: int, num_shards: int, unit: str) -> None:
        self._num_shards = num_shards
        if (kept := records.current()) is not None:
            kept.begin(url, unit, num_shards, num_inputs)
        self._records = kept
        self._bar = progress_bar(total=num_inputs, unit=f" {unit}", smoothing=0.1, delay=DELAY,
                                 dynamic_ncols=is_terminal())
        self._started = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._bar.close()

    def show(self, receipts: Collection[Receipt], at_once: bool = False) -> None:
        """Bring the bar, and the records, to what these receipts account for.

        Args:
            at_once: do not wait with a record until the last one is a while ago.
        """
        if self._records is not None:
            self._records.show(receipts, at_once)
        done = sum(receipt.num_inputs for receipt in receipts)
        if not self._started:  # what an earlier run has done says nothing about this one's speed
            self._bar.initial, self._started = done, True
            self._bar.n = self._bar.last_print_n = done
        dead = sum(receipt.num_dead_letters for receipt in receipts)
        self._bar.set_postfix_str(f"{len(receipts)}/{self._num_shards} shards, {dead} dead letters",
                                  refresh=False)
        self._bar.update(done - self._bar.n)
