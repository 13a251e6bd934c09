"""Guide one step within a memory limit; prints peak, limit, bytes in use before, and the chunk.

    python guide_within.py CLIP OUT
"""
import re
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from clip_guidance import job
from clip_guidance.clip import Clip
from clip_guidance.cutouts import CutoutConfig
from clip_guidance.memory import Arrangement, used_bytes
from clip_guidance.optimise import Guided, OptimiseConfig
from clip_guidance.prompts import parse_prompts
from tokenizer import recipes
from tokenizer.codec import Codec
from tokenizer.vqgan.model import VQGAN

SIDE, ROOM = 384, 160 << 20
"""Of the picture in pixels; and bytes beside those that are in use when all is loaded."""

torch.manual_seed(0)
model = VQGAN(recipes.tiny({"name": "image"}).model).eval().requires_grad_(False)
tokenizer = job.Tokenizer(model, Codec(model, "sha256:tiny").at_size((SIDE, SIDE)))
clip = Clip.load(sys.argv[1])
used = used_bytes(torch.device("cpu"))
chosen: list[Arrangement] = []


def note(index: int, guided: Guided) -> None:
    chosen.append(guided.arrangement)


optimisation = OptimiseConfig(num_steps=1, cutouts=CutoutConfig(num=64))
config = job.GuideConfig(prompts=parse_prompts("a red house"), optimisation=optimisation,
                         memory_limit=used + ROOM)
job.guide_corpus(tokenizer, clip, sys.argv[2], config, each=note)
# Not ru_maxrss, which starts at what the process that started this one has taken.
found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
assert found is not None
peak = int(found[1]) * 1024
print(peak, used + ROOM, used, chosen[0].cutout_batch)
