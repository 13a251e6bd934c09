"""Samples are a token corpus like any other, say where they come from, and can be continued."""
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from forked import Forked

from prior.generate import Generation
from prior.givens import Givens, from_corpus, from_labels
from prior.guidance import Guidance
from prior.model import Condition, Prior
from prior.samplers import RandomSampler
from prior.sampling import SamplingConfig, sample_corpus
from prior.windows import enlarged
from tokenizer import tokens
from tokenizer.audit import verify
from tokenizer.schema import codes_array
from tokenizer.tokens import TokenCorpus

Trained = tuple[TokenCorpus, str]


def sample(prior: Prior, givens: Givens, out: Path, **settings: Any) -> TokenCorpus:
    generation = Generation(batch_size=4, **settings.pop("generation", {}))
    overwrite = settings.pop("overwrite", False)
    sample_corpus(prior, givens, str(out), SamplingConfig(generation=generation, **settings),
                  overwrite=overwrite)
    return TokenCorpus.open(str(out))


def rows_of(corpus: TokenCorpus) -> list[dict[str, Any]]:
    return [row for table in corpus.tables() for row in table.to_pylist()]


def codes_of(corpus: TokenCorpus, modality: str = "image") -> np.ndarray:
    return np.concatenate([codes_array(corpus.spec[modality], table) for table in corpus.tables()])


def fragment(row: dict[str, Any]) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(row["source"]).fragment).items()}


def test_samples_are_a_sound_token_corpus(prior: Prior, tmp_path: Path) -> None:
    corpus = sample(prior, from_labels(prior.config, ["dog", "cat"]), tmp_path, num=10,
                    shard_size=4)
    assert [entry.rows for entry in corpus.manifest.shards] == [4, 4, 2]
    assert not any(verify(corpus))
    assert corpus.spec.codes == (prior.config.spec["image"],)
    rows = rows_of(corpus)
    assert [row["key"] for row in rows][:2] == ["sample-00000", "sample-00001"]
    assert [row["class_name"] for row in rows] == ["dog", "cat"] * 5
    assert [row["label"] for row in rows] == [1, 0] * 5
    assert (rows[0]["height"], rows[0]["crop_width"], rows[0]["flipped"]) == (12, 8, False)
    assert corpus.manifest.class_counts == {"cat": 5, "dog": 5}


def test_each_row_says_what_it_was_conditioned_on(prior: Prior, trained: Trained,
                                                  tmp_path: Path) -> None:
    givens = from_corpus(prior.config, trained[0])
    corpus = sample(prior, givens, tmp_path, num=6, samples_each=2, seed=3)
    rows = rows_of(corpus)
    assert rows[3]["source"] == (f"prior:{prior.fingerprint}#seed=3&index=3"
                                 "&condition=photos/0000&row=1")
    assert [fragment(row)["row"] for row in rows] == ["0", "0", "1", "1", "2", "2"]
    np.testing.assert_array_equal(codes_of(corpus, "segmentation").reshape(6, -1),
                                  givens.conditions["segmentation"][[0, 0, 1, 1, 2, 2]])
    assert corpus.spec.modalities == ("image", "segmentation")


def test_keys_with_special_characters_can_be_read_back(prior: Prior, tmp_path: Path) -> None:
    plain = from_labels(prior.config, ["dog"])
    odd = Givens(corpus="sha256:x", keys=("a b/ü&row=9#+.c",), rows=plain.rows,
                 conditions=plain.conditions, start=plain.start)
    row, = rows_of(sample(prior, odd, tmp_path))
    assert fragment(row)["condition"] == "a b/ü&row=9#+.c" and fragment(row)["row"] == "0"


def test_by_default_each_row_is_sampled_once(prior: Prior, trained: Trained,
                                             tmp_path: Path) -> None:
    corpus = sample(prior, from_corpus(prior.config, trained[0], held_out=True), tmp_path)
    assert corpus.manifest.num_rows == 10


def test_rows_are_taken_again_when_more_images_are_asked_for(prior: Prior, tmp_path: Path) -> None:
    rows = rows_of(sample(prior, from_labels(prior.config, ["dog", "cat"]), tmp_path, num=5,
                          samples_each=2))
    assert [row["class_name"] for row in rows] == ["dog", "dog", "cat", "cat", "dog"]


def test_samples_follow_their_maps(prior: Prior, trained: Trained, tmp_path: Path) -> None:
    givens = from_corpus(prior.config, trained[0], held_out=True)
    corpus = sample(prior, givens, tmp_path)
    expected = givens.conditions["segmentation"] * 2 + givens.conditions["label"]
    found = codes_of(corpus).reshape(len(expected), -1)
    assert (found == expected).mean() > 0.9


def test_completed_images_begin_with_the_rows_that_were_kept(prior: Prior, trained: Trained,
                                                             tmp_path: Path) -> None:
    givens = from_corpus(prior.config, trained[0], keep=0.5)
    corpus = sample(prior, givens, tmp_path, num=8)
    originals = codes_of(trained[0])[:8]
    np.testing.assert_array_equal(codes_of(corpus)[:, :2], originals[:, :2])
    assert {fragment(row)["kept"] for row in rows_of(corpus)} == {"4"}


def test_an_image_depends_on_its_seed_and_index_not_on_num_or_shards(prior: Prior,
                                                                     tmp_path: Path) -> None:
    givens = from_labels(prior.config, [])
    many = codes_of(sample(prior, givens, tmp_path / "many", num=20, shard_size=7))
    few = codes_of(sample(prior, givens, tmp_path / "few", num=3))
    other = codes_of(sample(prior, givens, tmp_path / "other", num=20, seed=1))
    np.testing.assert_array_equal(few, many[:3])
    assert (other != many).any()
    assert len(np.unique(many.reshape(20, -1), axis=0)) > 10


def test_no_label_given_is_no_label_stored(prior: Prior, tmp_path: Path) -> None:
    corpus = sample(prior, from_labels(prior.config, []), tmp_path, num=2)
    assert [(row["label"], row["class_name"]) for row in rows_of(corpus)] == [(None, None)] * 2
    assert corpus.manifest.classes == ("cat", "dog")


def test_a_stopped_job_goes_on_and_ends_in_the_same_bytes(
        prior: Prior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    givens = from_labels(prior.config, ["dog"])
    whole = sample(prior, givens, tmp_path / "whole", num=12, shard_size=4)
    commit, committed = tokens.commit_shard, []

    def stop_at_third(*arguments: Any) -> object:
        if len(committed) == 2:
            raise KeyboardInterrupt
        committed.append(arguments[1])
        return commit(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tokens, "commit_shard", stop_at_third)
        sample(prior, givens, tmp_path / "stopped", num=12, shard_size=4)
    with pytest.raises(FileNotFoundError, match="no completed token corpus"):
        TokenCorpus.open(str(tmp_path / "stopped"))
    committed.clear()
    monkeypatch.setattr(tokens, "commit_shard",
                        lambda *arguments: committed.append(arguments[1]) or commit(*arguments))
    stopped = sample(prior, givens, tmp_path / "stopped", num=12, shard_size=4)
    assert committed == [2]
    assert stopped.manifest == whole.manifest


def test_a_damaged_shard_is_named_and_made_again_by_the_next_call(prior: Prior,
                                                                  tmp_path: Path) -> None:
    givens = from_labels(prior.config, ["dog"])
    corpus = sample(prior, givens, tmp_path, num=8, shard_size=4)
    path = tmp_path / corpus.manifest.shards[1].name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(tokens.AuditFailure, match="part-00001-of-00002.parquet is damaged"):
        sample(prior, givens, tmp_path, num=8, shard_size=4)
    assert sample(prior, givens, tmp_path, num=8, shard_size=4).manifest == corpus.manifest


@pytest.mark.parametrize(("settings", "message"), [
    ({"seed": 5}, "seed was 0, now 5"),
    ({"num": 3}, "num was 2, now 3"),
    ({"generation": {"guidance": Guidance(scale=2.0)}}, "generation.guidance was 1.0, now 2.0"),
    ({"generation": {"sampler": RandomSampler(top_k=3)}}, "sampler.top_k was None, now 3")])
def test_other_samples_in_the_folder_are_refused(prior: Prior, tmp_path: Path,
                                                 settings: dict[str, Any], message: str) -> None:
    givens = from_labels(prior.config, ["dog"])
    sample(prior, givens, tmp_path, num=2)
    with pytest.raises(ValueError, match=f"other samples .*{message}.*--overwrite"):
        sample(prior, givens, tmp_path, **{"num": 2, **settings})


def test_other_conditions_in_the_folder_are_refused(prior: Prior, tmp_path: Path) -> None:
    sample(prior, from_labels(prior.config, ["dog"]), tmp_path, num=2)
    with pytest.raises(ValueError, match="content was sha256"):
        sample(prior, from_labels(prior.config, ["cat"]), tmp_path, num=2)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_token_corpus_that_is_no_sample_is_left_alone(prior: Prior, corpus: TokenCorpus,
                                                        overwrite: bool) -> None:
    with pytest.raises(ValueError, match="holds a token corpus that was not sampled: choose anoth"):
        sample(prior, from_labels(prior.config, []), Path(corpus.url), overwrite=overwrite)
    assert not any(verify(corpus))


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(("name", "content"), [("data/mine.csv", "1"), ("images/me.png", "x"),
                                               ("sampling.json", '{"rate": 44100}'),
                                               ("sampling.json", "[")])
def test_a_folder_with_other_files_is_left_alone(prior: Prior, tmp_path: Path, name: str,
                                                 content: str, overwrite: bool) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    first = name.split("/")[0]
    with pytest.raises(ValueError, match=f"other files, such as {first}: choose another folder"):
        sample(prior, from_labels(prior.config, []), tmp_path, overwrite=overwrite)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_text() == content


def test_overwriting_removes_samples_and_leaves_other_files(prior: Prior, tmp_path: Path) -> None:
    sample(prior, from_labels(prior.config, []), tmp_path, num=8, shard_size=4)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "sample-00007.png").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    sample(prior, from_labels(prior.config, []), tmp_path, num=2, overwrite=True)
    assert not (tmp_path / "images").exists() and (tmp_path / "notes.txt").read_text() == "mine"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["part-00000-of-00001.parquet"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("place", ["", "samples"])
def test_samples_are_not_written_into_the_corpus_of_their_conditions(
        prior: Prior, corpus: TokenCorpus, place: str, overwrite: bool) -> None:
    givens, before = from_corpus(prior.config, corpus), sorted(Path(corpus.url).rglob("*"))
    with pytest.raises(ValueError, match=f"lies in the token corpus {corpus.url}; choose another"):
        sample(prior, givens, Path(corpus.url) / place, overwrite=overwrite)
    assert sorted(Path(corpus.url).rglob("*")) == before


def test_samples_are_not_overwritten_by_those_they_condition(prior: Prior, trained: Trained,
                                                             tmp_path: Path) -> None:
    first = sample(prior, from_corpus(prior.config, trained[0]), tmp_path, num=4)
    with pytest.raises(ValueError, match="lies in the token corpus"):
        sample(prior, from_corpus(prior.config, first), tmp_path, overwrite=True)
    assert not any(verify(first))


def test_nothing_is_removed_when_the_guidance_cannot_be(prior: Prior, tmp_path: Path) -> None:
    import dataclasses
    corpus = sample(prior, from_labels(prior.config, []), tmp_path, num=2)
    free = dataclasses.replace(prior.config, conditions=())
    with pytest.raises(ValueError, match="guidance 2 needs conditions"):
        sample(dataclasses.replace(prior, config=free), from_labels(free, []), tmp_path,
               generation={"guidance": Guidance(scale=2.0)}, overwrite=True)
    assert not any(verify(corpus))


def test_guidance_without_conditions_to_leave_out_is_refused(prior: Prior, tmp_path: Path) -> None:
    import dataclasses
    always = dataclasses.replace(prior.config, drop_all=0.0,
                                 conditions=(Condition(name="label", dropout=0.0),))
    bound = dataclasses.replace(prior, config=always)
    with pytest.raises(ValueError, match="this one always had label"):
        sample(bound, from_labels(always, ["dog"]), tmp_path,
               generation={"guidance": Guidance(scale=2.0)})
    with pytest.raises(ValueError, match="guidance 2 follows what samples are given, and nothing"):
        sample(prior, from_labels(prior.config, []), tmp_path,
               generation={"guidance": Guidance(scale=2.0)})
    free = dataclasses.replace(prior.config, conditions=())
    with pytest.raises(ValueError, match="guidance 2 needs conditions; the prior has none"):
        sample(dataclasses.replace(prior, config=free), from_labels(free, []), tmp_path,
               generation={"guidance": Guidance(scale=2.0)})
    assert not list(tmp_path.iterdir())


def test_what_was_asked_for_is_written_beside_the_corpus(prior: Prior, tmp_path: Path) -> None:
    sample(prior, from_labels(prior.config, ["dog"]), tmp_path, num=2, seed=4)
    data = json.loads((tmp_path / "sampling.json").read_text())
    assert data["prior"] == prior.fingerprint and data["seed"] == 4
    assert data["generation"]["sampler"] == {"name": "random", "temperature": 1.0, "top_k": None,
                                             "top_p": 1.0}


def test_new_settings_leave_what_was_asked_for_as_it_was_where_they_are_not_used(
        prior: Prior, tmp_path: Path) -> None:
    sample(prior, from_labels(prior.config, ["dog"]), tmp_path, num=2,
           generation={"guidance": Guidance(scale=1.5)})
    data = json.loads((tmp_path / "sampling.json").read_text())
    assert list(data) == ["prior", "num", "samples_each", "seed", "generation", "shard_size",
                          "corpus", "num_rows", "num_kept", "conditions", "content"]
    assert list(data["generation"]) == ["sampler", "guidance", "batch_size", "cached"]
    assert data["generation"]["guidance"] == 1.5


@pytest.mark.parametrize("settings", [{"num": 0}, {"samples_each": 0}, {"seed": -1},
                                      {"shard_size": 0}])
def test_impossible_settings_are_refused(settings: dict[str, int]) -> None:
    name, = settings
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        SamplingConfig(**settings)


# Ranking, parts, holes


def test_of_those_drawn_the_most_likely_are_kept_best_first(prior: Prior, tmp_path: Path) -> None:
    givens = from_labels(prior.config, ["dog", "cat"])
    hot = {"sampler": RandomSampler(temperature=2.0)}
    every = sample(prior, givens, tmp_path / "all", num=16, samples_each=8, likelihood=True,
                   generation=hot)
    ranked = sample(prior, givens, tmp_path / "best", num=5, samples_each=3, best_of=8,
                    shard_size=2, generation=hot)
    logs = np.array([row["log_likelihood"] for row in rows_of(every)]).reshape(2, 8)
    order = np.argsort(-logs, 1, kind="stable")
    expected = codes_of(every).reshape(2, 8, -1)
    found = codes_of(ranked).reshape(5, -1)
    np.testing.assert_array_equal(found[:3], expected[0, order[0, :3]])
    np.testing.assert_array_equal(found[3:], expected[1, order[1, :2]])
    kept = [row["log_likelihood"] for row in rows_of(ranked)]
    assert kept == [*logs[0, order[0, :3]], *logs[1, order[1, :2]]]
    assert ([int(fragment(row)["index"]) for row in rows_of(ranked)]
            == [*order[0, :3], *order[1, :2] + 8])
    assert [entry.rows for entry in ranked.manifest.shards] == [3, 2] and not any(verify(ranked))


def test_likelihoods_are_a_quality_column_and_change_no_code(prior: Prior, tmp_path: Path) -> None:
    givens = from_labels(prior.config, ["dog"])
    plain, rated = (sample(prior, givens, tmp_path / str(rate), num=6, likelihood=rate)
                    for rate in (False, True))
    assert plain.spec.quality == () and rated.spec.quality == ("log_likelihood",)
    assert all(row["log_likelihood"] < 0 for row in rows_of(rated))
    np.testing.assert_array_equal(codes_of(rated), codes_of(plain))


def test_parts_make_what_one_call_makes_and_the_last_completes_it(prior: Prior,
                                                                  tmp_path: Path) -> None:
    givens = from_labels(prior.config, ["dog"])
    whole = sample(prior, givens, tmp_path / "whole", num=10, shard_size=2)
    config = SamplingConfig(num=10, shard_size=2, generation=Generation(batch_size=4))
    out = str(tmp_path / "parts")
    made = [sample_corpus(prior, givens, out, config, part=(index, 3)) for index in (2, 0, 1)]
    assert made[:2] == [None, None] and made[2] == whole.manifest
    with pytest.raises(ValueError, match="the tasks of an array cannot overwrite"):
        sample_corpus(prior, givens, out, config, overwrite=True, part=(0, 3))


def test_holes_are_filled_and_named_in_the_source(prior: Prior, trained: Trained,
                                                  tmp_path: Path) -> None:
    hole = np.array([[False, False], [True, False], [False, True]])
    givens = from_corpus(prior.config, trained[0], hole=hole)
    corpus = sample(prior, givens, tmp_path, num=8, generation={"passes": 2})
    originals = codes_of(trained[0])[:8]
    np.testing.assert_array_equal(codes_of(corpus)[:, ~hole], originals[:, ~hole])
    assert {fragment(row)["kept"] for row in rows_of(corpus)} == {"4"}
    with pytest.raises(ValueError, match="other samples"):
        sample(prior, from_corpus(prior.config, trained[0], hole=hole[::-1]), tmp_path, num=8,
               generation={"passes": 2})


def test_larger_images_are_samples_of_a_larger_spec(prior: Prior, tmp_path: Path) -> None:
    import dataclasses
    large = dataclasses.replace(prior, config=enlarged(prior.config, (24, 12)))
    corpus = sample(large, from_labels(large.config, ["dog"]), tmp_path, num=2)
    assert corpus.spec["image"].grid == (6, 3) and corpus.spec["image"].image_size == (24, 12)
    assert codes_of(corpus).shape == (2, 6, 3) and not any(verify(corpus))
    assert rows_of(corpus)[0]["crop_width"] == 12


@pytest.mark.parametrize(("size", "message"), [
    ((8, 8), "at least of the prior's 12 x 8 pixels, got 8 x 8"),
    ((24, 10), "24 x 10 pixels are no whole number of image cells, each of 4 x 4")])
def test_sizes_that_do_not_fit_are_refused(prior: Prior, size: tuple[int, int],
                                           message: str) -> None:
    with pytest.raises(ValueError, match=message):
        enlarged(prior.config, size)


KILLED = """
import os, sys
from prior.generate import Generation
from prior.givens import from_labels
from prior.model import Prior
from prior.sampling import SamplingConfig, sample_corpus
from tokenizer import tokens

commit, made = tokens.commit_shard, []

def commit_two(*arguments):
    if len(made) == 2:
        os.kill(os.getpid(), 9)
    made.append(commit(*arguments))
    return made[-1]

tokens.commit_shard = commit_two
prior = Prior.load(sys.argv[1])
sample_corpus(prior, from_labels(prior.config, ["dog"]), sys.argv[2],
              SamplingConfig(num=16, shard_size=4, generation=Generation(batch_size=4)))
"""


def test_a_job_that_was_killed_goes_on_and_ends_in_the_same_bytes(prior: Prior, trained: Trained,
                                                                  tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    assert Forked(tmp_path / "killed.py", trained[1], tmp_path / "killed").wait(300) == -9
    givens = from_labels(prior.config, ["dog"])
    for name in ("killed", "whole"):
        sample(prior, givens, tmp_path / name, num=16, shard_size=4)
    files = {name: {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*")
                    if path.is_file()} for name in ("killed", "whole")}
    assert files["killed"] == files["whole"] and len(files["whole"]) > 8


def test_ranking_needs_at_least_as_many_as_are_kept() -> None:
    with pytest.raises(ValueError, match="drawn to keep 4, got 3"):
        SamplingConfig(samples_each=4, best_of=3)
