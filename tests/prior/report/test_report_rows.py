"""What is measured: rows that were held out, and the rows of training without them."""
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_codes import conditions
from written_corpora import write_buckets

from prior.dataset import CodeRows
from prior.generate import Generation
from prior.model import Condition, Prior, PriorConfig
from prior.recipes import tiny
from prior.report import rows as report_rows
from prior.report.rows import measured_rows, read_samples, training_codes
from prior.sampling import SamplingConfig, sample_corpus
from tokenizer.one_bucket import one_bucket
from tokenizer.splits import Split
from tokenizer.tokens import TokenCorpus

Make = Callable[..., TokenCorpus]


def config_of(corpus: TokenCorpus, held_out: int = 6) -> PriorConfig:
    return PriorConfig.of(corpus, conditions=conditions("label", "segmentation"),
                          split=Split(held_out=held_out), transformer=tiny().transformer)


def test_held_out_rows_and_rows_of_training_are_all_rows_once(corpus: TokenCorpus) -> None:
    config = config_of(corpus)
    measured = measured_rows(config, corpus, 100)
    everything = CodeRows.load(corpus, ["image"])
    held_out = config.split.divide(everything.keys)[1]
    assert sorted(set(measured.rows.keys)) == held_out and len(measured.rows) == 12
    assert measured.selection == "held out of training: 6 by hash"
    assert measured.training is not None and len(measured.training) == 48
    blocks = list(measured.training.blocks())
    numbers = np.concatenate([block[0] for block in blocks])
    assert sorted([*numbers, *measured.numbers]) == list(range(60))
    np.testing.assert_array_equal(np.concatenate([block[1] for block in blocks]),
                                  everything.codes["image"][numbers].reshape(48, -1))


def test_rows_of_training_come_in_blocks_and_are_read_again_in_any_order(
        corpus: TokenCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_rows, "BLOCK", 7)
    training = training_codes(config_of(corpus), corpus)
    assert training is not None
    blocks = list(training.blocks())
    assert max(len(numbers) for numbers, _ in blocks) == 7
    numbers, codes = blocks[1]
    again = training.read(numbers[[3, 0, 3]])
    np.testing.assert_array_equal(again.codes["image"].reshape(3, -1), codes[[3, 0, 3]])


def test_a_limit_spreads_over_the_held_out_rows(corpus: TokenCorpus) -> None:
    whole = measured_rows(config_of(corpus), corpus, 100)
    some = measured_rows(config_of(corpus), corpus, 4)
    assert some.numbers.tolist() == whole.numbers[[0, 3, 6, 9]].tolist()
    assert some.selection.endswith("; of these 4, spread evenly")
    assert some.reference("image") != whole.reference("image")


def test_of_another_corpus_all_rows_are_measured(corpus: TokenCorpus, make_corpus: Make) -> None:
    other = make_corpus("other", 10, fingerprint="sha256:other", classes=("dog", "cat"))
    measured = measured_rows(config_of(corpus), other, 100)
    assert len(measured.rows) == 10 and measured.training is None
    assert measured.selection == "all rows, of another corpus"
    stored = CodeRows.load(other, ["image"]).labels
    np.testing.assert_array_equal(measured.rows.labels, 1 - stored)  # as the prior numbers classes


def test_filters_narrow_what_is_measured(corpus: TokenCorpus) -> None:
    measured = measured_rows(config_of(corpus), corpus, 100, 'class_name == "dog"')
    assert 0 < len(measured.rows) < 12 and (measured.rows.labels == 1).all()
    assert 'for which class_name == "dog"' in measured.selection


def test_the_filter_of_the_training_counts_unless_another_is_given(corpus: TokenCorpus,
                                                                   make_corpus: Make) -> None:
    config = dataclasses.replace(config_of(corpus), row_filter='class_name == "dog"')
    measured, every = measured_rows(config, corpus, 100), measured_rows(
        config, corpus, 100, "key is not null")
    assert (measured.rows.labels == 1).all() and len(every.rows) == 12
    assert measured.selection == 'held out of training: 6 by hash, for which class_name == "dog"'
    for found in (measured, every):
        assert found.training is not None
        labels = CodeRows.load(corpus, ["image"]).labels[found.training.taken]
        assert (labels == 1).all() and len(labels) + len(measured.rows) < 48
    other = make_corpus("other", 10, fingerprint="sha256:other")
    assert measured_rows(config, other, 100).selection == "all rows, of another corpus"


@pytest.mark.parametrize("text", [None, 'bucket == "16x16"', 'key != "k99"'])
def test_of_buckets_that_of_the_prior_is_measured(tmp_path: Path, text: str | None) -> None:
    corpus = write_buckets(tmp_path)
    config = PriorConfig.of(one_bucket(corpus, 'bucket == "16x16"'), split=Split(held_out=8),
                            transformer=tiny().transformer)
    measured = measured_rows(config, corpus, 100, text)
    assert measured.training is not None and measured.training.taken[1::2].sum() == 0
    assert ", of the bucket 16x16" in measured.selection
    blocks = [codes for _, codes in measured.training.blocks()]
    assert len(measured.rows) + len(measured.training) == 10
    for codes in (*blocks, measured.rows.codes["image"].reshape(-1, 4)):
        assert (codes > 0).all()  # codes of other buckets are read as zeros


def test_a_filter_on_another_bucket_is_told_that_of_the_prior(tmp_path: Path) -> None:
    corpus = write_buckets(tmp_path)
    config = PriorConfig.of(one_bucket(corpus, 'bucket == "16x16"'), split=Split(held_out=8))
    with pytest.raises(ValueError, match="rows of the bucket 16x16 are needed, .*10 of 8x16; take "
                                         "that bucket, as with --filter 'bucket == \"16x16\"'"):
        measured_rows(config, corpus, 100, 'bucket == "8x16"')


def test_samples_take_conditions_of_rows_spread_evenly(corpus: TokenCorpus) -> None:
    config = config_of(corpus)
    measured = measured_rows(config, corpus, 100)
    givens = measured.givens(config, 3)
    assert givens.rows.tolist() == measured.numbers[[0, 4, 8]].tolist()
    maps = measured.rows.codes["segmentation"][[0, 4, 8]].reshape(3, -1)
    np.testing.assert_array_equal(givens.conditions["segmentation"], maps)
    assert givens.conditions["label"][:, 0].tolist() == measured.rows.labels[[0, 4, 8]].tolist()
    plain = PriorConfig.of(corpus, split=Split(held_out=6), transformer=tiny().transformer)
    assert measured_rows(plain, corpus, 100).givens(plain, 3).conditions == {}


def test_what_cannot_be_measured_is_refused_with_a_remedy(corpus: TokenCorpus,
                                                          make_corpus: Make) -> None:
    with pytest.raises(ValueError, match="with no rows held out.*give another corpus"):
        measured_rows(config_of(corpus, 0), corpus, 9)
    with pytest.raises(ValueError, match="holds no segmentation codes, which are needed"):
        measured_rows(config_of(corpus), make_corpus("images", 8, modalities=["image"]), 9)
    with pytest.raises(ValueError, match="tokenizer"):
        measured_rows(config_of(corpus), make_corpus("retold", 8, tokenizer="sha256:new-{}"), 9)


def test_samples_tell_how_they_were_drawn_and_those_of_another_prior_are_refused(
        prior: Prior, trained: tuple[TokenCorpus, str], tmp_path: Path) -> None:
    measured = measured_rows(prior.config, trained[0], 4)
    config = SamplingConfig(num=4, seed=7, generation=Generation(batch_size=4))
    out = str(tmp_path / "samples")
    sample_corpus(prior, measured.givens(prior.config, 4), out, config)
    samples = read_samples(prior, TokenCorpus.open(out))
    assert samples.drawing["seed"] == 7
    assert samples.drawing["generation"]["sampler"]["temperature"] == 1.0
    np.testing.assert_array_equal(samples.rows.codes["segmentation"],
                                  measured.rows.codes["segmentation"])
    told = json.loads((tmp_path / "samples/sampling.json").read_text())
    (tmp_path / "samples/sampling.json").write_text(json.dumps(told | {"prior": "sha256:other"}))
    with pytest.raises(ValueError, match="was drawn by the prior sha256:other, not by"):
        read_samples(prior, TokenCorpus.open(out))
    (tmp_path / "samples/sampling.json").write_text("[]")
    with pytest.raises(ValueError, match="was drawn by the prior None, not by"):
        read_samples(prior, TokenCorpus.open(out))


def test_rows_without_a_label_are_refused_where_a_prior_has_no_code_for_that(
        corpus: TokenCorpus, make_corpus: Make) -> None:
    """Told with what to do, and before anything is drawn."""
    config = PriorConfig.of(corpus, conditions=[Condition(name="label", dropout=0.0)],
                            drop_all=0.0, sequence="taming", transformer=tiny().transformer)
    other = make_corpus("unlabelled", 8, labelled=False, fingerprint="sha256:other")
    with pytest.raises(ValueError, match="8 of 8 rows have no label.*'label is not null'"):
        measured_rows(config, other, 9)
    labelled = make_corpus("labelled", 8, fingerprint="sha256:third")
    assert len(measured_rows(config, labelled, 9).rows) == 8


def test_rows_that_the_prior_did_not_draw_are_no_samples(prior: Prior, corpus: TokenCorpus,
                                                         make_corpus: Make) -> None:
    with pytest.raises(ValueError, match="holds no samples: the source of photos/0000 is 'drawn'"):
        read_samples(prior, corpus)
    other = make_corpus("other", 4, source="prior:sha256:other#seed=0&index=0")
    with pytest.raises(ValueError, match="was drawn by the prior sha256:other, not by"):
        read_samples(prior, other)
    own = make_corpus("own", 4, source=f"prior:{prior.fingerprint}#seed=0&index=0")
    assert read_samples(prior, own).drawing == {}  # as of samples that were copied in part
