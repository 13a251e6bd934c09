"""What coordinates teach a prior: pictures that are wholes, from crops that show parts of them.

    python benchmarks/coordinates.py CORPUS [--side 0.4] [--minutes 4] [--out FOLDER]

CORPUS is a folder of images that are wider than high, in which what lies above differs from what
lies below, such as streets or landscapes. Small crops of them are encoded, and two priors learn the
same codes for the same minutes with the same recipe and seed: one is told where in its image each
crop lies, the other nothing. As coordinates double the sequence, a third one, told nothing, makes
as many steps as the first. Pictures as high as a whole image and twice as wide are drawn through a
window that slides, with coordinates also with guidance.

    bits        per code of images held out by name: with each crop's own coordinates (matched),
                with those of another crop (shuffled), without any
    likeness    of brightness from top to bottom: correlation over rows of pixels of a picture's
                brightness with that of the images of CORPUS on average; mean over pictures, and
                the lowest

Nothing else should run on the machine meanwhile. A training or job that was stopped goes on when
the same command is repeated.

    OUT/tokenizer/             trained for --tokenizer-minutes, unless --tokenizer names another
    OUT/tokens/                the crops
    OUT/coordinates/, OUT/unconditional/, OUT/same-steps/    the priors
    OUT/drawn/                 what they draw
    OUT/pictures.png           the first pictures of each, a row each, in the order of `DRAWN`
    OUT/results.json
"""
import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from trainings import run, train, train_prior

PRIORS: dict[str, tuple[str, ...]] = {
    "coordinates": ("--condition", "coordinates=0"), "unconditional": (), "same-steps": ()}
"""Options of the training of each; a tenth of the rows leave all conditions out."""

DRAWN: dict[str, tuple[str, tuple[str, ...]]] = {
    "unconditional": ("unconditional", ()),
    "coordinates": ("coordinates", ()),
    "coordinates, guidance 3": ("coordinates", ("--guidance", "3"))}
"""Which prior draws, and further options."""


def find_tokenizer(options: argparse.Namespace) -> str:
    """The folder of a tokenizer; trained if none is named."""
    if options.tokenizer:
        return str(options.tokenizer)
    folder = options.out / "tokenizer"
    train(options.corpus, folder, "small_64", options.held_out,
          ("--minutes", str(options.tokenizer_minutes)), [f"training.crop_share={options.side:g}"])
    return str(folder)


def train_priors(options: argparse.Namespace, tokens: str) -> dict[str, dict[str, Any]]:
    """Train all three; their figures, with the steps that each made."""
    common = ("--recipe", options.recipe, "--held-out", str(options.held_out), "--held-out-by",
              "name", "--seed", str(options.seed), "--cache", str(options.out / "codes"))
    found: dict[str, dict[str, Any]] = {}
    for name, condition in PRIORS.items():
        budget = (("--steps", str(found["coordinates"]["step"])) if name == "same-steps"
                  else ("--minutes", str(options.minutes)))
        figures = train_prior(tokens, options.out / name, budget, options.set,
                              (*condition, *common))
        found[name] = {key: figures[key] for key in ("matched", "shuffled", "without", "step")}
    return found


def whole_size(tokens: str, side: float) -> tuple[int, int]:
    """Height and width in pixels of the pictures that are drawn, whole in cells."""
    from tokenizer.tokens import TokenCorpus
    code = TokenCorpus.open(tokens).spec["image"]
    rows = round(code.grid[0] / side)
    height, width = (pixels // cells for pixels, cells in zip(code.image_size, code.grid,
                                                              strict=True))
    return rows * height, 2 * rows * width


def draw(options: argparse.Namespace, name: str, tokenizer: str,
         size: tuple[int, int]) -> np.ndarray:
    """Pictures ``(N, H, W, 3)`` uint8 of one of `DRAWN`."""
    from PIL import Image
    prior, further = DRAWN[name]
    folder = options.out / "drawn" / name.replace(", ", "-").replace(" ", "-")
    run(["sample", str(options.out / prior), str(folder), "--tokenizer", tokenizer, "--size",
         "{}x{}".format(*size), "--num", str(options.num), "--seed", str(options.seed),
         "--top-p", "0.95", *further])
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("images/*.png"))])


def brightness(pictures: np.ndarray) -> np.ndarray:
    """Mean level of each row of pixels, ``(N, H)`` float64, of ``(N, H, W, 3)``."""
    return pictures.mean((2, 3))


def image_brightness(corpus: str, size: tuple[int, int]) -> np.ndarray:
    """`brightness` of the images of a folder, stretched to this height and width."""
    from tokenizer.corpus.images import Crop, UnreadableImage, decode_image, resize
    from tokenizer.corpus.modalities import RGB
    found = []
    for path in sorted(Path(corpus).rglob("*")):
        if path.suffix.lower() in RGB.suffixes:
            try:
                raw = decode_image(path.read_bytes())
            except UnreadableImage:
                continue  # as encode leaves it out, and says so
            whole = Crop(left=0, top=0, width=raw.shape[1], height=raw.shape[0])
            found.append(brightness(resize(raw, whole, size)[None])[0])
    return np.stack(found)


def likeness(rows: np.ndarray, usual: np.ndarray) -> dict[str, float]:
    """Correlation of `brightness` ``(N, H)`` with a usual one ``(H,)``: mean and lowest of N."""
    rows, usual = rows - rows.mean(1, keepdims=True), usual - usual.mean()
    found = rows @ usual / np.sqrt((rows ** 2).sum(1) * (usual ** 2).sum()).clip(1e-9)
    return {"likeness": float(found.mean()), "lowest": float(found.min())}


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The images of the corpus, the priors and what was drawn, a row each."""
    columns = {"matched": "bits, matched", "shuffled": "shuffled", "without": "without",
               "step": "steps", "likeness": "likeness", "lowest": "lowest"}
    lines = ["| | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in found.items():
        values = (row.get(column) for column in columns)
        cells = ("" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"
                 for value in values)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Train, draw and compare; leaves the pictures."""
    from tokenizer.pictures import save_png, tile
    tokenizer, tokens = find_tokenizer(options), str(options.out / "tokens")
    run(["encode", options.corpus, tokens, "--tokenizer", tokenizer,
         "--crops", f"random:{options.crops}:{options.side:g}", "--flips"])
    figures, size = train_priors(options, tokens), whole_size(tokens, options.side)
    images = image_brightness(options.corpus, size)
    usual = images.mean(0)
    found: dict[str, dict[str, Any]] = {"the images": likeness(images, usual), **figures}
    shown = []
    for name in DRAWN:
        pictures = draw(options, name, tokenizer, size)
        found.setdefault(name, {}).update(likeness(brightness(pictures), usual))
        shown.append(pictures[:options.shown])
    save_png(str(options.out / "pictures.png"), tile(np.concatenate(shown), len(shown[0])))
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="folder of images")
    parser.add_argument("--tokenizer", type=Path, help="folder of a trained one")
    parser.add_argument("--tokenizer-minutes", type=float, default=3.0)
    parser.add_argument("--minutes", type=float, default=4.0,
                        help="of the first two priors")
    parser.add_argument("--crops", type=int, default=40, help="of each image")
    parser.add_argument("--side", type=float, default=0.4,
                        help="of a crop, as a share of the lesser side of its image")
    parser.add_argument("--recipe", default="small", help="of the priors")
    parser.add_argument("--held-out", type=int, default=40, help="images measured")
    parser.add_argument("--num", type=int, default=12, help="pictures that each draws")
    parser.add_argument("--shown", type=int, default=2, help="of them in pictures.png")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", help="a further setting of both priors",
                        default=["training.evaluate_rows=400", "transformer.dropout=0.1"])
    parser.add_argument("--out", type=Path, default=Path("bench-coordinates"))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table, and write what was found."""
    options = parse(arguments)
    found = measure(options)
    (options.out / "results.json").write_text(json.dumps(
        {"options": vars(options), "found": found}, indent=1, default=str) + "\n")
    print(f"{options.corpus}: {options.crops} crops of {options.side:g} of each image, "
          f"{options.recipe}, {options.minutes:g} minutes each\n{table(found)}")


if __name__ == "__main__":
    main()
