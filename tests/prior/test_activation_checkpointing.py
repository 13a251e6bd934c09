"""Training that computes activations again keeps few of them, and ends in the same weights."""
import pytest
import torch
from drawn_codes import conditions, mapped_stream, tiny_training
from test_transformer import LAYOUT, build, sequences

import prior.compiling
from prior.loading.batches import Batches
from prior.model import PriorConfig
from prior.state import TrainingState
from prior.transformer import Transformer, TransformerConfig
from tokenizer.tokens import TokenCorpus
from tokenizer.training.processes import build_accelerator


def trained(corpus: TokenCorpus, *settings: str, num_layers: int = 2) -> dict[str, torch.Tensor]:
    """Weights after three steps with dropout, in batches of two parts."""
    shape = TransformerConfig(num_layers=num_layers, width=32, num_heads=2, dropout=0.3)
    config = PriorConfig.of(corpus, conditions=conditions("label", "segmentation"),
                            transformer=shape)
    training = tiny_training("batch_size=8", "accumulation=2", *settings)
    state = TrainingState(config, training, build_accelerator(training))
    batches = Batches(mapped_stream(corpus), config.layout, 8, 0, {}, 0.0)
    for step in range(3):
        state.train_step(batches.batch(step), 0.0)
    return state.model.state_dict()


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_weights_are_the_same_to_the_last_bit(corpus: TokenCorpus, precision: str) -> None:
    plain, again = (trained(corpus, f"mixed_precision={precision}",
                            f"activation_checkpointing={value}") for value in ("false", "true"))
    assert list(plain) == list(again)
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_compiled_training_computes_them_again_too(corpus: TokenCorpus,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior.compiling, "BACKEND", "aot_eager")
    torch.compiler.reset()
    settings = ("mixed_precision=no", "compile=true")
    plain, again = (trained(corpus, *settings, f"activation_checkpointing={value}", num_layers=1)
                    for value in ("false", "true"))
    for name, tensor in plain.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-4, atol=1e-5)


def kept_numbers(model: Transformer) -> int:
    """How many numbers a forward pass of training keeps for the gradients, beside the weights."""
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = model(sequences(64))
    assert scores.requires_grad
    return sum(kept.values())


def test_what_lies_within_blocks_is_not_kept() -> None:
    model = build(LAYOUT, num_layers=6).train()
    plain = kept_numbers(model)
    model.recomputes = True
    assert kept_numbers(model) < plain / 3


def test_measuring_computes_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prior.transformer.checkpoint", None)
    model = build()
    model.recomputes = True
    assert model(sequences()).shape == (3, 6, 10)
