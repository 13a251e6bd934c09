"""A prior's config and its checkpoint."""
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from drawn_codes import CLASSES, conditions
from written_corpora import write_buckets

from prior.loading.config import Mixture
from prior.model import Condition, Prior, PriorConfig
from tokenizer import checkpoints, configs
from tokenizer.tokens import TokenCorpus


def test_a_config_names_the_codes_it_reads_the_target_first(corpus: TokenCorpus) -> None:
    config = PriorConfig.of(corpus, conditions=conditions("segmentation", "label"))
    assert config.spec.modalities == ("image", "segmentation")
    assert config.classes == CLASSES and config.corpus == corpus.manifest.fingerprint
    assert [segment.name for segment in config.layout.segments] == ["segmentation", "label",
                                                                    "image"]
    assert config.layout.segments[1].vocabulary == 2


def test_any_modality_can_be_the_target(corpus: TokenCorpus) -> None:
    config = PriorConfig.of(corpus, target="segmentation", conditions=conditions("image"))
    assert config.target == "segmentation" and config.layout.target.vocabulary == 4


def test_a_config_is_read_back_as_it_was_written(corpus: TokenCorpus) -> None:
    config = PriorConfig.of(corpus, conditions=[Condition(name="label", dropout=0.3)])
    assert configs.from_dict(PriorConfig, json.loads(json.dumps(configs.to_dict(config)))) == config


@pytest.mark.parametrize(("names", "target", "message"), [
    (("depth",), "image", "no depth codes"),
    ((), "depth", "no depth codes"),
    (("label", "label"), "image", "each condition is named once"),
    (("image",), "image", "is not the target; got image with target image")])
def test_conditions_that_cannot_be_are_refused(corpus: TokenCorpus, names: tuple[str, ...],
                                               target: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PriorConfig.of(corpus, conditions=conditions(*names), target=target)


def test_a_label_condition_needs_classes(make_corpus: Callable[..., TokenCorpus]) -> None:
    with pytest.raises(ValueError, match="plain has no classes.*encode with labels"):
        PriorConfig.of(make_corpus("plain", labelled=False), conditions=conditions("label"))


@pytest.mark.parametrize(("dropouts", "drop_all", "missing", "needed"), [
    ((0.0,), 0.0, ["label"], ["label"]),
    ((0.1,), 0.0, ["label"], []),
    ((0.0,), 0.1, ["label"], []),
    ((0.0, 0.0), 0.1, ["label"], ["label"]),
    ((0.0, 0.0), 0.1, ["label", "segmentation"], []),
    ((0.1, 0.0), 0.1, ["label"], []),
    ((0.1, 0.0), 0.1, ["segmentation"], ["segmentation"]),
    ((0.1, 0.0), 0.0, ["label", "segmentation"], ["segmentation"]),
    ((0.1, 0.2), 0.0, ["label", "segmentation"], []),
    ((0.0, 0.0), 0.0, [], [])])
def test_conditions_are_indispensable_unless_training_left_just_these_out(
        corpus: TokenCorpus, dropouts: tuple[float, ...], drop_all: float, missing: list[str],
        needed: list[str]) -> None:
    given = [Condition(name=name, dropout=dropout)
             for name, dropout in zip(("label", "segmentation"), dropouts, strict=False)]
    config = PriorConfig.of(corpus, conditions=given, drop_all=drop_all)
    assert config.indispensable(missing) == needed


@pytest.mark.parametrize("wrong", [1.0, -0.1])
def test_shares_of_dropping_lie_below_one(corpus: TokenCorpus, wrong: float) -> None:
    with pytest.raises(ValueError, match="dropout of condition label"):
        Condition(name="label", dropout=wrong)
    with pytest.raises(ValueError, match="drop_all"):
        PriorConfig.of(corpus, drop_all=wrong)


def test_a_loaded_prior_is_ready_and_knows_its_fingerprint(
        trained: tuple[TokenCorpus, str]) -> None:
    prior = Prior.load(trained[1])
    assert not prior.model.training
    assert prior.fingerprint == checkpoints.fingerprint(trained[1])


def test_a_folder_without_a_prior_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no prior.*img2tokens train-prior"):
        Prior.load(str(tmp_path))


def test_weights_of_another_shape_are_refused_by_name(trained: tuple[TokenCorpus, str],
                                                      tmp_path: Path) -> None:
    config = checkpoints.load_config(trained[1], "prior", PriorConfig)
    weights = checkpoints.load_weights(trained[1])
    weights["head.weight"] = torch.zeros(3, 3)
    checkpoints.save_config(str(tmp_path), "prior", config)
    checkpoints.save_weights(str(tmp_path), weights)
    with pytest.raises(ValueError, match=r"head.weight is \(3, 3\), expected \(8, 32\)"):
        Prior.load(str(tmp_path))


def test_sequences_without_a_code_for_nothing_leave_no_condition_out(corpus: TokenCorpus) -> None:
    given = [Condition(name="label", dropout=0.0)]
    config = PriorConfig.of(corpus, conditions=given, drop_all=0.0, sequence="taming")
    assert config.layout.length == 6
    with pytest.raises(ValueError, match="drop_all 0.1"):
        PriorConfig.of(corpus, conditions=given, sequence="taming")
    with pytest.raises(ValueError, match="dropout of label"):
        PriorConfig.of(corpus, conditions=conditions("label"), drop_all=0.0, sequence="taming")


def test_the_layout_of_before_is_not_written_down(corpus: TokenCorpus) -> None:
    assert "sequence" not in configs.to_dict(PriorConfig.of(corpus))
    assert configs.to_dict(PriorConfig.of(corpus, sequence="taming"))["sequence"] == "taming"


def test_a_filter_is_written_down_where_there_is_one(corpus: TokenCorpus) -> None:
    assert "row_filter" not in configs.to_dict(PriorConfig.of(corpus))
    config = PriorConfig.of(corpus, row_filter=" label == 1 ")
    assert configs.to_dict(config)["row_filter"] == "label == 1"
    assert configs.from_dict(PriorConfig, configs.to_dict(config)) == config
    with pytest.raises(ValueError, match="the corpus has no column psnr"):
        PriorConfig.of(corpus, row_filter="psnr > 3")


def test_a_filter_must_fit_all_corpora_of_a_mixture(corpus: TokenCorpus, tmp_path: Path) -> None:
    other = write_buckets(tmp_path / "buckets")
    with pytest.raises(ValueError, match="tokens: the corpus has no column bucket"):
        Mixture((other, corpus), (1.0, 1.0)).require_filter('bucket == "8x16"')
