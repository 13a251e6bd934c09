"""The state of a training: seeds, averaged weights, revived codes, and saving it whole."""
import io
from collections.abc import Callable

import pytest
import torch

from tokenizer.training.config import AdversarialConfig
from tokenizer.training.processes import build_accelerator
from tokenizer.training.settings import TrainingSettings
from tokenizer.training.state import TrainingState
from tokenizer.training.steps import train_step

State = Callable[..., TrainingState]
Pixels = Callable[..., torch.Tensor]


def stored(state: TrainingState) -> dict:
    """The state as it comes back from a file, read without running code."""
    buffer = io.BytesIO()
    torch.save(state.state_dict(), buffer)
    buffer.seek(0)
    loaded: dict = torch.load(buffer, weights_only=True)
    return loaded


def test_equal_seeds_give_equal_weights(state: State) -> None:
    first, second, other = state(seed=3), state(seed=3), state(seed=4)
    name = "encoder.conv_in.weight"
    assert torch.equal(first.model.state_dict()[name], second.model.state_dict()[name])
    assert not torch.equal(first.model.state_dict()[name], other.model.state_dict()[name])


def test_random_numbers_of_a_step_depend_on_seed_and_step_alone(state: State) -> None:
    training = state()
    drawn = []
    for step in (5, 6, 5):
        training.step = step
        training.seed_step()
        drawn.append(torch.rand(3))
        torch.rand(7)
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])


def test_without_an_average_the_last_weights_are_kept(state: State, pixels: Pixels) -> None:
    training = state(ema_decay=0.0)
    train_step(training, pixels(), 0.0)
    averaged = training.averaged_model()
    assert not averaged.training and training.model.training
    for name, tensor in training.model.state_dict().items():
        assert torch.equal(averaged.state_dict()[name], tensor)


def test_revived_codes_lose_their_past(state: State, pixels: Pixels) -> None:
    training = state()
    train_step(training, pixels(), 0.0)
    codebook = training.model.get_parameter("quantize.embedding.weight")
    for moment in training.optimizer.state[codebook].values():
        moment.fill_(1)
    training.forget_codes({"quantize.embedding.weight": torch.tensor([2, 5])})
    moments = training.optimizer.state[codebook]
    assert moments["exp_avg"].sum(1).tolist() == [0.0 if row in (2, 5) else 4 for row in range(16)]
    assert moments["step"] == 1
    average = training.average.tensors["quantize.embedding.weight"]
    assert torch.equal(average[[2, 5]], codebook[[2, 5]])


def test_figures_are_means_over_the_steps_that_had_them(state: State) -> None:
    training = state()
    training.add_figures({"loss": 1.0})
    training.add_figures({"loss": 3.0, "adversarial": 5.0})
    assert training.take_figures() == {"loss": 2.0, "adversarial": 5.0}
    assert training.take_figures() == {}


def test_a_stored_state_goes_on_exactly(state: State, pixels: Pixels,
                                        adversarial: AdversarialConfig) -> None:
    straight = state(adversarial=adversarial)
    for step in range(4):
        straight.add_figures(train_step(straight, pixels(step), step / 10).figures)
    continued = state(adversarial=adversarial, seed=9)
    continued.training = straight.training
    continued.load_state_dict(stored(straight))
    for training in (straight, continued):
        for step in range(4, 8):
            training.add_figures(train_step(training, pixels(step), step / 10).figures)
    assert continued.step == 8 and continued.sums == straight.sums
    assert continued.recent.usage() == straight.recent.usage()
    for part in ("model", "discriminator"):
        expected = getattr(straight, part).state_dict()
        found = getattr(continued, part).state_dict()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(torch.equal(continued.average.tensors[name], tensor)
               for name, tensor in straight.average.tensors.items())


def test_one_process_trains_in_one_precision_after_the_other() -> None:
    for precision in ("bf16", "no"):
        settings = TrainingSettings(mixed_precision=precision)
        assert build_accelerator(settings).mixed_precision == precision


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_half_precision_without_a_gpu_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="fp16 needs a GPU.*use bf16 or no"):
        build_accelerator(TrainingSettings(mixed_precision="fp16"))
