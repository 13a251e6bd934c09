"""A tiny CLIP of the drawn scenes and their captions, to try ``guide`` without a download.

    python -m cli.demo.clip demo-out/scenes demo-out/tokenizers/image CLIP
    img2tokens guide "a lake at noon, with three firs" lake \
        --tokenizer demo-out/tokenizers/image --clip CLIP

It has 0.6 million parameters, sees 32 x 32 pixels and knows the words of the captions alone: enough
to tell scenes apart, and far from what a CLIP trained on photographs knows. What it is taught
beyond that is to guide: see `cli.demo.versions`, `cli.demo.dreams` and `_Teacher._push`.

Letters: N pictures of a batch, each seen twice, and n dreams; U distinct captions; E numbers of an
embedding; S side of its images in pixels.
"""
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from cli.demo.dreams import Dreams
from cli.demo.render import Array
from cli.demo.versions import NUM_CLEAN, NUM_VERSIONS, Captioned, read_scenes
from cli.options import reports_errors

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPModel, CLIPTokenizerFast

    from clip_guidance.clip import Clip
    from tokenizer.vqgan.model import VQGAN

SIDE, LONGEST = 32, 48
"""Pixels along a side of its images, and tokens of a caption at most."""
LAYERS = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3,
          "num_attention_heads": 4}
WARM_UP, GREATEST_SCALE = 30, 50.0
"""Steps to the full learning rate; greatest factor of the cosines in the losses."""
RETRIEVAL = "retrieval.json"
"""What was found, beside the weights."""
LEVEL = 0.5
"""Mean and deviation of the colours, for its preprocessor config."""
CUTOUTS = {"min_size": 0.75, "flip": 0, "degrees": 5, "shift": 0.05, "perspective": 0.05,
           "jitter": 0.03, "erase": 0.1, "noise": 0.1}
"""How cutouts are changed while it learns, and while it guides."""


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """How a tiny CLIP is trained.

    Attributes:
        num_steps: of the optimiser.
        batch_size: N, pictures a step.
        dreams: n, of them a step.
        learning_rate: at its greatest.
        push: how far pixels are pushed to mislead it, at most: length of the change of a view, of
            which white is 1 in every channel of every pixel.
        seed: of weights and of everything drawn.
    """
    num_steps: int = 500
    batch_size: int = 32
    dreams: int = 8
    learning_rate: float = 1e-3
    push: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "dreams"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How often, of ``num`` held-out pictures, the caption that fits best is the picture's own.

    Captions repeat; the same words at another picture count as its own. ``chance`` is the share
    that guesses among the held-out captions would have.
    """
    num: int
    share: float
    chance: float

    @classmethod
    def of(cls, found: Sequence[str], captions: Sequence[str]) -> "Retrieval":
        """The captions found for pictures, held against their own."""
        num = len(captions)
        num_right = sum(best == own for best, own in zip(found, captions, strict=True))
        chance = sum(captions.count(own) for own in captions) / num ** 2
        return cls(num=num, share=num_right / num, chance=chance)


def train_clip(out: Path, trained: Captioned, held: Captioned, guided: "VQGAN",
               settings: ClipSettings,
               say: Callable[[str], object] = lambda line: None) -> Retrieval:
    """Train a CLIP and save it as ``transformers`` does.

    Args:
        guided: the tokenizer that it is to guide.
    Returns:
        Retrieval among the held-out pictures, as they were drawn.
    """
    import torch
    from transformers.utils import logging
    logging.disable_progress_bar()  # of one file that is written at once
    captions = sorted({*trained.captions, *held.captions})
    tokenizer = build_tokenizer(captions)
    torch.manual_seed(settings.seed)
    model = _build_model(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    teacher = _Teacher(model, tokenizer, trained, guided, settings)
    for step in range(1, settings.num_steps + 1):
        loss = teacher.teach(step)
        if step % 50 == 0:
            say(f"step {step} of {settings.num_steps}: loss {loss:.3f}")
    model.eval().save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "preprocessor_config.json").write_text(json.dumps(
        {"image_mean": [LEVEL] * 3, "image_std": [LEVEL] * 3, "size": SIDE}) + "\n")
    found = measure_retrieval(out, held)
    (out / RETRIEVAL).write_text(json.dumps(asdict(found)) + "\n")
    return found


def measure_retrieval(clip: Path, held: Captioned) -> Retrieval:
    """Retrieval of the CLIP in a folder among pictures as they were drawn."""
    from clip_guidance.clip import Clip
    judge = Clip.load(str(clip))
    captions = sorted(set(held.captions))
    found = compare(judge, held.versions[:, 0], captions).argmax(1)
    return Retrieval.of([captions[best] for best in found], held.captions)


def compare(judge: "Clip", images: Array, captions: Sequence[str]) -> Array:
    """Cosines ``(N, U)`` of whole images ``(N, H, W, 3)`` uint8 to captions."""
    import torch
    from torch.nn.functional import interpolate

    from clip_guidance.prompts import similarities
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    views = interpolate(pixels, (judge.side, judge.side), mode="bilinear", antialias=True)
    with torch.no_grad():
        found = similarities(judge.embed_images(views), judge.embed_texts(captions))
    return found.numpy()


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


class _Teacher:
    """Teaches a CLIP, step by step, which pictures belong to which captions."""

    def __init__(self, model: "CLIPModel", tokenizer: "CLIPTokenizerFast", trained: Captioned,
                 guided: "VQGAN", settings: ClipSettings) -> None:
        import torch

        from clip_guidance.cutouts import CutoutConfig
        self.model, self.settings = model.train(), settings
        self.versions = trained.versions
        captions = sorted(set(trained.captions))
        self.numbers = np.array([captions.index(caption) for caption in trained.captions])
        self.tokens = tokenizer(captions, padding=True, return_tensors="pt")
        self.changes = CutoutConfig(num=1, **CUTOUTS)
        self.rng = np.random.default_rng(settings.seed)
        self.dreams = Dreams(guided, len(captions), self.rng)
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate,
                                           weight_decay=0.05)

    def teach(self, step: int) -> float:
        """One step on drawn pictures, the 1st being step 1; its loss."""
        import torch
        settings = self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * min(1, step / WARM_UP) * (
                1.05 - step / settings.num_steps)
        num = min(settings.batch_size, len(self.numbers))
        chosen = self.rng.choice(len(self.numbers), num, replace=False)
        captions, numbers = np.unique(self.numbers[chosen], return_inverse=True)
        own = torch.from_numpy(numbers)
        texts = self._embed_texts(captions)
        views = self._push(self._views(chosen, draw_versions(num, self.rng)), texts.detach()[own])
        chosen = self.rng.choice(len(captions), min(settings.dreams, len(captions)), replace=False)
        dreamt = self._dream(captions[chosen], texts.detach()[chosen])
        scale = self.model.logit_scale.exp().clamp(max=GREATEST_SCALE)
        cosines = self._embed_images(torch.cat([views, dreamt])) @ texts.T
        loss = guiding_loss(scale * cosines, own, torch.from_numpy(chosen))
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())

    def _views(self, chosen: Array, versions: Array) -> "Tensor":
        """Cutouts ``(2 N, 3, S, S)``, such as guidance makes: the better versions, then the others.

        Args:
            versions: numbers of two versions of each picture, ``(2, N)``.
        """
        import torch
        pictures = self.versions[np.tile(chosen, 2), versions.reshape(-1)]
        return self._cut(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255)

    def _dream(self, numbers: Array, texts: "Tensor") -> "Tensor":
        """Cutouts ``(n, 3, S, S)`` of the dreams of some captions, which move on.

        Args:
            texts: embeddings ``(n, E)`` of the captions.
        """
        def judge(images: "Tensor") -> "Tensor":
            return (self._embed_images(self._cut(images)) * texts).sum(1)

        return self._cut(self.dreams.move(numbers, judge))

    def _cut(self, images: "Tensor") -> "Tensor":
        """One cutout of each image, ``(..., 3, S, S)`` of ``(..., 3, H, W)``."""
        import torch

        from clip_guidance.cutouts import cut, draw_cutout
        size = (images.shape[2], images.shape[3])
        return torch.stack([cut(image, draw_cutout(self.changes, size, self.rng), SIDE)
                            for image in images])

    def _push(self, views: "Tensor", texts: "Tensor") -> "Tensor":
        """Views changed a little to mislead: the better versions away from their texts, the others
        towards them. A CLIP that learns from these moves shapes rather than patterns when it
        guides.

        Args:
            views: ``(2 N, 3, S, S)``.
            texts: embeddings ``(N, E)`` of the own captions.

        Source: adversarial training with one step in L2 (Miyato et al. 2015, arXiv:1507.00677);
        images made by models trained so, Santurkar et al. 2019, arXiv:1906.09453.
        """
        import torch
        leaf = views.requires_grad_()
        own = (self._embed_images(leaf) * texts.repeat(2, 1)).sum()
        gradient, = torch.autograd.grad(own, leaf)
        lengths = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)
        sizes = self.settings.push * torch.from_numpy(self.rng.random(len(views))).float()
        sizes[:len(texts)] *= -1
        return (leaf + (sizes / lengths)[:, None, None, None] * gradient).detach()

    def _embed_texts(self, numbers: Array) -> "Tensor":
        """Unit embeddings ``(U, E)`` of captions."""
        from torch.nn.functional import normalize
        tokens = {name: values[numbers] for name, values in self.tokens.items()}
        pooled = self.model.text_model(**tokens).pooler_output
        return normalize(self.model.text_projection(pooled), dim=-1)

    def _embed_images(self, views: "Tensor") -> "Tensor":
        """Unit embeddings ``(2 N, E)`` of views."""
        from torch.nn.functional import normalize
        pooled = self.model.vision_model(pixel_values=(views - LEVEL) / LEVEL).pooler_output
        return normalize(self.model.visual_projection(pooled), dim=-1)


def draw_versions(num: int, rng: np.random.Generator) -> Array:
    """Numbers of two versions ``(2, num)`` of each picture, the second more spoiled than the first;
    the first is clean more than half of the time.
    """
    second = rng.integers(NUM_CLEAN, NUM_VERSIONS, num)
    first = np.where(rng.random(num) < 0.5, rng.integers(NUM_CLEAN, size=num),
                     rng.integers(second))
    return np.stack([first, second])


def guiding_loss(cosines: "Tensor", own: "Tensor", dreamt: "Tensor") -> "Tensor":
    """What a CLIP that guides has to get right.

    Views find their captions, the better ones above all; captions find the better views of their
    pictures among all; of two versions of a picture the better one is closer to its caption, and
    pictures are closer than dreams.

    Args:
        cosines: scaled, ``(2 N + n, U)``, of better versions, of the others and of dreams to the
            captions.
        own: ``(N,)`` int64, number of each picture's caption; each caption is some picture's.
        dreamt: ``(n,)`` int64, likewise of each dream.
    """
    import torch
    from torch.nn.functional import cross_entropy, softplus
    num = len(own)
    better, others, dreams = cosines.split([num, num, len(dreamt)])
    to_texts = ((2 * cross_entropy(better, own) + cross_entropy(others, own)) / 3
                + cross_entropy(dreams, dreamt) / 2)
    belongs = own[:, None] == torch.arange(cosines.shape[1])
    to_images = (cosines.logsumexp(0)
                 - better.masked_fill(~belongs, -torch.inf).logsumexp(0)).mean()
    gains = (better - others).gather(1, own[:, None])
    means = (better * belongs).sum(0) / belongs.sum(0)
    leads = means[dreamt] - dreams.gather(1, dreamt[:, None])[:, 0]
    return to_texts + to_images + softplus(1 - gains).mean() + softplus(1 - leads).mean()


@click.command()
@click.argument("scenes", type=click.Path(path_type=Path))
@click.argument("tokenizer")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--held-out", type=click.IntRange(min=1), default=100, show_default=True,
              help="Scenes held out of training; so many must be held out of the tokenizer's, too.")
@click.option("--most", type=click.IntRange(min=1), default=1000, show_default=True,
              help="Scenes that train, at most.")
@click.option("--steps", type=click.IntRange(min=1), default=ClipSettings.num_steps,
              show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@reports_errors
def main(scenes: Path, tokenizer: str, out: Path, held_out: int, most: int, steps: int,
         seed: int) -> None:
    """Train a tiny CLIP on the drawn SCENES and their captions, to guide TOKENIZER; save it in OUT.
    """
    from clip_guidance.job import Tokenizer
    guided = Tokenizer.load(tokenizer)
    trained, held = read_scenes(scenes, guided.codec, held_out, most)
    found = train_clip(out, trained, held, guided.model,
                       ClipSettings(num_steps=steps, seed=seed), click.echo)
    click.echo(f"{out}: of {found.num} held-out scenes {found.share:.0%} find their caption "
               f"(chance {found.chance:.0%})")


if __name__ == "__main__":
    main()
