"""The steps of an image: repeatable, independent of chunks and of other images, within bounds."""
from typing import Any

import numpy as np
import pytest
import torch

from clip_guidance.clip import Clip
from clip_guidance.cutouts import CutoutConfig
from clip_guidance.optimise import Guided, OptimiseConfig, clamp_to_levels, guide, noise_codes
from clip_guidance.prompts import tell_story
from tokenizer import recipes
from tokenizer.vqgan.model import VQGAN

GRID = (4, 6)


def guided(model: VQGAN, clip: Clip, *, text: str = "a red house | fog:-0.3", steps: int = 4,
           cutouts: int = 6, seed: tuple[int, int] = (0, 0), then: tuple[str, ...] = (),
           **settings: Any) -> Guided:
    prompts = tell_story((text, *then), steps)
    targets = clip.embed_prompts(prompts)
    codes = torch.from_numpy(noise_codes(model, GRID, seed))
    config = OptimiseConfig(num_steps=steps, learning_rate=0.3,
                            cutouts=CutoutConfig(num=cutouts))
    return Guided(model, clip, prompts, targets, codes, config, seed, **settings)


def test_one_seed_gives_one_image_and_others_give_others(model: VQGAN, clip: Clip) -> None:
    first, again, other, second = (guide(guided(model, clip, seed=seed)) for seed in
                                   [(0, 0), (0, 0), (1, 0), (0, 1)])
    assert torch.equal(first, again)
    assert not torch.equal(first, other) and not torch.equal(first, second)


@pytest.mark.parametrize("batch", [1, 4])
def test_chunks_of_cutouts_change_losses_by_rounding_alone(model: VQGAN, clip: Clip,
                                                           batch: int) -> None:
    runs = [guided(model, clip, cutouts=32, steps=3, cutout_batch=size) for size in (batch, 32)]
    for run in runs:
        guide(run)
    found, expected = ([record.loss for record in run.records] for run in runs)
    assert found == pytest.approx(expected, abs=1e-4)
    found, expected = ([record.similarities for record in run.records] for run in runs)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_no_more_cutouts_than_a_chunk_pass_through_clip_at_once(model: VQGAN, clip: Clip,
                                                                monkeypatch: pytest.MonkeyPatch
                                                                ) -> None:
    seen, embed = [], clip.embed_images
    monkeypatch.setattr(clip, "embed_images",
                        lambda images: seen.append(len(images)) or embed(images))
    guided(model, clip, cutouts=10, cutout_batch=4).advance()
    assert seen == [4, 4, 2]


def test_the_image_comes_closer_to_its_prompt(model: VQGAN, clip: Clip) -> None:
    run = guided(model, clip, text="a red house", steps=40, cutouts=8)
    guide(run)
    losses = [record.loss for record in run.records]
    assert [record.step for record in run.records] == list(range(41))
    assert np.mean(losses[-8:]) < np.mean(losses[:8])
    similar = [record.similarity for record in run.records]
    assert np.mean(similar[-8:]) > np.mean(similar[:8])


def test_a_negative_weight_leads_away(model: VQGAN, clip: Clip) -> None:
    run = guided(model, clip, text="a red house:-1", steps=40, cutouts=8)
    guide(run)
    similar = [record.similarity for record in run.records]
    assert np.mean(similar[-8:]) < np.mean(similar[:8])


def test_kept_cells_keep_their_codes_exactly(model: VQGAN, clip: Clip) -> None:
    free = torch.zeros(GRID, dtype=torch.bool)
    free[1:3, 2:] = True
    run = guided(model, clip, steps=8, free=free)
    before = run.codes
    after = guide(run)
    assert torch.equal(after[:, ~free], before[:, ~free])
    assert not torch.equal(after[:, free], before[:, free])


def test_latents_stay_in_the_range_of_the_codebook(model: VQGAN, clip: Clip) -> None:
    run = guided(model, clip, steps=10)
    guide(run)
    latents = (run._points * run._scale).detach().transpose(0, 1).flatten(1)
    assert (latents.amin(1) >= run._space.low - 1e-5).all()
    assert (latents.amax(1) <= run._space.high + 1e-5).all()


def test_a_stopped_image_goes_on_as_it_would_have(model: VQGAN, clip: Clip) -> None:
    whole = guided(model, clip, steps=6)
    guide(whole)
    stopped, resumed = guided(model, clip, steps=6), guided(model, clip, steps=6)
    for _ in range(3):
        stopped.advance()
    resumed.load_state_dict(stopped.state_dict())
    assert torch.equal(guide(resumed), whole.codes) and resumed.records == whole.records


def test_only_the_prompts_of_a_chapter_count_in_it(model: VQGAN, clip: Clip) -> None:
    told = guided(model, clip, text="a red house", then=("fog:2 | a lake",), steps=4)
    alone = guided(model, clip, text="a red house", steps=4)
    guide(told)
    guide(alone)
    losses, plain = ([record.loss for record in run.records] for run in (told, alone))
    assert losses[:2] == plain[:2] and losses[2] != plain[2]
    assert [record.leading for record in told.records] == [0, 0, 1, 1, 1]
    assert [record.similarity for record in told.records] == [
        record.similarities[record.leading] for record in told.records]
    # The same latents, judged by the second chapter alone: what step 2 must have seen.
    second = guided(model, clip, text="fog:2 | a lake", steps=4)
    state = guided(model, clip, text="a red house", steps=4)
    state.advance(), state.advance()
    second.load_state_dict(state.state_dict())
    assert second.advance().loss == pytest.approx(losses[2], abs=1e-6)


def test_a_story_stopped_in_any_chapter_goes_on_as_it_would_have(model: VQGAN, clip: Clip) -> None:
    story: dict[str, Any] = {"text": "a red house", "then": ("fog", "a lake"), "steps": 6}
    whole = guided(model, clip, **story)
    guide(whole)
    for num_done in (2, 3):
        stopped, resumed = guided(model, clip, **story), guided(model, clip, **story)
        for _ in range(num_done):
            stopped.advance()
        resumed.load_state_dict(stopped.state_dict())
        assert torch.equal(guide(resumed), whole.codes) and resumed.records == whole.records


def test_models_are_left_as_they_are(clip: Clip) -> None:
    model = VQGAN(recipes.tiny({"name": "image"}).model).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    guide(guided(model, clip, steps=2))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_loss_that_is_not_finite_ends_the_image(model: VQGAN, clip: Clip,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    run, embed = guided(model, clip), clip.embed_images
    run.advance()
    monkeypatch.setattr(clip, "embed_images", lambda images: embed(images) * float("nan"))
    with pytest.raises(ValueError, match="the loss is nan after 1 steps: the weights of"):
        run.advance()
    assert len(run.records) == 1


def test_levels_beyond_the_ends_only_get_gradients_that_lead_back() -> None:
    image = torch.tensor([-0.5, 0.5, 1.5, 1.5], requires_grad=True)
    levels = clamp_to_levels(image)
    levels.backward(torch.tensor([1.0, 1.0, 1.0, -1.0]))
    assert levels.tolist() == [0, 0.5, 1, 1]
    assert image.grad is not None and image.grad.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(("settings", "message"), [
    ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
    ({"learning_rate": 0.0}, "learning_rate must be more than 0, got 0")])
def test_nonsense_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimiseConfig(**settings)  # type: ignore[arg-type]
