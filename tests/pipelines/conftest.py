"""Fixtures that run jobs on fake codecs, most of them without Beam."""
from collections.abc import Callable
from pathlib import Path

import pytest
from job_fakes import FakeCodec, run_inline

from pipelines import codecs, job
from pipelines.encode import EncodeConfig
from pipelines.engines import BeamEngine
from tokenizer.corpus.modalities import RGB, Depth, Segmentation


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeCodec]:
    """Fake tokenizers by the folder they seem to lie in; jobs find them there."""
    known = {"tok": FakeCodec(RGB()), "other-tok": FakeCodec(RGB(), "b"),
             "depth-tok": FakeCodec(Depth(), "d"),
             "seg-tok": FakeCodec(Segmentation(num_classes=16), "s")}

    def open_codec(url: str, batch_size: int) -> FakeCodec:
        if url not in known:
            raise FileNotFoundError(f"{url} holds no tokenizer")
        known[url].batch_size = batch_size
        return known[url]
    monkeypatch.setattr(codecs, "open_codec", open_codec)
    monkeypatch.setattr(codecs, "_LOADED", {})
    return known


@pytest.fixture
def without_beam(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run inline and wait for nothing."""
    monkeypatch.setattr(BeamEngine, "__call__",
                        lambda engine, task, shards: run_inline(task, shards))
    monkeypatch.setattr(job, "PAUSES", (0.0, 0.0))


Settings = Callable[..., EncodeConfig]


@pytest.fixture
def config(tmp_path: Path, image_folder: Callable[[int], Path], fakes: dict[str, FakeCodec],
           without_beam: None) -> Settings:
    """Makes the config of a job over ten drawn images in shards of four."""
    def make(**settings: object) -> EncodeConfig:
        if not (tmp_path / "photos").exists():
            image_folder(10)
        defaults = {"corpus": str(tmp_path / "photos"), "output": str(tmp_path / "tokens"),
                    "tokenizers": {"image": "tok"}, "shard_size": 4, "batch_size": 4}
        return EncodeConfig(**(defaults | settings))  # type: ignore[arg-type]
    return make
