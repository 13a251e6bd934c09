"""The Beam graph has one shape, and the local engine runs it, in one process or several."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from engine_tasks import TouchTask
from forked import Forked

from pipelines import engines
from pipelines.encode import EncodeConfig
from pipelines.engines import (
    ENGINES,
    EngineUnreachable,
    LocalEngine,
    engine_of,
    require_absolute,
)
from pipelines.graph import AddTallies, MakeShard, build_graph
from pipelines.job import OutputRefused, Tally, WorkerLost
from pipelines.worker import CHANNEL_CLOSED
from tokenizer.tokens import Receipt

SECONDS = 150
"""How long a process may take on a busy machine; the work it is stopped in takes longer."""


class GraphReader(PipelineVisitor):
    """Collects the steps of a pipeline: those at the top, and every primitive one."""

    def __init__(self, pipeline: beam.Pipeline) -> None:
        self.top = [part for part in pipeline.transforms_stack[0].parts]
        self.primitive: list[AppliedPTransform] = []
        pipeline.visit(self)

    def visit_transform(self, transform_node: AppliedPTransform) -> None:
        self.primitive.append(transform_node)


@pytest.fixture
def graph(tmp_path: Path) -> GraphReader:
    pipeline = beam.Pipeline()
    build_graph(pipeline, TouchTask(str(tmp_path)), [0, 1, 2])
    return GraphReader(pipeline)


def test_the_graph_is_create_reshuffle_pardo_combine(graph: GraphReader) -> None:
    assert [type(part.transform) for part in graph.top] == [
        beam.Create, beam.Reshuffle, beam.ParDo, beam.CombineGlobally]
    make, add = graph.top[2].transform, graph.top[3].transform
    assert isinstance(make.fn, MakeShard) and isinstance(add.fn, AddTallies)


def test_each_step_takes_what_the_one_before_gives_and_nothing_else(graph: GraphReader) -> None:
    for before, after in zip(graph.top, graph.top[1:], strict=False):
        assert list(after.inputs) == list(before.outputs.values())


def test_no_step_has_a_side_input_or_a_second_output(graph: GraphReader) -> None:
    for step in (*graph.top, *graph.primitive):
        assert not step.side_inputs, step.full_label
        assert len(step.outputs) == 1, step.full_label


def test_no_step_keeps_state_or_gives_output_at_the_end_of_a_bundle(graph: GraphReader) -> None:
    fns = [step.transform.fn for step in graph.primitive if isinstance(step.transform, beam.ParDo)]
    assert any(isinstance(fn, MakeShard) for fn in fns)
    assert "finish_bundle" not in vars(MakeShard) and "start_bundle" not in vars(MakeShard)
    assert not any(beam.transforms.userstate.is_stateful_dofn(fn) for fn in fns)


def test_nothing_but_numbers_and_tallies_passes_between_steps() -> None:
    hints = MakeShard(TouchTask("")).get_type_hints()
    assert hints.simple_output_type("") is Tally
    assert hints.input_types[0][0] is int


def test_loading_an_engine_says_nothing_of_libraries_that_nobody_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", (
        "from pipelines.engines import LocalEngine; from engine_tasks import TouchTask; "
        "LocalEngine().pipeline(TouchTask('nowhere'), [0])")],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_shard_is_made_once(tmp_path: Path, num_workers: int) -> None:
    LocalEngine(num_workers=num_workers)(TouchTask(str(tmp_path)), range(7))
    made = sorted(path.name for path in tmp_path.glob("made-*"))
    assert [name.split("-")[1] for name in made] == list("0123456")
    processes = {name.split("-")[2] for name in made}
    assert len(processes) == num_workers
    assert (str(os.getpid()) in processes) == (num_workers == 1)


def test_a_task_is_prepared_before_its_first_shard(tmp_path: Path) -> None:
    LocalEngine()(TouchTask(str(tmp_path)), range(3))
    prepared, first = tmp_path / f"prepared-{os.getpid()}", next(tmp_path.glob("made-0-*"))
    assert prepared.stat().st_mtime_ns <= first.stat().st_mtime_ns


def test_a_store_that_refuses_ends_the_work_of_its_worker(tmp_path: Path) -> None:
    @dataclass
    class FullTask(TouchTask):
        def run(self, shard: int) -> Receipt:
            super().run(shard)
            raise OutputRefused("full")
    make = MakeShard(FullTask(str(tmp_path)))
    tallies = [tally for shard in range(3) for tally in make.process(shard)]
    assert tallies == [Tally(failed=1), Tally(skipped=1), Tally(skipped=1)]
    assert len(list(tmp_path.glob("made-*"))) == 1


def test_a_bug_ends_the_job_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="deliberate bug"):
        LocalEngine()(TouchTask(str(tmp_path), bug=True), [0])


@pytest.mark.slow
def test_a_bug_in_a_worker_ends_the_job_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="deliberate bug"):
        LocalEngine(num_workers=2)(TouchTask(str(tmp_path), bug=True), [0, 1])


@pytest.mark.slow
def test_a_worker_that_is_killed_is_reported(tmp_path: Path) -> None:
    killer = threading.Thread(target=kill_first_worker, args=(tmp_path,), daemon=True)
    killer.start()
    with pytest.raises(WorkerLost):
        LocalEngine(num_workers=2)(TouchTask(str(tmp_path), seconds=0.3), range(20))
    killer.join()


def test_workers_that_die_before_they_connect_are_reported(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beam's local runner would wait for them for ever."""
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(WorkerLost):
        LocalEngine(num_workers=2)(TouchTask(str(tmp_path)), range(4))


def kill_first_worker(folder: Path) -> None:
    while not (made := list(folder.glob("made-*"))):
        time.sleep(0.05)
    os.kill(int(made[0].name.split("-")[2]), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_interrupt_ends_driver_and_workers_at_once(tmp_path: Path, num_workers: int) -> None:
    driver = start_driver(tmp_path, num_workers)
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate(timeout=SECONDS)
    assert driver.returncode == 130
    assert errors.strip().splitlines()[-1] == "interrupted"
    wait_until_gone(tmp_path)


@pytest.mark.slow
def test_an_interrupt_that_beam_wraps_keeps_its_kind(tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(KeyboardInterrupt):
        """As by SIGTERM."""

    def wrapped(engine: LocalEngine, task: TouchTask, shards: Sequence[int]) -> None:
        raise RuntimeError("the pipeline failed") from Asked()
    monkeypatch.setattr(LocalEngine, "pipeline", wrapped)
    with pytest.raises(Asked):
        LocalEngine()(TouchTask(str(tmp_path)), [0])


def test_workers_do_not_outlive_a_driver_that_is_killed(tmp_path: Path) -> None:
    driver = start_driver(tmp_path, 2)
    driver.kill()
    driver.communicate(timeout=SECONDS)
    wait_until_gone(tmp_path)


def start_driver(folder: Path, num_workers: int) -> Forked:
    """A process that makes far more shards than there is time for, once it has begun."""
    script = folder / "driver.py"
    script.write_text("import sys; from engine_tasks import interrupted; "
                      "interrupted(sys.argv[1], int(sys.argv[2]))")
    driver = Forked(script, folder, num_workers)
    deadline = time.monotonic() + SECONDS
    while len({path.name.split("-")[2] for path in folder.glob("made-*")}) < num_workers:
        assert driver.poll() is None and time.monotonic() < deadline, driver.communicate()[1]
        time.sleep(0.05)
    return driver


def wait_until_gone(folder: Path) -> None:
    """Wait for every process that made a shard to end."""
    deadline = time.monotonic() + SECONDS
    pids = {int(path.name.split("-")[2]) for path in folder.glob("made-*")}
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.1)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_beam_says_what_the_engine_listens_for() -> None:
    from apache_beam.runners.worker import data_plane
    assert CHANNEL_CLOSED in Path(data_plane.__file__).read_text()


@dataclass(frozen=True)
class Asked:
    """What people ask of an engine."""
    engine: str = "local"
    num_workers: int = 1
    beam_flags: tuple[str, ...] = ()


FLINK = ("--runner=FlinkRunner", "--flink_master=flink:8081")
EVERY_ENGINE = {"local": Asked(), "dask": Asked("dask://127.0.0.1:8786"),
                "portable": Asked("portable://[::1]:8099"), "beam": Asked("beam", beam_flags=FLINK)}


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_builds_the_one_graph_and_knows_its_runner(name: str, tmp_path: Path) -> None:
    engine = engine_of(EVERY_ENGINE[name])
    pipeline = engine.pipeline(TouchTask(str(tmp_path)), range(3))
    assert [part.full_label for part in pipeline.transforms_stack[0].parts] == [
        "Shards", "Spread", "Make", "Sum"]
    assert type(pipeline.runner).__name__ == {
        "local": "FnApiRunner", "dask": "DaskRunner", "portable": "PortableRunner",
        "beam": "FlinkRunner"}[name]


def test_flags_count_before_what_an_engine_asks_for_itself(tmp_path: Path) -> None:
    from apache_beam.options.pipeline_options import PortableOptions
    flags = ("--environment_type=EXTERNAL", "--environment_config=pool:50000")
    for given, kind in (((), "LOOPBACK"), (flags, "EXTERNAL")):
        engine = engine_of(Asked("portable://127.0.0.1:8099", beam_flags=given))
        pipeline = engine.pipeline(TouchTask(str(tmp_path)), [0])
        assert pipeline.options.view_as(PortableOptions).environment_type == kind


@pytest.mark.parametrize(("asked", "words"), [
    (Asked("spark://a:1"), "an engine is one of local, dask://HOST:PORT, .*; got 'spark://a:1'"),
    (Asked("local://a:1"), "local is given as local, got 'a:1'"),
    (Asked("dask"), "dask is given as dask://HOST:PORT, got 'dask'"),
    (Asked("dask://scheduler"), "HOST:PORT, got 'scheduler'"),
    (Asked("dask://a:123456"), "HOST:PORT, got 'a:123456'"),
    (Asked("dask://a:1", 2), "workers of its own, got num_workers 2"),
    (Asked(num_workers=0), "num_workers must be at least 1, got 0"),
    (Asked("beam"), "--engine beam -- --runner=FlinkRunner"),
    (Asked("beam", beam_flags=("runner=FlinkRunner",)), "'runner=FlinkRunner' is no flag"),
])
def test_what_is_no_engine_is_refused(asked: Asked, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        engine_of(asked)


def test_relative_folders_are_refused_where_workers_run_elsewhere() -> None:
    elsewhere = engine_of(EVERY_ENGINE["dask"])
    fine = ["/data/photos", "s3://corpus", "datasets:USER/NAME@train"]
    require_absolute(elsewhere, fine)
    require_absolute(LocalEngine(), ["photos"])
    with pytest.raises(ValueError, match=f"photos is relative .* give {os.getcwd()}/photos"):
        require_absolute(elsewhere, [*fine, "photos"])
    with pytest.raises(ValueError, match=r"\.cache is relative"):
        require_absolute(elsewhere, [".cache"])


def test_maps_within_a_corpus_are_no_relative_folders() -> None:
    settings = {"corpus": "/data/a.tar", "output": "/data/tokens", "engine": "dask://host:1",
                "tokenizers": {"image": "/data/tok", "depth": "/data/depth"}}
    for place in (".depth.png", "column:depth"):
        EncodeConfig(**settings, maps={"depth": place})
    with pytest.raises(ValueError, match="depths is relative"):
        EncodeConfig(**settings, maps={"depth": "depths"})


@pytest.mark.parametrize("name", ["dask", "portable"])
def test_an_engine_that_does_not_answer_is_told_with_its_address(name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nothing listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EngineUnreachable, match=f"{address} does not answer .*refused"):
            engine_of(Asked(f"{name}://{address}"))(TouchTask(""), [0])


def test_a_service_of_another_kind_is_no_job_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "SECONDS_TO_ANSWER", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(EngineUnreachable, match=f"{address} does not speak gRPC"):
            engine_of(Asked(f"portable://{address}"))(TouchTask(""), [0])


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(EngineUnreachable, match=r"pip install 'img2tokens\[dask\]'"):
        engine_of(EVERY_ENGINE["dask"])(TouchTask(""), [0])


def test_what_was_lost_is_told_apart_from_bugs() -> None:
    from distributed.scheduler import KilledWorker
    killed = KilledWorker("make", "tcp://a:1", 3)
    dask, flags = engine_of(EVERY_ENGINE["dask"]), engine_of(EVERY_ENGINE["beam"])
    assert "workers of the Dask cluster died" in str(dask.loss(killed))
    assert "127.0.0.1:8786 was lost: closed" in str(dask.loss(OSError("closed")))
    for error in (ModuleNotFoundError("No module named 'pipelines'"),
                  RuntimeError("Error during deserialization of the task graph")):
        assert "install the same packages for its scheduler and workers" in str(dask.loss(error))
    assert dask.loss(KeyError("a bug")) is None and LocalEngine().loss(RuntimeError("bug")) is None
    assert flags.loss(RuntimeError("Traceback:\n  here\nOSError: no slot\n")) == (
        "the engine gave up: OSError: no slot")


def test_tallies_are_merged() -> None:
    combine, parts = AddTallies(), [Tally(done=1, rows=2), Tally(failed=1)]
    added: Sequence[Tally] = [combine.add_input(combine.create_accumulator(), part)
                              for part in parts]
    assert combine.extract_output(combine.merge_accumulators(added)) == Tally(done=1, failed=1,
                                                                              rows=2)
