"""Which keys are held out of training: the same rule for tokenizers and priors."""
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

RULES = ("hash", "name")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Divides keys into those that train and those that are held out.

    Crops of one image share their key, so they fall on the same side.

    Attributes:
        held_out: a count of keys, or a share of them below 1, which holds out at least one.
        by: ``hash`` takes the keys of smallest SHA-256, so that keys which are added later move few
            others; ``name`` takes the last in order, which keeps frames of one film together.
    """
    held_out: int | float = 0.05
    by: str = "hash"

    def __post_init__(self) -> None:
        if not self.held_out >= 0 or (isinstance(self.held_out, float) and self.held_out >= 1):
            raise ValueError("held_out is a count of keys or a share in [0, 1), "
                             f"got {self.held_out}")
        if self.by not in RULES:
            raise ValueError(f"held_out_by is {' or '.join(RULES)}, got {self.by!r}")

    def divide(self, keys: Iterable[str]) -> tuple[list[str], list[str]]:
        """The distinct keys that train and those that are held out, each sorted.

        Raises:
            ValueError: none would be left to train on.
        """
        distinct = sorted(set(keys))
        count = self.held_out
        if isinstance(count, float):
            count = max(1, round(count * len(distinct))) if count else 0
        if count >= len(distinct):
            raise ValueError(f"held_out={self.held_out} of {len(distinct)} images leaves none to "
                             "train on; hold out fewer, or give more images")
        ordered = sorted(distinct, key=_hash) if self.by == "hash" else distinct[::-1]
        return sorted(ordered[count:]), sorted(ordered[:count])


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
