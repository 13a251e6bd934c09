"""Runtimes that compute a tokenizer's latents in place of torch, in float32 on one thread of a CPU.

Only the encoder's rounding differs from torch's, by about 1e-6 of the latents: codes are chosen by
the same search. Exporters and runtimes of versions that do not go together compute something else
without a word, so each network is compared with torch's before it is used. To add a runtime, write
a function that loads one here and list it in `RUNTIMES`.
`docs/speed.md` has what they gain.

Letters: B images, C channels of the input, H and W sides of the image, z channels of a latent, h
and w rows and columns of the code grid.
"""
from collections.abc import Callable

import numpy as np
import torch

from tokenizer.backends.onnx_files import latents_onnx
from tokenizer.vqgan.model import VQGAN

TOLERANCE = 1e-2
"""How far latents may lie from torch's, in standard deviations; rounding takes some 1e-5."""

LatentsOf = Callable[[np.ndarray], np.ndarray]
"""Inputs ``(B, C, H, W)`` of one shape to latents ``(B, z, h, w)``, both float32."""


def open_runtime(name: str, model: VQGAN, shape: tuple[int, int, int, int]) -> LatentsOf:
    """The encoder of ``model`` in another runtime; several threads may call it.

    Args:
        name: one of `RUNTIMES`.
        shape: the one shape ``(B, C, H, W)`` of its inputs.
    Raises:
        ValueError: there is no such runtime, its packages are missing, or it computes other latents
            than torch.
    """
    if name not in RUNTIMES:
        raise ValueError(f"backend is torch, {' or '.join(RUNTIMES)}, got {name!r}")
    try:
        latents_of = RUNTIMES[name](model, shape)
    except ImportError as error:
        raise ValueError(f"the backend {name} takes the package {error.name}: "
                         f"pip install 'img2tokens[{EXTRAS[name]}]'") from error
    _require_latents_of_torch(name, model, shape, latents_of)
    return latents_of


def _require_latents_of_torch(name: str, model: VQGAN, shape: tuple[int, int, int, int],
                              latents_of: LatentsOf) -> None:
    """Compare the latents of one drawn image."""
    inputs = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    with torch.inference_mode():
        image = torch.from_numpy(inputs[:1]).to(next(model.parameters()).device)
        expected = model.encode_to_latents(image).float().cpu().numpy()
    difference = np.abs(latents_of(inputs)[:1] - expected).max() / expected.std()
    if not difference <= TOLERANCE:  # nor where it is no number
        raise ValueError(f"{name} computes other latents than torch, {difference:.2g} standard "
                         "deviations away: versions of its packages do not go together; pip "
                         f"install -U 'img2tokens[{EXTRAS[name]}]', or leave --backend out")


def open_openvino(model: VQGAN, shape: tuple[int, int, int, int]) -> LatentsOf:
    """OpenVINO, which may otherwise choose bf16 and all cores by itself."""
    import openvino
    settings = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY",
                "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
    core = openvino.Core()
    network = core.read_model(latents_onnx(model, shape))
    compiled = core.compile_model(network, "CPU", settings)

    def latents_of(inputs: np.ndarray) -> np.ndarray:
        results = compiled.create_infer_request().infer([inputs])
        latents: np.ndarray = np.array(results[0])
        return latents
    return latents_of


def open_onnxruntime(model: VQGAN, shape: tuple[int, int, int, int]) -> LatentsOf:
    """ONNX Runtime with its own CPU kernels, which compute float32 models in float32."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(latents_onnx(model, shape), options,
                                           providers=["CPUExecutionProvider"])

    def latents_of(inputs: np.ndarray) -> np.ndarray:
        latents: np.ndarray = session.run(None, {"inputs": inputs})[0]
        return latents
    return latents_of


RUNTIMES: dict[str, Callable[[VQGAN, tuple[int, int, int, int]], LatentsOf]] = {
    "openvino": open_openvino, "onnxruntime": open_onnxruntime}
"""Every runtime by name."""

EXTRAS = {"openvino": "openvino", "onnxruntime": "onnx"}
"""Which extra of this package installs a runtime."""
