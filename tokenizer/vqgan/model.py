"""The VQGAN: encoder, quantizer and decoder as one model, and the config stored with its weights.

Source: Esser et al. 2021, arXiv:2012.09841, section 3.1.

Letters: B images, C and C' input and output channels of the modality, H and W sides of the image,
h and w rows and columns of the code grid, K codebook size.
"""
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tokenizer.corpus.modalities import Modality, modality_from_dict
from tokenizer.vqgan.autoencoder import AutoencoderConfig, Decoder, Encoder
from tokenizer.vqgan.quantizers import (
    MovedRows,
    QuantizerConfig,
    QuantizerOutput,
    build_quantizer,
)

KIND = "tokenizer"
"""What `tokenizer.checkpoints` calls a folder that holds a VQGAN."""


@dataclass(frozen=True, kw_only=True)
class VQGANConfig:
    """One tokenizer: what it reads, at which size, and its network. Stored in its checkpoint.

    Attributes:
        modality: settings of the modality by name, among them ``name``.
        image_size: height and width in pixels of the crop that becomes one grid of codes.
    """
    modality: dict[str, Any] = field(default_factory=lambda: {"name": "image"})
    image_size: tuple[int, int] = (256, 256)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)

    def __post_init__(self) -> None:
        modality_from_dict(self.modality)
        factor = self.autoencoder.downsampling
        if min(self.image_size) < factor or any(side % factor for side in self.image_size):
            raise ValueError(f"both sides of image_size must be multiples of {factor} "
                             f"(patch {self.autoencoder.patch}, {self.autoencoder.num_levels} "
                             f"levels), got {self.image_size}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the code grid."""
        height, width = self.image_size
        return (height // self.autoencoder.downsampling, width // self.autoencoder.downsampling)

    @property
    def code_shape(self) -> tuple[int, ...]:
        """``(h, w)``, or ``(D, h, w)`` for D codes a cell: what one image's codes look like."""
        depth = self.quantizer.depth
        return self.grid if depth == 1 else (depth, *self.grid)

    @property
    def num_features(self) -> int:
        """Numbers in the encoder's largest feature map of one image."""
        height, width = (side // self.autoencoder.patch for side in self.image_size)
        return max(channels * (height >> level) * (width >> level)
                   for level, channels in enumerate(self.autoencoder.channels))

    def build_modality(self) -> Modality:
        """The modality with these settings."""
        return modality_from_dict(self.modality)


class VQGAN(nn.Module):
    """Images to a grid of codes and back; the parameters are named as in the published model.

    In evaluation mode nothing is changed by a call, so several threads may share one model.
    """

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config = config
        modality = config.build_modality()
        shape, code_dim = config.autoencoder, config.quantizer.code_dim
        self.encoder = Encoder(shape, modality.in_channels)
        self.decoder = Decoder(shape, modality.out_channels)
        self.quantize = build_quantizer(config.quantizer)
        self.quant_conv = nn.Conv2d(shape.latent_channels, code_dim, 1)
        self.post_quant_conv = nn.Conv2d(code_dim, shape.latent_channels, 1)

    def forward(self, inputs: Tensor) -> tuple[Tensor, QuantizerOutput]:
        """Reconstruct.

        Args:
            inputs: ``(B, C, H, W)`` float32, as `Modality.to_inputs` makes them.
        Returns:
            Outputs ``(B, C', H, W)`` for the modality's loss, unclamped; and codes with losses.
        """
        quantized = self.quantize(self.encode_to_latents(inputs))
        outputs: Tensor = self.decoder(self.post_quant_conv(quantized.latents))
        return outputs, quantized

    def encode_to_latents(self, inputs: Tensor) -> Tensor:
        """Latents ``(B, code_dim, h, w)`` before quantization."""
        latents: Tensor = self.quant_conv(self.encoder(inputs))
        return latents

    def encode(self, inputs: Tensor) -> Tensor:
        """Codes ``(B, *code_shape)`` int64 in ``[0, K)`` of inputs ``(B, C, H, W)``."""
        return self.quantize.encode(self.encode_to_latents(inputs))

    def decode(self, codes: Tensor) -> Tensor:
        """Outputs ``(B, C', H, W)`` of codes ``(B, *code_shape)``, integers in ``[0, K)``."""
        outputs: Tensor = self.decoder(self.post_quant_conv(self.quantize.codes_to_latents(codes)))
        return outputs

    def revive(self) -> MovedRows:
        """Let the quantizer follow an optimiser step (see `Quantizer.revive`).

        Returns:
            Indices of rows that were given new values, by name of this model's parameter.
        """
        return {f"quantize.{name}": rows for name, rows in self.quantize.revive().items()}

    @property
    def last_layer(self) -> Tensor:
        """Weight of the decoder's last convolution, at which loss gradients are balanced."""
        weight: Tensor = self.decoder.conv_out.weight
        return weight

    def codec_weights(self) -> dict[str, Tensor]:
        """The tensors that decide codes and images: the state without notes on code usage."""
        return {name: tensor for name, tensor in self.state_dict().items()
                if not self._is_training_note(name)}

    def _is_training_note(self, name: str) -> bool:
        """Whether a tensor of the state only tells training how codes were used."""
        room, _, last = name.rpartition(".")
        return room.startswith("quantize") and last in self.quantize.training_notes

    @classmethod
    def from_weights(cls, config: VQGANConfig, weights: Mapping[str, Tensor]) -> "VQGAN":
        """The model with these weights, in float32 and evaluation mode, without drawing any first.

        Args:
            weights: what `codec_weights` returned; notes on code usage may be among them.
        Raises:
            ValueError: tensors are missing, surplus or of another shape than ``config`` says.
        """
        with _Undrawn():
            model = cls(config)
        state = model.state_dict()
        notes = {name: torch.zeros(tensor.shape, dtype=tensor.dtype)
                 for name, tensor in state.items() if model._is_training_note(name)}
        tensors = notes | dict(weights)
        _require_same_shapes(tensors, state)
        model.load_state_dict({name: tensor.to(state[name].dtype)
                               for name, tensor in tensors.items()}, assign=True)
        return model.eval()


class _Undrawn(TorchFunctionMode):
    """Within, modules keep the memory they get: weights that are replaced need no first values.

    (The meta device would do as well, but its random functions load torch's compiler: a second.)
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _require_same_shapes(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse weights of another model than the config's, naming the first tensor that differs."""
    for name in sorted(found.keys() | expected.keys()):
        shapes = [str(tuple(side[name].shape)) if name in side else "no such tensor"
                  for side in (found, expected)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"the weights are not those of their config: {name} is {shapes[0]} in "
                             f"the weights, {shapes[1]} by the config; copy the checkpoint again")
