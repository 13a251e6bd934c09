"""How good a prior is: figures with their conditions, a table, and pictures to look at.

    rows.py         what is measured: held-out rows, samples, the rows of training
    bits.py         bits per held-out code   diversity.py  usage, copies, nearest rows of training
    realism.py      FID and others           agreement.py  maps read off samples, and those given
    picture.py      samples, their maps and neighbours     evaluate.py   the whole, and its files
"""
