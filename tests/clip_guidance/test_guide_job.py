"""Guided images are a token corpus like any other, and their job can be continued."""
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from written_corpora import write_buckets

from clip_guidance.clip import Clip
from clip_guidance.cutouts import CutoutConfig
from clip_guidance.job import GuideConfig, Tokenizer, guide_corpus
from clip_guidance.optimise import Guided, OptimiseConfig
from clip_guidance.prompts import parse_prompts, tell_story
from clip_guidance.starts import Start, stored_codes
from tokenizer.audit import verify
from tokenizer.buckets import Bucket
from tokenizer.codec import Codec
from tokenizer.schema import SpecMismatch, codes_array
from tokenizer.tokens import TokenCorpus
from tokenizer.vqgan.model import VQGAN


@pytest.fixture(scope="session")
def tokenizer(model: VQGAN) -> Tokenizer:
    return Tokenizer(model, Codec(model, "sha256:tiny"))


def guide(tokenizer: Tokenizer, clip: Clip, out: Path, *, text: str = "a red house",
          steps: int = 3, then: tuple[str, ...] = (), **settings: Any) -> TokenCorpus:
    given = {name: settings.pop(name) for name in ("start", "each", "overwrite")
             if name in settings}
    optimisation = OptimiseConfig(num_steps=steps, learning_rate=0.3, cutouts=CutoutConfig(num=4))
    config = GuideConfig(prompts=tell_story((text, *then), steps), optimisation=optimisation,
                         **settings)
    guide_corpus(tokenizer, clip, str(out), config, **given)
    return TokenCorpus.open(str(out))


def codes_of(corpus: TokenCorpus) -> np.ndarray:
    return codes_array(corpus.spec["image"], corpus.read_shard(0))


def test_guided_images_are_a_sound_token_corpus(tokenizer: Tokenizer, clip: Clip,
                                                tmp_path: Path) -> None:
    corpus = guide(tokenizer, clip, tmp_path, num=2, seed=5, text="a red house | fog:-0.5")
    assert not any(verify(corpus)) and corpus.spec.codes == (tokenizer.codec.spec,)
    rows = corpus.read_shard(0).to_pylist()
    assert [row["key"] for row in rows] == ["guided-00000", "guided-00001"]
    assert rows[1]["source"] == f"clip:{clip.fingerprint}#seed=5&index=1"
    assert {row["caption"] for row in rows} == {"a red house | fog:-0.5"}
    last = json.loads((tmp_path / "curves/guided-00001.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 3 and len(last["similarities"]) == 2
    assert rows[1]["clip_loss"] == pytest.approx(last["loss"], abs=1e-5)
    assert rows[1]["clip_similarity"] == pytest.approx(last["similarity"], abs=1e-5)
    assert not (tmp_path / "_guiding").exists()


def test_pictures_are_those_of_the_codes_and_hold_their_settings(tokenizer: Tokenizer, clip: Clip,
                                                                 tmp_path: Path) -> None:
    corpus = guide(tokenizer, clip, tmp_path, text="a häuschen")
    picture = Image.open(tmp_path / "images/guided-00000.png")
    np.testing.assert_array_equal(np.asarray(picture), tokenizer.codec.decode(codes_of(corpus))[0])
    assert picture.text["Description"] == "a häuschen"  # type: ignore[attr-defined]
    settings = json.loads(picture.text["img2tokens"])  # type: ignore[attr-defined]
    assert settings["prompts"] == ["a häuschen"] and settings["clip"] == clip.fingerprint
    assert settings["optimisation"]["num_steps"] == 3 and settings["index"] == 0
    assert Image.open(tmp_path / "curves/guided-00000.png").size == (640, 400)


def test_an_image_depends_on_its_number_and_not_on_how_many_there_are(tokenizer: Tokenizer,
                                                                      clip: Clip,
                                                                      tmp_path: Path) -> None:
    many, few = (codes_of(guide(tokenizer, clip, tmp_path / str(num), num=num)) for num in (3, 1))
    np.testing.assert_array_equal(many[:1], few)
    assert (many[1] != many[0]).any() and (many[2] != many[1]).any()


def test_a_stopped_job_goes_on_and_ends_in_the_same_bytes(tokenizer: Tokenizer, clip: Clip,
                                                          tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def stop(index: int, guided: Guided) -> None:
        if (index, len(guided.records)) == (1, 5):
            raise KeyboardInterrupt

    whole = guide(tokenizer, clip, tmp_path / "whole", num=2, steps=6, save_every=2)
    with pytest.raises(KeyboardInterrupt):
        guide(tokenizer, clip, tmp_path / "stopped", num=2, steps=6, save_every=2, each=stop)
    with pytest.raises(FileNotFoundError, match="no completed token corpus"):
        TokenCorpus.open(str(tmp_path / "stopped"))
    stopped = guide(tokenizer, clip, tmp_path / "stopped", num=2, steps=6, save_every=2,
                    each=lambda index, guided: seen.append((index, len(guided.records))))
    assert seen == [(0, 7), (1, 4), (1, 5), (1, 6), (1, 7)]
    assert stopped.manifest == whole.manifest
    for name in ("images/guided-00001.png", "curves/guided-00001.jsonl"):
        found, expected = ((tmp_path / run / name).read_bytes() for run in ("stopped", "whole"))
        assert found == expected


def test_rows_of_a_story_tell_it_and_are_described_by_its_end(tokenizer: Tokenizer, clip: Clip,
                                                              tmp_path: Path) -> None:
    corpus = guide(tokenizer, clip, tmp_path, text="a lake | fog:-0.5", then=("a red house",),
                   steps=4)
    row, = corpus.read_shard(0).to_pylist()
    assert row["caption"] == "a red house"
    assert unquote(row["source"]).endswith("&index=0&story=a lake | fog:-0.5 > a red house")
    lines = [json.loads(line) for line in
             (tmp_path / "curves/guided-00000.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == [0, 0, 2, 2, 2]
    assert row["clip_similarity"] == pytest.approx(lines[-1]["similarities"][2], abs=1e-5)
    texts = Image.open(tmp_path / "images/guided-00000.png").text  # type: ignore[attr-defined]
    assert texts["Description"] == "a lake | fog:-0.5 > a red house"
    assert json.loads(texts["img2tokens"])["begins"] == [0, 0, 2]


def test_a_story_stopped_in_its_middle_ends_in_the_same_bytes(tokenizer: Tokenizer, clip: Clip,
                                                              tmp_path: Path) -> None:
    def stop(index: int, guided: Guided) -> None:
        if len(guided.records) == 5:
            raise KeyboardInterrupt

    story: dict[str, Any] = {"text": "a lake", "then": ("fog", "a red house"), "steps": 6,
                             "save_every": 2}
    whole = guide(tokenizer, clip, tmp_path / "whole", **story)
    with pytest.raises(KeyboardInterrupt):
        guide(tokenizer, clip, tmp_path / "stopped", **story, each=stop)
    with pytest.raises(ValueError, match=r"begins was \[0, 2, 4\], now None"):
        guide(tokenizer, clip, tmp_path / "stopped", text="a lake | fog | a red house", steps=6)
    assert guide(tokenizer, clip, tmp_path / "stopped", **story).manifest == whole.manifest


def test_a_picture_that_is_a_prompt_is_noticed_when_it_changes(tokenizer: Tokenizer, clip: Clip,
                                                               tmp_path: Path) -> None:
    picture = tmp_path / "a: picture.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    first = guide(tokenizer, clip, tmp_path / "out", text=f"@{picture}:0.5 | fog")
    assert first.read_shard(0)["caption"][0].as_py() == f"@{picture}:0.5:-inf | fog"
    Image.new("RGB", (40, 30), "blue").save(picture)
    with pytest.raises(ValueError, match="pictures.*was sha256:.*, now sha256:"):
        guide(tokenizer, clip, tmp_path / "out", text=f"@{picture}:0.5 | fog")
    second = guide(tokenizer, clip, tmp_path / "other", text=f"@{picture}:0.5 | fog")
    assert (codes_of(second) != codes_of(first)).any()


def test_a_finished_job_is_left_as_it_is(tokenizer: Tokenizer, clip: Clip, tmp_path: Path) -> None:
    first = guide(tokenizer, clip, tmp_path)
    seen: list[int] = []
    assert guide(tokenizer, clip, tmp_path,
                 each=lambda index, guided: seen.append(index)).manifest == first.manifest
    assert not seen


def test_a_damaged_state_is_named(tokenizer: Tokenizer, clip: Clip, tmp_path: Path) -> None:
    def damage(index: int, guided: Guided) -> None:
        if len(guided.records) == 2:
            (tmp_path / "_guiding/guided-00000.pt").write_bytes(b"PK")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guide(tokenizer, clip, tmp_path, save_every=1, each=damage)
    with pytest.raises(ValueError, match=r"guided-00000.pt is damaged: remove it"):
        guide(tokenizer, clip, tmp_path)


def test_frames_show_the_image_every_n_steps_and_change_nothing(tokenizer: Tokenizer, clip: Clip,
                                                                tmp_path: Path) -> None:
    plain = guide(tokenizer, clip, tmp_path / "plain", steps=5)
    framed = guide(tokenizer, clip, tmp_path / "framed", steps=5, frames=2)
    assert framed.manifest == plain.manifest
    names = sorted(path.name for path in (tmp_path / "framed/frames/guided-00000").iterdir())
    assert names == ["00000.png", "00002.png", "00004.png"]
    assert Image.open(tmp_path / "framed/frames/guided-00000.gif").n_frames >= 2


def test_kept_cells_of_a_stored_row_come_out_unchanged(tokenizer: Tokenizer, clip: Clip,
                                                       tmp_path: Path) -> None:
    first = guide(tokenizer, clip, tmp_path / "first", num=2)
    free = np.zeros((4, 4), bool)
    free[:2] = True
    codes = stored_codes(first, "guided-00001", tokenizer.codec.spec)
    np.testing.assert_array_equal(codes, codes_of(first)[1:])
    start = Start(name="first#guided-00001", codes=codes, free=free)
    second = guide(tokenizer, clip, tmp_path / "second", start=start, steps=8, text="fog")
    np.testing.assert_array_equal(codes_of(second)[:, ~free], codes[:, ~free])
    assert (codes_of(second)[:, free] != codes[:, free]).any()
    assert second.read_shard(0)["source"][0].as_py().endswith("&start=first%23guided-00001")


def test_images_take_starts_in_turn(tokenizer: Tokenizer, clip: Clip, tmp_path: Path) -> None:
    codes = np.stack([np.full((4, 4), 3), np.full((4, 4), 7)])
    free = np.zeros((4, 4), bool)
    free[0, 0] = True
    found = codes_of(guide(tokenizer, clip, tmp_path, num=3,
                           start=Start(name="x", codes=codes, free=free)))
    assert found[:, 1, 1].tolist() == [3, 7, 3]


def test_rows_of_another_tokenizer_or_key_are_no_start(tokenizer: Tokenizer, clip: Clip,
                                                       tmp_path: Path) -> None:
    corpus = guide(tokenizer, clip, tmp_path, steps=1)
    with pytest.raises(ValueError, match="holds no row with the key 'cat'"):
        stored_codes(corpus, "cat", tokenizer.codec.spec)
    with pytest.raises(SpecMismatch, match=r"image\.grid is \[4, 4\], expected \[4, 6\]"):
        stored_codes(corpus, "guided-00000", tokenizer.codec.at_size((32, 48)).spec)
    with pytest.raises(ValueError, match="the hole is empty"):
        Start(name="x", codes=codes_of(corpus), free=np.zeros((4, 4), bool))


@pytest.mark.parametrize(("settings", "message"), [
    ({"text": "fog"}, r"prompts was \['a red house'\], now \['fog'\]"), ({"seed": 1}, "seed was 0"),
    ({"steps": 12}, "optimisation.num_steps was 3, now 12")])
def test_other_images_in_the_folder_are_refused_or_overwritten(
        tokenizer: Tokenizer, clip: Clip, tmp_path: Path, settings: dict[str, Any],
        message: str) -> None:
    before = codes_of(guide(tokenizer, clip, tmp_path))
    with pytest.raises(ValueError, match=f"other guided images .*{message}.*--overwrite"):
        guide(tokenizer, clip, tmp_path, **settings)
    after = guide(tokenizer, clip, tmp_path, overwrite=True, **settings)
    assert not any(verify(after)) and (codes_of(after) != before).any()


def test_less_memory_may_be_asked_for_in_between(tokenizer: Tokenizer, clip: Clip,
                                                 tmp_path: Path) -> None:
    first = guide(tokenizer, clip, tmp_path)
    assert guide(tokenizer, clip, tmp_path, cutout_batch=1, frames=1).manifest == first.manifest


def test_another_folder_is_left_alone(tokenizer: Tokenizer, clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="other files, such as images: choose another folder"):
        guide(tokenizer, clip, tmp_path, overwrite=True)


@pytest.mark.parametrize("settings", [{"num": 0}, {"seed": -1}, {"frames": -1}, {"save_every": 0},
                                      {"cutout_batch": 0}])
def test_impossible_settings_are_refused(settings: dict[str, int]) -> None:
    name, = settings
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        GuideConfig(prompts=parse_prompts("a"), **settings)


def test_of_buckets_a_row_of_the_size_of_the_images_is_the_start(tokenizer: Tokenizer,
                                                                 tmp_path: Path) -> None:
    spec = tokenizer.codec.spec
    wide = tokenizer.codec.at_size((16, 32)).spec
    corpus = write_buckets(tmp_path, spec, 4, tuple(
        Bucket(image_size=each.image_size, grid=each.grid) for each in (spec, wide)))
    assert (stored_codes(corpus, "k02", spec) == np.full((1, *spec.grid), 3)).all()
    assert (stored_codes(corpus, "k01", wide) == np.full((1, *wide.grid), 2)).all()
    with pytest.raises(ValueError, match="no row with the key 'k02' whose picture is of 16x32"):
        stored_codes(corpus, "k02", wide)
    with pytest.raises(ValueError, match="of the bucket 32x48 are needed, and .* 2 of 16x32, 2 of"):
        stored_codes(corpus, "k02", tokenizer.codec.at_size((32, 48)).spec)
