"""How good a tokenizer is: figures with their conditions, a table, and pictures to look at.

    figures.py      a figure, its conditions, a table of them; a hash over what was measured
    similarity.py   SSIM and MS-SSIM         measures.py   figures over pairs of pixels, a table
    inception.py    the network behind FID   images.py     which images are read
    features.py     pictures to its features inception_score.py   from its logits
    frechet.py      the Frechet distance     manifolds.py  precision and recall of features
    evaluate.py     the whole, from folder to report
"""
