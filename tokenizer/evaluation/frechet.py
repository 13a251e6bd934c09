"""The Frechet distance between two sets of features, each taken for a Gaussian.

Letters: N items, D features of an item.
"""
import numpy as np


class FeatureStatistics:
    """Mean and covariance of features that come in batches, in float64.

    Batches are merged about their own means, so a large common offset costs no digits.

    Source: Chan, Golub and LeVeque 1983, doi:10.1080/00031305.1983.10483115.

    Args:
        num_features: D.
    """

    def __init__(self, num_features: int) -> None:
        self.count = 0
        self.mean = np.zeros(num_features)
        self._scatter = np.zeros((num_features, num_features))

    def add(self, features: np.ndarray) -> None:
        """Count in the features ``(N, D)`` of some more items.

        Raises:
            ValueError: they are of another number, or not finite.
        """
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise ValueError(f"features must be of shape (N, {len(self.mean)}), "
                             f"got {features.shape}")
        if not np.isfinite(features).all():
            raise ValueError("features must be finite; some are not a number or infinite")
        if not len(features):
            return
        batch = features.astype(np.float64)
        mean = batch.mean(0)
        centred, shift = batch - mean, mean - self.mean
        total = self.count + len(batch)
        self._scatter += centred.T @ centred
        self._scatter += np.outer(shift, shift) * (self.count * len(batch) / total)
        self.mean = self.mean + shift * (len(batch) / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """``(D, D)`` float64, divided by N - 1.

        Raises:
            ValueError: there are fewer than two items.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 items, got {self.count}")
        return self._scatter / (self.count - 1)


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """Squared Frechet distance, ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))``.

    The trace of the root is the sum of roots of the eigenvalues of ``R^T S2 R``, where
    ``R R^T = S1`` and R has as many columns as S1 has directions. The product is symmetric, so that
    no complex numbers arise, even where the covariances are singular.

    Raises:
        ValueError: one of them has fewer than two items.

    Source: Dowson and Landau 1982, doi:10.1016/0047-259X(82)90077-X; as FID in Heusel et al. 2017,
    arXiv:1706.08500, equation 6.
    """
    cov1, cov2 = first.covariance, second.covariance
    values, vectors = np.linalg.eigh(cov1)
    real = values > np.finfo(np.float64).eps * max(values[-1], 0.0)
    root = vectors[:, real] * np.sqrt(values[real])
    middle = root.T @ cov2 @ root
    roots = np.sqrt(np.linalg.eigvalsh((middle + middle.T) / 2).clip(min=0)).sum()
    shift = np.square(first.mean - second.mean).sum()
    distance = shift + np.trace(cov1) + np.trace(cov2) - 2 * roots
    return max(0.0, float(distance))
