"""The Inception Score: how sure a classifier is of each image, and how much its answers vary.

Letters: N images, C classes.
"""
import numpy as np

NUM_SPLITS = 10
"""Parts that published scores are the mean over."""


def inception_score(logits: np.ndarray, num_splits: int = NUM_SPLITS) -> tuple[float, float]:
    """``exp(mean KL(p(y|x) || p(y)))`` of each of several parts of the images.

    Image i falls into part ``i mod num_splits``, so that no part holds neighbours alone.

    Args:
        logits: ``(N, C)`` float; C at least 1.
    Returns:
        Mean and standard deviation (over ``num_splits``) of the parts' scores, each in [1, C].
    Raises:
        ValueError: there are fewer images than parts, or a logit is not finite.

    Source: Salimans et al. 2016, arXiv:1606.03498, section 4.
    """
    if not 1 <= num_splits <= len(logits):
        raise ValueError(f"the Inception Score needs 1 part or more and an image for each, got "
                         f"{num_splits} parts of {len(logits)} images")
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite; some are not a number or infinite")
    scores = [_score(logits[part::num_splits].astype(np.float64)) for part in range(num_splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: np.ndarray) -> float:
    """The score of one part, logits ``(N, C)`` float64."""
    shifted = logits - logits.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    shares = np.exp(logs)
    mean = shares.mean(0)
    # A class that no image can be of has a mean of 0, and takes no part.
    mean_logs = np.log(mean, out=np.zeros_like(mean), where=mean > 0)
    return float(np.exp((shares * (logs - mean_logs)).sum(1).mean()))
