"""Steps in kept memory say what whole sequences do, at every position and in every batch."""
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from test_scoring import drawn
from test_stepping import MODELS, drawn_ids, read_prefix
from test_transformer import DEEP_LAYOUT, LAYOUT, build
from torch._dynamo.utils import counters

from prior import compiling
from prior.fixed_steps import FixedStepper, fixed_stepper
from prior.generate import Generation, generate
from prior.guidance import Guidance
from prior.model import Prior
from prior.samplers import SAMPLERS
from prior.scoring import Scores
from prior.sequence import SequenceLayout

FREE = SequenceLayout((), LAYOUT.target)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Compiles into torch's own kernels, which takes a second; nothing is left behind."""
    fixed_stepper.cache_clear()
    torch.compiler.reset()
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    yield "aot_eager"
    fixed_stepper.cache_clear()
    torch.compiler.reset()


def all_scores(stepper: FixedStepper, ids: torch.Tensor) -> torch.Tensor:
    """Scores ``(B, n, K)`` of all positions that are not read yet."""
    return torch.stack([stepper.next_scores(ids[:, place]).clone()
                        for place in range(stepper.cache.length, ids.shape[1])], 1)


@pytest.mark.parametrize(("layout", "settings"), MODELS)
def test_each_step_gives_the_scores_of_the_whole_sequence(layout: SequenceLayout,
                                                          settings: dict[str, object]) -> None:
    model, ids = build(layout, **settings), drawn_ids(layout)
    torch.compiler.reset()
    stepper = FixedStepper(model, 3, "eager").holding(read_prefix(model, ids))
    with torch.no_grad():
        expected = model(ids)
    found = all_scores(stepper, ids)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.std()))
    assert stepper.cache.length == layout.length


def test_one_compilation_serves_every_position_and_every_batch(backend: str) -> None:
    model, ids = build(DEEP_LAYOUT), drawn_ids(DEEP_LAYOUT)
    stepper = FixedStepper(model, 3, backend)
    addresses = [part.data_ptr() for pair in stepper.cache.pairs for part in pair]
    counters.clear()
    for rows in (ids, ids.flip(0)):
        all_scores(stepper.holding(read_prefix(model, rows)), rows)
    assert counters["stats"]["unique_graphs"] == 1
    assert addresses == [part.data_ptr() for pair in stepper.cache.pairs for part in pair]


def test_what_another_batch_has_left_behind_does_not_act() -> None:
    model, ids = build(), drawn_ids(LAYOUT)
    torch.compiler.reset()
    stepper = FixedStepper(model, 3, "eager").holding(read_prefix(model, ids))
    expected = all_scores(stepper, ids)
    for pair in stepper.cache.pairs:
        for memory in pair:
            memory.fill_(1e30)
    assert torch.equal(all_scores(stepper.holding(read_prefix(model, ids)), ids), expected)


def test_what_is_forgotten_can_be_stepped_over_again() -> None:
    model, ids = build(), drawn_ids(LAYOUT)
    torch.compiler.reset()
    stepper = FixedStepper(model, 3, "eager").holding(read_prefix(model, ids))
    first = all_scores(stepper, ids)
    stepper.cache.length = 6
    again = all_scores(stepper, ids)
    assert torch.equal(again, first[:, 6 - LAYOUT.prefix_length:])


def test_several_positions_at_once_and_steps_read_the_same_memory(backend: str) -> None:
    model, (given, codes) = build(), drawn(LAYOUT, 3)
    plain, compiled = (Scores(model, given, 3, Guidance(scale=2.0), compiled=compiled)
                       for compiled in (False, True))
    for scores in (plain, compiled):
        scores.next(codes, 0)
        scores.next(codes, 1)
    torch.testing.assert_close(compiled.log_likelihoods(codes, 2), plain.log_likelihoods(codes, 2),
                               rtol=1e-4, atol=1e-5)
    for scores in (plain, compiled):
        scores.forget(2)
    torch.testing.assert_close(compiled.next(codes, 2), plain.next(codes, 2), rtol=1e-4,
                               atol=1e-5)


def codes(prior: Prior, rows: int = 10, **settings: object) -> np.ndarray:
    """Codes of ``rows`` images with different labels and maps."""
    maps = np.random.default_rng(5).integers(0, 4, (rows, prior.config.layout.target.length))
    given = {"label": np.arange(rows)[:, None] % 2, "segmentation": maps}
    return generate(prior.model, given, [(7, row) for row in range(rows)],
                    Generation(**{"batch_size": 4, **settings}))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_codes_of_compiled_steps_are_those_of_plain_ones(prior: Prior, backend: str, name: str,
                                                         guidance: float) -> None:
    settings = {"sampler": SAMPLERS[name](), "guidance": Guidance(scale=guidance)}
    np.testing.assert_array_equal(codes(prior, compile=True, **settings),
                                  codes(prior, **settings))


def test_holes_and_passes_take_compiled_steps_too(prior: Prior, backend: str) -> None:
    target = prior.config.layout.target
    hole = np.arange(target.length) % 3 == 1
    originals = np.random.default_rng(1).integers(0, target.vocabulary, (6, target.length))
    plain, compiled = (generate(prior.model, {}, [(7, row) for row in range(6)],
                                Generation(batch_size=4, passes=3, compile=compile), originals,
                                hole) for compile in (False, True))
    np.testing.assert_array_equal(compiled, plain)


def test_batches_of_two_threads_do_not_touch_each_others_memory(prior: Prior,
                                                                backend: str) -> None:
    expected = codes(prior)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(codes(prior, compile=True)))
               for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for one in found:
        np.testing.assert_array_equal(one, expected)


def test_a_machine_without_a_compiler_is_refused_in_words(
        prior: Prior, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed_stepper.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="compiled sampling needs a C\\+\\+ compiler .* no-such-c"):
        codes(prior, compile=True)
    assert not fixed_stepper.cache_info().currsize


def test_compiled_steps_without_a_cache_are_refused() -> None:
    with pytest.raises(ValueError, match="leave out compile, or cached=False"):
        Generation(compile=True, cached=False)
