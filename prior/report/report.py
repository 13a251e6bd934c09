"""The report of an evaluation: a table, ``evaluation.json`` and ``evaluation.png``."""
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenizer import configs, storage
from tokenizer.evaluation.figures import Figure, table_lines
from tokenizer.pictures import save_png

FORMAT, FORMAT_VERSION = "img2tokens.prior_evaluation", 1
RESULTS, PICTURE = "evaluation.json", "evaluation.png"


@dataclass(frozen=True, kw_only=True)
class PriorReport:
    """What an evaluation found.

    Attributes:
        prior: where it lies, and its fingerprint.
        corpus: which rows were measured, as JSON values; ``samples`` likewise.
        figures: every figure by name; ``left_out`` the reasons why others are missing.
        neighbours: how near samples come to rows of training, as JSON values; nothing where these
            are not known.
    """
    prior: dict[str, str]
    corpus: dict[str, Any]
    samples: dict[str, Any]
    figures: dict[str, Figure]
    left_out: dict[str, str]
    neighbours: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; equal evaluations, equal values."""
        figures = {name: configs.to_dict(figure) for name, figure in self.figures.items()}
        return {"format": FORMAT, "format_version": FORMAT_VERSION, "prior": self.prior,
                "corpus": self.corpus, "samples": self.samples, "figures": figures,
                "left_out": self.left_out, "neighbours": self.neighbours}

    def table(self) -> str:
        """The figures for people, with what they hang on."""
        corpus, samples = self.corpus, self.samples
        drawing = samples["drawing"]
        lines = [f"prior    {self.prior['path']}: {self.prior['fingerprint'][:19]}",
                 f"rows     {corpus['num_rows']} of {corpus['path']} ({corpus['selection']}), "
                 f"{corpus['reference'][:19]}",
                 f"samples  {samples['num_images']} in {samples['path']}, "
                 f"{samples['samples_hash'][:19]}",
                 f"drawn    {json.dumps(drawing) if drawing else 'as is not known'}", ""]
        return "\n".join([*lines, *table_lines(self.figures, self.left_out)])

    def save(self, out: str, picture: np.ndarray) -> None:
        """Write `RESULTS` and `PICTURE`, ``(height, width, 3)`` uint8, into a folder."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        save_png(storage.join(out, PICTURE), picture)
        storage.write_bytes(storage.join(out, RESULTS), f"{text}\n".encode())
