"""The comparison of sources finds equal codes equal, and others not."""
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from object_store import ObjectStore
from PIL import Image

from benchmarks import same_codes
from benchmarks.same_codes import KINDS, Comparison, Laid
from tests.cli.random_tokenizers import save_tokenizer
from tokenizer.corpus.sources import Source

NUM_IMAGES = 3


@pytest.fixture
def comparison(tmp_path: Path, s3: ObjectStore, image_folder: Callable[[int], Path]) -> Comparison:
    """Of three images with maps, one of them broken, and one without a map."""
    photos, maps = image_folder(NUM_IMAGES), tmp_path / "maps"
    maps.mkdir()
    for number, photo in enumerate(sorted(photos.iterdir())):
        with Image.open(photo) as image:
            regions = np.arange(image.height * image.width).reshape(image.height, image.width)
        Image.fromarray((regions // (99 + number) % 3).astype(np.uint8)).save(maps / photo.name)
    (photos / "img-001.png").write_bytes(b"no image")
    shutil.copy(photos / "img-000.png", photos / "without.png")
    tokenizers = {"image": save_tokenizer(tmp_path / "tok"), "segmentation": save_tokenizer(
        tmp_path / "seg-tok", modality="segmentation", num_classes=3)}
    return Comparison(Laid(str(photos), {"segmentation": str(maps)}), tokenizers, s3.bucket)


def test_every_kind_of_source_gives_the_codes_of_the_folder(
        comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    assert comparison.run()
    rows = [line.split(" | ")[:4] for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == [[f"| {kind}", "2", "2" if kind in ("folder", "s3") else "1", "2 of 2"]
                    for kind in ("folder", *KINDS, "s3")]


def swap(photos: Path) -> None:
    first, last = photos / "img-000.png", photos / "img-002.png"
    content = first.read_bytes()
    first.write_bytes(last.read_bytes())
    last.write_bytes(content)


def lose(photos: Path) -> None:
    (photos / "img-002.png").unlink()


def add(photos: Path) -> None:
    shutil.copy(photos / "img-002.png", photos / "img-003.png")


def mistake(photos: Path) -> None:
    (photos / "img-003.png").write_bytes(b"no image")


@pytest.mark.parametrize("change", [swap, lose, add, mistake])
def test_other_codes_keys_and_failures_are_differences(
        comparison: Comparison, monkeypatch: pytest.MonkeyPatch,
        change: Callable[[Path], None]) -> None:
    def changed(source: Source, folder: str) -> Laid:
        photos = Path(shutil.copytree(comparison.folders.corpus, f"{folder}/photos"))
        change(photos)
        return Laid(str(photos))
    monkeypatch.setattr(same_codes, "KINDS", {"changed": changed})
    tokenizers = {"image": comparison.tokenizers["image"]}
    assert not Comparison(Laid(comparison.folders.corpus), tokenizers).run()
