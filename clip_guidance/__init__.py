"""Guidance by text: a prompt steers the decoder of a tokenizer, and the result is kept as codes.

CLIP judges how well a decoded image matches words; the gradient of that judgement moves the latent
grid over many steps (Crowson et al. 2022, arXiv:2204.08583).

    prompts.py      what is asked for, and the loss of an image
    cutouts.py      parts of an image, changed at random, as CLIP sees them
    clip.py         CLIP through transformers
    preprocessing.py how its images are prepared
    latents.py      which latents a quantizer can have, and the codes nearest to them
    optimise.py     the steps of one image
    memory.py       what a step takes, and the chunk of cutouts that fits in a limit
    likelihood.py   a prior beside CLIP: how likely codes are, and samples to start from
    starts.py       what images start from, and what of it is kept
    job.py          several images, into a token corpus
    curves.py       loss and similarity as a picture
"""
