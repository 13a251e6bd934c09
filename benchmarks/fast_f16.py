"""The recipe ``fast_f16`` beside the published f16 shape: the same codes, a tenth of the work.

    python benchmarks/fast_f16.py CORPUS [--size 64] [--images 1200] [--out FOLDER]

Both have 16 x 16 pixels a code and the same codebook, and train with the same settings, smaller
than those for GPUs. Three trainings, one after the other, measured on images held out by name:

    reference             on so many images
    fast, same images     on as many
    fast, same minutes    for as long as the reference took

Nothing else should run on the machine meanwhile.
"""
import argparse
from pathlib import Path

from trainings import train

BATCH_SIZE = 8
SETTINGS = ("training.optimizer.learning_rate=1e-3", "training.optimizer.warmup_steps=20",
            "training.optimizer.final_share=0.02", f"training.batch_size={BATCH_SIZE}",
            "training.ema_decay=0.98", "training.adversarial.weight=0",
            "training.mixed_precision=auto", "model.quantizer.revive_after=20",
            "model.quantizer.codebook_size=1024", "training.evaluate_every=100000")


def main() -> None:
    """Train all three, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--images", type=int, default=1200, help="training images, with repeats")
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("bench-fast-f16"))
    options = parser.parse_args()
    settings = [*SETTINGS, f"model.image_size={options.size},{options.size}"]
    steps = ("--steps", str(-(-options.images // BATCH_SIZE)))
    reference = train(options.corpus, options.out / "reference", "f16_16384_cosine",
                      options.held_out, steps, settings)
    minutes = ("--minutes", str(reference["training"]["minutes"]))
    rows = {"reference": reference}
    for name, budget in {"fast, same images": steps, "fast, same minutes": minutes}.items():
        rows[name] = train(options.corpus, options.out / name.replace(", ", "-").replace(" ", "-"),
                           "fast_f16", options.held_out, budget, settings)
    print(f"{options.size} px, batches of {BATCH_SIZE}, {options.held_out} images held out by name")
    print("| training | PSNR, dB | codes used | images | minutes |\n|---|---|---|---|---|")
    for name, figures in rows.items():
        training = figures["training"]
        print(f"| {name} | {figures['psnr']:.2f} | {figures['codes_used']:.1%} | "
              f"{training['steps'] * BATCH_SIZE} | {training['minutes']:.1f} |")


if __name__ == "__main__":
    main()
