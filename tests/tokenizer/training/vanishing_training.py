"""A training of several processes whose held-out images are gone when they are to be measured."""
import sys
from pathlib import Path

import pytest
from shared_training import SHAPE

from tokenizer.training.config import TrainingConfig
from tokenizer.training.loop import train_tokenizer
from tokenizer.training.observer import Observer
from tokenizer.training.steps import StepResult
from tokenizer.vqgan.model import VQGANConfig
from tokenizer.vqgan.quantizers import QuantizerConfig

LAST_STEP = 3


def train(corpus: str, out: str) -> None:
    """Train, and remove the held-out images before they are measured after `LAST_STEP`."""
    original = Observer.after_step

    def after_step(self: Observer, result: StepResult, is_last: bool) -> None:
        original(self, result, is_last)
        if self.is_active and self.state.step == LAST_STEP:
            for entry in self.dataset.held_out:
                Path(entry.source).unlink()

    model = VQGANConfig(image_size=(24, 24), autoencoder=SHAPE,
                        quantizer=QuantizerConfig(codebook_size=16, code_dim=4))
    training = TrainingConfig(steps=8, batch_size=4, held_out=2, evaluate_every=LAST_STEP,
                              num_pictures=1, cache_gib=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Observer, "after_step", after_step)
        train_tokenizer(corpus, out, model, training)


if __name__ == "__main__":
    train(*sys.argv[1:])
