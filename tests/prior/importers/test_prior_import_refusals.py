"""Nothing in a file of a prior is executed; what cannot be expressed is refused by its name."""
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published_files import Hostile, write_lightning, write_llamagen, write_yaml
from published_priors import (
    CODEBOOK,
    State,
    coordinate_node,
    llamagen_state,
    taming_config,
    taming_state,
    tokenizer_node,
)

from prior.importers.base import PriorGivens
from prior.importers.importing import import_prior
from tokenizer.schema import CodeSpec


def convert(folder: Path, state: dict[str, Any] | None = None, config: Any = None,
            givens: PriorGivens | None = None, **surplus: Any) -> None:
    """Import a taming prior into ``prior`` below the folder."""
    file = write_lightning(folder / "last.ckpt", state or taming_state(), **surplus)
    import_prior(file, str(folder / "prior"), givens=givens,
                 config=write_yaml(folder / "project.yaml", config or taming_config()))


def images(codebook_size: int = CODEBOOK, side: int = 3) -> PriorGivens:
    return PriorGivens(specs={"image": CodeSpec(
        modality="image", grid=(side, side), codebook_size=codebook_size, image_size=(48, 48),
        tokenizer="sha256:image")})


def test_a_hostile_object_beside_the_weights_does_not_run(tmp_path: Path) -> None:
    convert(tmp_path, extra=Hostile(tmp_path / "owned"))
    assert not (tmp_path / "owned").exists()
    assert f"{os.mkdir.__module__}.mkdir" in (tmp_path / "prior/import.json").read_text()


def test_a_hostile_weight_does_not_run(tmp_path: Path) -> None:
    state = {**taming_state(), "transformer.head.weight": Hostile(tmp_path / "owned")}
    with pytest.raises(ValueError, match=r"holds no transformer\.head\.weight"):
        convert(tmp_path, state)
    state = {**taming_state(), "transformer.ln_f.weight": Hostile(tmp_path / "owned")}
    with pytest.raises(ValueError, match=r"1 missing: norm\.weight"):
        convert(tmp_path, state)
    assert not (tmp_path / "owned").exists() and not (tmp_path / "prior").exists()


def test_a_config_that_asks_for_an_object_is_refused(tmp_path: Path) -> None:
    file = write_lightning(tmp_path / "last.ckpt", taming_state())
    hostile = f"model: !!python/object/apply:os.mkdir ['{tmp_path / 'owned'}']"
    (tmp_path / "project.yaml").write_text(hostile)
    with pytest.raises(ValueError, match="cannot be read as plain settings"):
        import_prior(file, str(tmp_path / "prior"), config=str(tmp_path / "project.yaml"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(("params", "message"), [
    ({"cond_stage_config": coordinate_node(down_factor=4)},
     r"a code for each 4 pixels .* the images are \(3, 3\) codes of \(6, 6\) pixels"),
    ({"cond_stage_config": coordinate_node(codes=15)}, "coordinates has 15 codes, but the vocab"),
    ({"cond_stage_config": "__is_first_stage__"}, "given depth by __is_first_stage__"),
    ({"cond_stage_config": tokenizer_node(10), "cond_stage_key": "objects_bbox"},
     "given objects_bbox by taming.models.vqgan.VQModel"),
    ({"permuter_config": {"target": "taming.modules.transformer.permuter.ZCurve"}},
     "order of the codes is .*ZCurve"),
    ({"transformer_config": {"target": "os.system", "params": {}}}, "transformer is os.system"),
    ({"transformer_config": {"params": {"n_head": 2, "n_unmasked": 4}}}, "n_unmasked is 4"),
    ({"transformer_config": {"params": {"n_head": 2, "n_layer": 3}}},
     "says n_layer 3, the tensors of .* say 2"),
    ({"transformer_config": {"params": {}}}, "says n_head None, not a number"),
    ({"permuter_config": "Random"}, "order of the codes is Random"),
    ({"first_stage_config": tokenizer_node([12])}, r"says n_embed \[12\], not a number"),
    ({"transformer_config": {"params": {"n_head": 3}}}, r"multiple of 4 \* num_heads \(12\)"),
    ({"downsample_cond_size": 8}, "downsample_cond_size is 8"),
    ({"first_stage_config": {"target": "x", "params": {"n_embed": 12, "ddconfig": 3}}},
     "does not describe the tokenizer of image"),
    ({"first_stage_config": tokenizer_node(15)}, "image has 15 codes, but the vocabulary .* is 14"),
    ({"cond_stage_config": tokenizer_node(15)}, "depth has 15 codes, but the vocabulary"),
    ({"unconditional": True, "sos_token": 14}, "sos_token is 14, but there are 14 codes"),
    ({"unconditional": True, "sos_token": [0]}, r"sos_token is \[0\], but there are 14 codes")])
def test_what_cannot_be_expressed_is_refused(tmp_path: Path, params: dict[str, Any],
                                             message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(tmp_path, config=taming_config("depth", **params))
    assert not (tmp_path / "prior").exists()


def without(name: str) -> Callable[[State], State]:
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


def with_tensor(name: str, tensor: torch.Tensor) -> Callable[[State], State]:
    return lambda state: {**state, name: tensor}


@pytest.mark.parametrize(("change", "message"), [
    (without("transformer.blocks.1.attn.key.weight"),
     r"1 missing: blocks\.1\.attention\.qkv\.weight; 2 surplus: blocks\.1\.attn\.query"),
    (with_tensor("transformer.blocks.0.extra", torch.ones(2)), r"1 surplus: blocks\.0\.extra"),
    (lambda state: {**state, "transformer.blocks.0.attn.query.weight": torch.ones(8, 16),
                    "transformer.blocks.0.attn.key.weight": torch.ones(24, 16)},
     r"1 missing: blocks\.0\.attention\.qkv\.weight; 3 surplus"),
    (with_tensor("transformer.blocks.987654321.extra", torch.ones(2)), "says n_layer 2, .* say 3"),
    (with_tensor("transformer.pos_emb", torch.ones(2, 20, 16)), "holds 2 tables of positions"),
    (with_tensor("transformer.ln_f.bias", torch.full((16,), torch.nan)), "not finite"),
    (with_tensor("transformer.ln_f.bias", torch.ones(3)), r"norm\.bias is \(3,\), not \(16,\)"),
    (with_tensor("transformer.head.weight", torch.ones(9, 16)),
     r"head\.weight is \(9, 16\), not \(12, 16\)"),
    (with_tensor("transformer.pos_emb", torch.ones(16)), r"pos_emb of shape \(16,\)"),
    (with_tensor("transformer.pos_emb", torch.ones(1, 17, 16)), "block_size 20, .* say 17"),
    (with_tensor("permuter.forward_shuffle_idx", torch.arange(9)), "order of the codes")])
def test_tensors_that_are_not_those_of_the_network_are_refused(
        tmp_path: Path, change: Callable[[State], State], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(tmp_path, change(taming_state()))
    assert not (tmp_path / "prior").exists()


def test_a_grid_longer_than_the_positions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 24 positions, but .* is for 20"):
        convert(tmp_path, givens=images(side=4))


def test_a_taming_prior_needs_its_config(tmp_path: Path) -> None:
    file = write_lightning(tmp_path / "last.ckpt", taming_state())
    with pytest.raises(ValueError, match=r"needs the config of its .*\(--config\); got none"):
        import_prior(file, str(tmp_path / "prior"))


def test_names_of_classes_are_as_many_as_the_classes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 7 classes, but 2 names are given"):
        convert(tmp_path, config=taming_config("class"), givens=PriorGivens(classes=("a", "b")))


def test_a_file_of_no_known_prior_is_refused(tmp_path: Path) -> None:
    file = write_lightning(tmp_path / "last.ckpt", {"encoder.weight": torch.ones(2)})
    with pytest.raises(ValueError, match=r"none of the priors .*begins with encoder\.weight"):
        import_prior(file, str(tmp_path / "prior"))


def llamagen(folder: Path, state: dict[str, Any], givens: PriorGivens, n_head: Any = 2) -> None:
    file = write_llamagen(folder / "c2i.pt", state, extra=Hostile(folder / "owned"))
    import_prior(file, str(folder / "prior"), givens=givens,
                 config=write_yaml(folder / "shape.yaml", {"n_head": n_head}))


def test_a_hostile_llamagen_file_does_not_run(tmp_path: Path) -> None:
    llamagen(tmp_path, llamagen_state(), images())
    assert not (tmp_path / "owned").exists() and (tmp_path / "prior/config.json").exists()


@pytest.mark.parametrize(("change", "givens", "n_head", "message"), [
    (dict, PriorGivens(), 2, "give the tokenizer that it was trained on"),
    (dict, images(), None, "is 16 wide, which none of the published sizes is"),
    (dict, images(15), 2, "image has 15 codes, but the vocabulary .* is 14"),
    (with_tensor("cls_embedding.cap_proj.fc1.weight", torch.ones(2, 2)), images(), 2,
     "is conditioned on text"),
    (without("layers.1.feed_forward.w3.weight"), images(), 2,
     r"1 missing: blocks\.1\.feed_forward\.gate_and_up\.weight"),
    (with_tensor("layers.0.attention.wqkv.weight", torch.ones(32, 16)), images(), 2,
     r"qkv\.weight is \(32, 16\), not \(48, 16\)"),
    (without("tok_embeddings.weight"), images(), 2, r"holds no tok_embeddings\.weight"),
    (with_tensor("cls_embedding.embedding_table.weight", torch.ones(8, 12)), images(), 2,
     "of another width than"),
    (with_tensor("layers.987654321.extra", torch.ones(2)), images(), 2, "missing: blocks"),
    (with_tensor("layers.0.feed_forward.w1.weight", torch.ones(300, 16)), images(), 2,
     r"1 missing: blocks\.0\.feed_forward\.gate_and_up\.weight; 2 surplus")])
def test_llamagen_files_that_cannot_be_read_as_a_prior_are_refused(
        tmp_path: Path, change: Callable[[State], State], givens: PriorGivens, n_head: Any,
        message: str) -> None:
    with pytest.raises(ValueError, match=message):
        llamagen(tmp_path, change(llamagen_state()), givens, n_head)
    assert not (tmp_path / "prior").exists()
