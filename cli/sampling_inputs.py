"""What ``img2tokens sample`` is given: rows of a token corpus, files, and holes in pictures."""
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from cli.options import refuse_given

if TYPE_CHECKING:
    import numpy as np

    from prior.givens import Givens
    from prior.model import Prior, PriorConfig
    from tokenizer.codec import Codec
    from tokenizer.schema import CodeSpec


SLACK = 1.1
"""How many times as large or small as the crops of training windows may be, unremarked."""


def find_givens(config: "PriorConfig", codecs: "dict[str, Codec]",
                options: dict[str, Any]) -> "Givens":
    """The rows of conditions that the options ask for.

    Args:
        config: of the prior, at the size of the pictures to draw.
        codecs: by modality, to encode files.
        options: of the command.
    Raises:
        click.UsageError: options that do not go together.
    """
    from prior.givens import from_codes, from_corpus, from_labels
    from tokenizer.tokens import TokenCorpus
    _check_together(options)
    source, completes = _source(options)
    hole = find_hole(config.spec[config.target], options)
    keep = options["keep"] if completes and hole is None else None
    pictures = [source] if source is not None and is_picture(source) else []
    if pictures or options["files"]:
        named = [(config.target, url) for url in pictures] + list(options["files"])
        files = {name: [url for other, url in named if other == name] for name, _ in named}
        return from_codes(config, _encode_all(codecs, files), files, labels=options["labels"],
                          keep=keep, hole=hole)
    if source is None:
        return from_labels(config, options["labels"])
    url, key = _corpus_and_key(source)
    return from_corpus(config, TokenCorpus.open(url), labels=options["labels"],
                       held_out=options["held_out"], keep=keep, hole=hole, key=key,
                       row_filter=options["row_filter"])


def unseen_scale(prior: "Prior", givens: "Givens") -> str | None:
    """What to say of coordinates at another scale than that of the crops in training, if so."""
    from prior.coordinates import window_sides
    from tokenizer.corpus.crops import crop_rule
    from tokenizer.schema import UNKNOWN
    code, own = prior.config.spec[prior.config.target], prior.model.layout.target.grid
    rule = code.preprocessing.get("crop", UNKNOWN)
    if givens.crops is None or UNKNOWN in (rule, prior.config.corpus):
        return None
    least, most = crop_rule(rule).sides
    sides = window_sides(givens.crops, (own[0] / code.grid[0], own[1] / code.grid[1]))
    factors = sides / sides.clip(least, most)
    factor = float(max(factors, key=lambda factor: max(factor, 1 / factor)))
    if 1 / SLACK <= factor <= SLACK:
        return None
    height, width = (max(cells, round(count * factor)) * pixels // count for cells, count, pixels
                     in zip(own, code.grid, code.image_size, strict=True))
    taught = f"{least:.2g}" if least == most else f"{least:.2g} to {most:.2g}"
    return (f"note: in training crops had {taught} of the side of their images, and what is drawn "
            f"at once has {factor * most if factor > 1 else factor * least:.2g}: of coordinates at "
            f"this scale the prior knows nothing; at --size {height}x{width} it does")


def is_picture(url: str) -> bool:
    """Whether a name is that of an image file, not of a token corpus."""
    from tokenizer.corpus.modalities import MODALITIES
    return "#" not in url and url.lower().endswith(MODALITIES["image"].suffixes)


def _check_together(options: dict[str, Any]) -> None:
    """Refuse options of which one has no meaning beside, or without, the others."""
    conditions, completions = options["condition_from"], options["complete_from"]
    rows = conditions or completions
    if conditions and completions:
        raise click.UsageError("give --condition-from or --complete-from: images to complete bring "
                               "their own conditions")
    if options["files"] and rows and not is_picture(rows):
        raise click.UsageError("--condition gives files in place of rows of a corpus: leave out "
                               f"{'--condition-from' if conditions else '--complete-from'}")
    for option, given in (("--held-out", options["held_out"]), ("--filter", options["row_filter"])):
        if given and (not rows or is_picture(rows)):
            raise click.UsageError(f"{option} chooses rows of --condition-from or --complete-from")
    if conditions and is_picture(conditions):
        raise click.UsageError("--condition-from takes a token corpus; a file is given by "
                               f"--condition NAME={conditions}")
    if not completions:
        refuse_given(("--keep",), "nothing is completed without --complete-from, and")
    if (options["holes"] or options["mask"]) and not completions:
        raise click.UsageError("--hole and --mask lie in the image of --complete-from; give one")
    if options["passes"] and not (options["holes"] or options["mask"]):
        raise click.UsageError("--passes let the cells behind a hole act: give --hole or --mask")


def _source(options: dict[str, Any]) -> tuple[str | None, bool]:
    """Where rows come from, and whether their images are completed."""
    return options["complete_from"] or options["condition_from"], bool(options["complete_from"])


def _corpus_and_key(source: str) -> tuple[str, str | None]:
    """``TOKENS#KEY``, or ``TOKENS`` alone."""
    url, separator, key = source.partition("#")
    return (url, key) if separator else (source, None)


def find_hole(spec: "CodeSpec", options: dict[str, Any]) -> "np.ndarray | None":
    """The cells that ``--hole`` and ``--mask`` touch, bool ``(h, w)``; nothing without these.

    A mask of another shape than the images is cropped from its centre, as image files are.
    """
    import numpy as np

    from prior.masks import boxes_hole, picture_hole
    from tokenizer import storage
    from tokenizer.corpus.images import centre_crop, decode_image
    holes = []
    if options["holes"]:
        holes.append(boxes_hole(options["holes"], spec.image_size, spec.grid))
    if options["mask"]:
        picture = decode_image(storage.read_bytes(options["mask"]))
        box = centre_crop(picture.shape[0], picture.shape[1], spec.image_size)
        inside = picture[box.top:box.top + box.height, box.left:box.left + box.width]
        holes.append(picture_hole(inside.max(-1) >= 128, spec.grid))
    return np.logical_or.reduce(holes) if holes else None


def _encode_all(codecs: "dict[str, Codec]",
                files: Mapping[str, Sequence[str]]) -> "dict[str, np.ndarray]":
    """Codes ``(M[, D], h, w)`` of files by modality, each in the order given."""
    for name in files:
        if name not in codecs:
            raise click.UsageError(f"to encode the {name} given, its tokenizer is needed: "
                                   f"--tokenizer {name}=FOLDER")
    return {name: encode_files(codecs[name], urls) for name, urls in files.items()}


def encode_files(codec: "Codec", urls: Sequence[str]) -> "np.ndarray":
    """Codes ``(M[, D], h, w)`` of files: their largest centre crops, at the codec's size."""
    import numpy as np

    from tokenizer import storage
    from tokenizer.corpus.images import centre_crop
    pixels = []
    for url in urls:
        raw = codec.modality.read(storage.read_bytes(url), url)
        crop = centre_crop(raw.shape[0], raw.shape[1], codec.spec.image_size)
        pixels.append(codec.modality.fit(raw, crop, codec.spec.image_size))
    return codec.encode(np.stack(pixels))
