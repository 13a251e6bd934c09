"""Shared fixtures: one thread for torch, and folders of small drawn images."""
import asyncio
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from object_store import ObjectStore
from object_store import start as object_store_start
from PIL import Image

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Two test processes share two cores; results at one thread do not depend on the machine."""


def draw(seed: int, height: int = 40, width: int = 48) -> np.ndarray:
    """A smooth coloured picture with one rectangle, ``(height, width, 3)`` uint8."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    slopes = generator.uniform(-1, 1, (2, 3))
    picture = 0.5 + 0.4 * (rows[..., None] * slopes[0] + columns[..., None] * slopes[1])
    top, left = generator.integers(0, height // 2), generator.integers(0, width // 2)
    picture[top:top + height // 3, left:left + width // 3] = generator.uniform(0, 1, 3)
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


@pytest.fixture(scope="session")
def drawn() -> Callable[..., np.ndarray]:
    """`draw`, for tests that need single pictures."""
    return draw


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[[int], Path]:
    """Makes a folder ``photos`` of drawn PNG images ``img-000.png`` ..., of varied sizes."""
    def make(num_images: int) -> Path:
        folder = tmp_path / "photos"
        folder.mkdir(exist_ok=True)
        for index in range(num_images):
            picture = draw(index, 36 + index % 5, 40 + index % 7)
            Image.fromarray(picture).save(folder / f"img-{index:03d}.png")
        return folder
    return make


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """An S3 server on loopback; ``s3://`` leads to it, for the processes of a test too."""
    store, stop = object_store_start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
                "ENDPOINT_URL": store.endpoint, "ACCESS_KEY_ID": "key", "MAX_ATTEMPTS": "3",
                "SECRET_ACCESS_KEY": "secret", "DEFAULT_REGION": "us-east-1",
                "EC2_METADATA_DISABLED": "true", "CONFIG_FILE": os.devnull,
                "SHARED_CREDENTIALS_FILE": os.devnull}.items():
            patch.setenv(f"AWS_{name}", value)
        # Clients wait before they try again, up to seconds; here a hundredth of that.
        patch.setattr("botocore.retryhandler.random", SimpleNamespace(random=lambda: 0.01))
        patch.setattr("s3fs.core.asyncio", SimpleNamespace(
            **vars(asyncio) | {"sleep": lambda seconds: asyncio.sleep(seconds / 100)}))
        patch.setattr("tokenizer.stores.PAUSES", (0.001, 0.01))
        patch.setattr("s3fs.S3FileSystem.retries", 3)
        yield store
    stop()


@pytest.fixture
def s3(object_store: ObjectStore) -> Iterator[ObjectStore]:
    """The S3 server in good weather, with an empty bucket."""
    object_store.bucket = f"s3://{secrets.token_hex(8)}"
    object_store.ask("PUT", "")
    object_store.requests.clear()
    yield object_store
    object_store.faults.clear()
