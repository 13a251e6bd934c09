"""Retries and extensions over every kind of source: what the plan says is enough to reach it."""
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from delta_corpora import codes_by_key, require_sound
from source_kinds import WRITERS, save_parquet

from pipelines import shard
from pipelines.encode import EncodeConfig, encode_corpus
from pipelines.plan import PlanMismatch
from pipelines.retry import retry_corpus
from tokenizer.corpus.sources import Entry
from tokenizer.tokens import DeadLetter

Settings = Callable[..., EncodeConfig]


@pytest.mark.parametrize("kind", WRITERS)
def test_inputs_that_failed_for_a_while_are_reached_again(
        config: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    plain = config()
    make = dataclasses.replace(plain, corpus=WRITERS[kind](tmp_path / "photos",
                                                           tmp_path / "source"))
    read_entry = shard.read_entry

    def failing(entry: Entry, *rest: Any) -> Any:
        if entry.key[-1] in "38":
            return DeadLetter(key=entry.key, source=entry.source, stage="read",
                              error="UnreachableURL", message="the server is down")
        return read_entry(entry, *rest)
    with monkeypatch.context() as patch:
        patch.setattr(shard, "read_entry", failing)
        assert encode_corpus(make).dead_letters == {"UnreachableURL": 2}
    assert retry_corpus(make.output, make.tokenizers).manifest.num_dead_letters == 0
    require_sound(make, 10)
    encode_corpus(dataclasses.replace(make, output=str(tmp_path / "clean")))
    assert codes_by_key(make.output) == codes_by_key(str(tmp_path / "clean"))


def test_further_parquet_files_are_added_and_changed_ones_refused(config: Settings,
                                                                  tmp_path: Path) -> None:
    plain, source = config(), tmp_path / "source"
    make = dataclasses.replace(plain, corpus=save_parquet(tmp_path / "photos", source))
    (source / "0.parquet").rename(tmp_path / "later")
    encode_corpus(make)
    (tmp_path / "later").rename(source / "0.parquet")
    encode_corpus(dataclasses.replace(make, extend=True))
    require_sound(make, 10)
    shutil.copy(source / "0.parquet", source / "1.parquet")
    with pytest.raises(PlanMismatch, match="img-00"):
        encode_corpus(dataclasses.replace(make, extend=True))


def test_a_data_set_of_the_library_does_not_grow(config: Settings, tmp_path: Path) -> None:
    plain = config()
    make = dataclasses.replace(plain, corpus=WRITERS["datasets"](tmp_path / "photos",
                                                                    tmp_path / "source"))
    encode_corpus(make)
    shutil.rmtree(tmp_path / "source")
    shutil.copy(tmp_path / "photos/img-000.png", tmp_path / "photos/img-010.png")
    WRITERS["datasets"](tmp_path / "photos", tmp_path / "source")
    with pytest.raises(PlanMismatch, match="which holds the input .*, is gone or another"):
        encode_corpus(dataclasses.replace(make, extend=True))
