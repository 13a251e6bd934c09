"""A compiled transformer trains as the plain one does, and its checkpoints are the same."""
import copy

import pytest
import torch
from drawn_codes import conditions, mapped_stream, tiny_training
from torch._dynamo.utils import counters

import prior.compiling
from prior.loading.batches import Batches
from prior.model import PriorConfig
from prior.state import TrainingState
from prior.transformer import TransformerConfig
from tokenizer.tokens import TokenCorpus
from tokenizer.training.processes import build_accelerator

STEPS = 4


@pytest.fixture(params=["swiglu"])
def config(corpus: TokenCorpus, request: pytest.FixtureRequest) -> PriorConfig:
    shape = TransformerConfig(num_layers=1, width=32, num_heads=2, blocks=request.param)
    return PriorConfig.of(corpus, conditions=conditions("label", "segmentation"),
                          transformer=shape)


@pytest.fixture
def batches(corpus: TokenCorpus, config: PriorConfig) -> Batches:
    return Batches(mapped_stream(corpus), config.layout, 8, 0, {}, 0.0)


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    torch._dynamo.reset()
    counters.clear()


def build_state(config: PriorConfig, is_compiled: bool) -> TrainingState:
    training = tiny_training(f"steps={STEPS}", "batch_size=8", "accumulation=2",
                             "mixed_precision=no", f"compile={str(is_compiled).lower()}")
    return TrainingState(config, training, build_accelerator(training))


def train(state: TrainingState, batches: Batches, last: int = STEPS) -> list[float]:
    """Bits of each step up to the last."""
    bits = []
    while state.step < last:
        state.train_step(batches.batch(state.step), 0.0)
        bits.append(state.take_figures()["bits"])
    return bits


def assert_trains_alike(config: PriorConfig, batches: Batches) -> None:
    plain, compiled = build_state(config, False), build_state(config, True)
    bits = train(plain, batches)
    assert not counters["stats"], "the plain one is not compiled"
    assert train(compiled, batches) == pytest.approx(bits, rel=1e-5, abs=1e-5)
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    weights, others = plain.model.state_dict(), compiled.model.state_dict()
    assert list(weights) == list(others)
    torch.testing.assert_close(others, weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", ["swiglu", "mingpt"], indirect=True)
def test_one_graph_gives_the_losses_of_plain_training(
        config: PriorConfig, batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior.compiling, "BACKEND", "aot_eager")
    assert_trains_alike(config, batches)


def test_a_compiled_training_goes_on_exactly_or_plain_and_averages_stay_plain(
        config: PriorConfig, batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior.compiling, "BACKEND", "aot_eager")
    first, again, plain, whole = (build_state(config, is_compiled)
                                  for is_compiled in (True, True, False, True))
    train(first, batches, STEPS // 2)
    saved = first.state_dict()
    for state in (again, plain):
        state.load_state_dict(copy.deepcopy(saved))
    bits = train(whole, batches)[STEPS // 2:]
    assert train(again, batches) == bits
    assert train(plain, batches) == pytest.approx(bits, rel=1e-4)
    frames = counters["frames"]["total"]
    first.averaged_model()(torch.zeros((1, config.layout.length), dtype=torch.int64))
    assert counters["frames"]["total"] == frames > 0


def test_a_machine_without_a_compiler_is_refused_in_words(
        config: PriorConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="C\\+\\+ compiler on a CPU, and there is no no-such-comp"):
        build_state(config, True)


def test_several_processes_are_refused_in_words(config: PriorConfig,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 2)
    with pytest.raises(ValueError, match="compile trains in one process, got 2: leave it out"):
        build_state(config, True)
