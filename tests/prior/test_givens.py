"""What samples are given: by label, from rows of a corpus, or images to complete."""
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_codes import CORPUS, conditions
from written_corpora import write_buckets

from prior.dataset import CodeRows
from prior.givens import from_codes, from_corpus, from_labels, labels_of
from prior.model import Condition, PriorConfig
from tokenizer.one_bucket import one_bucket
from tokenizer.schema import SpecMismatch, TokenSpec
from tokenizer.splits import Split
from tokenizer.tokens import TokenCorpus

Make = Callable[..., TokenCorpus]


def config_of(corpus: TokenCorpus, *names: str, **options: object) -> PriorConfig:
    return PriorConfig.of(corpus, conditions=conditions(*(names or ("label", "segmentation"))),
                          **options)


def test_labels_are_given_by_name_or_number(corpus: TokenCorpus) -> None:
    givens = from_labels(config_of(corpus), ["dog", "0"])
    assert givens.conditions["label"].tolist() == [[1], [0]]
    assert len(givens) == 2 and givens.start.shape == (2, 0) and givens.corpus is None


def test_nothing_given_is_one_row_without_conditions(corpus: TokenCorpus) -> None:
    givens = from_labels(config_of(corpus), [])
    assert len(givens) == 1 and givens.conditions == {}


@pytest.mark.parametrize("label", ["bird", "2", "-1"])
def test_an_unknown_label_is_refused_with_the_classes(corpus: TokenCorpus, label: str) -> None:
    with pytest.raises(ValueError, match=rf"'{label}' is none of the prior's 2 classes \(cat, dog"):
        from_labels(config_of(corpus), [label])


def test_a_label_for_a_prior_without_labels_is_refused(corpus: TokenCorpus) -> None:
    config = config_of(corpus, "segmentation")
    with pytest.raises(ValueError, match="not conditioned on the label; leave --label out"):
        from_labels(config, ["cat"])
    with pytest.raises(ValueError, match="not conditioned on the label"):
        from_corpus(config, corpus, labels=["cat"])


def test_a_condition_that_training_always_gave_is_required(corpus: TokenCorpus) -> None:
    config = PriorConfig.of(corpus, conditions=[Condition(name="segmentation", dropout=0.0)],
                            drop_all=0.0)
    with pytest.raises(ValueError, match="always given segmentation in training"):
        from_labels(config, [])


def test_one_condition_alone_is_refused_when_training_left_out_both_or_none(
        corpus: TokenCorpus, make_corpus: Make) -> None:
    both = [Condition(name=name, dropout=0.0) for name in ("label", "segmentation")]
    config = PriorConfig.of(corpus, conditions=both, drop_all=0.1)
    with pytest.raises(ValueError, match="always given segmentation in training, unless it was gi"):
        from_labels(config, ["dog"])
    with pytest.raises(ValueError, match="always given label in training, unless"):
        from_corpus(config, make_corpus("plain", labelled=False))
    assert from_labels(config, []).conditions == {}


def test_rows_of_a_corpus_bring_all_conditions_it_holds(corpus: TokenCorpus) -> None:
    givens, rows = from_corpus(config_of(corpus), corpus), CodeRows.load(corpus, ["segmentation"])
    assert len(givens) == 60 and givens.keys[2] == "photos/0001" and givens.corpus == CORPUS
    assert givens.url == corpus.url
    np.testing.assert_array_equal(givens.conditions["segmentation"],
                                  rows.codes["segmentation"].reshape(60, -1))
    np.testing.assert_array_equal(givens.conditions["label"][:, 0], rows.labels)
    assert givens.originals is None and givens.start.shape == (60, 0)


def test_rows_may_be_of_other_crops_than_those_of_the_training(corpus: TokenCorpus) -> None:
    config = config_of(corpus)
    spec = TokenSpec(codes=tuple(code.cropped({"crop": "ten-crop"}) for code in config.spec.codes))
    of_others = dataclasses.replace(config, spec=spec)
    assert of_others.spec != config.spec
    assert len(from_corpus(of_others, corpus)) == 60


def test_labels_replace_those_of_the_rows_in_turn(corpus: TokenCorpus) -> None:
    givens = from_corpus(config_of(corpus), corpus, labels=["dog", "dog", "cat"])
    assert givens.conditions["label"][:7, 0].tolist() == [1, 1, 0, 1, 1, 0, 1]


def test_classes_are_matched_by_name(corpus: TokenCorpus, make_corpus: Make) -> None:
    other = make_corpus("other", classes=("dog", "cat"))
    ours, theirs = (from_corpus(config_of(corpus), each) for each in (corpus, other))
    np.testing.assert_array_equal(theirs.conditions["label"], 1 - ours.conditions["label"])


def test_a_class_that_the_prior_does_not_know_is_refused(corpus: TokenCorpus,
                                                         make_corpus: Make) -> None:
    with pytest.raises(ValueError, match="'bird' is none of the prior's 2 classes"):
        from_corpus(config_of(corpus), make_corpus("other", classes=("bird", "cat")))


def test_classes_are_matched_by_number_only_where_all_have_numbers_for_names(
        corpus: TokenCorpus, make_corpus: Make) -> None:
    unnamed = from_corpus(config_of(corpus), make_corpus("unnamed", classes=("0", "1")))
    assert unnamed.conditions["label"].tolist() == from_corpus(
        config_of(corpus), corpus).conditions["label"].tolist()
    with pytest.raises(ValueError, match="'1' is none of the prior's 2 classes"):
        from_corpus(config_of(corpus), make_corpus("other", classes=("1", "cat")))


def test_rows_without_labels_leave_the_label_out(corpus: TokenCorpus, make_corpus: Make) -> None:
    givens = from_corpus(config_of(corpus), make_corpus("plain", labelled=False))
    assert list(givens.conditions) == ["segmentation"]


@pytest.mark.parametrize("classes", [(), ("dog", "cat"), ("cat", "dog")])
def test_rows_without_labels_get_the_null_whatever_classes_their_corpus_has(
        corpus: TokenCorpus, classes: tuple[str, ...]) -> None:
    rows = CodeRows(keys=["a", "b"], codes={}, labels=np.array([-1, -1]), classes=classes)
    assert labels_of(config_of(corpus), rows).tolist() == [2, 2]


def test_a_corpus_without_the_conditions_is_refused(corpus: TokenCorpus,
                                                    make_corpus: Make) -> None:
    images = make_corpus("images", modalities=["image"], labelled=False)
    with pytest.raises(ValueError, match=r"none of the conditions of the prior \(label, segm"):
        from_corpus(config_of(corpus), images)


def test_codes_of_another_tokenizer_are_refused_with_both_fingerprints(
        corpus: TokenCorpus, make_corpus: Make) -> None:
    other = make_corpus("other", tokenizer="sha256:other-{}")
    with pytest.raises(SpecMismatch, match="segmentation.tokenizer is 'sha256:other-segmentation'"
                                           ", expected 'sha256:segmentation'"):
        from_corpus(config_of(corpus), other)


def test_held_out_rows_are_those_that_training_left_out(corpus: TokenCorpus) -> None:
    config = config_of(corpus, split=Split(held_out=4, by="name"))
    givens = from_corpus(config, corpus, held_out=True)
    assert set(givens.keys) == {f"photos/{number:04d}" for number in range(26, 30)}
    assert givens.rows.tolist() == list(range(52, 60))
    assert len(givens.conditions["label"]) == 8


def test_held_out_rows_of_another_corpus_are_refused(corpus: TokenCorpus,
                                                     make_corpus: Make) -> None:
    other = make_corpus("other", fingerprint="sha256:other")
    with pytest.raises(ValueError, match="is not a corpus that the prior was trained on"):
        from_corpus(config_of(corpus), other, held_out=True)


def test_held_out_rows_of_a_prior_without_any_are_refused(corpus: TokenCorpus) -> None:
    with pytest.raises(ValueError, match="trained with no rows held out"):
        from_corpus(config_of(corpus, split=Split(held_out=0)), corpus, held_out=True)


@pytest.mark.parametrize(("keep", "kept"), [(0.5, 2 * 2), (0.01, 1 * 2), (0.99, 2 * 2)])
def test_completion_keeps_whole_rows_at_least_one_and_not_all(corpus: TokenCorpus, keep: float,
                                                              kept: int) -> None:
    givens = from_corpus(config_of(corpus), corpus, keep=keep)
    assert givens.originals is not None
    np.testing.assert_array_equal(givens.start, givens.originals.reshape(60, -1)[:, :kept])
    assert list(givens.conditions) == ["segmentation", "label"]


@pytest.mark.parametrize(("keep", "kept"), [(0.5, 2), (0.01, 1), (0.99, 2)])
def test_completion_keeps_all_codes_of_the_upper_cells(make_corpus: Make, keep: float,
                                                       kept: int) -> None:
    deep = make_corpus("deep", depths={"image": 3, "segmentation": 2})
    givens = from_corpus(config_of(deep), deep, keep=keep)
    assert givens.originals is not None and givens.originals.shape == (60, 3, 3, 2)
    by_cell = givens.start.reshape(60, kept, 2, 3)
    np.testing.assert_array_equal(np.moveaxis(by_cell, -1, 1), givens.originals[:, :, :kept])
    maps = CodeRows.load(deep, ["segmentation"]).codes["segmentation"]
    np.testing.assert_array_equal(givens.conditions["segmentation"][:, :2], maps[:, :, 0, 0])


def test_a_key_chooses_its_rows(corpus: TokenCorpus) -> None:
    givens = from_corpus(config_of(corpus), corpus, key="photos/0003")
    assert givens.keys == ("photos/0003",) * 2 and givens.rows.tolist() == [6, 7]
    with pytest.raises(ValueError, match="holds no row with the key 'photos/9': nothing to"):
        from_corpus(config_of(corpus), corpus, key="photos/9")


def test_a_filter_chooses_among_the_rows(corpus: TokenCorpus) -> None:
    config = config_of(corpus)
    givens = from_corpus(config, corpus, row_filter="key in ('photos/0003', 'photos/0005')")
    assert givens.rows.tolist() == [6, 7, 10, 11] and givens.keys[-1] == "photos/0005"
    one = from_corpus(config, corpus, key="photos/0005", row_filter="key != 'photos/0003'")
    assert one.rows.tolist() == [10, 11]
    np.testing.assert_array_equal(one.conditions["label"], givens.conditions["label"][2:])
    with pytest.raises(ValueError, match="no row with the key 'photos/0003', for which key == 'ph"):
        from_corpus(config, corpus, key="photos/0003", row_filter="key == 'photos/0005'")
    with pytest.raises(ValueError, match="no column psnr"):
        from_corpus(config, corpus, row_filter="psnr > 3")


def test_a_hole_keeps_all_codes_for_its_surroundings(corpus: TokenCorpus) -> None:
    hole = np.array([[False, True], [False, False], [True, False]])
    givens = from_corpus(config_of(corpus), corpus, hole=hole)
    assert givens.originals is not None and givens.hole is hole
    np.testing.assert_array_equal(givens.start, givens.originals.reshape(60, -1))


def test_codes_of_files_are_given_in_turn_and_single_ones_to_all(corpus: TokenCorpus) -> None:
    rows = CodeRows.load(corpus, ["image", "segmentation"])
    codes = {"segmentation": rows.codes["segmentation"][:3], "image": rows.codes["image"][:1]}
    files = {"segmentation": ["a.png", "b.png", "c.png"], "image": ["photo.jpg"]}
    givens = from_codes(config_of(corpus), codes, files, labels=["dog"], keep=0.5)
    assert givens.keys == ("a.png photo.jpg", "b.png photo.jpg", "c.png photo.jpg")
    assert givens.corpus is None
    np.testing.assert_array_equal(givens.conditions["segmentation"],
                                  rows.codes["segmentation"][:3].reshape(3, -1))
    assert givens.conditions["label"].tolist() == [[1]] * 3
    np.testing.assert_array_equal(givens.start, rows.codes["image"][[0] * 3].reshape(3, -1)[:, :4])


def test_files_that_do_not_fit_are_refused(corpus: TokenCorpus) -> None:
    codes = CodeRows.load(corpus, ["segmentation"]).codes["segmentation"]
    config = config_of(corpus)
    with pytest.raises(ValueError, match="takes no depth; it takes segmentation"):
        from_codes(config, {"depth": codes[:1]}, {"depth": ["a.png"]})
    with pytest.raises(ValueError, match="one file, or as many, .* 3 of segmentation, 2 of label"):
        from_codes(config, {"segmentation": codes[:3]}, {"segmentation": list("abc")},
                   labels=["dog", "cat"])


@pytest.mark.parametrize("keep", [0.0, 1.0, -0.5])
def test_keeping_nothing_or_all_is_refused(corpus: TokenCorpus, keep: float) -> None:
    with pytest.raises(ValueError, match=rf"must lie in \(0, 1\), got {keep}"):
        from_corpus(config_of(corpus), corpus, keep=keep)


def test_a_corpus_without_the_target_cannot_be_completed(corpus: TokenCorpus,
                                                         make_corpus: Make) -> None:
    with pytest.raises(ValueError, match="no image codes"):
        from_corpus(config_of(corpus), make_corpus("maps", modalities=["segmentation"]), keep=0.5)


def test_an_unfinished_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no completed token corpus"):
        TokenCorpus.open(str(tmp_path))


def test_held_out_rows_are_those_of_the_filter_of_the_training(corpus: TokenCorpus) -> None:
    config = config_of(corpus, split=Split(held_out=10), row_filter="label == 1")
    dogs = from_corpus(config, corpus, held_out=True)
    assert dogs.conditions["label"].tolist() == [[1]] * len(dogs) and 0 < len(dogs) < 20
    cats = from_corpus(config, corpus, held_out=True, row_filter="label == 0")
    assert sorted([*dogs.rows, *cats.rows]) == from_corpus(
        config_of(corpus, split=Split(held_out=10)), corpus, held_out=True).rows.tolist()
    assert len(from_corpus(config, corpus)) == 60


def test_a_key_that_is_not_held_out_is_told_as_such(corpus: TokenCorpus) -> None:
    config = config_of(corpus, split=Split(held_out=4, by="name"))
    with pytest.raises(ValueError, match="no row held out of training, with the key 'photos/0003'"):
        from_corpus(config, corpus, held_out=True, key="photos/0003")


def test_of_buckets_rows_of_the_prior_s_size_are_taken(tmp_path: Path) -> None:
    buckets = write_buckets(tmp_path)
    config = PriorConfig.of(one_bucket(buckets, 'bucket == "8x16"'), row_filter="flipped == false")
    hole = np.array([[False, True]])
    for row_filter in (None, "key != 'k99'"):
        givens = from_corpus(config, buckets, hole=hole, row_filter=row_filter)
        assert givens.rows.tolist() == list(range(1, 20, 2))
        assert givens.originals is not None and (givens.originals > 0).all()
    with pytest.raises(ValueError, match="of the bucket 8x16, with the key 'k02': nothing to samp"):
        from_corpus(config, buckets, hole=hole, key="k02")
    with pytest.raises(ValueError, match="rows of the bucket 8x16 are needed, .*10 of 16x16; take"):
        from_corpus(config, buckets, hole=hole, row_filter='bucket == "16x16"')
