"""CLIP through ``transformers``: texts and images to embeddings that can be compared.

A CLIP is a folder as ``save_pretrained`` writes it, or an id on the Hugging Face hub, of
``transformers``' class ``CLIPModel``. How its images are prepared is read from its preprocessor
config, see `clip_guidance.preprocessing`; its own image processor is not used, as cutouts have its
size already.

Letters: N images, P prompts, E numbers of an embedding, S side of its images in pixels.
"""
import hashlib
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clip_guidance.preprocessing import (
    PREPROCESSORS,
    Preprocessing,
    read_object,
    read_preprocessing,
)
from clip_guidance.prompts import Prompt
from tokenizer import storage
from tokenizer.corpus.images import SRGB, decode_image
from tokenizer.devices import usable_device
from tokenizer.weights import DAMAGED

if TYPE_CHECKING:
    from transformers import CLIPModel, PreTrainedTokenizerBase

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
           "pytorch_model.bin.index.json")
TOKENIZER = ("tokenizer.json", "vocab.json")
"""Files of a CLIP's folder; of each tuple one is needed."""

_HUB = re.compile(r"[\w.-]+/[\w.-]+")


class Clip:
    """A CLIP model, without gradients of its own.

    Attributes:
        side: S.
        fingerprint: ``sha256:...`` of its weights.
    """

    def __init__(self, model: "CLIPModel", tokenizer: "PreTrainedTokenizerBase",
                 preprocessing: Preprocessing, device: str = "cpu") -> None:
        self._model = model.float().eval().requires_grad_(False)
        self.fingerprint = _fingerprint(self._model)
        self._device = usable_device(device)
        self._model.to(self._device)
        self._tokenizer = tokenizer
        self._preprocessing = preprocessing
        self._mean, self._deviation = (
            torch.tensor(values, device=self._device).view(3, 1, 1)
            for values in (preprocessing.mean, preprocessing.deviation))
        self.side = int(model.config.vision_config.image_size)

    @classmethod
    def load(cls, place: str, device: str = "cpu") -> "Clip":
        """The CLIP in a folder, or with an id on the hub such as ``openai/clip-vit-base-patch32``.

        Raises:
            FileNotFoundError: there is nothing, or a file lacks.
            OSError: the hub cannot be reached.
            ValueError: it is no CLIP, or damaged; or ``transformers`` is not installed.
        """
        transformers = _transformers()
        _require_place(place)
        try:
            model, report = transformers.CLIPModel.from_pretrained(place, output_loading_info=True)
            tokenizer = transformers.CLIPTokenizerFast.from_pretrained(place)
        except OSError as error:  # of the hub it does not always say which one was asked for
            raise OSError(f"{place} cannot be loaded: {error}") from error
        except (*DAMAGED, _safetensor_error(), ImportError) as error:
            raise ValueError(f"{place} holds no CLIP that can be read: {error}") from error
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"{place} holds no weights of a CLIP: {missing[0]} lacks, and "
                             f"{len(missing) - 1} more")
        side = int(model.config.vision_config.image_size)
        return cls(model, tokenizer, read_preprocessing(place, side), device)

    @torch.no_grad()
    def embed_prompts(self, prompts: Sequence[Prompt]) -> Tensor:
        """Embeddings ``(P, E)`` float32 of texts, and of the pictures in files.

        Raises:
            OSError: a file cannot be read.
            ValueError: a text is longer than this CLIP reads, or a file holds no picture.
        """
        return torch.cat([self._embed_text(prompt.text) if prompt.file is None
                          else self._embed_file(prompt.file) for prompt in prompts])

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings ``(N, E)`` float32 of texts.

        Raises:
            ValueError: a text is longer than this CLIP reads.
        """
        return torch.cat([self._embed_text(text) for text in texts])

    def embed_images(self, images: Tensor) -> Tensor:
        """Embeddings ``(N, E)`` float32 of images ``(N, 3, S, S)``, black 0 and white 1."""
        pixels = (images - self._mean) / self._deviation
        pooled = self._model.vision_model(pixel_values=pixels).pooler_output
        embeddings: Tensor = self._model.visual_projection(pooled)
        return embeddings

    def _embed_file(self, url: str) -> Tensor:
        """The embedding ``(1, E)`` of the picture in a file, prepared as this CLIP's were."""
        try:
            pixels = decode_image(storage.read_bytes(url), SRGB)
        except ValueError as error:
            raise ValueError(f"{url} is no picture to compare with: {error}") from error
        prepared = torch.from_numpy(self._preprocessing.apply(pixels)).to(self._device)
        return self.embed_images(prepared.permute(2, 0, 1)[None] / 255)

    def _embed_text(self, text: str) -> Tensor:
        tokens = self._tokenizer([text], return_tensors="pt")
        length = tokens["input_ids"].shape[1]
        longest = self._model.config.text_config.max_position_embeddings
        if length > longest:
            raise ValueError(f"a prompt has {length} tokens, of which this CLIP reads {longest}: "
                             f"shorten {text!r}")
        pooled = self._model.text_model(**tokens.to(self._device)).pooler_output
        embedding: Tensor = self._model.text_projection(pooled)
        return embedding


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ValueError("guidance by text needs transformers: pip install 'img2tokens[clip]'"
                         ) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _safetensor_error() -> type[Exception]:
    from safetensors import SafetensorError
    return SafetensorError


def _require_place(place: str) -> None:
    """Refuse folders that lack a file, and what is neither folder nor hub id."""
    if not os.path.isdir(place):
        if os.path.exists(place) or not _HUB.fullmatch(place):
            raise FileNotFoundError(
                f"{place} is no folder with a CLIP: give one as transformers' save_pretrained "
                "writes it, or a hub id such as openai/clip-vit-base-patch32")
        return
    for names in ((CONFIG,), WEIGHTS, TOKENIZER, PREPROCESSORS):
        if not any(os.path.isfile(os.path.join(place, name)) for name in names):
            raise FileNotFoundError(f"{place} holds no {' or '.join(names[:2])}: copy the whole "
                                    "folder of the CLIP again")
    kind = read_object(os.path.join(place, CONFIG)).get("model_type")
    if kind != "clip":
        raise ValueError(f"{place} holds a model of type {kind!r}, not a CLIP ('clip')")


def _fingerprint(model: "CLIPModel") -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"
