"""The tiny CLIP tells drawn scenes apart after seconds, and is read as any other."""
from pathlib import Path

import torch
from click.testing import CliRunner

from cli.demo.clip import build_tokenizer, main, train_clip
from cli.demo.scenes import draw
from clip_guidance.clip import Clip
from clip_guidance.prompts import similarities


def test_words_of_captions_are_tokens_and_others_are_spelled() -> None:
    tokenizer = build_tokenizer(["a lake at noon, with a house", "a wood at noon"])
    assert tokenizer.tokenize("A lake at Noon") == ["a</w>", "lake</w>", "at</w>", "noon</w>"]
    assert tokenizer.tokenize("fog") == ["f", "o", "g</w>"]


def test_scenes_find_captions_far_above_chance_after_seconds(tmp_path: Path) -> None:
    found = train_clip(tmp_path, num_scenes=120, num_steps=30)
    assert found.num == 12 and found.share >= 3 * found.chance
    clip, drawing = Clip.load(str(tmp_path)), draw(0)
    view = torch.from_numpy(drawing.image.copy()).permute(2, 0, 1)[None, :, ::2, ::2] / 255
    own, other = similarities(clip.embed_images(view), clip.embed_texts(
        [drawing.caption, "a wood at noon, with five trees"]))[0]
    assert own > other


def test_one_seed_gives_one_clip(tmp_path: Path) -> None:
    for name in ("one", "two"):
        result = CliRunner().invoke(main, [str(tmp_path / name), "--num-scenes", "20",
                                           "--steps", "2"])
        assert result.exit_code == 0 and "of 2 held-out scenes" in result.output
    assert ((tmp_path / "one/model.safetensors").read_bytes()
            == (tmp_path / "two/model.safetensors").read_bytes())
