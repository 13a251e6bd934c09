"""What the page shows, gathered from the files of a finished demo.

Only files are read that any user of the commands has: the corpus, checkpoints with their metrics,
token corpora, decoded pictures. Nothing is measured here but the mIoU of maps read by colour.

Letters: N pictures, H and W their sides, h and w rows and columns of the code grid, D codes a cell,
n samples for each map.
"""
import json
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from markupsafe import Markup
from PIL import Image

from cli.demo.charts import Series, line_chart
from cli.demo.page import (
    Bar,
    Page,
    Picture,
    PriorCard,
    Row,
    Stage,
    TokenizerCard,
    duration,
    picture,
)
from cli.demo.reading import Array, ColourTable, mean_iou
from cli.demo.scenes import CAPTIONS, FOLDERS, KINDS, LABEL_COLOURS, LABELS, read_captions
from tokenizer.corpus.images import centre_crop
from tokenizer.corpus.modalities import Modality, modality_from_dict
from tokenizer.pictures import colour_codes
from tokenizer.schema import GEOMETRY, CodeSpec, codes_array
from tokenizer.splits import Split
from tokenizer.tokens import TokenCorpus
from tokenizer.training.journal import read_metrics

MODALITIES: dict[str, dict[str, Any]] = {
    "image": {"name": "image"},
    "depth": {"name": "depth"},
    "segmentation": {"name": "segmentation", "num_classes": len(LABELS)}}
SCORES = {"image": ("psnr", "{:.1f} dB", "PSNR of held-out pictures"),
          "depth": ("abs_rel", "{:.3f}", "mean relative error of held-out maps"),
          "segmentation": ("miou", "{:.2f}", "mIoU of held-out maps")}
"""The score that stands for a tokenizer: its name, how it is written, what it is."""

SHOWN, NUM_TABLE = 8, 600
"""Pictures side by side, and scenes that the table of colours is counted over."""


class Album:
    """The pictures of a demo by key, and its token corpus.

    Args:
        out: folder of the demo.
        held_out: number of scenes that no training saw.
    """

    def __init__(self, out: Path, held_out: int) -> None:
        self.out = out
        self.corpus = TokenCorpus.open(str(out / "tokens"))
        self.captions = read_captions(out / "scenes" / CAPTIONS)
        self.modalities: dict[str, Modality] = {name: modality_from_dict(settings)
                                                for name, settings in MODALITIES.items()}
        self._held_out = held_out

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row in the token corpus of each key."""
        keys = [key for table in self.corpus.tables(["key"]) for key in table["key"].to_pylist()]
        return {key: row for row, key in enumerate(keys)}

    @cached_property
    def split(self) -> tuple[list[str], list[str]]:
        """Keys that trained and keys that did not, as all commands divide them."""
        return Split(held_out=self._held_out).divide(self.rows)

    @cached_property
    def codes(self) -> dict[str, Array]:
        """All codes by modality, ``(N[, D], h, w)``."""
        return {spec.modality: np.concatenate([codes_array(spec, table) for table
                                               in self.corpus.tables([spec.column])])
                for spec in self.corpus.spec.codes}

    def exhibited(self, count: int) -> list[str]:
        """Held-out keys, kinds in turn."""
        by_kind = [[key for key in self.split[1] if key.startswith(f"{kind}/")] for kind in KINDS]
        most = max(map(len, by_kind))
        turns = [keys[turn] for turn in range(most) for keys in by_kind if turn < len(keys)]
        return turns[:count]

    def drawn(self, modality: str, key: str) -> Array:
        """Pixels of a picture or map as drawn, as the tokenizers take them."""
        folder = dict(zip(MODALITIES, FOLDERS, strict=True))[modality]
        return self._pixels(modality, self.out / "scenes" / folder / f"{key}.png")

    def decoded(self, modality: str, key: str) -> Array:
        """Pixels of a picture or map after encoding and decoding."""
        return self._pixels(modality, self.out / "decoded" / modality / f"{key}.png")

    def show(self, modality: str, pixels: Array, alt: str, caption: str = "") -> Picture:
        """Pixels of one picture or map for the page."""
        if modality == "segmentation":
            return picture(LABEL_COLOURS[pixels], alt, caption)
        return picture(self.modalities[modality].show(pixels[None])[0], alt, caption)

    def show_codes(self, modality: str, key: str) -> Picture:
        """The code grid of one picture or map."""
        codes = self.codes[modality][self.rows[key]]
        return picture(code_grids(self.corpus.spec[modality], codes), f"{modality} codes of {key}")

    def row_of(self, title: str, modality: str, keys: Sequence[str],
               pixels: Callable[[str, str], Array]) -> Row:
        """The pictures of some keys under one title; ``pixels`` is `drawn` or `decoded`."""
        return Row(title, [self.show(modality, pixels(modality, key),
                                     f"{title}: {self.captions[key]}") for key in keys])

    def _pixels(self, modality: str, path: Path) -> Array:
        kind = self.modalities[modality]
        raw = kind.read(path.read_bytes(), path.name)
        size = self.corpus.spec[modality].image_size
        return kind.fit(raw, centre_crop(raw.shape[0], raw.shape[1], size), size)


def code_grids(spec: CodeSpec, codes: Array) -> Array:
    """Codes of one picture, ``([D, ]h, w)``, as cells ``(H, D * W, 3)``: each depth's grid abreast.
    """
    height, width = (64 // side * side for side in spec.grid)
    grids = colour_codes(codes.reshape(-1, *spec.grid), spec.codebook_size, (height, width))
    return np.concatenate(list(grids), 1)


class Samples:
    """The samples of one ``img2tokens sample``.

    Attributes:
        images: ``(N, H, W, 3)`` uint8, in order.
        conditions: for each, the key it was conditioned on, or nothing.
        classes: for each, its class, or nothing.
    """

    def __init__(self, folder: Path) -> None:
        corpus = TokenCorpus.open(str(folder))
        rows = [row for table in corpus.tables(["key", "source", "class_name"])
                for row in table.to_pylist()]
        self.images = np.stack([np.asarray(Image.open(folder / "images" / f"{row['key']}.png"))
                                for row in rows])
        self.classes = [row["class_name"] for row in rows]
        self.conditions = [parse_qs(urlsplit(row["source"]).fragment).get("condition", [None])[0]
                           for row in rows]

    def by_condition(self) -> dict[str, list[int]]:
        """Indices of the samples of each key, in order."""
        found: dict[str, list[int]] = {}
        for index, key in enumerate(self.conditions):
            if key is not None:
                found.setdefault(key, []).append(index)
        return found


def gather(out: Path, held_out: int, stages: list[Stage]) -> Page:
    """The page of a finished demo."""
    album = Album(out, held_out)
    maps = MapReading(album, Samples(out / "samples" / "maps"))
    completions = Samples(out / "samples" / "halves")
    keys = album.exhibited(SHOWN)
    return Page(
        headline=headline(album, maps, stages), banner=banner(album),
        legend=[(name, "rgb({}, {}, {})".format(*colour))
                for name, colour in zip(LABELS, LABEL_COLOURS, strict=True)],
        corpus=[album.row_of(title, name, keys, album.drawn) for title, name
                in (("picture", "image"), ("depth", "depth"), ("segmentation", "segmentation"))],
        captions=[album.captions[key] for key in keys[:4]],
        tokenizers=[tokenizer_card(album, name) for name in MODALITIES],
        token_rows=[Row(name, [album.show_codes(name, key) for key in keys])
                    for name in MODALITIES],
        token_facts=token_facts(album),
        dead_letters=[(letter.key, letter.error, letter.message.replace(f"{out}/", ""))
                      for letter in album.corpus.dead_letters()],
        example_row=example_row(album, keys[0]),
        priors=[prior_card(out, "classes", "By class"),
                prior_card(out, "maps", "By segmentation map")],
        class_rows=class_rows(Samples(out / "samples" / "classes")),
        map_columns=maps.columns, map_rows=maps.rows(), bars=maps.bars(),
        completion_columns=completion_columns(completions),
        completion_rows=completion_rows(album, completions), stages=stages, machine=machine())


def headline(album: Album, maps: "MapReading", stages: Sequence[Stage]) -> list[tuple[str, str]]:
    """The figures under the banner."""
    spec = album.corpus.spec["image"]
    seconds = sum(stage.seconds for stage in stages)
    return [(f"{len(album.rows):,}", "scenes drawn"),
            (f"{spec.num_codes}", f"codes a picture, of {spec.codebook_size}"),
            (f"{bytes_per_row(album):,.0f} B", "a scene in Parquet, maps included"),
            (f"{maps.figures['samples']:.2f}", "mIoU of samples with their maps"),
            (duration(seconds), f"on {os.cpu_count()} CPU cores")]


def banner(album: Album) -> list[Row]:
    """Pictures, their codes, and what comes back."""
    keys = album.exhibited(len(KINDS))
    return [album.row_of("pictures", "image", keys, album.drawn),
            Row("their codes", [album.show_codes("image", key) for key in keys]),
            album.row_of("from the codes", "image", keys, album.decoded)]


def tokenizer_card(album: Album, modality: str) -> TokenizerCard:
    """One tokenizer: its quality, reconstructions of held-out pictures, and losses."""
    folder = album.out / "tokenizers" / modality
    evaluation = json.loads((folder / "evaluation.json").read_text())
    score, form, unit = SCORES[modality]
    keys = album.exhibited(SHOWN)
    facts = [
        ("parameters", millions(count_parameters(folder))),
        ("grid", f"{evaluation['grid'][0]} × {evaluation['grid'][1]} codes"),
        ("codebook", f"{evaluation['codebook_size']} entries"),
        ("used by held-out pictures", f"{evaluation['codes_used']:.0%}"),
        ("perplexity", f"{evaluation['perplexity']:.0f}"),
        ("training", f"{evaluation['training']['steps']:,} steps, "
                     f"{duration(60 * evaluation['training']['minutes'])}")]
    return TokenizerCard(
        name=modality.capitalize(), figure=form.format(evaluation[score]), unit=unit,
        rows=[album.row_of("drawn", modality, keys, album.drawn),
              album.row_of("from codes", modality, keys, album.decoded)],
        chart=loss_chart(folder, "reconstruction", "loss", "reconstruction loss"), facts=facts)


def loss_chart(folder: Path, train: str, held_out: str, title: str) -> Markup:
    """Losses of a training and of its held-out pictures, on a logarithmic scale."""
    lines = read_metrics(str(folder))
    names = {"training": f"train/{train}", "held out": f"held_out/{held_out}"}
    series = [Series(name, [(line["step"], line[key]) for line in lines if key in line])
              for name, key in names.items()]
    return line_chart(series, "step", title, y_log=True)


def token_facts(album: Album) -> list[tuple[str, str]]:
    """The token corpus in figures."""
    manifest = album.corpus.manifest
    files = [path for name in FOLDERS for path in (album.out / "scenes" / name).rglob("*.png")]
    png = sum(path.stat().st_size for path in files) / manifest.num_inputs
    facts = [("rows", f"{manifest.num_rows:,} from {manifest.num_inputs:,} inputs"),
             ("dead letters", f"{manifest.num_dead_letters}"),
             ("shards", f"{len(manifest.shards)}, every checksum verified"),
             ("bytes a scene", f"{bytes_per_row(album):,.0f}; as PNG files {png:,.0f}")]
    for spec in manifest.spec.codes:
        usage = manifest.usage[spec.modality]
        facts.append((f"{spec.modality} codebook", f"{usage.used} of {spec.codebook_size} used, "
                                                   f"perplexity {usage.perplexity:.0f}"))
    return facts


def example_row(album: Album, key: str) -> str:
    """One row of a shard as text, with its codes cut short."""
    for table in album.corpus.tables():
        for row in table.to_pylist():
            if row["key"] == key:
                return "\n".join(f"{name:<20} {_short(value)}" for name, value in row.items()
                                 if name not in ("source", "flipped", *GEOMETRY))
    raise ValueError(f"{album.corpus.url} holds no row {key}")


def prior_card(out: Path, name: str, title: str) -> PriorCard:
    """One prior: its bits per code, in training and on held-out rows."""
    folder = out / "priors" / name
    shape = json.loads((folder / "config.json").read_text())["config"]["transformer"]
    bits = json.loads((folder / "evaluation.json").read_text())
    lines = read_metrics(str(folder))
    facts = [("parameters", millions(count_parameters(folder))),
             ("shape", f"{shape['num_layers']} layers of {shape['width']} channels"),
             ("training", f"{max(line['step'] for line in lines):,.0f} steps"),
             ("bits with another's condition", f"{bits['shuffled']:.2f}"),
             ("bits without condition", f"{bits['without']:.2f}")]
    names = {"training": "train/bits", "held out": "held_out/matched"}
    series = [Series(name, [(line["step"], line[key]) for line in lines if key in line])
              for name, key in names.items()]
    return PriorCard(title=title, figure=f"{bits['matched']:.2f}", unit="bits per held-out code",
                     chart=line_chart(series, "step", "bits per code"), facts=facts)


def class_rows(samples: Samples) -> list[Row]:
    """The samples of each class."""
    return [Row(kind, [picture(image, f"a sample of the class {kind}") for image, name
                       in zip(samples.images, samples.classes, strict=True) if name == kind])
            for kind in KINDS]


class MapReading:
    """Samples beside the maps they were given, and how well the two agree.

    Attributes:
        figures: mIoU of the maps given with maps read by colour off the originals, off the decoded
            originals, off the samples, and off samples that were given another map.
    """

    def __init__(self, album: Album, samples: Samples) -> None:
        self.album, self.samples = album, samples
        self.groups = samples.by_condition()
        keys = list(self.groups)
        trained = album.split[0]
        known = trained[::max(1, len(trained) // NUM_TABLE)]
        table = ColourTable(self._all("image", known, album.drawn),
                            self._all("segmentation", known, album.drawn), len(LABELS))
        given = self._all("segmentation", keys, album.drawn)
        firsts = samples.images[[indices[0] for indices in self.groups.values()]]
        self.read = dict(zip(keys, table.read(firsts), strict=True))
        pairs = {"originals": table.read(self._all("image", keys, album.drawn)),
                 "decoded": table.read(self._all("image", keys, album.decoded)),
                 "samples": table.read(firsts),
                 "shuffled": np.roll(table.read(firsts), len(keys) // 2 + 1, axis=0)}
        self.figures = {name: mean_iou(given, read, len(LABELS)) for name, read in pairs.items()}

    @property
    def columns(self) -> list[str]:
        """Titles of the columns of `rows`."""
        most = max(map(len, self.groups.values()))
        return ["map given", *(f"sample {number + 1}" for number in range(most)),
                "map read off sample 1", "the picture drawn"]

    def rows(self) -> list[list[Picture]]:
        """For one map of each kind: the map, its samples, the map read, the original."""
        return [self._row(key) for key in one_of_each_kind(self.groups)]

    def bars(self) -> list[Bar]:
        """The figures as bars."""
        notes = {"originals": ("pictures as drawn", "what reading by colour can reach"),
                 "decoded": ("the same, encoded and decoded", "what the tokenizer leaves of it"),
                 "samples": ("samples", "what the prior made of the maps"),
                 "shuffled": ("samples, maps of others", "what would agree by chance")}
        return [Bar(notes[name][0], value, notes[name][1], strong=name == "samples")
                for name, value in self.figures.items()]

    def _row(self, key: str) -> list[Picture]:
        album, caption = self.album, self.album.captions[key]
        return [album.show("segmentation", album.drawn("segmentation", key), f"map of {caption}"),
                *(picture(self.samples.images[index], f"sample given the map of {caption}")
                  for index in self.groups[key]),
                album.show("segmentation", self.read[key], f"map read off a sample of {caption}"),
                album.show("image", album.drawn("image", key), caption)]

    def _all(self, modality: str, keys: Sequence[str],
             pixels: Callable[[str, str], Array]) -> Array:
        return np.stack([pixels(modality, key) for key in keys])


def completion_columns(samples: Samples) -> list[str]:
    """Titles of the columns of `completion_rows`."""
    most = max(map(len, samples.by_condition().values()))
    return ["given", *(f"completion {number + 1}" for number in range(most)), "the picture drawn"]


def completion_rows(album: Album, samples: Samples) -> list[list[Picture]]:
    """For each half picture: what was given, its completions, the original."""
    rows = []
    groups = samples.by_condition()
    for key in one_of_each_kind(groups):
        caption, given = album.captions[key], album.drawn("image", key).copy()
        given[given.shape[0] // 2:] = 128
        rows.append([picture(given, f"upper half of {caption}"),
                     *(picture(samples.images[index], f"completion of {caption}")
                       for index in groups[key]),
                     album.show("image", album.drawn("image", key), caption)])
    return rows


def one_of_each_kind(keys: Iterable[str]) -> list[str]:
    """The first key of each kind of scene, in the order of the kinds."""
    firsts: dict[str, str] = {}
    for key in keys:
        firsts.setdefault(key.partition("/")[0], key)
    return [firsts[kind] for kind in KINDS if kind in firsts]


def bytes_per_row(album: Album) -> float:
    """Mean size of a row in the shards, all modalities and columns."""
    shards = album.corpus.manifest.shards
    return sum(entry.bytes for entry in shards) / sum(entry.rows for entry in shards)


def count_parameters(folder: Path) -> int:
    """Numbers in the weights of a checkpoint."""
    from tokenizer.checkpoints import load_weights
    return sum(tensor.numel() for tensor in load_weights(str(folder)).values())


def millions(count: int) -> str:
    """A count of parameters as people say it."""
    return f"{count / 1e6:.1f} million"


def machine() -> str:
    """What the page was made with and on."""
    from importlib import metadata
    return (f"img2tokens {metadata.version('img2tokens')}, torch {metadata.version('torch')}, "
            f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")


def _short(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value[:12]))}, ... {len(value)} codes]"
    return json.dumps(value, ensure_ascii=False)
