"""How good a tokenizer is: figures with their conditions, a table, and pictures to look at.

    similarity.py   SSIM and MS-SSIM         measures.py   figures over pairs of pixels, a table
    inception.py    the network behind FID   images.py     which images, read and hashed
    frechet.py      the Frechet distance     evaluate.py   the whole, from folder to report
"""
