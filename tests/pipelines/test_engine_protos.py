"""What Flink and Spark would be sent: translated in full, with their options, and not run."""
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_runner_api_pb2
from apache_beam.runners.job import utils
from apache_beam.runners.portability import job_server
from engine_tasks import TouchTask

from pipelines.engines import FlagsEngine

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
    """A job service that keeps what it is asked to prepare."""
    request: beam_job_api_pb2.PrepareJobRequest

    def DescribePipelineOptions(self, request: object, timeout: float) -> object:
        return beam_job_api_pb2.DescribePipelineOptionsResponse()

    def Prepare(self, request: beam_job_api_pb2.PrepareJobRequest, timeout: float) -> object:
        self.request = request
        raise Recorded


@pytest.fixture(scope="module", params=RUNNERS)
def prepared(request: pytest.FixtureRequest) -> beam_job_api_pb2.PrepareJobRequest:
    """What a job over three shards sends to the job service that a runner starts."""
    recorder, engine = Recorder(), FlagsEngine(flags=RUNNERS[request.param])
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Recorded):
        patch.setattr(job_server.StopOnExitJobServer, "start", lambda server: recorder)
        engine.pipeline(TouchTask("/nowhere"), range(3)).run()
    return recorder.request


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


def test_the_address_of_a_cluster_reaches_its_job_server() -> None:
    from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
    server = FlinkJarJobServer(PipelineOptions(list(RUNNERS["flink"])))
    told = server.java_arguments(8099, 8098, 8097, "artifacts")
    assert told[told.index("--flink-master") + 1] == "http://flink:8081"
