"""A prior beside CLIP makes codes likelier, and gives the codes that images start from."""
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_prior import random_prior
from test_latents import quantizer, some_codes

from clip_guidance.clip import Clip
from clip_guidance.cutouts import CutoutConfig
from clip_guidance.job import GuideConfig, Tokenizer, guide_corpus
from clip_guidance.latents import LatentSpace
from clip_guidance.likelihood import GuidingPrior
from clip_guidance.optimise import Guided, OptimiseConfig, guide, noise_codes
from clip_guidance.prompts import parse_prompts
from clip_guidance.starts import SampledStart
from prior.givens import Givens, from_labels
from prior.likelihood import log_likelihoods
from prior.sampling import SamplingConfig, sample_corpus
from tokenizer.codec import Codec
from tokenizer.schema import CodeSpec, SpecMismatch, codes_array
from tokenizer.tokens import TokenCorpus
from tokenizer.vqgan.model import VQGAN
from tokenizer.vqgan.quantizers import QUANTIZERS

OPTIMISATION = OptimiseConfig(num_steps=3, learning_rate=0.3, cutouts=CutoutConfig(num=2))


@pytest.fixture(scope="session")
def tokenizer(model: VQGAN) -> Tokenizer:
    return Tokenizer(model, Codec(model, "sha256:tiny"))


def guiding(spec: CodeSpec, weight: float = 1.0, labels: tuple[str, ...] = ()) -> GuidingPrior:
    prior = random_prior(spec, classes=("cat", "dog") if labels else ())
    return GuidingPrior(prior=prior, givens=from_labels(prior.config, labels), weight=weight)


def run(tokenizer: Tokenizer, clip: Clip, out: Path, **settings: Any) -> TokenCorpus:
    given = {name: settings.pop(name) for name in ("start", "each", "prior") if name in settings}
    config = GuideConfig(prompts=parse_prompts("a red house"), optimisation=OPTIMISATION,
                         **settings)
    guide_corpus(tokenizer, clip, str(out), config, **given)
    return TokenCorpus.open(str(out))


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_latents_climb_the_gain_that_is_expected_of_codes_near_them(kind: str) -> None:
    """The gradient of an expectation over a softmax of distances, as autograd finds it."""
    space = LatentSpace(quantizer(kind))
    generator = torch.Generator().manual_seed(0)
    latents = space.latents(some_codes(space, kind, num=1))
    latents = (latents + 0.2 * space.scale[:, None, None]
               * torch.randn(latents.shape, generator=generator)).requires_grad_()
    codes = space.codes(latents.detach())
    chosen = codes.view(1, -1, 4, 5)
    gains = torch.randn(*chosen.shape, len(space._codebooks[0]), generator=generator)
    points, expected = latents.permute(0, 2, 3, 1), torch.zeros(())
    for step, entries in enumerate(space._codebooks):
        distances = (points[..., None, :] - entries).square().sum(-1)
        shares = (-distances / space._spacings[step]).softmax(-1)
        assert torch.equal(shares.argmax(-1), chosen[:, step]) or kind == "residual"
        expected = expected + (shares * gains[:, step]).sum()
        points = points - entries[chosen[:, step]]
    gradient, = torch.autograd.grad(expected, latents)
    assert gradient.abs().max() > 0
    torch.testing.assert_close(space.ascent(latents.detach(), codes, gains), gradient, atol=1e-4,
                               rtol=1e-3)


def test_a_prior_makes_codes_likelier_the_more_the_higher_its_weight(model: VQGAN, clip: Clip,
                                                                     tokenizer: Tokenizer) -> None:
    prompts = parse_prompts("a red house")
    config = OptimiseConfig(num_steps=25, learning_rate=0.3, cutouts=CutoutConfig(num=2))
    bits = []
    for weight in (1e-9, 0.05, 5.0):
        image = Guided(model, clip, prompts, clip.embed_prompts(prompts),
                       torch.from_numpy(noise_codes(model, (4, 4), (0, 0))), config, (0, 0),
                       prior=guiding(tokenizer.codec.spec, weight))
        guide(image)
        first, last = image.records[0], image.records[-1]
        assert first.bits is not None and last.bits is not None
        bits.append(first.bits - last.bits)
    assert bits[0] < bits[1] < bits[2] and bits[2] > 1


def test_the_term_is_the_weight_times_the_bits(model: VQGAN, clip: Clip,
                                               tokenizer: Tokenizer) -> None:
    prompts, codes = parse_prompts("fog"), torch.from_numpy(noise_codes(model, (4, 4), (0, 0)))
    prior = guiding(tokenizer.codec.spec, 0.25)
    with_prior, without = (Guided(model, clip, prompts, clip.embed_prompts(prompts), codes,
                                  OPTIMISATION, (0, 0), prior=used) for used in (prior, None))
    found, plain = with_prior.advance(), without.advance()
    layout = prior.prior.config.layout
    logs = log_likelihoods(prior.prior.model, layout, {}, layout.target.to_sequence(codes.numpy()),
                           1)
    assert found.bits == pytest.approx(-logs.sum() / math.log(2) / 16, rel=1e-4)
    assert found.loss == pytest.approx(plain.loss + 0.25 * found.bits, rel=1e-5)
    assert plain.bits is None and found.similarities == plain.similarities


@pytest.mark.parametrize("depth", [1, 2])
def test_gains_lie_at_the_codes_that_they_are_of(tokenizer: Tokenizer, depth: int) -> None:
    """Of the last code in the sequence a gain is exact: what another code takes off the bits."""
    prior = guiding(dataclasses.replace(tokenizer.codec.spec, depth=depth))
    shape = (1, 4, 4) if depth == 1 else (1, depth, 4, 4)
    codes = torch.randint(0, 32, shape, generator=torch.Generator().manual_seed(1))
    bits, gains = prior.judge(codes, 0)
    assert gains.shape == (1, depth, 4, 4, 32)
    own = int(codes.flatten()[-1])
    for code in (0, 13, 31):
        changed = codes.clone()
        changed.view(-1)[-1] = code
        gain = gains[0, -1, 3, 3, code] - gains[0, -1, 3, 3, own]
        assert bits - prior.judge(changed, 0)[0] == pytest.approx(float(gain), abs=1e-4)


def test_a_stopped_image_with_a_prior_goes_on_as_it_would_have(model: VQGAN, clip: Clip,
                                                               tokenizer: Tokenizer) -> None:
    prompts, codes = parse_prompts("fog"), torch.from_numpy(noise_codes(model, (4, 4), (0, 0)))
    whole, stopped, resumed = (
        Guided(model, clip, prompts, clip.embed_prompts(prompts), codes, OPTIMISATION, (0, 0),
               prior=guiding(tokenizer.codec.spec)) for _ in range(3))
    guide(whole)
    stopped.advance()
    resumed.load_state_dict(stopped.state_dict())
    assert torch.equal(guide(resumed), whole.codes) and resumed.records == whole.records


def test_rows_and_curves_say_how_likely_the_codes_are(tokenizer: Tokenizer, clip: Clip,
                                                      tmp_path: Path) -> None:
    prior = guiding(tokenizer.codec.spec, labels=("cat", "dog"))
    corpus = run(tokenizer, clip, tmp_path, prior=prior, num=2)
    rows = corpus.read_shard(0).to_pylist()
    codes = codes_array(corpus.spec["image"], corpus.read_shard(0))
    layout = prior.prior.config.layout
    logs = log_likelihoods(prior.prior.model, layout, {"label": np.array([[0], [1]])},
                           layout.target.to_sequence(codes), 1).sum(1)
    assert [row["log_likelihood"] for row in rows] == pytest.approx(logs.tolist(), rel=1e-4)
    last = json.loads((tmp_path / "curves/guided-00001.jsonl").read_text().splitlines()[-1])
    assert last["bits"] == pytest.approx(-logs[1] / math.log(2) / 16, abs=1e-4)
    assert rows[0]["source"].endswith("&index=0&prior=sha256:prior0")
    with pytest.raises(ValueError, match="prior.weight was 1.0, now 2.0"):
        run(tokenizer, clip, tmp_path, num=2,
            prior=guiding(tokenizer.codec.spec, 2.0, labels=("cat", "dog")))


def test_images_start_from_what_sampling_draws(tokenizer: Tokenizer, clip: Clip,
                                               tmp_path: Path) -> None:
    prior = guiding(tokenizer.codec.spec, weight=0, labels=("dog",))
    sample_corpus(prior.prior, prior.givens, str(tmp_path / "samples"),
                  SamplingConfig(num=3, seed=7))
    corpus = TokenCorpus.open(str(tmp_path / "samples"))
    drawn = codes_array(corpus.spec["image"], corpus.read_shard(0))
    seen: list[np.ndarray] = []

    def look(index: int, guided: Guided) -> None:
        if not guided.records:
            seen.append(guided.codes.numpy())

    guided = run(tokenizer, clip, tmp_path / "guided", start=SampledStart(prior=prior), seed=7,
                 num=3, each=look)
    np.testing.assert_array_equal(np.concatenate(seen), drawn)
    assert "log_likelihood" not in guided.spec.arrow_schema().names
    assert guided.read_shard(0)["source"][0].as_py().endswith("&start=prior%3Asha256%3Aprior0")


def test_a_prior_of_other_codes_is_refused(tokenizer: Tokenizer, clip: Clip,
                                           tmp_path: Path) -> None:
    spec = tokenizer.codec.at_size((32, 48)).spec
    with pytest.raises(SpecMismatch, match=r"the prior is of images of 32x48 pixels.*--size"):
        run(tokenizer, clip, tmp_path, prior=guiding(spec))
    with pytest.raises(SpecMismatch, match=r"the prior.*grid"):
        run(tokenizer, clip, tmp_path, start=SampledStart(prior=guiding(spec)))
    other = dataclasses.replace(tokenizer.codec.spec, tokenizer="sha256:other")
    with pytest.raises(SpecMismatch, match="tokenizer is .*: give a prior of codes of this"):
        run(tokenizer, clip, tmp_path, prior=guiding(other))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_the_weight_of_a_prior_is_a_number_from_0_on(tokenizer: Tokenizer, weight: float) -> None:
    prior = random_prior(tokenizer.codec.spec)
    nothing = Givens(keys=("",), rows=np.zeros(1), conditions={}, start=np.zeros((1, 0)))
    with pytest.raises(ValueError, match="the weight of a prior is at least 0"):
        GuidingPrior(prior=prior, givens=nothing, weight=weight)
