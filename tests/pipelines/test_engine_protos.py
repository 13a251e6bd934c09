"""What Flink and Spark would be sent: translated in full, with their options, and not run."""
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_runner_api_pb2
from apache_beam.runners.job import utils
from apache_beam.runners.portability import job_server
from engine_tasks import TouchTask

from pipelines.engines import BeamEngine, DaskEngine, FlagsEngine, LocalEngine

POOL = ("--environment_type=EXTERNAL", "--environment_config=workers:50000")
QUICK = ("--experiments=disable_logging_submission_environment",)
RUNNERS = {
    "flink": ("--runner=FlinkRunner", "--flink_master=http://flink:8081", "--flink_version=1.19",
              "--parallelism=8", *POOL, *QUICK),
    "spark": ("--runner=SparkRunner", "--spark_master_url=spark://spark:7077", *POOL, *QUICK),
}
ALLOWED = {"beam:transform:impulse:v1", "beam:transform:pardo:v1",
           "beam:transform:group_by_key:v1", "beam:transform:reshuffle:v1",
           "beam:transform:combine_per_key:v1", "beam:transform:combine_globally:v1",
           "beam:transform:combine_per_key_precombine:v1",
           "beam:transform:combine_per_key_merge_accumulators:v1",
           "beam:transform:combine_per_key_extract_outputs:v1"}
"""What the four steps of the graph come to."""


class Recorded(Exception):
    """The job service has been handed the job."""


class Recorder:
    """A job service that keeps what it is asked to prepare, and has a flag of its own."""
    request: beam_job_api_pb2.PrepareJobRequest

    def DescribePipelineOptions(self, request: object, timeout: float) -> object:
        own = beam_job_api_pb2.PipelineOptionDescriptor(
            name="checkpointing_interval", type=beam_job_api_pb2.PipelineOptionType.INTEGER)
        return beam_job_api_pb2.DescribePipelineOptionsResponse(options=[own])

    def Prepare(self, request: beam_job_api_pb2.PrepareJobRequest, timeout: float) -> object:
        self.request = request
        raise Recorded


def prepare(*flags: str) -> beam_job_api_pb2.PrepareJobRequest:
    """What a job over three shards sends to the job service that a runner starts."""
    recorder, engine = Recorder(), FlagsEngine(flags=flags)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Recorded):
        patch.setattr(job_server.StopOnExitJobServer, "start", lambda server: recorder)
        engine.pipeline(TouchTask("/nowhere"), range(3)).run()
    return recorder.request


@pytest.fixture(scope="module", params=RUNNERS)
def prepared(request: pytest.FixtureRequest) -> beam_job_api_pb2.PrepareJobRequest:
    """What a job is sent as."""
    return prepare(*RUNNERS[request.param])


def test_the_job_is_translated_into_allowed_steps_alone(
        prepared: beam_job_api_pb2.PrepareJobRequest) -> None:
    transforms = prepared.pipeline.components.transforms.values()
    leaves = [step for step in transforms if not step.subtransforms]
    assert {step.spec.urn for step in leaves} <= ALLOWED
    for step in leaves:
        assert len(step.inputs) <= 1 and len(step.outputs) == 1, step.unique_name
        if step.spec.urn == "beam:transform:pardo:v1":
            payload = beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload)
            assert not (payload.side_inputs or payload.state_specs or payload.requests_finalization
                        or payload.timer_family_specs or payload.restriction_coder_id)
    assert sum(step.unique_name == "Make" for step in leaves) == 1


def test_workers_are_those_that_the_flags_name(
        prepared: beam_job_api_pb2.PrepareJobRequest) -> None:
    (environment,) = prepared.pipeline.components.environments.values()
    assert environment.urn == "beam:env:external:v1"
    payload = beam_runner_api_pb2.ExternalPayload.FromString(environment.payload)
    assert payload.endpoint.url == "workers:50000"


def test_every_flag_goes_with_the_job(prepared: beam_job_api_pb2.PrepareJobRequest,
                                      request: pytest.FixtureRequest) -> None:
    sent = {name.split(":")[2]: value
            for name, value in utils.struct_to_dict(prepared.pipeline_options).items()}
    flags = dict(flag.removeprefix("--").split("=")
                 for flag in RUNNERS[request.node.callspec.params["prepared"]])
    del flags["runner"], flags["experiments"]  # the first is for this side alone
    assert flags == {name: sent[name] for name in flags}


def test_flags_of_the_job_service_itself_are_sent_and_what_it_does_not_know_is_refused() -> None:
    sent = utils.struct_to_dict(prepare(*RUNNERS["flink"], "--checkpointing_interval=7",
                                        ).pipeline_options)
    assert sent["beam:option:checkpointing_interval:v1"] == "7"
    with pytest.raises(ValueError, match="behind -- stands --flink_mster=a, which neither Beam nor "
                                         "what it runs on knows: did you mean --flink_master"):
        prepare(*RUNNERS["flink"], "--flink_mster=a")
    with pytest.raises(ValueError, match="behind -- stands --zzz 9 word, .* knows: leave it out"):
        prepare(*RUNNERS["spark"], "--zzz", "9", "word")


@pytest.mark.parametrize("engine", [
    LocalEngine(flags=("--direct_num_wrkers=2",)),
    DaskEngine(address="127.0.0.1:8786", flags=("--direct_num_wrkers=2",)),
    FlagsEngine(flags=("--runner=DirectRunner", "--direct_num_wrkers=2"))])
def test_flags_that_nobody_knows_are_refused_at_once_where_no_service_is_asked(
        engine: BeamEngine) -> None:
    with pytest.raises(ValueError, match="--direct_num_wrkers=2, .* mean --direct_num_workers"):
        engine.pipeline(TouchTask("/nowhere"), range(3))


@pytest.mark.parametrize(("flag", "words"), [
    ("--direct_num_workers=many", "argument --direct_num_workers: invalid int value: 'many'"),
    ("--direct_num_workers", "argument --direct_num_workers: expected one argument"),
    ("--help", "a job gives no help; leave out --help")])
def test_values_that_beam_refuses_are_one_line_and_not_its_pages(
        flag: str, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=f"Beam refuses what stands behind --: {words}"):
        LocalEngine(flags=(flag,)).pipeline(TouchTask("/nowhere"), range(3))
    assert capfd.readouterr() == ("", "")


def test_flags_that_a_runner_brings_with_it_are_known() -> None:
    FlagsEngine(flags=("--runner=apache_beam.runners.dask.dask_runner.DaskRunner",
                       "--dask_partition_size=2")).pipeline(
        TouchTask("/nowhere"), range(3))


def test_the_address_of_a_cluster_reaches_its_job_server() -> None:
    from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
    server = FlinkJarJobServer(PipelineOptions(list(RUNNERS["flink"])))
    told = server.java_arguments(8099, 8098, 8097, "artifacts")
    assert told[told.index("--flink-master") + 1] == "http://flink:8081"
