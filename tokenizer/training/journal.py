"""The journal of a training: ``metrics.jsonl`` and TensorBoard events under ``logs/``.

A journal is a local folder. On resume, lines and events after the resumed step are dropped, so the
journal of a stopped and continued run is that of an uninterrupted one.
"""
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tokenizer import storage

METRICS, LOGS = "metrics.jsonl", "logs"
REMARK = "remark"
"""Name of a remark in ``metrics.jsonl`` and in TensorBoard."""


class Journal:
    """Writes scalars as JSON lines and to TensorBoard, and images to TensorBoard.

    Args:
        folder: of the training; made when it does not exist.
        step: what was logged at later steps than this is dropped.
    """

    def __init__(self, folder: str, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        self._metrics = path / METRICS
        self._keep_until(step)
        self._file = self._metrics.open("a", buffering=1)
        self._events = SummaryWriter(path / LOGS, purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers by name, such as ``train/loss``; one that is not finite is null in JSON."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def remark(self, step: int, text: str) -> None:
        """Log what was noticed, in one line."""
        self._file.write(json.dumps({"step": step, REMARK: text}) + "\n")
        self._events.add_text(REMARK, text, step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Log a picture ``(H, W, 3)`` uint8."""
        self._events.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close both."""
        self._file.close()
        self._events.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _keep_until(self, step: int) -> None:
        if self._metrics.exists():
            kept = [json.dumps(line) + "\n" for line in read_metrics(str(self._metrics.parent))
                    if line["step"] <= step]
            storage.write_bytes(str(self._metrics), "".join(kept).encode())


def read_metrics(folder: str) -> list[dict[str, Any]]:
    """The lines of a training's ``metrics.jsonl``, in order, without a line cut short by a kill.

    Values are numbers by name, or the text of a `REMARK`.
    """
    lines = []
    for text in (Path(folder) / METRICS).read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines
