"""The codec: a trained tokenizer as two functions, pixels to codes and codes to pixels, in numpy.

    codec = Codec.load("runs/image")            # a folder or any fsspec URL
    codes = codec.encode(pixels)                # (N, H, W, 3) uint8 -> (N, h, w) uint16
    images = codec.decode(codes)                # and back

Codes are reproducible: the model always sees batches of one shape (the last is padded) in float32
on one intra-op thread, because another shape or thread count moves results by about 1e-6, enough
to flip a near tie. An image's codes therefore do not depend on what else is in the call. Another
``batch_size``, device or kind of CPU may flip a rare near tie; bf16 changes many codes, so a spec
names its precision.

`docs/speed.md` has what makes this fast: channels last, memory that is kept, and on a CPU only as
many images at once as leave the largest feature map at 32 MiB.

Letters: N images, H and W sides of the image, h and w rows and columns of the code grid, K codebook
size.
"""
import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from tokenizer import checkpoints
from tokenizer.corpus.modalities import Modality
from tokenizer.devices import full_float32, usable_device
from tokenizer.memory import keep_freed_memory
from tokenizer.schema import CodeSpec
from tokenizer.vqgan.model import KIND, VQGAN, VQGANConfig

if TYPE_CHECKING:
    from tokenizer.backends.runtimes import LatentsOf

Result = TypeVar("Result")

def modality_of(url: str) -> str:
    """Name of the modality that the tokenizer in the folder ``url`` is of.

    Raises:
        OSError, ValueError: see `Codec.load`.
    """
    name: str = checkpoints.load_config(url, KIND, VQGANConfig).modality["name"]
    return name


PRECISIONS = ("float32", "bf16")
"""Arithmetic of encoder and decoder; codes are chosen in float32 in either case."""

TORCH = "torch"
"""The backend that is always there."""

FEATURES_AT_ONCE = 1 << 23
"""Numbers in the largest feature map on a CPU: 32 MiB; more images at once only take memory."""


class Codec:
    """A trained tokenizer.

    Several threads may call one codec: a call changes nothing in it. Cores are best used by several
    calls at once (threads or processes), since each runs on one.

    Attributes:
        spec: what the codes mean; `CodeSpec.tokenizer` is the fingerprint of the checkpoint.
        modality: the kind of picture, with its settings.
        batch_size: most images that pass through the model at once.
    """

    def __init__(self, model: VQGAN, fingerprint: str, batch_size: int = 8,
                 device: str = "cpu", precision: str = "float32",
                 backend: str = TORCH) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {' or '.join(PRECISIONS)}, got {precision!r}")
        if backend != TORCH and (device, precision) != ("cpu", "float32"):
            raise ValueError(f"the backend {backend} computes on cpu in float32, got {device} and "
                             f"{precision}; leave out the backend")
        self.modality: Modality = model.config.build_modality()
        self.batch_size = batch_size
        self._device = usable_device(device)
        self._autocast = torch.bfloat16 if precision == "bf16" else None
        self._backend = backend
        if self._device.type == "cpu":
            keep_freed_memory()
        if precision == "bf16":
            model = with_convolutions_in(torch.bfloat16, model)
        self._model = model.to(self._device).eval()
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._set_size(model.config, fingerprint, precision)

    @classmethod
    def load(cls, url: str, batch_size: int = 8, device: str = "cpu",
             precision: str = "float32", backend: str = TORCH) -> "Codec":
        """The codec of a checkpoint.

        Args:
            url: the folder that ``img2tokens train-tokenizer`` wrote, a path or fsspec URL.
            device: where torch computes, such as ``cpu`` or ``cuda``.
            precision: ``float32``, or ``bf16``: about twice as fast, and other codes.
            backend: what computes the encoder: ``torch``, or a name of
                `tokenizer.backends.runtimes.RUNTIMES`, on ``cpu`` in ``float32``.
        Raises:
            FileNotFoundError: no checkpoint is there.
            ValueError: it is no tokenizer's, or damaged; ``device`` cannot be used; or the
                precision or backend is unknown, or its packages are missing.
        """
        config = checkpoints.load_config(url, KIND, VQGANConfig)
        weights, fingerprint = checkpoints.load_fingerprinted(url)
        return cls(VQGAN.from_weights(config, weights), fingerprint, batch_size=batch_size,
                   device=device, precision=precision, backend=backend)

    def at_size(self, image_size: tuple[int, int]) -> "Codec":
        """This codec for pictures of another height and width, with the same weights.

        Raises:
            ValueError: a side is no multiple of the pixels of one code.
        """
        config = dataclasses.replace(self._model.config, image_size=image_size)
        codec = copy.copy(self)
        codec._set_size(config, self.spec.tokenizer, self.spec.precision)
        return codec

    def _set_size(self, config: VQGANConfig, fingerprint: str, precision: str) -> None:
        """Set what depends on the size of the pictures."""
        self.spec = CodeSpec(
            modality=self.modality.name, grid=config.grid, depth=config.quantizer.depth,
            image_size=config.image_size,
            codebook_size=config.quantizer.codebook_size, tokenizer=fingerprint,
            preprocessing=self.modality.preprocessing(), precision=precision)
        one_pixel = self.modality.to_pixels(torch.zeros(1, self.modality.out_channels, 1, 1))
        self._pixel_shape = (*config.image_size, *one_pixel.shape[3:])
        self._at_once = self.batch_size
        if self._device.type == "cpu":
            self._at_once = min(self.batch_size, max(1, FEATURES_AT_ONCE // config.num_features))
        self._encoder: LatentsOf | None = None
        if self._backend != TORCH:
            from tokenizer.backends.runtimes import open_runtime
            self._encoder = open_runtime(self._backend, self._model, (
                self._at_once, self.modality.in_channels, *config.image_size))

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels to codes.

        Args:
            pixels: ``(N, H, W[, 3])`` of the modality's type, as `Modality.fit` returns them: uint8
                RGB, uint16 depth, or class ids. Any N, 0 too.
        Returns:
            ``(N, *spec.code_shape)`` in ``[0, K)``, of ``spec.dtype``: ``(N, h, w)``, or
            ``(N, D, h, w)`` for a residual quantizer.
        Raises:
            ValueError: another type or size than the spec's, or class ids beyond the classes.
        """
        self._check_pixels(pixels)
        return self._in_batches(self._encode_batch, pixels, self.spec.code_shape, self.spec.dtype)

    def encode_with_distances(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Pixels to codes, the same as `encode` gives, and how sure these are.

        Returns:
            Codes; and ``(N, 2, *spec.code_shape)`` float32, the Euclidean distances of latents to
            the entries of their codes and to the second nearest entries, or nothing where codes
            are not the nearest entries of a codebook.
        Raises:
            ValueError: see `encode`.
        """
        self._check_pixels(pixels)
        shape = self.spec.code_shape
        codes = np.empty((len(pixels), *shape), self.spec.dtype)
        distances = np.empty((len(pixels), 2, *shape), np.float32)
        measured = True
        for part, (chosen, found) in self._batches(self._measure_batch, pixels):
            codes[part] = _first(chosen, part)
            if measured := found is not None:
                distances[part] = _first(found, part)
        return codes, distances if measured else None

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes to pixels.

        Args:
            codes: ``(N, *spec.code_shape)``, any integer type, in ``[0, K)``.
        Returns:
            ``(N, H, W[, 3])`` of the modality's type.
        Raises:
            ValueError: another grid, or codes outside the codebook.
        """
        shape = self.spec.code_shape
        if codes.ndim != 1 + len(shape):
            raise ValueError(f"codes must be of shape (N, {', '.join(map(str, shape))}), "
                             f"got {codes.shape}")
        self.spec.check_codes(codes)
        return self._in_batches(self._decode_batch, codes.astype(np.int64), self._pixel_shape,
                                self.modality.pixel_dtype)

    def _check_pixels(self, pixels: np.ndarray) -> None:
        self.modality.check_pixels(pixels)
        if pixels.shape[1:] != self._pixel_shape:
            raise ValueError(f"{self.modality.name} pixels must be of shape (N, "
                             f"{', '.join(map(str, self._pixel_shape))}), got {pixels.shape}; "
                             "crop and resize them with Modality.fit")

    def _encode_batch(self, pixels: Tensor) -> Tensor:
        return self._model.quantize.encode(self._latents(pixels))

    def _measure_batch(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._model.quantize.encode_with_distances(self._latents(pixels))

    def _latents(self, pixels: Tensor) -> Tensor:
        """Latents ``(B, C, h, w)`` float32 of pixels."""
        inputs = self.modality.to_inputs(pixels)
        if self._encoder is not None:
            return torch.from_numpy(self._encoder(inputs.numpy()))
        with self._arithmetic():
            return self._model.encode_to_latents(inputs).float()

    def _decode_batch(self, codes: Tensor) -> Tensor:
        with self._arithmetic():
            outputs = self._model.decode(codes)
        return self.modality.to_pixels(outputs.float())

    def _arithmetic(self) -> torch.autocast:
        """Autocast to the precision of this codec, or none."""
        return torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None)

    def _in_batches(self, function: Callable[[Tensor], Tensor], items: np.ndarray,
                    shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """``function`` of ``(N, ...)`` items, in batches of one shape, as ``(N, *shape)``."""
        results = np.empty((len(items), *shape), dtype)
        for part, result in self._batches(function, items):
            results[part] = _first(result, part)
        return results

    def _batches(self, function: Callable[[Tensor], Result],
                 items: np.ndarray) -> Iterator[tuple[slice, Result]]:
        """``function`` of batches of one shape, padded, each with the items that it stands for."""
        padded = np.zeros((self._at_once, *items.shape[1:]), items.dtype)
        for start in range(0, len(items), self._at_once):
            batch = items[start:start + self._at_once]
            padded[:len(batch)] = batch
            with reproducible(self._device):
                result = function(torch.from_numpy(padded).to(self._device))
            yield slice(start, start + len(batch)), result


def _first(results: Tensor, part: slice) -> np.ndarray:
    """Of the results of a padded batch, those of its items, in numpy."""
    return results.cpu().numpy()[:part.stop - part.start]


def with_convolutions_in(dtype: torch.dtype, model: VQGAN) -> VQGAN:
    """A copy whose convolutions, but the quantizer's, hold the weights that autocast would make."""
    copied = copy.deepcopy(model)
    parts = (copied.encoder, copied.decoder, copied.quant_conv, copied.post_quant_conv)
    for module in (module for part in parts for module in part.modules()):
        if isinstance(module, nn.Conv2d):
            module.to(dtype)
    return copied


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Within, torch computes in full float32, without gradients, on one thread for this caller.

    The number of intra-op threads is the calling thread's own; it is put back afterwards, as is the
    rest. (A thread that first uses torch at that moment starts with one as well.)
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (torch.inference_mode(), torch.autocast(device.type, enabled=False), full_float32()):
            yield
    finally:
        torch.set_num_threads(num_threads)
