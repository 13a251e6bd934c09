"""The drawn scenes: exact maps, the same bytes every time, and maps that can be read by colour."""
import csv
import functools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.demo import reading
from cli.demo.reading import ColourTable, mean_iou
from cli.demo.render import WATER, Convex, Light, Rays, Scene, Sphere, render
from cli.demo.scenes import FOLDERS, KINDS, LABELS, NEAREST, SIZE, draw, write_corpus
from cli.demo.shapes import cone, prism
from cli.estimators import load_function

LIGHT = Light(name="at noon", zenith=(0, 0, 1), horizon=(0.5, 0.5, 1), sun=(0.5, 0.5, 0.5),
              ambient=(0.5, 0.5, 0.5), direction=(0.0, 0.8, -0.6))
SQUARE = [(-1.0, 4.0), (1.0, 4.0), (1.0, 6.0), (-1.0, 6.0)]


def scene(*solids: Convex | Sphere, shore: float = 0.0) -> Scene:
    flat = (np.zeros(1), np.zeros(1))
    return Scene(solids=solids, light=LIGHT, plain=(0.2, 0.8, 0.2), hills=flat, shore=shore,
                 eye=1.0)


def ahead(num: int = 1) -> Rays:
    return Rays(np.zeros((num, 3)), np.tile([0.0, 0.0, 1.0], (num, 1)))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_prism_is_hit_at_its_front_face() -> None:
    distances, normals, _ = prism(4, SQUARE, -1, 1, (1, 0, 0)).hit(ahead())
    assert distances.tolist() == [4.0]
    assert np.allclose(normals, [[0, 0, -1]])


def test_a_sphere_is_hit_at_its_front_and_missed_beside_it() -> None:
    ball = Sphere(6, np.array([0.0, 0.0, 5.0]), 2.0, np.ones((2, 3)), stripes=3)
    assert ball.hit(ahead())[0].tolist() == [3.0]
    aside = Rays(np.array([[2.5, 0.0, 0.0]]), np.array([[0.0, 0.0, 1.0]]))
    assert np.isinf(ball.hit(aside)[0]).all()


def test_a_cone_may_point_down() -> None:
    point = cone(6, SQUARE, 1.0, -1.0, [(1, 1, 1)])
    distances, normals, _ = point.hit(ahead())
    assert 4.0 < distances[0] < 5.0
    assert normals[0, 1] < 0


def test_only_rays_towards_a_sphere_are_near_it() -> None:
    directions = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    assert Rays(np.zeros((3, 3)), directions).near(np.array([0.0, 0.0, 5.0]), 1.0).tolist() == [0]


def test_the_plain_is_as_far_as_the_slope_of_the_ray_says() -> None:
    _, depth, labels = render(scene(), 8)
    slope = 2 * 0.58 * (7.5 / 8 - 0.5)
    assert np.allclose(depth[7], 1.0 / slope)
    assert np.isinf(depth[0]).all()
    assert (labels[0] == LABELS.index("sky")).all() and (labels[7] == LABELS.index("ground")).all()


def test_a_lake_is_water_up_to_its_shore() -> None:
    _, depth, labels = render(scene(shore=5.0), 32)
    below = labels == WATER
    assert depth[below].max() < 5.0 <= depth[labels == LABELS.index("ground")].min()


def test_still_water_mirrors_what_stands_behind_it() -> None:
    tower = prism(4, [(x, z + 6) for x, z in SQUARE], 0, 4, (1.0, 0.0, 0.0))
    plain, mirrored = render(scene(shore=8.0), 16)[0], render(scene(tower, shore=8.0), 16)[0]
    near_shore = (render(scene(shore=8.0), 16)[2] == WATER).argmax(0)[8]
    assert int(mirrored[near_shore, 8, 0]) > int(plain[near_shore, 8, 0])


def test_a_solid_throws_a_shadow() -> None:
    tower = prism(4, SQUARE, 0, 3, (1.0, 0.0, 0.0))
    ground = render(scene(tower), 32)[2] == LABELS.index("ground")
    darker = render(scene(), 32)[0][ground].astype(int) - render(scene(tower), 32)[0][ground]
    assert darker.max() > 30


def test_a_scene_depends_on_its_index_and_seed_alone() -> None:
    first, again, other, reseeded = draw(7, 1), draw(7, 1), draw(13, 1), draw(7, 2)
    assert (first.image == again.image).all() and first.caption == again.caption
    assert (first.image != other.image).any() and (first.image != reseeded.image).any()


def test_pictures_and_maps_have_the_promised_types() -> None:
    drawing = draw(0)
    assert drawing.image.shape == (SIZE, SIZE, 3) and drawing.image.dtype == np.uint8
    assert drawing.depth.shape == drawing.labels.shape == (SIZE, SIZE)
    assert drawing.depth.dtype == np.uint16 and drawing.labels.dtype == np.uint8


@pytest.mark.parametrize("index", range(len(KINDS)))
def test_the_sky_is_at_no_depth_and_nothing_is_nearer_than_the_limit(index: int) -> None:
    drawing = draw(index)
    sky = drawing.labels == LABELS.index("sky")
    assert (drawing.depth[sky] == 0).all() and (drawing.depth[~sky] > 0).all()
    assert drawing.depth.max() < 65535, f"something is nearer than {NEAREST} m"


def test_every_class_occurs_and_captions_name_what_is_seen() -> None:
    drawings = [draw(index) for index in range(12)]
    assert {int(label) for drawing in drawings for label in np.unique(drawing.labels)} == set(
        range(len(LABELS)))
    for drawing in drawings:
        assert ("balloon" in drawing.caption) == (LABELS.index("balloon") in drawing.labels)


def test_a_corpus_is_the_same_from_one_process_and_from_two(tmp_path: Path) -> None:
    assert list(write_corpus(tmp_path / "one", 7, seed=3)) == list(range(1, 8))
    assert list(write_corpus(tmp_path / "two", 7, seed=3, num_workers=2)) == list(range(1, 8))
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_corpus_holds_pictures_maps_and_captions(tmp_path: Path) -> None:
    list(write_corpus(tmp_path, 6))
    with (tmp_path / "captions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == list(KINDS)
    for row in rows:
        modes = [Image.open(tmp_path / name / f"{row['key']}.png").mode for name in FOLDERS]
        assert modes[0] == "RGB" and modes[1].startswith("I") and modes[2] == "L"


def test_maps_can_be_read_off_pictures_by_colour() -> None:
    drawings = [draw(index) for index in range(120)]
    images = np.stack([drawing.image for drawing in drawings])
    maps = np.stack([drawing.labels for drawing in drawings])
    table = ColourTable(images[:72], maps[:72], len(LABELS))
    read, given = table.read(images[72:]), maps[72:]
    assert mean_iou(given, read, len(LABELS)) > 0.85
    assert mean_iou(given, np.roll(read, 5, axis=0), len(LABELS)) < 0.35


def test_the_estimator_of_scenes_reads_maps_that_it_was_not_counted_over(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "NUM_SCENES", 48)
    monkeypatch.setattr(reading, "scene_table", functools.cache(reading.scene_table.__wrapped__))
    drawings = [draw(index) for index in range(12)]
    estimator = load_function("cli.demo.reading:segmentation")
    read = estimator(np.stack([drawing.image for drawing in drawings]))
    given = np.stack([drawing.labels for drawing in drawings])
    assert read.shape == given.shape and mean_iou(given, read, len(LABELS)) > 0.75


def test_a_colour_never_seen_is_read_as_the_nearest_one_seen() -> None:
    images = np.array([[[[255, 0, 0], [0, 0, 255]]]], np.uint8)
    table = ColourTable(images, np.array([[[0, 1]]]), 2)
    assert table.read(np.array([[[[200, 30, 10], [10, 60, 220]]]], np.uint8)).tolist() == [[[0, 1]]]


def test_mean_iou_counts_classes_alike_and_leaves_out_absent_ones() -> None:
    given, read = np.array([[[0, 0, 0, 1]]]), np.array([[[0, 0, 1, 1]]])
    assert mean_iou(given, read, 3) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert mean_iou(given, given, 3) == 1.0
