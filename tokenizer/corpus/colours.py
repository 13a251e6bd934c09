"""Colour profiles: what a file's levels mean, brought to sRGB by LittleCMS.

`to_srgb` takes an image as Pillow decodes it and applies the ICC profile that its file holds. What
a profile cannot be applied to, and what is no usable profile, keeps its levels: they count as sRGB,
as they do without a profile, and as browsers take them.
"""
import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 4 << 20
"""Bytes beyond which a profile is not used; those of printers have up to 3 million."""

SPACES = {"L": ("GRAY", "RGB "), "RGB": ("RGB ",), "CMYK": ("CMYK",)}
"""Colour spaces of profiles, as they name them, that an image of each mode may have."""

PLAIN_MODES = {"1": "L", "P": "RGB", "RGBX": "RGB", "YCbCr": "RGB"}
"""The mode of `SPACES` that holds the same levels, for the modes that have one."""

UNUSABLE = (OSError, ValueError, TypeError, RuntimeError, MemoryError, ImageCms.PyCMSError)
"""What ImageCms raises for bytes that are no profile, or one that leads to no sRGB."""

SAME = 1
"""Levels by which a profile may differ from sRGB and still is taken for it."""

ADOBE = "adobe"
"""Name under which Pillow notes that a JPEG file has Adobe's marker."""


def to_srgb(image: Image.Image) -> Image.Image:
    """An image in sRGB, of mode RGB or RGBA, or the image itself where it has no usable profile.

    The rendering intent is perceptual. A profile whose colours are those of sRGB within a level
    changes nothing, so that the many files that say they are sRGB keep their levels. Alpha stays.
    Grey images may have a profile of grey or of RGB.
    """
    if (profile := _profile_of(image)) is None:
        return image
    colours, alpha = _apart(image)
    if colours.mode not in SPACES or (found := _usable(profile, colours.mode)) is None:
        return image
    mode, transform = found
    if colours.mode != mode:
        colours = colours.convert(mode)
    converted = colours if transform is None else transform.apply(colours)
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def keeps_levels(image: Image.Image) -> bool:
    """Whether `to_srgb` changes no level of an image of mode RGB without transparency; it need not
    be decoded."""
    profile = _profile_of(image)
    found = None if profile is None else _usable(profile, "RGB")
    return found is None or found[1] is None


def upright_cmyk(image: Image.Image) -> Image.Image:
    """A CMYK image out of a JPEG file, with its inks the right way round.

    Adobe's programs store CMYK inverted, and mark such files. Pillow inverts all; those without the
    mark hold inks as they are.
    """
    if image.mode != "CMYK" or ADOBE in image.info:
        return image
    inverted = image.point([255 - level for level in range(256)] * 4)
    inverted.info = dict(image.info)
    return inverted


def _profile_of(image: Image.Image) -> bytes | None:
    """The profile that a file holds, where it is of a size that profiles have."""
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and 0 < len(profile) <= MAX_PROFILE_BYTES:
        return profile
    return None


def _apart(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours of an image, in a mode of `SPACES` if it can be, and its alpha if it has one."""
    if image.has_transparency_data:
        grey = image.mode in ("1", "L", "LA", "La")
        whole = image.convert("LA" if grey else "RGBA")
        return whole.convert("L" if grey else "RGB"), whole.getchannel("A")
    plain = PLAIN_MODES.get(image.mode)
    return (image if plain is None else image.convert(plain)), None


@lru_cache(maxsize=16)
def _usable(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform | None] | None:
    """How colours of a mode become sRGB: the mode to convert to, and then the transform, if any.

    Returns:
        Nothing where the bytes are no profile for such colours.
    """
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space
        if space not in SPACES[mode]:
            return None
        source = "RGB" if space == "RGB " else mode
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        transform = ImageCms.ImageCmsTransform(opened, srgb, source, "RGB")
        return source, None if _changes_nothing(transform) else transform
    except UNUSABLE:
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether 17 levels of grey, or as many of each of red, green and blue, stay as they are."""
    levels = np.linspace(0, 255, 17).round().astype(np.uint8)
    if transform.input_mode == "CMYK":
        return False
    if transform.input_mode == "L":
        probe = levels[None]
        expected = probe[..., None].repeat(3, -1)
    else:
        probe = expected = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(17, -1, 3)
    found = np.asarray(transform.apply(Image.fromarray(probe)))
    return bool(np.abs(found.astype(int) - expected).max() <= SAME)
