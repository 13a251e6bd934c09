"""``sample --engine``: every engine ends in the files of one process, whoever made which shard."""
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from clusters import DaskCluster, JobService
from random_tokenizers import tree

from cli import sampling_engines
from cli.main import main
from cli.sampling_engines import carry
from pipelines import job as jobs
from pipelines.job import JobFailed, ShardTask, try_shard
from prior.generate import Generation
from prior.givens import from_corpus
from prior.model import KIND, Condition, Prior, PriorConfig
from prior.recipes import tiny
from prior.sampling import SampleJob, SamplingConfig, sample_corpus
from prior.transformer import Transformer
from tokenizer import checkpoints
from tokenizer.tokens import TokenCorpus

OPTIONS = ("--num", 10, "--shard-size", 3, "--batch-size", 4)
CONFIG = SamplingConfig(num=10, shard_size=3, generation=Generation(batch_size=4))
"""The same: ten images in four shards."""


def draw_prior(folder: Path, corpus: TokenCorpus, seed: int) -> None:
    """Write a prior with random weights."""
    config = PriorConfig.of(corpus, conditions=[Condition(name="segmentation")],
                            transformer=tiny().transformer)
    torch.manual_seed(seed)
    model = Transformer(config.transformer, config.layout)
    torch.nn.init.normal_(model.head.weight)
    checkpoints.save_weights(str(folder), model.state_dict())
    checkpoints.save_config(str(folder), KIND, config)


@pytest.fixture(scope="module")
def folder(tokenized: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``prior``, the ``tokens`` of its conditions, and ``local``, what one process samples."""
    folder = tmp_path_factory.mktemp("sampled")
    shutil.copytree(tokenized / "tokens", folder / "tokens")
    draw_prior(folder / "prior", TokenCorpus.open(str(folder / "tokens")), seed=0)
    done = sample(folder, "local")
    assert done.exit_code == 0, done.output
    return folder


def sample(folder: Path, out: str, *options: object) -> Result:
    arguments = ("sample", folder / "prior", folder / out, "--condition-from", folder / "tokens",
                 *OPTIONS, *options)
    return CliRunner().invoke(main, [*map(str, arguments)])


def job_of(folder: Path, out: Path) -> SampleJob:
    prior, corpus = Prior.load(str(folder / "prior")), TokenCorpus.open(str(folder / "tokens"))
    return SampleJob(prior, from_corpus(prior.config, corpus), CONFIG, str(out))


def in_this_process(task: ShardTask, shards: Sequence[int]) -> None:
    """An engine, as `pipelines.job.Engine` says."""
    for shard in shards:
        try_shard(task, shard)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["two processes", "Dask", "job service"])
def test_every_engine_writes_the_same_samples(folder: Path, way: str,
                                              request: pytest.FixtureRequest) -> None:
    if way == "two processes":
        options = ["--num-workers", "2"]
    elif way == "Dask":
        dask: DaskCluster = request.getfixturevalue("dask")
        options = ["--engine", dask.engine]
    else:
        service: JobService = request.getfixturevalue("service")
        options = ["--engine", service.engine, "--", *service.flags]
    done = sample(folder, way, *options)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"10 images in {folder / way}"
    assert tree(folder / way) == tree(folder / "local")


def test_an_engine_makes_only_what_a_stopped_job_has_left(
        folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, made = tmp_path / "stopped", []
    shutil.copytree(folder / "local", out)
    for name in ("_SUCCESS", "manifest.json", "_receipts/00001.json", "_receipts/00003.json"):
        (out / name).unlink()
    make = SampleJob.make

    def note(job: SampleJob, shard: int, *rest: object) -> object:
        made.append(shard)
        return make(job, shard, *rest)

    monkeypatch.setattr(SampleJob, "make", note)
    monkeypatch.setattr(sampling_engines, "_LOADED", {})
    job = job_of(folder, out)
    sample_corpus(job.prior, job.givens, str(out), CONFIG, carry=lambda job: carry(
        job, in_this_process, str(folder / "prior"), "cpu", None))
    assert made == [1, 3]
    assert tree(out) == tree(folder / "local")


def test_one_process_leaves_nothing_of_what_failed_on_an_engine(folder: Path,
                                                                tmp_path: Path) -> None:
    out = tmp_path / "failed"
    shutil.copytree(folder / "local", out)
    for name in ("_SUCCESS", "manifest.json", "_receipts/00001.json"):
        (out / name).unlink()
    (out / "_failed").mkdir()
    (out / "_failed/00001.json").write_text('{"error": "OSError", "message": "no prior"}')
    done = sample(folder, str(out))
    assert done.exit_code == 0, done.output
    assert tree(out) == tree(folder / "local")


def test_workers_with_another_prior_make_nothing_and_say_why(
        folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PAUSES", ())
    draw_prior(tmp_path / "other", TokenCorpus.open(str(folder / "tokens")), seed=1)
    job = job_of(folder, tmp_path / "samples")
    with pytest.raises(JobFailed, match="4 of 4 shards .* not the one that the job began with"):
        carry(job, in_this_process, str(tmp_path / "other"), "cpu", None)
    assert not (tmp_path / "samples" / "data").exists()
    carry(job, in_this_process, str(folder / "prior"), "cpu", None)
    assert tree(tmp_path / "samples" / "data") == tree(folder / "local" / "data")


@pytest.mark.parametrize(("options", "words"), [
    (("--engine", "flink://a:1"), "an engine is one of local, dask://HOST:PORT, portable://"),
    (("--engine", "dask://a:1", "--array-index", 0, "--array-size", 2), "on its own machine"),
    (("--num-workers", 2, "--array-index", 0, "--array-size", 2), "leave out --num-workers"),
    (("--engine", "dask://127.0.0.1:9"), "127.0.0.1:9 does not answer"),
    (("more",), "got unexpected extra argument (more)")])
def test_engines_that_cannot_be_are_one_line(folder: Path, tmp_path: Path,
                                             options: tuple[object, ...], words: str) -> None:
    done = sample(folder, str(tmp_path / "out"), *options)
    assert done.exit_code in (1, 2) and words in " ".join(done.output.split())
    assert not [*tmp_path.glob("out/data/*")]


def test_workers_elsewhere_need_whole_paths(folder: Path) -> None:
    done = CliRunner().invoke(main, ["sample", "prior", str(folder / "out"), "--engine",
                                     "dask://a:1"])
    assert done.exit_code == 1 and "prior is relative to the folder of this process" in done.output
