"""The report of an evaluation: a table, ``evaluation.json`` and ``evaluation.png``."""
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from prior.generate import Generation
from prior.guidance import Guidance
from prior.sampling import SamplingConfig, describe_generation
from tokenizer import configs, storage
from tokenizer.evaluation.figures import Figure, table_lines
from tokenizer.pictures import save_png

FORMAT, FORMAT_VERSION = "img2tokens.prior_evaluation", 1
RESULTS, PICTURE = "evaluation.json", "evaluation.png"
TOLD = ("conditions", "seed", "hole", "num_kept")
"""What `drawing_words` tells in words of its own."""


@dataclass(frozen=True, kw_only=True)
class PriorReport:
    """What an evaluation found.

    Attributes:
        prior: where it lies, its fingerprint, and the filter of its training if there was one.
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
        row_filter = self.prior.get("filter")
        trained = f", trained on rows for which {row_filter}" if row_filter else ""
        lines = [f"prior    {self.prior['path']}: {self.prior['fingerprint'][:19]}{trained}",
                 f"rows     {corpus['num_rows']} of {corpus['path']} ({corpus['selection']}), "
                 f"{corpus['reference'][:19]}",
                 f"samples  {samples['num_images']} in {samples['path']}, "
                 f"{samples['samples_hash'][:19]}",
                 f"drawn    {drawing_words(samples['drawing'])}", ""]
        return "\n".join([*lines, *table_lines(self.figures, self.left_out)])

    def save(self, out: str, picture: np.ndarray) -> None:
        """Write `RESULTS` and `PICTURE`, ``(height, width, 3)`` uint8, into a folder."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        save_png(storage.join(out, PICTURE), picture)
        storage.write_bytes(storage.join(out, RESULTS), f"{text}\n".encode())


def drawing_words(drawing: Mapping[str, Any]) -> str:
    """How samples were drawn, on one line: what they were given, and settings beside the defaults.

    Args:
        drawing: of `prior.report.rows.Samples`.
    """
    if not drawing:
        return "as is not known"
    given, hole = drawing.get("conditions"), drawing.get("hole")
    named = " and ".join(map(str, given)) if isinstance(given, list) else ""
    words = [f"given {named or 'nothing'}", f"seed {drawing.get('seed')}"]
    if isinstance(hole, list):
        words.append(f"a hole of {len(hole)} cells")
    elif drawing.get("num_kept"):
        words.append(f"first {drawing['num_kept']} codes kept")
    usual = {**configs.to_dict(SamplingConfig()), "generation": describe_generation(Generation())}
    defaults = configs.flatten(usual) | configs.flatten(
        {"generation": {"guidance": configs.to_dict(Guidance())}})
    settings = configs.flatten({name: drawing[name] for name in drawing if name not in TOLD})
    return ", ".join([*words, *(f"{_setting(path)} {_short(value)}"
                                for path, value in settings.items()
                                if value != defaults.get(path))])


def _setting(path: str) -> str:
    """A dotted path of settings in words: ``generation.sampler.top_k`` is top-k."""
    name = path.removeprefix("generation.").replace("sampler.name", "sampler")
    return name.removeprefix("sampler.").replace("_", "-").replace(".", " ")


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
