"""Uploads, against a stand-in for the Hub (`hub_stand_in`): whole corpora only, completed last."""
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_stand_in import StandIn, serving
from job_fakes import tree

from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.push import PushConfig, push_corpus

pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with serving() as server:
        yield server


@pytest.fixture
def job(config: Callable[..., EncodeConfig], hub: StandIn, tmp_path: Path) -> PushConfig:
    """Pushes ten images, encoded in shards of four."""
    encode_corpus(config())
    return PushConfig(tokens=str(tmp_path / "tokens"), repo="me/corpus", endpoint=hub.url)


def test_every_file_arrives_and_what_completes_it_comes_last(job: PushConfig, hub: StandIn,
                                                             tmp_path: Path) -> None:
    (tmp_path / "tokens/data/.tmp-rest").write_bytes(b"of a killed writer")
    (tmp_path / "tokens/mine.txt").write_bytes(b"beside the corpus")
    url = push_corpus(dataclasses.replace(job, private=True))
    expected = {path: content for path, content in tree(tmp_path / "tokens").items()
                if path not in ("data/.tmp-rest", "mine.txt")}
    assert hub.files == expected and hub.visibility == "private"
    assert hub.commits[-1] == ("Complete", ["README.md", "manifest.json", "_SUCCESS"])
    assert url == f"{hub.url}/datasets/me/corpus/commit/{len(hub.commits):040x}"


def test_a_push_that_is_repeated_first_marks_the_repository_unfinished(job: PushConfig,
                                                                       hub: StandIn) -> None:
    push_corpus(job)
    before, num_commits = dict(hub.files), len(hub.commits)
    push_corpus(job)
    assert hub.commits[num_commits] == ("Begin anew", ["_SUCCESS"]) and hub.files == before


def test_deltas_are_pushed_once_they_are_finished(job: PushConfig, hub: StandIn, tmp_path: Path,
                                                  config: Callable[..., EncodeConfig]) -> None:
    making = ("_deltas/001/_plan/plan.json", "data/part-d001-00000-of-00001.parquet")
    for name in making:
        (tmp_path / "tokens" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tokens" / name).write_bytes(b"of a job that runs")
    push_corpus(dataclasses.replace(job, tokens=f"file://{tmp_path}/tokens"))
    assert "_SUCCESS" in hub.files and not hub.files.keys() & set(making)
    shutil.rmtree(tmp_path / "tokens/_deltas")
    (tmp_path / "tokens" / making[1]).unlink()
    (tmp_path / "photos/z.png").write_bytes((tmp_path / "photos/img-000.png").read_bytes())
    encode_corpus(config(extend=True))
    push_corpus(job)
    assert hub.files == tree(tmp_path / "tokens") and set(making) < hub.files.keys()


def test_a_delta_that_ends_meanwhile_is_not_told_of(job: PushConfig, hub: StandIn, tmp_path: Path,
                                                    config: Callable[..., EncodeConfig],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi
    before, upload = tree(tmp_path / "tokens"), HfApi.upload_folder

    def upload_slowly(api: HfApi, **settings: Any) -> Any:
        (tmp_path / "photos/z.png").write_bytes((tmp_path / "photos/img-000.png").read_bytes())
        encode_corpus(config(extend=True))
        return upload(api, **settings)
    monkeypatch.setattr(HfApi, "upload_folder", upload_slowly)
    push_corpus(job)
    assert hub.files == before != tree(tmp_path / "tokens")


def test_other_files_are_removed_only_on_demand(job: PushConfig, hub: StandIn) -> None:
    hub.files = {"data/part-00000-of-00009.parquet": b"of another corpus", ".gitattributes": b""}
    with pytest.raises(ValueError, match="holds other files, such as data/part-00000-of-00009"):
        push_corpus(job)
    assert len(hub.files) == 2
    push_corpus(dataclasses.replace(job, overwrite=True))
    assert "data/part-00000-of-00009.parquet" not in hub.files and "_SUCCESS" in hub.files
    assert ".gitattributes" in hub.files


def test_a_damaged_corpus_is_refused_before_the_hub_is_asked(job: PushConfig, hub: StandIn,
                                                             tmp_path: Path) -> None:
    (tmp_path / "tokens/data/part-00001-of-00003.parquet").write_bytes(b"cut")
    with pytest.raises(ValueError, match="part-00001-of-00003.parquet is damaged.*nothing was"):
        push_corpus(job)
    assert not hub.requests


def test_an_unfinished_corpus_is_refused_before_the_hub_is_asked(job: PushConfig, hub: StandIn,
                                                                 tmp_path: Path) -> None:
    (tmp_path / "tokens/_SUCCESS").unlink()
    with pytest.raises(FileNotFoundError, match="its job has not finished"):
        push_corpus(job)
    assert not hub.requests


@pytest.mark.parametrize("refused", ["/api/repos/create", "/tree/", "/preupload/", "/commit/"])
def test_a_hub_that_refuses_is_told_and_leaves_no_mark_of_completeness(
        job: PushConfig, hub: StandIn, refused: str) -> None:
    hub.refuse = refused
    with pytest.raises(OSError, match="403|Forbidden"):
        push_corpus(job)
    assert "_SUCCESS" not in hub.files


def test_a_hub_that_is_not_there_is_an_expected_failure(job: PushConfig) -> None:
    with pytest.raises(OSError, match="hf://datasets/me/corpus cannot be reached"):
        push_corpus(dataclasses.replace(job, endpoint="http://127.0.0.1:9"))


def test_a_corpus_on_an_object_store_is_refused(job: PushConfig, tmp_path: Path) -> None:
    import fsspec
    memory = fsspec.filesystem("memory")
    for path, content in tree(tmp_path / "tokens").items():
        memory.pipe_file(f"/pushed/{path}", content)
    with pytest.raises(ValueError, match="is no folder of this machine; copy it"):
        push_corpus(dataclasses.replace(job, tokens="memory://pushed"))


@pytest.mark.parametrize("repo", ["corpus", "a/b/c", "/b", "a/"])
def test_a_repository_has_an_owner_and_a_name(repo: str) -> None:
    with pytest.raises(ValueError, match="a repository is USER/NAME"):
        PushConfig(tokens="t", repo=repo)
