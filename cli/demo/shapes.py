"""Things that stand in the drawn scenes: houses, trees, tents, balloons, each a few convex solids.

Every function takes where the thing stands (metres; x to the right, z away from the camera) and its
class id, and returns solids for `cli.demo.render`.
"""
from collections.abc import Sequence

import numpy as np

from cli.demo.render import Array, Convex, Solid, Sphere, dots

Colour = tuple[float, float, float]
Outline = list[tuple[float, float]]
"""Points (x, z) around the foot of a thing."""

LEAVES: Colour = (0.10, 0.40, 0.22)
NEEDLES: Colour = (0.05, 0.33, 0.25)
BARK: Colour = (0.22, 0.24, 0.14)
WALL: Colour = (0.86, 0.42, 0.34)
ROOF: Colour = (0.55, 0.12, 0.14)
DOOR: Colour = (0.38, 0.10, 0.10)
CANVAS: Colour = (0.52, 0.16, 0.66)
SILK: tuple[Colour, Colour] = ((1.0, 0.72, 0.04), (1.0, 0.50, 0.02))
WICKER: Colour = (0.50, 0.32, 0.05)


def convex(label: int, corners: Sequence[Sequence[float]], faces: Sequence[Sequence[int]],
           colours: Sequence[Colour]) -> Convex:
    """A convex solid from its corners; each face names three or more of them, in either sense."""
    points = np.array(corners, float)
    middle = points.mean(0)
    a, b, c = (points[[face[i] for face in faces]] for i in range(3))
    normals = np.cross(b - a, c - a)
    normals /= np.sqrt(dots(normals, normals))[:, None]
    normals *= np.sign(dots(a - middle, normals))[:, None]
    radius = float(np.sqrt(((points - middle) ** 2).sum(1).max())) + 1e-6
    return Convex(label, normals, dots(normals, a), np.array(colours, float), middle, radius)


def _ring(x: float, z: float, radius: float, sides: int, turn: float = 0.0) -> Outline:
    angles = 2 * np.pi * np.arange(sides) / sides + turn
    return [(x + radius * float(np.sin(a)), z - radius * float(np.cos(a))) for a in angles]


def prism(label: int, outline: Outline, bottom: float, top: float,
          colour: Colour) -> Convex:
    """An upright prism over a convex outline of points (x, z)."""
    sides = len(outline)
    corners = [(x, y, z) for y in (bottom, top) for x, z in outline]
    faces = [[i, (i + 1) % sides, sides + i] for i in range(sides)]
    faces += [list(range(sides)), list(range(sides, 2 * sides))]
    return convex(label, corners, faces, [colour] * (sides + 2))


def cone(label: int, outline: Outline, base: float, tip: float,
         colours: Sequence[Colour]) -> Convex:
    """A pyramid over (or, with the tip below, under) an outline; faces take the colours in turn."""
    sides = len(outline)
    middle = np.array(outline).mean(0)
    corners = [(x, base, z) for x, z in outline] + [(float(middle[0]), tip, float(middle[1]))]
    faces = [[i, (i + 1) % sides, sides] for i in range(sides)] + [list(range(sides))]
    return convex(label, corners, faces, [colours[i % len(colours)] for i in range(sides + 1)])


def round_tree(x: float, z: float, height: float, label: int) -> list[Solid]:
    """A trunk under two round crowns."""
    crown = 0.30 * height
    return [prism(label, _ring(x, z, 0.06 * height, 6), 0, 0.5 * height, BARK),
            Sphere(label, np.array([x, 0.62 * height, z]), crown, np.array([LEAVES])),
            Sphere(label, np.array([x, 0.84 * height, z]), 0.72 * crown, np.array([LEAVES]))]


def fir(x: float, z: float, height: float, label: int) -> list[Solid]:
    """A trunk under three cones."""
    solids: list[Solid] = [prism(label, _ring(x, z, 0.05 * height, 6), 0, 0.25 * height, BARK)]
    for base, tip, radius in ((0.14, 0.58, 0.30), (0.36, 0.80, 0.24), (0.58, 1.0, 0.18)):
        outline = _ring(x, z, radius * height, 9, turn=base)
        solids.append(cone(label, outline, base * height, tip * height, [NEEDLES]))
    return solids


def cactus(x: float, z: float, height: float, label: int) -> list[Solid]:
    """A column with two arms."""
    thick = 0.13 * height
    solids: list[Solid] = [prism(label, _ring(x, z, thick, 7), 0, height, LEAVES)]
    for side, low, high in ((-1, 0.38, 0.80), (1, 0.52, 0.90)):
        reach = x + side * 0.36 * height
        arm = [(x, z - 0.6 * thick), (x, z + 0.6 * thick),
               (reach, z + 0.6 * thick), (reach, z - 0.6 * thick)]
        solids.append(prism(label, arm, low * height, low * height + 1.2 * thick, LEAVES))
        outline = _ring(reach, z, 0.75 * thick, 6)
        solids.append(prism(label, outline, low * height, high * height, LEAVES))
    return solids


def house(x: float, z: float, rng: np.random.Generator, label: int) -> list[Solid]:
    """Walls under a gable roof, turned a little, with a door."""
    wide, deep = float(rng.uniform(2.4, 3.4)), float(rng.uniform(2.0, 2.6))
    wall, ridge = float(rng.uniform(1.5, 2.1)), float(rng.uniform(0.9, 1.5))
    turn = float(rng.uniform(0.15, 0.75)) * (1 if rng.random() < 0.5 else -1)

    def at(along: float, across: float) -> tuple[float, float]:
        return (x + along * float(np.cos(turn)) - across * float(np.sin(turn)),
                z + along * float(np.sin(turn)) + across * float(np.cos(turn)))

    def box(left: float, right: float, front: float, back: float) -> Outline:
        return [at(left, front), at(right, front), at(right, back), at(left, back)]

    a, b = wide / 2, deep / 2
    eaves = box(-a - 0.2, a + 0.2, -b - 0.25, b + 0.25)
    ends = [at(-a - 0.1, 0), at(a + 0.1, 0)]
    corners = [(p, wall, q) for p, q in eaves] + [(p, wall + ridge, q) for p, q in ends]
    slopes, gables, floor = [[0, 1, 4], [2, 3, 4]], [[0, 3, 4], [1, 2, 5]], [[0, 1, 2]]
    roof = convex(label, corners, slopes + gables + floor, [ROOF] * 5)
    door = box(-0.3, 0.3, -b - 0.04, 0)
    walls = prism(label, box(-a, a, -b, b), 0, wall, WALL)
    return [walls, roof, prism(label, door, 0, 0.62 * wall, DOOR)]


def tent(x: float, z: float, rng: np.random.Generator, label: int) -> list[Solid]:
    """A pointed tent with many sides."""
    radius, height = float(rng.uniform(1.2, 1.8)), float(rng.uniform(2.0, 3.0))
    outline = _ring(x, z, radius, 6, turn=float(rng.uniform(0, 1)))
    lighter: Colour = (0.68, 0.30, 0.80)
    return [cone(label, outline, 0, height, [CANVAS, lighter])]


def balloon(x: float, y: float, z: float, radius: float, rng: np.random.Generator,
            label: int) -> list[Solid]:
    """A striped balloon with its middle at height ``y``, above a basket."""
    silk: Array = np.array(SILK if rng.random() < 0.5 else SILK[::-1])
    skirt = cone(label, _ring(x, z, 0.86 * radius, 12), y - 0.5 * radius, y - 2.1 * radius,
                 [tuple(silk[0]), tuple(silk[1])])
    outline = _ring(x, z, 0.25 * radius, 4, turn=0.4)
    basket = prism(label, outline, y - 2.0 * radius, y - 1.6 * radius, WICKER)
    return [Sphere(label, np.array([x, y, z]), radius, silk, stripes=5), skirt, basket]
