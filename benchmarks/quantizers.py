"""Every kind of quantizer in the same small network, trained for the same time on the same images.

    python benchmarks/quantizers.py CORPUS [--minutes 4] [--held-out 40] [--out FOLDER]

Each is the recipe ``small_128`` with another quantizer of about 1024 codes, trained one after the
other by ``img2tokens train-tokenizer`` and measured on images held out by name. Nothing else should
run on the machine meanwhile. A training that was stopped goes on when the same command is repeated.
"""
import argparse
from pathlib import Path

from trainings import train

KINDS: dict[str, list[str]] = {
    "classic": [],
    "ema": [],
    "cosine": [],
    "fsq": ["model.quantizer.levels=8,8,4,4", "model.quantizer.code_dim=4"],
    "lfq": ["model.quantizer.code_dim=10"],
    "ibq": ["model.quantizer.code_dim=32"]}
"""Settings beside the kind: the channels that make 1024 codes, or that the kind is made for."""


def main() -> None:
    """Train all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("bench-quantizers"))
    parser.add_argument("--precision", default="auto", help="no, bf16, fp16 or auto")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--set", action="append", default=[], help="a further setting for all")
    options = parser.parse_args()
    rows = []
    for kind in options.kinds:
        settings = [f"model.quantizer.kind={kind}", *KINDS[kind],
                    f"training.mixed_precision={options.precision}", *options.set]
        figures = train(options.corpus, options.out / kind, "small_128", options.held_out,
                        ("--minutes", str(options.minutes)), settings)
        rows.append(f"| {kind} | {figures['psnr']:.2f} | {figures['codes_used']:.1%} | "
                    f"{figures['perplexity']:.0f} | {figures['training']['steps']} |")
    print(f"small_128, {options.minutes:g} minutes each, "
          f"{options.held_out} images held out by name")
    print("| quantizer | PSNR, dB | codes used | perplexity | steps |\n|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
