"""Bytes are counted as they come and go; arrangements keep within them and change no result."""
import functools
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from test_optimise import guided

from clip_guidance.clip import Clip
from clip_guidance.memory import (
    Arrangement,
    DecoderBytes,
    StepBytes,
    TensorBytes,
    arrange,
    checkpointed,
    measure_decoder,
    peak_bytes,
)
from clip_guidance.optimise import guide
from tokenizer.vqgan.autoencoder import AutoencoderConfig, Decoder
from tokenizer.vqgan.model import VQGAN

MIB = 1 << 20
SHAPE = AutoencoderConfig(width=16, channel_multipliers=(1, 2), latent_channels=8,
                          attention_levels=(1,))


def test_bytes_are_those_of_tensors_that_live_at_the_same_time() -> None:
    with TensorBytes() as count:
        first = torch.zeros(1000)
        second = first + 1
        view = second[10:]
        assert count.live == 8000
        del first
        assert count.live == 4000
        view.add_(1)
        del second, view
    assert (count.live, count.peak) == (0, 8000)


def test_a_decoder_is_measured_as_it_computes() -> None:
    decoder = Decoder(SHAPE, 3).requires_grad_(False).eval()
    latents = torch.randn(1, 8, 8, 12, requires_grad=True)

    def run(checkpoints: bool) -> None:
        with checkpointed(decoder, checkpoints):
            outputs = decoder(latents)
        torch.autograd.grad(outputs.sum(), latents)

    for checkpoints in (False, True):
        found = measure_decoder(SHAPE, 3, (8, 12), checkpoints)
        taken = peak_bytes(functools.partial(run, checkpoints))
        assert found.peak == pytest.approx(taken, rel=0.2) and found.kept <= found.peak


def test_checkpoints_keep_less_change_no_gradient_and_leave_no_trace() -> None:
    decoder = Decoder(SHAPE, 3).requires_grad_(False).eval()
    latents = torch.randn(1, 8, 8, 8, requires_grad=True)
    outputs, gradients = [], []
    for checkpoints in (False, True):
        with checkpointed(decoder, checkpoints):
            outputs.append(decoder(latents))
        gradients.append(torch.autograd.grad(outputs[-1].square().sum(), latents)[0])
    assert torch.equal(*outputs) and torch.equal(*gradients)
    assert not any("forward" in vars(module) for module in decoder.modules())
    plain, less = (measure_decoder(SHAPE, 3, (16, 16), chosen) for chosen in (False, True))
    assert less.kept < plain.kept / 2 and less.peak < plain.peak


STEP = StepBytes(plain=DecoderBytes(kept=80 * MIB, peak=100 * MIB), first=20 * MIB, each=10 * MIB,
                 checkpointed=DecoderBytes(kept=20 * MIB, peak=50 * MIB), other=30 * MIB)


@pytest.mark.parametrize(("limit", "expected"), [
    (10_000, Arrangement(cutout_batch=16)),
    # 1.4 * (80 + 20 + (c - 1) * 10) <= 200 - 10
    (200, Arrangement(cutout_batch=4)),
    # 1.4 * (80 + 30) does not fit, but 1.4 * (20 + 20 + (c - 1) * 10) does
    (150, Arrangement(cutout_batch=7, checkpoints=True)),
    (81, Arrangement(cutout_batch=2, checkpoints=True))])
def test_the_most_cutouts_that_fit_are_judged_at_once(limit: int, expected: Arrangement) -> None:
    found = arrange(STEP, 16, 10 * MIB, limit * MIB)
    assert found == expected
    assert 10 * MIB + STEP.peak(found.cutout_batch, found.checkpoints) <= limit * MIB


def test_a_limit_that_nothing_fits_in_is_refused_with_what_is_needed() -> None:
    with pytest.raises(ValueError, match="needs about 80 MiB with one cutout at a time, 10 MiB of "
                                         "it already in use, and the memory limit is 79 MiB"):
        arrange(STEP, 16, 10 * MIB, 79 * MIB)


def test_arrangements_change_losses_by_rounding_alone(model: VQGAN, clip: Clip) -> None:
    losses = []
    for arrangement in (Arrangement(cutout_batch=6), Arrangement(cutout_batch=2, checkpoints=True)):
        run = guided(model, clip)
        run.arrangement = arrangement
        guide(run)
        losses.append([record.loss for record in run.records])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_a_step_is_measured_without_a_trace(model: VQGAN, clip: Clip) -> None:
    run, plain = guided(model, clip), guided(model, clip)
    step = run.measure()
    assert step.first > step.each > 0 and step.plain.peak > step.checkpointed.kept
    assert not run.records and torch.equal(guide(run), guide(plain))
    reference = weakref.ref(run)
    del run
    assert reference() is None


def test_twice_the_cutouts_take_no_more_memory(model: VQGAN, clip: Clip) -> None:
    taken = [peak_bytes(guided(model, clip, cutouts=cutouts, cutout_batch=4).advance)
             for cutouts in (16, 32)]
    assert taken[1] == pytest.approx(taken[0], rel=0.1)
    assert peak_bytes(guided(model, clip, cutouts=32).advance) > 2 * taken[0]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_of_a_process_stays_within_the_limit(clip_folder: Path, tmp_path: Path) -> None:
    """Sixty-four cutouts of a large picture in one chunk would take far more."""
    script = Path(__file__).with_name("guide_within.py")
    done = subprocess.run([sys.executable, script, clip_folder, tmp_path], capture_output=True,
                          text=True, timeout=600, env={"OMP_NUM_THREADS": "1", "PATH": ""})
    assert done.returncode == 0, done.stderr
    peak, limit, used, chunk = map(int, done.stdout.split())
    assert used < peak <= limit, done.stdout
    assert 1 <= chunk < 64
