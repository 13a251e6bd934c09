"""Prompts are read as written, and their losses are those of the published VQGAN-CLIP."""
import math

import pytest
import torch

from clip_guidance.prompts import (
    Prompt,
    parse_prompts,
    prompt_losses,
    similarities,
    spherical_distances,
)


@pytest.mark.parametrize(("text", "expected"), [
    ("a red house", [("a red house", 1.0, -math.inf)]),
    (" a red house :2", [("a red house", 2.0, -math.inf)]),
    ("a red house:2:0.4 | fog:-0.5", [("a red house", 2.0, 0.4), ("fog", -0.5, -math.inf)]),
    ("a sign: stop:1:-inf", [("a sign: stop", 1.0, -math.inf)])])
def test_prompts_read_text_weight_stop(text: str, expected: list[tuple[str, float, float]]) -> None:
    assert [(prompt.text, prompt.weight, prompt.stop) for prompt in parse_prompts(text)] == expected


@pytest.mark.parametrize("prompt", [
    Prompt(text="a house"), Prompt(text="fog", weight=-0.5), Prompt(text="a: b"),
    Prompt(text="a", weight=2, stop=-0.25)])
def test_a_described_prompt_can_be_read_again(prompt: Prompt) -> None:
    assert parse_prompts(prompt.describe()) == (prompt,)


@pytest.mark.parametrize(("text", "message"), [
    ("", "needs words"), ("  ", "needs words"), (":2", "needs words"), ("house | ", "needs words"),
    ("house:heavy", "numbers, got 'house:heavy'"), ("house:1:x", "numbers, got 'house:1:x'"),
    ("house:0", "other than 0, got 0"), ("house:nan", "got nan"), ("house:inf", "got inf"),
    ("house:1:nan", "stop of a prompt is a number"), ("house:", "numbers, got 'house:'")])
def test_a_bad_prompt_is_shown_with_the_rule(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_prompts(text)


def test_distances_are_half_the_squared_angle() -> None:
    angles = torch.tensor([0.0, 0.5, math.pi / 2, 3.0])
    embeddings = 3 * torch.stack([angles.cos(), angles.sin()], 1)
    found = spherical_distances(embeddings, torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(found, angles.square() / 2, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("embedding", [[1.0, 0.0], [-1.0, 0.0]])
def test_gradients_are_finite_at_the_ends(embedding: list[float]) -> None:
    embeddings = torch.tensor([embedding], requires_grad=True)
    spherical_distances(embeddings, torch.tensor([1.0, 0.0])).sum().backward()
    assert embeddings.grad is not None and embeddings.grad.isfinite().all()


def test_negative_weights_push_away_and_stops_end_the_pull() -> None:
    embeddings = torch.tensor([[1.0, 1.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.0]])
    distance = (math.pi / 4) ** 2 / 2
    gradients = {}
    for prompt in (Prompt(text="a"), Prompt(text="a", weight=-2.0),
                   Prompt(text="a", stop=distance * 1.1), Prompt(text="a", stop=distance * 0.9),
                   Prompt(text="a", weight=-1, stop=-distance * 0.9)):
        loss = prompt_losses(embeddings, targets, (prompt,)).sum()
        assert loss.item() == pytest.approx(prompt.weight * distance, rel=1e-5)
        gradients[prompt.describe()], = torch.autograd.grad(loss, embeddings)
    pull, push, stopped, pulling, pushed = gradients.values()
    torch.testing.assert_close(push, -2 * pull)
    torch.testing.assert_close(pulling, pull)
    assert not stopped.any() and not pushed.any() and pull.any()


def test_similarities_are_cosines_to_every_prompt() -> None:
    found = similarities(torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0, 0], [0, 3.0]]))
    half = math.sqrt(0.5)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0], [half, half]]))
