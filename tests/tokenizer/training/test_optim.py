"""The optimiser decays matrices alone; the rate rises and falls; averages follow the weights."""
import pytest
import torch
from torch import nn

from tokenizer.training import optim
from tokenizer.training.optim import ExponentialAverage, OptimizerConfig


def test_only_matrices_and_kernels_are_decayed() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Linear(2, 2))
    optimizer = optim.build_adamw(model.parameters(), OptimizerConfig(weight_decay=0.3))
    decayed, plain = optimizer.param_groups
    assert decayed["weight_decay"] == 0.3 and {p.ndim for p in decayed["params"]} == {2, 4}
    assert plain["weight_decay"] == 0.0 and {p.ndim for p in plain["params"]} == {1}


def test_the_rate_rises_linearly_and_falls_to_its_final_share() -> None:
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=4, final_share=0.1)
    rises = [optim.learning_rate(config, step, 0.0) for step in range(5)]
    assert rises == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert optim.learning_rate(config, 100, 0.5) == pytest.approx(0.55)
    assert optim.learning_rate(config, 100, 1.0) == pytest.approx(0.1)


def test_a_set_rate_reaches_every_group() -> None:
    optimizer = optim.build_adamw(nn.Linear(2, 2).parameters(), OptimizerConfig())
    optim.set_learning_rate(optimizer, 0.125)
    assert {group["lr"] for group in optimizer.param_groups} == {0.125}


@pytest.mark.parametrize("settings", [{"learning_rate": 0.0}, {"betas": (0.9, 1.0)},
                                      {"final_share": 2.0}, {"clip_norm": 0.0},
                                      {"learning_rate": float("inf")}, {"weight_decay": -0.1},
                                      {"weight_decay": float("nan")}, {"warmup_steps": -1}])
def test_nonsense_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="got"):
        OptimizerConfig(**settings)  # type: ignore[arg-type]


def test_the_average_moves_by_one_minus_decay_and_copies_buffers() -> None:
    model = nn.BatchNorm1d(2)
    average = ExponentialAverage(model, decay=0.5)
    average.num_updates = 1000
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(7.0)  # type: ignore[union-attr]
    average.update(model)
    assert average.tensors["weight"].tolist() == [2.0, 2.0]
    assert average.tensors["running_mean"].tolist() == [7.0, 7.0]
    other = nn.BatchNorm1d(2)
    average.copy_to(other)
    assert other.weight.tolist() == [2.0, 2.0]


def test_first_updates_forget_the_start() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = ExponentialAverage(model, decay=0.999)
    with torch.no_grad():
        model.weight.fill_(100.0)
    for _ in range(50):
        average.update(model)
    assert average.tensors["weight"].item() > 99


def test_an_average_continues_from_its_state() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    one = ExponentialAverage(model, decay=0.9)
    one.update(nn.Linear(3, 3))
    two = ExponentialAverage(nn.Linear(3, 3), decay=0.9)
    two.load_state_dict(one.state_dict())
    for average in (one, two):
        average.update(model)
    assert two.num_updates == 2 and torch.equal(one.tensors["weight"], two.tensors["weight"])
