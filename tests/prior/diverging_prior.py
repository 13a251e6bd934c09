"""A training in which the loss of the last process alone is not finite; for tests."""
import sys
from typing import Any
from unittest import mock

from shared_prior_training import train
from torch import Tensor

from prior.state import TrainingState

SPOILT_STEP = 3

_sound = TrainingState._backward


def _spoilt(self: TrainingState, *arguments: Any) -> Tensor:
    accelerator = self.accelerator
    is_last = accelerator.process_index + 1 == accelerator.num_processes
    if self.step != SPOILT_STEP or not is_last:
        return _sound(self, *arguments)
    from prior.evaluation import sequence_loss
    with mock.patch("prior.state.sequence_loss",
                    lambda *given: sequence_loss(*given) * float("nan")):
        return _sound(self, *arguments)


if __name__ == "__main__":
    with mock.patch.object(TrainingState, "_backward", _spoilt):
        train(sys.argv[1], sys.argv[2], 8)
