"""A tiny CLIP of the drawn scenes and their captions, to try ``guide`` without a download.

    python -m cli.demo.clip OUT            about a minute on one core
    img2tokens guide "a lake at noon, with three firs" lake --tokenizer TOK --clip OUT

It has 0.6 million parameters, sees 32 x 32 pixels and knows the words of the captions alone: enough
to tell scenes apart, and far from what a CLIP trained on photographs knows.
"""
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from cli.demo.scenes import draw

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPModel, CLIPTokenizerFast

SIDE, LONGEST = 32, 48
"""Pixels along a side of its images, and tokens of a caption at most."""
LAYERS = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3,
          "num_attention_heads": 4}
BATCH_SIZE, LEARNING_RATE, WARM_UP = 96, 1e-3, 30
LEVEL = 0.5
"""Mean and deviation of the colours, for its preprocessor config."""


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How often, of ``num`` held-out pictures, the caption that fits best is the picture's own.

    Captions repeat; the same words at another picture count as its own. ``chance`` is the share
    that guesses among the held-out captions would have.
    """
    num: int
    share: float
    chance: float


def train_clip(out: Path, num_scenes: int = 1000, num_steps: int = 320, seed: int = 0,
               say: Callable[[str], object] = lambda line: None) -> Retrieval:
    """Draw scenes, train on nine tenths of them, and save the CLIP as ``transformers`` does.

    Returns:
        Retrieval among the other tenth, which are the first ones.
    """
    import torch
    drawings = [draw(index, seed) for index in range(num_scenes)]
    captions = [drawing.caption for drawing in drawings]
    images = torch.from_numpy(np.stack([drawing.image for drawing in drawings]))
    images = images.permute(0, 3, 1, 2).float() / 255
    num_held = max(1, num_scenes // 10)
    tokenizer = build_tokenizer(captions)
    torch.manual_seed(seed)
    model = _build_model(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    tokens = tokenizer(captions, padding=True, return_tensors="pt")
    _train(model, images[num_held:], {name: values[num_held:] for name, values in tokens.items()},
           num_steps, seed, say)
    found = _retrieve(model, images[:num_held],
                      {name: values[:num_held] for name, values in tokens.items()})
    held = captions[:num_held]
    num_right = sum(held[best] == caption for best, caption in zip(found, held, strict=True))
    chance = sum(held.count(caption) for caption in held) / num_held ** 2
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "preprocessor_config.json").write_text(json.dumps(
        {"image_mean": [LEVEL] * 3, "image_std": [LEVEL] * 3, "size": SIDE}) + "\n")
    return Retrieval(num=num_held, share=num_right / num_held, chance=chance)


def build_tokenizer(captions: Sequence[str]) -> "CLIPTokenizerFast":
    """A tokenizer that joins the letters of each word of the captions, and spells all others."""
    from transformers import CLIPTokenizerFast
    letters = [chr(number) for number in range(33, 127)]
    vocab = {text: number for number, text in
             enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    merges: dict[tuple[str, str], None] = {}
    for word in sorted({word for caption in captions for word in caption.lower().split()}):
        beginning, *rest = [*word[:-1], f"{word[-1]}</w>"]
        for letter in rest:
            merges[beginning, letter] = None
            beginning += letter
            vocab.setdefault(beginning, len(vocab))
    for text in ("<|startoftext|>", "<|endoftext|>"):
        vocab[text] = len(vocab)
    return CLIPTokenizerFast(vocab=vocab, merges=list(merges))


def _build_model(num_words: int, start: int, end: int) -> "CLIPModel":
    from transformers import CLIPConfig, CLIPModel
    texts = {**LAYERS, "vocab_size": num_words, "max_position_embeddings": LONGEST,
             "bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    return CLIPModel(CLIPConfig(text_config=texts, projection_dim=64,
                                vision_config={**LAYERS, "image_size": SIDE, "patch_size": 8}))


def _train(model: "CLIPModel", images: "Tensor", tokens: "dict[str, Tensor]", num_steps: int,
           seed: int, say: Callable[[str], object]) -> None:
    """Teach which picture belongs to which caption, on cutouts such as guidance makes."""
    import torch

    from clip_guidance.cutouts import CutoutConfig, cut, draw_cutout
    changes = CutoutConfig(num=1, min_size=0.75, degrees=5, shift=0.05, perspective=0.05,
                           jitter=0.02)
    size, rng = (images.shape[2], images.shape[3]), np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    model.train()
    for step in range(1, num_steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1, step / WARM_UP) * (1.05 - step / num_steps)
        chosen = rng.choice(len(images), min(BATCH_SIZE, len(images)), replace=False)
        views = torch.stack([cut(images[index], draw_cutout(changes, size, rng), SIDE)
                             for index in chosen])
        loss = model(pixel_values=(views - LEVEL) / LEVEL, return_loss=True,
                     **{name: values[chosen] for name, values in tokens.items()}).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 40 == 0:
            say(f"step {step} of {num_steps}: loss {loss.item():.3f}")
    model.eval()


def _retrieve(model: "CLIPModel", images: "Tensor", tokens: "dict[str, Tensor]") -> list[int]:
    """The caption that fits each picture best."""
    import torch
    from torch.nn.functional import interpolate
    views = interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)
    with torch.no_grad():
        outputs: Any = model(pixel_values=(views - LEVEL) / LEVEL, **tokens)
    best: list[int] = outputs.logits_per_image.argmax(1).tolist()
    return best


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--num-scenes", type=click.IntRange(min=20), default=1000, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=320, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def main(out: Path, num_scenes: int, steps: int, seed: int) -> None:
    """Train a tiny CLIP on drawn scenes and their captions, and save it in OUT."""
    found = train_clip(out, num_scenes, steps, seed, click.echo)
    click.echo(f"{out}: of {found.num} held-out scenes {found.share:.0%} find their caption "
               f"(chance {found.chance:.0%})")


if __name__ == "__main__":
    main()
