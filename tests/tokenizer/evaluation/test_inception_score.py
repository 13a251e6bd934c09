"""The Inception Score against values found by hand."""
import numpy as np
import pytest

from tokenizer.evaluation.inception_score import inception_score


def logits(*shares: list[float]) -> np.ndarray:
    """Logits of these probabilities."""
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(np.array(shares)), -1e4)


def test_a_small_matrix_worked_out_by_hand() -> None:
    # p(y) = (0.5, 0.5); KL = 0.8 ln 1.6 + 0.2 ln 0.4 for both images.
    divergence = 0.8 * np.log(1.6) + 0.2 * np.log(0.4)
    score, deviation = inception_score(logits([0.8, 0.2], [0.2, 0.8]), 1)
    assert score == pytest.approx(np.exp(divergence), rel=1e-12) and deviation == 0.0


def test_sure_and_varied_answers_score_as_many_as_there_are_classes() -> None:
    assert inception_score(logits(*np.eye(5).tolist()), 1)[0] == pytest.approx(5.0)


def test_the_same_answer_to_every_image_scores_one() -> None:
    assert inception_score(logits(*[[0.7, 0.2, 0.1]] * 6), 2) == pytest.approx((1.0, 0.0))


def test_parts_take_every_nth_image_and_give_mean_and_deviation() -> None:
    even, odd = [[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]]
    mixed = logits(even[0], odd[0], even[1], odd[1])
    score, deviation = inception_score(mixed, 2)
    assert (score, deviation) == pytest.approx((1.5, 0.5))  # scores 2 and 1


def test_logits_may_be_large_and_share_a_common_offset() -> None:
    drawn = np.random.default_rng(0).normal(0, 3, (40, 7)).astype(np.float32)
    expected = inception_score(drawn, 4)
    assert inception_score(drawn + np.float32(512), 4) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("rows", "parts", "words"), [
    (3, 4, "got 4 parts of 3 images"), (3, 0, "got 0 parts of 3 images")])
def test_too_few_images_are_refused(rows: int, parts: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        inception_score(np.zeros((rows, 2)), parts)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="logits must be finite"):
        inception_score(np.array([[0.0, np.nan]]), 1)
