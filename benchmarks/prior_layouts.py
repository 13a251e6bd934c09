"""Our sequences and blocks beside the published ones, on the same codes for the same minutes.

    python benchmarks/prior_layouts.py [TOKENS] [--condition segmentation] [--minutes 5]

    ours        positions of cells, shared by map and image; RMS norm, SwiGLU, rotary positions,
                normalised queries and keys
    published   positions along the sequence and minGPT's blocks, as in taming-transformers

Both are trained one after the other by ``img2tokens train-prior`` with the same recipe, width,
depth, batches, seed and rows held out; neither leaves a condition out. Each has the learning rate
that was the best for it of ``--rates``, in trainings of ``--search-minutes``. Bits per held-out
code are those of the weights that were saved, with each image's own map (matched) and with that of
another image (shuffled): a prior that is good because it reads its map is bad with another's.

Without TOKENS, the scenes of ``img2tokens demo`` are drawn, and its tokenizers trained on them,
which takes 4 minutes on 2 CPU cores and is done once. Nothing else should run on the machine
meanwhile. A training that was stopped goes on when the same command is repeated.

    OUT/demo/                  the drawn scenes and their tokens
    OUT/DESIGN-RATE-MINUTES/   the trainings
    OUT/results.json, curves.png
"""
import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from trainings import as_options, evaluation, train_prior

DESIGNS: dict[str, tuple[str, ...]] = {
    "ours": (),
    "published": ("sequence=taming", "transformer.blocks=mingpt", "transformer.qk_norm=false",
                  "transformer.rotary=false", "transformer.both_ways=false")}
"""Settings beside the recipe."""

GOAL = 0.4
"""Bits per held-out code that ours is to be lower."""

EVERY = ("training.log_every=20", "training.evaluate_every=100")
"""When seconds are noted, and held-out rows measured."""


@dataclass(frozen=True)
class Contest:
    """What all trainings have in common.

    Attributes:
        tokens: the corpus.
        out: folder of the trainings.
        arguments: of ``img2tokens train-prior``, but design, rate and minutes.
    """
    tokens: str
    out: Path
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Contest":
        """What the options say, with a corpus of its own where they name none."""
        arguments = ["--condition", f"{options.condition}=0", "--drop-all", "0",
                     "--recipe", options.recipe, "--held-out", options.held_out,
                     "--seed", str(options.seed), "--cache", str(options.out / "codes")]
        settings = as_options((*EVERY, *options.set))
        return cls(options.tokens or demo_tokens(options.out / "demo"), options.out,
                   (*arguments, *settings))

    def train(self, design: str, rate: float, minutes: float) -> Path:
        """Train one of `DESIGNS`; its folder."""
        folder = self.out / f"{design}-{rate:g}-{minutes:g}min"
        settings = (*DESIGNS[design], f"training.optimizer.learning_rate={rate:g}")
        train_prior(self.tokens, folder, ("--minutes", str(minutes)), settings, self.arguments)
        return folder


def demo_tokens(folder: Path) -> str:
    """The token corpus of the demo; made only where it does not lie in the folder already."""
    from cli.demo.story import DemoSettings, make_tokens
    return str(make_tokens(folder, DemoSettings(), print))


def best_rate(contest: Contest, design: str, rates: Sequence[float],
              minutes: float) -> dict[str, float]:
    """Bits per held-out code after a short training at each rate, by rate, the lowest first.

    Of a single rate nothing is trained.
    """
    if len(rates) == 1:
        return {f"{rates[0]:g}": float("nan")}
    found = {f"{rate:g}": evaluation(contest.train(design, rate, minutes))["matched"]
             for rate in rates}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def course(folder: Path) -> list[dict[str, float]]:
    """Each measurement of a training: seconds since its start, bits matched and shuffled."""
    from tokenizer.training.journal import read_metrics
    lines = read_metrics(str(folder))
    seconds = {line["step"]: line["train/seconds"] for line in lines if "train/seconds" in line}
    return [{"seconds": round(seconds[line["step"]], 1), "step": line["step"],
             "matched": line["held_out/matched"], "shuffled": line["held_out/shuffled"]}
            for line in lines if "held_out/matched" in line]


def measure(contest: Contest, design: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train one design, and all that is to be said of it."""
    from prior.model import Prior
    searched = best_rate(contest, design, options.rates, options.search_minutes)
    rate = next(iter(searched))
    folder = contest.train(design, float(rate), options.minutes)
    figures, points = evaluation(folder), course(folder)
    size = sum(parameter.numel() for parameter in Prior.load(str(folder)).model.parameters())
    return {"settings": list(DESIGNS[design]), "learning_rate": float(rate),
            "searched": searched if len(searched) > 1 else {}, "parameters": size,
            "steps": points[-1]["step"], "matched": figures["matched"],
            "shuffled": figures["shuffled"], "gap": figures["shuffled"] - figures["matched"],
            "course": points}


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The designs, a row each."""
    rows = ["| design | bits, matched | bits, shuffled | gap | steps | parameters | rate |",
            "|---|---|---|---|---|---|---|"]
    rows += [f"| {name} | {row['matched']:.3f} | {row['shuffled']:.3f} | {row['gap']:.3f} | "
             f"{row['steps']} | {row['parameters'] / 1e6:.3f} M | {row['learning_rate']:g} |"
             for name, row in found.items()]
    return "\n".join(rows)


def draw(found: Mapping[str, Mapping[str, Any]]) -> np.ndarray:
    """Bits over seconds, matched above, shuffled below: a picture ``(H, W, 3)`` uint8."""
    from clip_guidance.curves import panel
    times = {name: [point["seconds"] for point in row["course"]] for name, row in found.items()}
    first, last = (choose(choose(line) for line in times.values()) for choose in (min, max))
    seconds = np.linspace(first, last, 200).round(1).tolist()
    panels = []
    for kind in ("matched", "shuffled"):
        lines = {name: np.interp(seconds, times[name], [point[kind] for point in row["course"]])
                 for name, row in found.items()}
        panels.append(panel(f"bits per held-out code, maps {kind}: ", seconds, lines, "second"))
    return np.concatenate(panels)


def report(found: Mapping[str, Mapping[str, Any]], contest: Contest, minutes: float) -> str:
    """What people read."""
    lines = [f"{contest.tokens}, {minutes:g} minutes each; all: train-prior "
             f"{' '.join(contest.arguments)}"]
    for name, row in found.items():
        searched = ", ".join(f"{rate}: {bits:.3f}" for rate, bits in row["searched"].items())
        lines.append(f"{name}: {' '.join(row['settings']) or 'as the recipe says'}"
                     + (f"; bits by rate after the short trainings {searched}" if searched else ""))
    lower = found["published"]["matched"] - found["ours"]["matched"]
    return "\n".join([*lines, "", table(found), "",
                      f"ours: {abs(lower):.3f} bits per held-out code "
                      f"{'lower' if lower >= 0 else 'higher'} (goal: {GOAL:g} lower)"])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", nargs="?", help="folder of a token corpus")
    parser.add_argument("--condition", default="segmentation", help="a modality of it")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--search-minutes", type=float, default=1.0)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3],
                        help="learning rates; of one nothing is searched")
    parser.add_argument("--recipe", default="small")
    parser.add_argument("--held-out", default="0.1", help="images measured: a count or a share")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=["training.evaluate_rows=200"],
                        help="a further setting of both")
    parser.add_argument("--out", type=Path, default=Path("bench-prior"))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both, print a table, and write what was found."""
    from tokenizer.pictures import save_png
    options = parse(arguments)
    contest = Contest.of(options)
    found = {design: measure(contest, design, options) for design in DESIGNS}
    (options.out / "results.json").write_text(json.dumps(
        {"tokens": contest.tokens, "minutes": options.minutes,
         "arguments": list(contest.arguments), "designs": found}, indent=1) + "\n")
    save_png(str(options.out / "curves.png"), draw(found))
    print(report(found, contest, options.minutes))


if __name__ == "__main__":
    main()
