"""What tests of corpora with deltas ask of them."""
import shutil
from pathlib import Path
from unittest import mock

import pytest
from job_fakes import tree

from pipelines.encode import EncodeConfig, EncodeTask, encode_corpus
from pipelines.job import JobFailed
from tokenizer.audit import verify
from tokenizer.schema import Manifest, codes_array
from tokenizer.tokens import Receipt, TokenCorpus

WRITTEN_ANEW = {"README.md", "manifest.json"}


def photo(config: EncodeConfig, index: int, suffix: str = "png") -> Path:
    return Path(config.corpus) / f"img-{index:03d}.{suffix}"


def mend(config: EncodeConfig, *indices: int) -> None:
    """Put back photos from the sound copies in ``good``, beside the corpus, with their times."""
    for index in indices:
        shutil.copy2(Path(config.output).parent / "good" / photo(config, index).name,
                     photo(config, index))


def encode_all_but(failing: int, config: EncodeConfig) -> str:
    """Encode as if the store were down for one shard; returns how the job fails."""
    run = EncodeTask.run

    def fail(task: EncodeTask, shard: int) -> Receipt:
        if shard == failing:
            raise OSError("the store is down")
        return run(task, shard)
    with mock.patch.object(EncodeTask, "run", fail), pytest.raises(JobFailed) as caught:
        encode_corpus(config)
    return str(caught.value)


def codes_by_key(url: str) -> dict[str, list[int]]:
    corpus = TokenCorpus.open(url)
    found: dict[str, list[int]] = {}
    for table in corpus.tables():
        for key, codes in zip(table["key"].to_pylist(), codes_array(corpus.spec["image"], table),
                              strict=True):
            assert key not in found
            found[key] = codes.reshape(-1).tolist()
    return found


def require_sound(config: EncodeConfig, num_inputs: int) -> Manifest:
    """Every input is a row or a dead letter, and every file is as the manifest says."""
    corpus = TokenCorpus.open(config.output)
    assert [problem for problem in verify(corpus) if problem] == []
    keys = [*codes_by_key(config.output), *(letter.key for letter in corpus.dead_letters())]
    assert len(set(keys)) == len(keys) == corpus.manifest.num_inputs == num_inputs
    return corpus.manifest


def require_untouched(before: dict[str, bytes], config: EncodeConfig) -> None:
    after = tree(Path(config.output))
    assert {name: after.get(name) for name in before if name not in WRITTEN_ANEW} == {
        name: content for name, content in before.items() if name not in WRITTEN_ANEW}
