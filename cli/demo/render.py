"""A small ray tracer: solids on a plain, with sun, shadows, haze and still water.

Rays start at the camera, look along +z and have a z component of 1, so the distance along a ray is
the depth in metres. A solid is convex and given by planes, or a sphere; to add another shape, give
it ``centre``, ``radius`` (of a sphere around it) and ``hit``.

Letters: N rays, P planes of a solid.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

MISS = np.inf
"""Distance of a ray that hits nothing."""


class Rays:
    """Rays of light, ``origins + distance * directions``, both ``(N, 3)``.

    Attributes:
        squares: squared lengths of the directions, ``(N,)``.
    """

    def __init__(self, origins: Array, directions: Array) -> None:
        self.origins, self.directions = origins, directions
        self.squares = dots(directions, directions)
        self._along, self._away = dots(origins, directions), dots(origins, origins)

    def __len__(self) -> int:
        return len(self.directions)

    def __getitem__(self, chosen: Array) -> "Rays":
        return Rays(self.origins[chosen], self.directions[chosen])

    def at(self, distances: Array) -> Array:
        """Points ``(N, 3)`` at these distances ``(N,)``."""
        return self.origins + distances[:, None] * self.directions

    def near(self, centre: Array, radius: float) -> Array:
        """Indices of the rays that run through a sphere, or start in it."""
        along = self.directions @ centre - self._along
        apart = centre @ centre - 2 * (self.origins @ centre) + self._away
        inside = apart - along * along / self.squares < radius * radius
        return np.flatnonzero(inside & ((along > 0) | (apart < radius * radius)))


def dots(left: Array, right: Array) -> Array:
    """Scalar products of the rows of two arrays ``(N, 3)``: ``(N,)``."""
    return np.einsum("nc,nc->n", left, right)


class Solid(Protocol):
    """Something a ray can hit; ``label`` is its class id in the segmentation map."""

    @property
    def label(self) -> int: ...

    @property
    def centre(self) -> Array: ...

    @property
    def radius(self) -> float: ...

    def hit(self, rays: Rays) -> tuple[Array, Array, Array]:
        """Distances ``(N,)``, `MISS` where nothing is hit; outward normals, colours ``(N, 3)``."""
        ...


@dataclass(frozen=True, eq=False)
class Convex:
    """Points ``p`` with ``normals @ p <= offsets``; each plane has its colour.

    Attributes:
        normals: ``(P, 3)``, unit length, outward.
        offsets: ``(P,)``, metres.
        colours: ``(P, 3)``, RGB in [0, 1].
        centre, radius: a sphere that holds the solid.
    """
    label: int
    normals: Array
    offsets: Array
    colours: Array
    centre: Array
    radius: float

    def hit(self, rays: Rays) -> tuple[Array, Array, Array]:
        slopes = rays.directions @ self.normals.T
        with np.errstate(divide="ignore", invalid="ignore"):
            distances = (self.offsets - rays.origins @ self.normals.T) / slopes
        entries = np.where(slopes < 0, distances, -np.inf)
        exits = np.where(slopes > 0, distances, np.inf)
        face = entries.argmax(1)
        entry = entries[np.arange(len(face)), face]
        hits = (entry < exits.min(1)) & (entry > 0)
        return np.where(hits, entry, MISS), self.normals[face], self.colours[face]


@dataclass(frozen=True, eq=False)
class Sphere:
    """A sphere in two colours, ``(2, 3)``, that alternate in ``stripes`` pairs of meridians."""
    label: int
    centre: Array
    radius: float
    colours: Array
    stripes: int = 0

    def hit(self, rays: Rays) -> tuple[Array, Array, Array]:
        from_centre = rays.origins - self.centre
        squared, half = rays.squares, dots(from_centre, rays.directions)
        inside = half * half - squared * (dots(from_centre, from_centre) - self.radius ** 2)
        entry = (-half - np.sqrt(np.maximum(inside, 0))) / squared
        distances = np.where((inside > 0) & (entry > 0), entry, MISS)
        finite = np.where(np.isfinite(distances), distances, 0)
        normals = (from_centre + finite[:, None] * rays.directions) / self.radius
        turns = np.arctan2(normals[:, 0], normals[:, 2]) / (2 * np.pi)
        band = (np.floor(turns * 2 * self.stripes).astype(int) & 1 if self.stripes
                else np.zeros(len(turns), int))
        return distances, normals, self.colours[band]


@dataclass(frozen=True, kw_only=True)
class Light:
    """A time of day: colours are RGB in [0, 1], the sun's direction points towards it."""
    name: str
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    sun: tuple[float, float, float]
    ambient: tuple[float, float, float]
    direction: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """What a camera sees: solids on a plain that may begin with a lake.

    Attributes:
        plain: colour of the ground.
        hills: amplitudes ``(M,)`` and phases ``(M,)`` of the far hills' outline, in radians.
        shore: water lies nearer than this many metres; 0 where there is none.
        eye: height of the camera in metres.
        horizon: where the horizon lies, as a share of the picture's height.
    """
    solids: Sequence[Solid]
    light: Light
    plain: tuple[float, float, float]
    hills: tuple[Array, Array]
    shore: float = 0.0
    eye: float = 1.7
    horizon: float = 0.5


SKY, GROUND, WATER = 0, 1, 2
"""Class ids that are no solid's."""

FAR = 130.0
"""Depth of the hills in metres."""

HAZE = 110.0
"""Metres over which 63 % of a colour is lost to haze."""

WATER_COLOUR, MIRRORED = np.array([0.02, 0.36, 0.44]), 0.28
"""Colour of the lake itself, and the share of its light that is the mirror image."""

VIEW = 0.58
"""Tangent of half the angle of view."""

CENTRE = (0.5, 0.5)
CORNERS = ((0.125, 0.375), (0.375, 0.875), (0.625, 0.125), (0.875, 0.625))
"""Places in a pixel where light is sampled: the centre, and in rough pixels four others."""

ROUGH = 0.04
"""Difference between neighbours, in a colour channel from 0 to 1, that makes a pixel rough."""


def render(scene: Scene, size: int) -> tuple[Array, Array, Array]:
    """A scene as the camera sees it.

    Returns:
        Picture, uint8 ``(size, size, 3)``, with smooth edges; and exact at the centres of its
        pixels, depth in metres ``(size, size)``, infinite in the sky, and class ids, uint8.
    """
    colours, hits = _shade(scene, _camera_rays(scene, size, CENTRE))
    rough = _rough(colours.reshape(size, size, 3))
    directions = [_camera_rays(scene, size, corner).directions[rough] for corner in CORNERS]
    samples, _ = _shade(scene, _from_eye(scene, np.concatenate(directions)))
    colours[rough] = samples.reshape(len(CORNERS), -1, 3).mean(0)
    levels = np.rint(np.clip(colours, 0, 1) ** (1 / 1.2) * 255).astype(np.uint8)
    return (levels.reshape(size, size, 3), hits.distances.reshape(size, size),
            hits.labels.reshape(size, size))


def _camera_rays(scene: Scene, size: int, place: tuple[float, float]) -> Rays:
    """Rays through one place (down, right), in [0, 1), of each pixel, in raster order."""
    up, right = np.meshgrid((scene.horizon - (np.arange(size) + place[0]) / size) * 2 * VIEW,
                            ((np.arange(size) + place[1]) / size - 0.5) * 2 * VIEW, indexing="ij")
    directions = np.stack([right, up, np.ones_like(up)], -1).reshape(-1, 3)
    return _from_eye(scene, directions)


def _from_eye(scene: Scene, directions: Array) -> Rays:
    return Rays(np.broadcast_to([0.0, scene.eye, 0.0], directions.shape), directions)


def _rough(colours: Array) -> Array:
    """Indices, in raster order, of pixels ``(H, W, 3)`` that differ much from one beside them."""
    rough = np.zeros(colours.shape[:2], bool)
    down = (np.abs(np.diff(colours, axis=0)) > ROUGH).any(-1)
    right = (np.abs(np.diff(colours, axis=1)) > ROUGH).any(-1)
    rough[1:] |= down
    rough[:-1] |= down
    rough[:, 1:] |= right
    rough[:, :-1] |= right
    return np.flatnonzero(rough)


@dataclass(frozen=True, eq=False)
class _Hits:
    """What rays meet first: distances and labels ``(N,)``, normals and colours ``(N, 3)``."""
    distances: Array
    normals: Array
    colours: Array
    labels: Array


def _trace(scene: Scene, rays: Rays) -> _Hits:
    distances, labels = np.full(len(rays), MISS), np.full(len(rays), SKY, np.uint8)
    normals = np.broadcast_to([0.0, 1.0, 0.0], (len(rays), 3)).copy()
    colours = np.broadcast_to(scene.plain, (len(rays), 3)).copy()
    falling = rays.directions[:, 1] < 0
    with np.errstate(divide="ignore"):
        plain = np.where(falling, -rays.origins[:, 1] / rays.directions[:, 1], MISS)
    far = (falling & (plain > FAR)) | _in_hills(scene, rays.directions)
    distances[falling], distances[far] = plain[falling], FAR
    labels[falling | far] = GROUND
    labels[falling & ~far & (rays.origins[:, 2] + plain < scene.shore)] = WATER
    for solid in scene.solids:
        chosen = rays.near(solid.centre, solid.radius)
        found, normal, colour = solid.hit(rays[chosen])
        nearer = found < distances[chosen]
        chosen = chosen[nearer]
        distances[chosen], normals[chosen] = found[nearer], normal[nearer]
        colours[chosen], labels[chosen] = colour[nearer], solid.label
    return _Hits(distances, normals, colours, labels)


def _in_hills(scene: Scene, directions: Array) -> Array:
    """Rays that rise, but stay below the outline of the hills."""
    amplitudes, phases = scene.hills
    angles = directions[:, :1] / directions[:, 2:]
    waves = amplitudes * (1 + np.sin(angles * (4 + 3 * np.arange(len(phases))) + phases))
    return (directions[:, 1] >= 0) & (directions[:, 1] < waves.sum(1))


def _shade(scene: Scene, rays: Rays, mirrored: bool = False) -> tuple[Array, _Hits]:
    """Colours of rays, RGB ``(N, 3)``, and hits; water in a mirror image reflects nothing again."""
    light, hits = scene.light, _trace(scene, rays)
    result = _sky(scene, rays)
    solid = np.flatnonzero(hits.labels != SKY)
    normals, distances = hits.normals[solid], hits.distances[solid]
    points = rays[solid].at(distances)
    facing = np.maximum(normals @ np.array(light.direction), 0)
    facing *= ~_shadowed(scene, points + 1e-3 * normals)
    above = 0.75 + 0.25 * normals[:, 1:2]
    lit = np.array(light.ambient) * above + np.array(light.sun) * facing[:, None]
    haze = 1 - np.exp(-distances[:, None] / HAZE)
    result[solid] = hits.colours[solid] * lit * (1 - haze) + result[solid] * haze
    wet = np.flatnonzero(hits.labels == WATER)
    if len(wet) and not mirrored:
        directions = rays.directions[wet] * (1, -1, 1)
        image, _ = _shade(scene, Rays(rays[wet].at(hits.distances[wet]), directions), True)
        body = WATER_COLOUR * (np.array(light.ambient) + 0.6 * np.array(light.sun))
        result[wet] = (1 - MIRRORED) * body + MIRRORED * image
    return result, hits


def _shadowed(scene: Scene, points: Array) -> Array:
    """Whether a solid stands between points ``(N, 3)`` and the sun."""
    rays = Rays(points, np.broadcast_to(scene.light.direction, points.shape))
    dark = np.zeros(len(points), bool)
    for solid in scene.solids:
        chosen = rays.near(solid.centre, solid.radius)
        dark[chosen] |= np.isfinite(solid.hit(rays[chosen])[0])
    return dark


def _sky(scene: Scene, rays: Rays) -> Array:
    """Colours of the sky in the rays' directions: a gradient, brighter around the sun."""
    light = scene.light
    height = np.clip(rays.directions[:, 1:2] / 0.7, 0, 1) ** 0.6
    colours = np.array(light.horizon) * (1 - height) + np.array(light.zenith) * height
    cosine = rays.directions @ np.array(light.direction) / np.sqrt(rays.squares)
    glow = np.clip((cosine - 0.9) * 10, 0, 1)[:, None] ** 3
    return colours + glow * 0.5 * np.array(light.sun) * (1 - colours)
