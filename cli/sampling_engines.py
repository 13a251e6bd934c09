"""Sampling on the engines of `pipelines.engines`: an element of Beam's graph is a shard of samples.

The driver claims the folder and says what samples are given; workers load the prior and make
shards. Neither the prior nor the pipelines know of each other: this module joins them.
"""
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.engines import LOCAL, engine_of, require_absolute
from pipelines.job import Engine, Job, ShardTask

if TYPE_CHECKING:
    from prior.givens import Givens
    from prior.sampling import SampleJob, SamplingConfig
    from tokenizer.receipts import Receipt

_LOCK = threading.Lock()
_LOADED: "dict[tuple[str, str], SampleJob]" = {}
"""The last job of this process, by folder and fingerprint: priors are large, and loaded once."""


@dataclass(frozen=True, kw_only=True)
class SamplingEngine:
    """Where shards of samples are made; see `pipelines.engines.EngineSettings`."""
    engine: str = LOCAL
    num_workers: int = 1
    beam_flags: tuple[str, ...] = ()

    @property
    def is_this_process(self) -> bool:
        """Whether no engine is needed."""
        return self == SamplingEngine()


@dataclass(frozen=True, kw_only=True)
class SampleTask(ShardTask):
    """Makes shards of samples.

    Attributes:
        prior: its folder.
        device: where torch computes.
        size: height and width of the pictures, where they are larger than the prior's own.
        givens: what samples are given.
        config: how many, and how they are drawn.
        out: folder of the samples.
        fingerprint: of the job as its driver sees it.
    """
    prior: str
    device: str
    size: tuple[int, int] | None
    givens: "Givens"
    config: "SamplingConfig"
    out: str
    fingerprint: str

    @property
    def url(self) -> str:
        return self.out

    def prepare(self) -> None:
        self._job()

    def run(self, shard: int) -> "Receipt":
        return self._job().make(shard)

    def _job(self) -> "SampleJob":
        """The job, with the prior that its driver has.

        Raises:
            ValueError: another prior lies there now.
        """
        with _LOCK:
            job = _LOADED.get((self.out, self.fingerprint))
            if job is None:
                _LOADED.clear()
                job = _LOADED[self.out, self.fingerprint] = self._load()
        return job

    def _load(self) -> "SampleJob":
        import torch

        from prior.sampling import SampleJob
        from prior.windows import load_at_size
        torch.set_num_threads(1)  # one worker for each core
        job = SampleJob(load_at_size(self.prior, self.device, self.size), self.givens, self.config,
                        self.out)
        if job.fingerprint != self.fingerprint:
            raise ValueError(f"the prior {self.prior} is {job.prior.fingerprint} here, which is "
                             "not the one that the job began with; put that one back")
        return job


@dataclass(frozen=True, kw_only=True)
class SampleWork:
    """What there is to sample, as a driver sees it; see `pipelines.job.Work`."""
    url: str
    fingerprint: str
    num_shards: int
    num_inputs: int
    delta: int = 0

    @property
    def corpus_url(self) -> str:
        """Samples are no delta of another corpus."""
        return self.url


def carrier(settings: SamplingEngine, prior: str, device: str, size: tuple[int, int] | None,
            out: str) -> "Callable[[SampleJob], None] | None":
    """What has the shards of a job made on an engine; nothing where this process makes them.

    Raises:
        ValueError: there is no such engine, or its workers would not find the folders.
    """
    engine = engine_of(settings)
    if settings.is_this_process:
        return None
    require_absolute(engine, [prior, out])
    return lambda job: carry(job, engine, prior, device, size)


def carry(job: "SampleJob", engine: Engine, prior: str, device: str,
          size: tuple[int, int] | None) -> None:
    """Have an engine make all shards of a job that are not there.

    Raises:
        JobFailed: shards are left that could not be made.
    """
    task = SampleTask(prior=prior, device=device, size=size, givens=job.givens, config=job.config,
                      out=job.out, fingerprint=job.fingerprint)
    work = SampleWork(url=job.out, fingerprint=job.fingerprint, num_shards=job.num_shards,
                      num_inputs=job.num)
    Job(work, task, engine).run(lambda receipts: None)
