"""A CLIP is read from a folder with its own normalisation; what is wrong with one is said."""
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_clip import DEVIATION, MEAN, SIDE

from clip_guidance.clip import Clip
from clip_guidance.prompts import parse_prompts, similarities


@pytest.fixture
def copied(clip_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clip_folder, tmp_path / "clip"))


def test_embeddings_are_those_of_transformers(clip: Clip, clip_folder: Path) -> None:
    from transformers import CLIPModel, CLIPTokenizerFast
    theirs = CLIPModel.from_pretrained(clip_folder).eval()
    images = torch.rand(3, 3, SIDE, SIDE)
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    texts = ["a red house", "fog"]
    tokens = CLIPTokenizerFast.from_pretrained(clip_folder)(texts, padding=True,
                                                            return_tensors="pt")
    with torch.no_grad():
        outputs = theirs(pixel_values=(images - mean) / deviation, **tokens)
        found = similarities(clip.embed_images(images), clip.embed_texts(texts))
    expected = outputs.image_embeds @ outputs.text_embeds.T
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_gradients_reach_the_images_and_not_the_weights(clip: Clip) -> None:
    images = torch.rand(1, 3, SIDE, SIDE, requires_grad=True)
    clip.embed_images(images).sum().backward()
    assert images.grad is not None and images.grad.any()
    assert all(tensor.grad is None for tensor in clip._model.parameters())


def test_the_fingerprint_is_that_of_the_weights(clip: Clip, copied: Path) -> None:
    assert Clip.load(str(copied)).fingerprint == clip.fingerprint
    from tiny_clip import save_clip
    assert Clip.load(str(save_clip(copied, seed=1))).fingerprint != clip.fingerprint


def test_a_text_that_is_too_long_is_refused(clip: Clip) -> None:
    with pytest.raises(ValueError, match="42 tokens, of which this CLIP reads 24: shorten 'xxxx"):
        clip.embed_texts(["x" * 40])


@pytest.mark.parametrize("names", [["config.json"], ["model.safetensors"],
                                   ["tokenizer.json"], ["preprocessor_config.json"]])
def test_a_folder_that_lacks_a_file_is_named_with_it(copied: Path, names: list[str]) -> None:
    for name in names:
        (copied / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{copied} holds no .*{names[0]}.*copy the whole"):
        Clip.load(str(copied))


@pytest.mark.parametrize("place", ["no-such-folder", "/no/such/folder", "a/b/c"])
def test_what_is_neither_folder_nor_hub_id_is_refused(place: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"{place} is no folder with a CLIP: give one"):
        Clip.load(place)


def test_another_model_is_no_clip(copied: Path) -> None:
    (copied / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="a model of type 'bert', not a CLIP"):
        Clip.load(str(copied))


@pytest.mark.parametrize("content", [b"", b"{", b"\x10" + b"\0" * 40])
def test_damaged_weights_are_named(copied: Path, content: bytes) -> None:
    (copied / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=f"{copied} holds no CLIP that can be read"):
        Clip.load(str(copied))


def test_weights_that_lack_are_not_drawn_at_random(copied: Path) -> None:
    from safetensors.torch import load_file, save_file
    path = copied / "model.safetensors"
    tensors = load_file(path)
    del tensors["visual_projection.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="no weights of a CLIP: visual_projection.weight lacks"):
        Clip.load(str(copied))


def test_pictures_are_embedded_as_transformers_does(clip: Clip, clip_folder: Path,
                                                    tmp_path: Path) -> None:
    from transformers import CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    picture = Image.effect_noise((70, 50), 90).convert("RGB")
    picture.save(tmp_path / "a: picture.png")
    prompts = parse_prompts(f"fog | @{tmp_path}/a: picture.png:2")
    processor = CLIPImageProcessorPil(image_mean=MEAN, image_std=DEVIATION, size=SIDE,
                                      crop_size=SIDE)
    with torch.no_grad():
        expected = CLIPModel.from_pretrained(clip_folder).eval().get_image_features(
            **processor(picture, return_tensors="pt")).pooler_output
    found = clip.embed_prompts(prompts)
    torch.testing.assert_close(found[1:], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[:1], clip.embed_texts(["fog"]))


@pytest.mark.parametrize(("content", "message"), [
    (None, "photo.png"), (b"", "photo.png is no picture to compare with"),
    (b"\x89PNG\r\n\x1a\n" + bytes(40), "photo.png is no picture to compare with: ")])
def test_a_picture_that_cannot_be_read_is_named(clip: Clip, tmp_path: Path, content: bytes | None,
                                                message: str) -> None:
    file = tmp_path / "photo.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises((OSError, ValueError), match=message):
        clip.embed_prompts(parse_prompts(f"@{file}"))


def test_a_folder_laid_out_as_the_published_one_is_read(clip_folder: Path, tmp_path: Path) -> None:
    """ViT-B/32 in half precision, with two of its twelve layers and another tokenizer."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizerFast
    tokenizer = CLIPTokenizerFast.from_pretrained(clip_folder)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = CLIPModel(CLIPConfig(text_config={**ends, "num_hidden_layers": 2},
                                 vision_config={"num_hidden_layers": 2}))
    model.half().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({
        "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3, "size": 224,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711]}))
    Image.effect_noise((300, 250), 90).convert("RGB").save(tmp_path / "photo.png")
    found = Clip.load(str(tmp_path))
    embeddings = found.embed_prompts(parse_prompts(f"a photo | @{tmp_path}/photo.png"))
    assert found.side == 224 and embeddings.shape == (2, 512)
    assert embeddings.dtype == torch.float32 and embeddings.isfinite().all()


def test_weights_in_half_precision_are_computed_with_in_full(copied: Path) -> None:
    from transformers import CLIPModel
    CLIPModel.from_pretrained(copied).half().save_pretrained(copied)
    found = Clip.load(str(copied))
    images = torch.rand(1, 3, SIDE, SIDE, requires_grad=True)
    embeddings = found.embed_images(images)
    assert embeddings.dtype == torch.float32 == found.embed_texts(["fog"]).dtype
    assert torch.autograd.grad(embeddings.sum(), images)[0].any()


@pytest.mark.parametrize("settings", [{"size": 32}, {"image_mean": [0.5], "image_std": [0.5] * 3},
                                      {"image_mean": [0.5] * 3, "image_std": [0, 1, 1]}])
def test_a_normalisation_that_is_none_is_refused(copied: Path, settings: dict[str, object]) -> None:
    (copied / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="must give image_mean and image_std as three numbers"):
        Clip.load(str(copied))


def test_folders_of_older_versions_are_read(copied: Path, clip: Clip) -> None:
    from safetensors.torch import load_file
    tokenizer = json.loads((copied / "tokenizer.json").read_text())["model"]
    (copied / "vocab.json").write_text(json.dumps(tokenizer["vocab"]))
    (copied / "merges.txt").write_text("#version: 0.2\n")
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    for name in ("tokenizer.json", "model.safetensors"):
        (copied / name).unlink()
    found = Clip.load(str(copied))
    assert found.fingerprint == clip.fingerprint
    texts = ["a red house", "Fog!"]
    torch.testing.assert_close(found.embed_texts(texts), clip.embed_texts(texts))


def test_weights_that_would_run_code_are_refused(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    torch.save({"logit_scale": print}, copied / "pytorch_model.bin")
    with pytest.raises(ValueError, match="holds no CLIP that can be read"):
        Clip.load(str(copied))


def test_a_hub_id_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch,
                                                  tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OSError, match="nobody/no-clip cannot be loaded: We couldn't connect"):
        Clip.load("nobody/no-clip")


def test_a_processor_of_newer_versions_is_read(copied: Path, clip: Clip) -> None:
    (copied / "preprocessor_config.json").rename(copied / "processor_config.json")
    settings = json.loads((copied / "processor_config.json").read_text())
    (copied / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    images = torch.rand(1, 3, SIDE, SIDE)
    assert torch.equal(Clip.load(str(copied)).embed_images(images), clip.embed_images(images))
