"""What is measured: rows that were held out, and the rows of training without them."""
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_codes import conditions

from prior.dataset import CodeRows
from prior.generate import Generation
from prior.model import Condition, Prior, PriorConfig
from prior.recipes import tiny
from prior.report import rows as report_rows
from prior.report.rows import measured_rows, read_samples, training_codes
from prior.sampling import SamplingConfig, sample_corpus
from tokenizer.audit import complete
from tokenizer.buckets import Bucket
from tokenizer.one_bucket import one_bucket
from tokenizer.schema import GEOMETRY, CodeSpec, TokenSpec, rows_table
from tokenizer.splits import Split
from tokenizer.tokens import TokenCorpus, commit_shard

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


def bucketed(url: str, num_rows: int = 20) -> TokenCorpus:
    """A corpus whose rows take turns between two buckets, of 4 and of 2 codes."""
    buckets = (Bucket(image_size=(16, 16), grid=(2, 2)), Bucket(image_size=(8, 16), grid=(1, 2)))
    spec = TokenSpec(codes=(CodeSpec(modality="image", grid=(2, 2), image_size=(16, 16),
                                     codebook_size=16, tokenizer="sha256:a", buckets=buckets),))
    grids = [buckets[row % 2].grid for row in range(num_rows)]
    columns = {
        "key": [f"k{row:02d}" for row in range(num_rows)], "source": ["drawn"] * num_rows,
        "flipped": [False] * num_rows, "bucket": [spec.buckets[row % 2] for row in range(num_rows)],
        **{name: [1] * num_rows for name in GEOMETRY},
        "image_grid_height": [grid[0] for grid in grids],
        "image_grid_width": [grid[1] for grid in grids]}
    codes = [np.full(grid, 1 + row % 15) for row, grid in enumerate(grids)]
    receipt = commit_shard(url, 0, 1, "sha256:b", rows_table(spec, {"image": codes}, columns))
    complete(url, spec, "sha256:b", [receipt], (), num_rows)
    return TokenCorpus.open(url)


def test_of_buckets_a_filter_takes_one_for_training_and_for_measuring(tmp_path: Path) -> None:
    corpus, text = bucketed(str(tmp_path)), 'bucket == "16x16"'
    config = PriorConfig.of(one_bucket(corpus, text), split=Split(held_out=8),
                            transformer=tiny().transformer)
    with pytest.raises(ValueError, match="rows of one grid are needed"):
        measured_rows(config, corpus, 100)
    measured = measured_rows(config, corpus, 100, text)
    assert measured.training is not None and measured.training.taken[1::2].sum() == 0
    blocks = [codes for _, codes in measured.training.blocks()]
    assert len(measured.rows) + len(measured.training) == 10
    for codes in (*blocks, measured.rows.codes["image"].reshape(-1, 4)):
        assert (codes > 0).all()  # codes of other buckets are read as zeros


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
    with pytest.raises(ValueError, match="holds no segmentation codes, which the prior reads"):
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
