"""A task without a plan, which worker processes can import."""
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.job import ShardTask
from tokenizer.schema import ShardEntry
from tokenizer.tokens import Receipt


@dataclass
class TouchTask(ShardTask):
    """Leaves a file for each shard, named after the process that made it."""
    folder: str
    seconds: float = 0.0
    bug: bool = False

    @property
    def url(self) -> str:
        return self.folder

    def prepare(self) -> None:
        path = Path(self.folder) / f"prepared-{os.getpid()}"
        if not path.exists():
            path.touch()

    def run(self, shard: int) -> Receipt:
        if self.bug:
            raise KeyError("a deliberate bug")
        time.sleep(self.seconds)
        (Path(self.folder) / f"made-{shard}-{os.getpid()}").touch()
        entry = ShardEntry(name="", rows=1, bytes=0, sha256="")
        return Receipt(shard=shard, fingerprint="", entry=entry, dead_letters={})


def interrupted(folder: str, num_workers: int) -> None:
    """Make shards until Ctrl-C."""
    from pipelines.engines import LocalEngine
    try:
        LocalEngine(num_workers=num_workers)(TouchTask(folder, seconds=0.5), range(1000))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
