"""Untrained tokenizers of images and maps, and a token corpus that they made."""
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clusters import DaskCluster, JobService, dask_cluster, job_service
from random_tokenizers import save_tokenizer

from tokenizer.audit import complete
from tokenizer.codec import Codec
from tokenizer.schema import TokenSpec, rows_table
from tokenizer.tokens import commit_shard

NUM_ROWS, SIDE, NUM_CLASSES = 24, 32, 3


def write_tokenizer(folder: Path, **modality: Any) -> Codec:
    return Codec.load(save_tokenizer(folder, seed=len(folder.name), **modality))


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of an untrained tokenizer of images."""
    return save_tokenizer(tmp_path_factory.mktemp("tokenizers") / "image")


@pytest.fixture(scope="session")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """A Dask cluster with two workers."""
    with dask_cluster(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobService]:
    """A job service of Beam's, with a pool of workers."""
    with job_service(tmp_path_factory.mktemp("beam")) as service:
        yield service


@pytest.fixture(scope="session")
def tokenized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tokenizers ``image`` and ``segmentation``, and the token corpus ``tokens``."""
    folder = tmp_path_factory.mktemp("tokenized")
    codecs = [write_tokenizer(folder / "image"),
              write_tokenizer(folder / "segmentation", modality="segmentation",
                              num_classes=NUM_CLASSES)]
    generator = np.random.default_rng(0)
    maps = generator.integers(0, NUM_CLASSES, (NUM_ROWS, 4, 4)).repeat(8, 1).repeat(8, 2)
    pixels = [generator.integers(0, 256, (NUM_CLASSES, 3))[maps].astype(np.uint8),
              maps.astype(codecs[1].modality.pixel_dtype)]
    spec = TokenSpec(codes=tuple(codec.spec for codec in codecs))
    codes = {codec.spec.modality: codec.encode(items)
             for codec, items in zip(codecs, pixels, strict=True)}
    whole = {"height": SIDE, "width": SIDE, "crop_index": 0, "left": 0, "top": 0,
             "crop_width": SIDE, "crop_height": SIDE, "flipped": False}
    labels = [row % 2 for row in range(NUM_ROWS)]
    columns = {"key": [f"photos/{row:03d}" for row in range(NUM_ROWS)],
               "source": ["drawn"] * NUM_ROWS, "label": labels,
               "class_name": [("cat", "dog")[label] for label in labels],
               **{name: [value] * NUM_ROWS for name, value in whole.items()}}
    url = str(folder / "tokens")
    receipt = commit_shard(url, 0, 1, "sha256:drawn", rows_table(spec, codes, columns))
    complete(url, spec, "sha256:drawn", [receipt], ("cat", "dog"), NUM_ROWS)
    return folder
