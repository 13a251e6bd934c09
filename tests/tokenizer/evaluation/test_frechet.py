"""The Frechet distance against other ways to compute it, and streaming against all at once."""
import numpy as np
import pytest

from tokenizer.evaluation.frechet import FeatureStatistics, frechet_distance


def statistics(features: np.ndarray, *cuts: int) -> FeatureStatistics:
    found = FeatureStatistics(features.shape[1])
    for part in np.split(features, cuts):
        found.add(part)
    return found


def correlated(count: int, size: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(count, size)) @ generator.normal(size=(size, size))
            + generator.normal(size=size)).astype(np.float32)


def independent(first: np.ndarray, second: np.ndarray) -> float:
    """The distance by the eigenvalues of the product of covariances, which is not symmetric."""
    cov1, cov2 = (np.cov(features.astype(np.float64), rowvar=False) for features in (first, second))
    shift = first.astype(np.float64).mean(0) - second.astype(np.float64).mean(0)
    roots = np.sqrt(np.linalg.eigvals(cov1 @ cov2).astype(complex)).real.sum()
    return float(shift @ shift + np.trace(cov1) + np.trace(cov2) - 2 * roots)


def newton_schulz(first: np.ndarray, second: np.ndarray) -> float:
    """The same with the root of the product found by Denman-Beavers iteration."""
    cov1, cov2 = (np.cov(features.astype(np.float64), rowvar=False) for features in (first, second))
    root, inverse = cov1 @ cov2, np.eye(len(cov1))
    for _ in range(60):
        root, inverse = ((root + np.linalg.inv(inverse)) / 2, (inverse + np.linalg.inv(root)) / 2)
    shift = first.astype(np.float64).mean(0) - second.astype(np.float64).mean(0)
    return float(shift @ shift + np.trace(cov1 + cov2 - 2 * root))


@pytest.mark.parametrize(("count", "size"), [(500, 8), (400, 64), (1000, 256)])
def test_distance_agrees_with_two_independent_computations(count: int, size: int) -> None:
    first, second = correlated(count, size, 0), correlated(count - 100, size, 1)
    found = frechet_distance(statistics(first), statistics(second))
    assert found == pytest.approx(independent(first, second), abs=1e-3)
    if size < 100:
        assert found == pytest.approx(newton_schulz(first, second), abs=1e-3)


def test_distance_agrees_where_covariances_are_singular() -> None:
    first, second = correlated(20, 64, 0), correlated(30, 64, 1)
    found = frechet_distance(statistics(first), statistics(second))
    assert found == pytest.approx(independent(first, second), abs=1e-3)


def test_distance_of_gaussians_with_diagonal_covariance_is_that_by_hand() -> None:
    first = np.array([[-1.0, 0], [1, 0], [0, -2], [0, 2]])  # variances 2/3 and 8/3
    second = first * [3, 1] + [5, 0]                        # 6 and 8/3, mean moved by 5
    found = frechet_distance(statistics(first), statistics(second))
    assert found == pytest.approx(25 + 2 / 3 + 6 - 2 * np.sqrt(2 / 3 * 6), abs=1e-12)


def test_sets_without_any_spread_are_as_far_as_their_means() -> None:
    first, second = np.zeros((3, 4)), np.full((5, 4), 2.0)
    assert frechet_distance(statistics(first), statistics(second)) == 16
    assert frechet_distance(statistics(first), statistics(first)) == 0


def test_a_set_has_no_distance_to_itself() -> None:
    features = correlated(300, 32, 0)
    found = frechet_distance(statistics(features), statistics(features))
    assert found == pytest.approx(0, abs=1e-6) and found >= 0


def test_distance_is_symmetric() -> None:
    first, second = statistics(correlated(300, 32, 0)), statistics(correlated(200, 32, 1))
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first))


def test_batches_give_mean_and_covariance_of_all_at_once_even_far_from_zero() -> None:
    features = correlated(101, 16, 0).astype(np.float64) + 1e6
    found = statistics(features, 1, 1, 40, 99)
    np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(features, rowvar=False), rtol=1e-6,
                               atol=1e-8)
    assert found.count == 101


def test_one_item_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2 items, got 1"):
        frechet_distance(statistics(np.zeros((1, 4))), statistics(np.zeros((2, 4))))


def test_features_of_another_number_or_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(N, 4\), got \(2, 5\)"):
        FeatureStatistics(4).add(np.zeros((2, 5)))
    with pytest.raises(ValueError, match="must be finite"):
        FeatureStatistics(1).add(np.array([[np.nan]]))
