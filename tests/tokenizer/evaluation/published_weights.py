"""Drawn weights in the published layouts of VGG16, LPIPS and FID's InceptionV3, as small files."""
from pathlib import Path

import torch

from tokenizer.evaluation.inception import InceptionFeatures
from tokenizer.evaluation.measures import PretrainedFiles
from tokenizer.training.perceptual import BLOCKS, PerceptualDistance


def write_weights(folder: Path) -> PretrainedFiles:
    """Write all three files, and say where they lie."""
    torch.manual_seed(0)
    vgg16 = {f"features.{name}": tensor
             for name, tensor in PerceptualDistance().features.state_dict().items()}
    linear = {f"lin{index}.model.1.weight": torch.rand(1, block[-1], 1, 1)
              for index, block in enumerate(BLOCKS)}
    for name, tensors in (("vgg16", vgg16), ("linear", linear),
                          ("inception", InceptionFeatures().state_dict())):
        torch.save(tensors, folder / f"{name}.pth")
    return PretrainedFiles(lpips_vgg16=str(folder / "vgg16.pth"),
                           lpips_linear=str(folder / "linear.pth"),
                           inception=str(folder / "inception.pth"))
