"""The demo's corpus: small scenes drawn with exact depth and segmentation, a class and a caption.

Scene ``i`` of seed ``s`` depends on nothing else, so a corpus is the same wherever and in whatever
order it is drawn. To add a kind of scene, add a function to `KINDS`; each puts solids on a plain.

    FOLDER/images/KIND/00000.png         RGB
    FOLDER/depth/KIND/00000.png          16-bit inverse depth: `NEAREST` metres are 65535, the sky 0
    FOLDER/segmentation/KIND/00000.png   8-bit class ids, indices into `LABELS`
    FOLDER/captions.csv                  key, label, caption
"""
import contextlib
import csv
import functools
import io
import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cli.demo.render import Array, Light, Scene, Solid, render
from cli.demo.shapes import balloon, cactus, fir, house, round_tree, tent

SIZE = 64
"""Side of a picture in pixels."""

NEAREST = 2.0
"""Depth in metres that is 65535 in a depth map; a map holds 65535 * NEAREST / depth."""

LABELS = ("sky", "ground", "water", "tree", "house", "tent", "balloon")
"""Names of the class ids of a segmentation map."""

LABEL_COLOURS = np.array([(126, 184, 236), (216, 198, 124), (24, 120, 150), (42, 122, 74),
                          (206, 72, 60), (142, 84, 190), (250, 190, 44)], np.uint8)
"""Colours of the class ids for people, ``(7, 3)``."""

FOLDERS, CAPTIONS = ("images", "depth", "segmentation"), "captions.csv"
"""Where a corpus keeps its pictures, maps and captions."""

DAMAGED = ("village/cut-short", "desert/other-size", "lake/without-maps")
"""Keys of the inputs that `damage` adds."""

GRASS, SAND, SNOW = (0.62, 0.74, 0.24), (0.93, 0.76, 0.49), (0.93, 0.95, 0.97)

LIGHTS = (
    Light(name="in the morning", zenith=(0.50, 0.72, 0.90), horizon=(0.97, 0.93, 0.80),
          sun=(0.92, 0.80, 0.58), ambient=(0.44, 0.46, 0.50), direction=(0.74, 0.54, -0.40)),
    Light(name="at noon", zenith=(0.16, 0.45, 0.86), horizon=(0.70, 0.86, 0.98),
          sun=(0.72, 0.70, 0.64), ambient=(0.46, 0.48, 0.52), direction=(-0.45, 0.80, -0.40)),
    Light(name="at dusk", zenith=(0.36, 0.38, 0.66), horizon=(0.99, 0.70, 0.60),
          sun=(0.92, 0.62, 0.42), ambient=(0.46, 0.42, 0.48), direction=(-0.77, 0.48, -0.42)),
)


@dataclass(frozen=True, eq=False)
class Drawing:
    """One scene of the corpus.

    Attributes:
        image: ``(64, 64, 3)`` uint8 RGB.
        depth: ``(64, 64)`` uint16 inverse depth, larger is nearer.
        labels: ``(64, 64)`` uint8 class ids.
    """
    key: str
    kind: str
    caption: str
    image: Array
    depth: Array
    labels: Array


def draw(index: int, seed: int = 0) -> Drawing:
    """Scene ``index`` of the corpus of ``seed``; kinds take turns."""
    rng = np.random.Generator(np.random.PCG64([seed, index]))
    kind = list(KINDS)[index % len(KINDS)]
    light = LIGHTS[int(rng.integers(len(LIGHTS)))]
    scene, place, things = KINDS[kind](rng, light)
    image, depth, labels = render(scene, SIZE)
    inverse = np.rint(65535 * NEAREST / np.maximum(depth, NEAREST)).astype(np.uint16)
    caption = f"{place} {light.name}" + (f", with {_listed(things)}" if things else "")
    return Drawing(f"{kind}/{index:05d}", kind, caption, image, inverse, labels)


def write_corpus(folder: Path, num_scenes: int, seed: int = 0,
                 num_workers: int = 1) -> Iterator[int]:
    """Draw scenes into a folder, in several processes; the captions are written last.

    Yields:
        How many scenes are drawn so far.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["key", "label", "caption"])
    for kind, name in itertools.product(KINDS, FOLDERS):
        (folder / name / kind).mkdir(parents=True, exist_ok=True)
    work = functools.partial(_write_scene, str(folder), seed)
    # Fresh processes: a forked copy of one that runs threads may hang.
    context = multiprocessing.get_context("spawn")
    with context.Pool(num_workers) if num_workers > 1 else contextlib.nullcontext() as pool:
        rows = pool.imap(work, range(num_scenes), 16) if pool else map(work, range(num_scenes))
        for number, row in enumerate(rows, start=1):
            table.writerow(row)
            yield number
    (folder / CAPTIONS).write_text(text.getvalue())


def damage(folder: Path) -> None:
    """Add three inputs to a corpus that cannot be encoded, each for another reason."""
    def add(name: str, key: str, pixels: Array) -> Path:
        path = folder / name / f"{key}.png"
        Image.fromarray(pixels).save(path)
        return path

    drawing = draw(0)
    for key in DAMAGED[:2]:
        add("segmentation", key, drawing.labels)
    torn = add("images", DAMAGED[0], drawing.image)
    torn.write_bytes(torn.read_bytes()[:1000])
    add("depth", DAMAGED[0], drawing.depth)
    add("images", DAMAGED[1], drawing.image)
    add("depth", DAMAGED[1], drawing.depth[:32, :32])
    add("images", DAMAGED[2], drawing.image)


def read_captions(path: Path) -> dict[str, str]:
    """Captions by key."""
    with path.open(newline="") as file:
        return {row["key"]: row["caption"] for row in csv.DictReader(file)}


def _write_scene(folder: str, seed: int, index: int) -> tuple[str, str, str]:
    drawing = draw(index, seed)
    for name, pixels in zip(FOLDERS, (drawing.image, drawing.depth, drawing.labels), strict=True):
        Image.fromarray(pixels).save(Path(folder) / name / f"{drawing.key}.png", compress_level=1)
    return drawing.key, drawing.kind, drawing.caption


def _listed(things: Sequence[str]) -> str:
    """``a, b and c``, counting what occurs more than once."""
    counted = []
    for name in dict.fromkeys(things):
        num = things.count(name)
        counted.append(name if num == 1 else f"{NUMBERS[num]} {PLURALS[name]}")
    return " and ".join(filter(None, [", ".join(counted[:-1]), counted[-1]]))


NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
PLURALS = {"a house": "houses", "a tree": "trees", "a fir": "firs", "a tent": "tents",
           "a cactus": "cacti", "a balloon": "balloons"}

Composition = tuple[Scene, str, list[str]]
Rng = np.random.Generator


def _compose(rng: Rng, light: Light, plain: tuple[float, float, float], solids: list[Solid],
             hills: float, **camera: Any) -> Scene:
    amplitudes = hills * rng.uniform(0.1, 1.0, 3) / (1 + np.arange(3))
    return Scene(solids=solids, light=light, plain=plain, eye=float(rng.uniform(1.5, 2.2)),
                 hills=(amplitudes, rng.uniform(0, 2 * np.pi, 3)),
                 horizon=camera.pop("horizon", float(rng.uniform(0.48, 0.60))), **camera)


def _places(rng: Rng, num: int, near: float, far: float, gap: float) -> list[tuple[float, float]]:
    """Up to ``num`` places (x, z) in view, ``gap`` metres or more apart, far ones first."""
    places: list[tuple[float, float]] = []
    for _ in range(40 * num):
        z = float(rng.uniform(near, far))
        x = float(rng.uniform(-0.46, 0.46)) * z
        if len(places) < num and all(abs(x - a) + 0.35 * abs(z - b) > gap for a, b in places):
            places.append((x, z))
    return sorted(places, key=lambda place: -place[1])


def _village(rng: Rng, light: Light) -> Composition:
    solids: list[Solid] = []
    things: list[str] = []
    for number, (x, z) in enumerate(_places(rng, int(rng.integers(2, 4)), 6, 9.5, 3.2)):
        if number % 2 and rng.random() < 0.5:
            solids += round_tree(x, z, float(rng.uniform(3.0, 4.2)), 3)
            things.append("a tree")
        else:
            solids += house(x, z, rng, 4)
            things.append("a house")
    return _compose(rng, light, GRASS, solids, 0.05), "a village", sorted(things)


def _forest(rng: Rng, light: Light) -> Composition:
    solids: list[Solid] = []
    places = _places(rng, int(rng.integers(3, 6)), 5, 9.5, 1.6)
    for x, z in places:
        solids += round_tree(x, z, float(rng.uniform(3.2, 5.0)), 3)
    return _compose(rng, light, GRASS, solids, 0.06), "a wood", ["a tree"] * len(places)


def _desert(rng: Rng, light: Light) -> Composition:
    solids: list[Solid] = []
    things: list[str] = []
    for number, (x, z) in enumerate(_places(rng, int(rng.integers(2, 4)), 5, 8.5, 2.8)):
        if number % 2 and rng.random() < 0.6:
            solids += cactus(x, z, float(rng.uniform(2.0, 3.2)), 3)
            things.append("a cactus")
        else:
            solids += tent(x, z, rng, 5)
            things.append("a tent")
    scene = _compose(rng, light, SAND, solids, 0.10)
    return scene, "a camp in the desert", sorted(things, reverse=True)


def _lake(rng: Rng, light: Light) -> Composition:
    solids: list[Solid] = []
    things: list[str] = []
    shore = float(rng.uniform(5.5, 7.5))
    for x, z in _places(rng, int(rng.integers(2, 5)), shore + 1, shore + 3.5, 2.4):
        if rng.random() < 0.3 and "a house" not in things:
            solids += house(x, z + 1, rng, 4)
            things.append("a house")
        else:
            solids += fir(x, z, float(rng.uniform(3.0, 5.0)), 3)
            things.append("a fir")
    horizon = float(rng.uniform(0.40, 0.48))
    scene = _compose(rng, light, GRASS, solids, 0.16, shore=shore, horizon=horizon)
    return scene, "a lake", sorted(things)


def _winter(rng: Rng, light: Light) -> Composition:
    solids: list[Solid] = []
    things: list[str] = []
    for x, z in _places(rng, int(rng.integers(2, 5)), 5.5, 9.5, 2.2):
        if rng.random() < 0.25 and "a house" not in things:
            solids += house(x, z + 1, rng, 4)
            things.append("a house")
        else:
            solids += fir(x, z, float(rng.uniform(2.8, 4.6)), 3)
            things.append("a fir")
    return _compose(rng, light, SNOW, solids, 0.12), "a snowy field", sorted(things)


def _balloons(rng: Rng, light: Light) -> Composition:
    solids: list[Solid] = []
    horizon = float(rng.uniform(0.72, 0.82))
    places = _places(rng, int(rng.integers(1, 4)), 10, 16, 5)
    for x, z in places:
        radius = float(rng.uniform(2.3, 3.2))
        high = 1.9 + float(rng.uniform(0.32, 0.55)) * z * 2 * 0.58 * horizon
        solids += balloon(x * 0.9, high, z, radius, rng, 6)
    plain = GRASS if rng.random() < 0.6 else SAND
    scene = _compose(rng, light, plain, solids, 0.08, horizon=horizon)
    place = "the sky over fields" if plain == GRASS else "the sky over the desert"
    return scene, place, ["a balloon"] * len(places)


KINDS: dict[str, Callable[[Rng, Light], Composition]] = {
    "village": _village, "forest": _forest, "desert": _desert,
    "lake": _lake, "winter": _winter, "balloons": _balloons,
}
"""Kinds of scenes, the classes of the corpus, and the functions that compose them."""
