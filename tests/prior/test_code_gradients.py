"""What an image would gain by another code is the gradient of its log-likelihood by its codes."""
import numpy as np
import pytest
import torch
from random_prior import random_transformer

from prior.layouts import LAYOUTS
from prior.likelihood import code_gradients, log_likelihoods
from prior.sequence import LABEL, Segment, SequenceLayout
from prior.transformer import Transformer, TransformerConfig

NUM_CODES = 7


def transformer(sequence: str = "cells", depth: int = 1) -> Transformer:
    target = Segment(name="image", grid=(2, 3), vocabulary=NUM_CODES, depth=depth)
    layout = LAYOUTS[sequence]((Segment(name=LABEL, grid=(1, 1), vocabulary=2),), target)
    return random_transformer(layout, TransformerConfig(num_layers=2, width=32, num_heads=2))


def some_codes(layout: SequenceLayout, num: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, NUM_CODES, (num, layout.target.length), generator=generator)


LABELS = {LABEL: torch.tensor([[0], [1]])}
SEVERAL = [("cells", 1), ("cells", 3), ("taming", 1), ("llamagen", 1)]


@pytest.mark.parametrize(("sequence", "depth"), SEVERAL)
def test_log_likelihoods_are_those_of_the_prior(sequence: str, depth: int) -> None:
    model = transformer(sequence, depth)
    codes = some_codes(model.layout)
    found, gradients = code_gradients(model, LABELS, codes)
    expected = log_likelihoods(model, model.layout, {LABEL: np.array([[0], [1]])}, codes.numpy(), 2)
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-4, rtol=1e-4)
    assert gradients.shape == (*codes.shape, NUM_CODES) and not gradients.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.codes._forward_hooks


@pytest.mark.parametrize(("sequence", "depth"), SEVERAL)
def test_of_the_last_code_the_gain_is_exact(sequence: str, depth: int) -> None:
    model = transformer(sequence, depth)
    codes = some_codes(model.layout)
    logs, gradients = code_gradients(model, LABELS, codes)
    gains = gradients[:, -1] - gradients[:, -1].gather(-1, codes[:, -1:])
    for code in range(NUM_CODES):
        changed = codes.clone()
        changed[:, -1] = code
        others = code_gradients(model, LABELS, changed)[0]
        torch.testing.assert_close(others.sum(1) - logs.sum(1), gains[:, code], atol=1e-4,
                                   rtol=1e-4)


@pytest.mark.parametrize(("sequence", "depth"), SEVERAL)
def test_gains_are_slopes_towards_other_codes(sequence: str, depth: int) -> None:
    model = transformer(sequence, depth)
    layout, step = model.layout, 5e-3
    codes = some_codes(layout)
    gradients = code_gradients(model, LABELS, codes)[1]
    inputs = layout.inputs(LABELS, codes[:, :-1])

    def likelihood(place: int, other: torch.Tensor, share: float) -> torch.Tensor:
        """With the embedding of a code moved by a share of the way to another one's."""
        def move(module: object, ids: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
            at = output.shape[1] - codes.shape[1] + 1 + place
            with torch.no_grad():
                target = torch.nn.functional.embedding(other, model.codes.weight)
            moved = output.clone()
            moved[:, at] += share * (target - output[:, at])
            return moved
        handle = model.codes.register_forward_hook(move)
        logs = model(inputs).log_softmax(-1)
        handle.remove()
        return logs.gather(-1, codes[..., None])[..., 0].sum(1)

    for place in (0, 1, codes.shape[1] - 2):
        others = (codes[:, place] + 2) % NUM_CODES
        changed = codes.clone()
        changed[:, place] = others
        ids = layout.inputs(LABELS, changed)[:, inputs.shape[1] - codes.shape[1] + 1 + place]
        slope = (likelihood(place, ids, step) - likelihood(place, ids, -step)) / (2 * step)
        logs = model(inputs).log_softmax(-1)[:, place]
        own, new = (gradients[:, place].gather(-1, chosen[:, None])[:, 0]
                    for chosen in (codes[:, place], others))
        direct = logs.gather(-1, others[:, None]) - logs.gather(-1, codes[:, place:place + 1])
        torch.testing.assert_close(new - own, slope + direct[:, 0], atol=0.01, rtol=0.01)


def test_images_of_one_code_have_gains_too() -> None:
    layout = SequenceLayout((), Segment(name="image", grid=(1, 1), vocabulary=NUM_CODES))
    model = random_transformer(layout)
    logs, gradients = code_gradients(model, {}, torch.tensor([[3]]))
    assert logs.item() == pytest.approx(gradients[0, 0, 3].item())
    assert gradients.exp().sum().item() == pytest.approx(1, abs=1e-5)
