"""Bytes to pixels: image files of every mode as 8-bit RGB, crops, and resampling.

What cannot be decoded completely is refused: `UnreadableImage` says what the file is instead.
`docs/images.md` says the same in words, with what becomes of every kind of file. Rules that change
levels are added as a new route to `ROUTES`: what was made by an earlier one stays what it was.

Letters: H and W the original's rows and columns, h and w those of the resampled crop.
"""
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageCms, ImageFile

from tokenizer.corpus.colours import keeps_levels, to_srgb, upright_cmyk
from tokenizer.corpus.limits import pixel_limit, refuse_as_pillow

STORED, SRGB, TURBO = "stored", "srgb", "turbo"
ROUTES = {
    STORED: "levels as they are stored: colour profiles are not applied, all CMYK is Adobe's",
    SRGB: "colour profiles are converted to sRGB; CMYK without Adobe's mark is not inverted",
    TURBO: "the same; plain JPEG is decoded by simplejpeg, and all is resampled by torch"}
"""Ways from the bytes of a colour image to its pixels. Specs and checkpoints that name none mean
the first; new tokenizers take `SRGB` unless told otherwise."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""Pillow's names of the formats that are read."""

BROKEN = (OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError, TypeError, MemoryError,
          OverflowError, NotImplementedError, RuntimeError, struct.error, zlib.error)
"""What Pillow raises for damaged files, depending on the format and the place of the damage."""

ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90}
"""How to turn an image upright, by the value of its EXIF orientation tag."""

ORIENTATION_TAG = 0x0112
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIGNATURES = {b"\xff\xd8": "JPEG", PNG_SIGNATURE: "PNG", b"GIF8": "GIF", b"BM": "BMP",
              b"II*\0": "TIFF", b"MM\0*": "TIFF", b"RIFF": "WebP", b"%PDF": "PDF",
              b"PK\3\4": "ZIP", b"\x1f\x8b": "gzip"}

JPEG_START, JPEG_END, JPEG_SCAN = b"\xff\xd8\xff", 0xd9, 0xda

MAX_SCANS = 100
"""Scans beyond which a JPEG is refused: each goes over all pixels again, and ten are usual."""

JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""A JPEG marker other than those within pixel data."""

# Pillow would warn at half the limit above and of EXIF data that says nothing about pixels, and
# would accept half a file where the last of these is switched on.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)
ImageFile.LOAD_TRUNCATED_IMAGES = False


class UnreadableImage(ValueError):
    """A file that does not decode completely to an image; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A box in pixels of the upright original, and whether it is mirrored after resampling.

    Attributes:
        index: number of this crop among those of its image.
        flipped: mirrored left to right.
    """
    index: int = 0
    left: int
    top: int
    width: int
    height: int
    flipped: bool = False

    def __post_init__(self) -> None:
        if min(self.left, self.top) < 0 or min(self.width, self.height) < 1:
            raise ValueError(f"a crop has left and top of at least 0, width and height of at least "
                             f"1 pixel, got {self}")


def decode_image(payload: bytes, route: str = STORED) -> np.ndarray:
    """Decode an image file to upright 8-bit RGB.

    Args:
        payload: a JPEG, PNG, WebP, BMP, TIFF or GIF file; of an animation the first frame is read.
        route: a name of `ROUTES`.
    Returns:
        ``(H, W, 3)``, uint8, turned as its EXIF orientation says. Transparent pixels lie over
        white; 16-bit grey is scaled by 255/65535; float grey is taken in [0, 1], or in [0, 255]
        where it exceeds 1.
    Raises:
        UnreadableImage: the file is no such image, is damaged or truncated, or has more pixels
            than `limits.pixel_limit` says.
    """
    with _telling_damage(payload):
        if route == TURBO and (pixels := _decode_plain_jpeg(payload)) is not None:
            return pixels
        image = open_image(payload)
        if route != STORED:
            image = _eight_bits(image)
            image = to_srgb(upright_cmyk(image) if payload.startswith(JPEG_START) else image)
        return np.asarray(to_rgb(image))


def open_image(payload: bytes) -> Image.Image:
    """Decode a file completely and turn it upright, in its own mode.

    Raises:
        UnreadableImage: as for `decode_image`.
    """
    with _telling_damage(payload):
        if payload.startswith(PNG_SIGNATURE):
            check_png(payload)
        elif payload.startswith(JPEG_START):
            check_jpeg(payload)
        with Image.open(io.BytesIO(payload), formats=FORMATS) as image:
            refuse_as_pillow(*image.size)
            check_size(*image.size)
            image.load()
            return _upright(image)


@contextmanager
def _telling_damage(payload: bytes) -> Iterator[None]:
    """In the block, whatever Pillow raises for a damaged file becomes `UnreadableImage`."""
    try:
        yield
    except UnreadableImage:
        raise
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(describe_unknown(payload)) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"more than {pixel_limit()} pixels, the most that are decoded: make "
                              "it smaller") from error
    except MemoryError as error:
        raise UnreadableImage("too little memory to decode it: make it smaller, or give the job "
                              "more") from error
    except BROKEN as error:
        kind = _signature(payload) or "image"
        reason = str(error).rstrip(".") or type(error).__name__
        raise UnreadableImage(f"damaged {kind} file of {len(payload)} bytes: {reason}") from error


def check_size(width: int, height: int) -> None:
    """Refuse an image of more than `pixel_limit` pixels."""
    if width * height > pixel_limit():
        raise UnreadableImage(f"{width} x {height} pixels; at most {pixel_limit()} pixels are "
                              "decoded: make it smaller, or raise --max-pixels")


def check_png(payload: bytes) -> None:
    """Check every chunk of a PNG file; Pillow itself skips the checksums of its pixels.

    Raises:
        UnreadableImage: a chunk's checksum is wrong, the file ends before its last chunk, or it has
            no pixels.
    """
    start = len(PNG_SIGNATURE)
    while True:
        if start + 12 > len(payload):
            raise UnreadableImage(f"truncated PNG file: {len(payload)} bytes without a final chunk")
        length, kind = struct.unpack_from(">I4s", payload, start)
        end = start + 8 + length
        body = memoryview(payload)[start + 4:end]
        name = kind.decode("ascii", "replace")
        if end + 4 > len(payload):
            raise UnreadableImage(f"truncated PNG file: chunk {name!r} ends at byte {end + 4}, "
                                  f"the file at {len(payload)}")
        if zlib.crc32(body) != struct.unpack_from(">I", payload, end)[0]:
            raise UnreadableImage(f"damaged PNG file: chunk {name!r} at byte {start} has a wrong "
                                  "checksum")
        if kind == b"IHDR" and length == 13 and not all(struct.unpack_from(">II", body, 4)):
            raise UnreadableImage("a PNG file without pixels: its width or its height is 0")
        if kind == b"IEND":
            return
        start = end + 4


def check_jpeg(payload: bytes) -> None:
    """Check that a JPEG file has an end; a tail of zeros would decode to grey without an error.

    Raises:
        UnreadableImage: the file ends, or turns into zeros, before its end-of-image marker; or it
            has more than `MAX_SCANS` scans.
    """
    position, num_scans = 2, 0
    while marker := JPEG_MARKER.search(payload, position):
        kind = payload[marker.end() - 1]
        if kind == JPEG_END:
            return
        num_scans += kind == JPEG_SCAN
        if num_scans > MAX_SCANS:
            raise UnreadableImage(f"a JPEG file of more than {MAX_SCANS} scans, made to take long")
        length = payload[marker.end():marker.end() + 2]
        position = marker.end() + int.from_bytes(length, "big")
    raise UnreadableImage(f"truncated JPEG file: {len(payload)} bytes without an end marker")


def describe_unknown(payload: bytes) -> str:
    """What a file that is no readable image seems to be, in words."""
    if not payload:
        return "the file is empty (0 bytes)"
    head = payload[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not an image"
    if kind := _signature(payload):
        if kind.upper() not in FORMATS:
            return f"a {kind} file; images are read from {', '.join(FORMATS)}"
        return f"damaged or truncated {kind} file of {len(payload)} bytes: its header is unusable"
    text = payload[:200].decode("utf-8", "replace")
    if "".join(text[:40].split()).isprintable() and "\N{REPLACEMENT CHARACTER}" not in text[:40]:
        return f"text, not an image; it starts with {text[:24]!r}"
    return (f"no known image format: it starts with bytes {payload[:8].hex(' ')}; images are read "
            f"from {', '.join(FORMATS)}")


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as 8-bit RGB; see `decode_image` for the rules.

    Raises:
        UnreadableImage: its values have no agreed meaning as brightness.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    image = _eight_bits(image)
    if image.mode == "LAB":
        lab, srgb = (ImageCms.ImageCmsProfile(ImageCms.createProfile(name))
                     for name in ("LAB", "sRGB"))
        return ImageCms.ImageCmsTransform(lab, srgb, "LAB", "RGB").apply(image)
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        white = Image.new("RGBA", pixels.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, pixels).convert("RGB")
    return image.convert("RGB")


def centre_crop(height: int, width: int, size: tuple[int, int]) -> Crop:
    """The largest centred box with the aspect ratio of ``size``.

    Args:
        height: H of the original; ``width`` likewise.
        size: target h and w in pixels.
    """
    scale = min(height / size[0], width / size[1])
    rows = min(height, max(1, round(size[0] * scale)))
    columns = min(width, max(1, round(size[1] * scale)))
    return Crop(left=(width - columns) // 2, top=(height - rows) // 2, width=columns, height=rows)


def resize(array: np.ndarray, crop: Crop, size: tuple[int, int],
           kind: Literal["smooth", "torch", "nearest"] = "smooth") -> np.ndarray:
    """Cut a crop out of an image and resample it.

    Args:
        array: ``(H, W, 3)`` uint8, or ``(H, W)`` uint8 or float32; any type for ``nearest``.
        size: target h and w in pixels.
        kind: ``smooth`` is Pillow's bilinear filter with antialiasing, which sees nothing outside
            the crop; ``torch`` is the same filter in torch's arithmetic of bytes, for
            ``(H, W, 3)``; ``nearest`` takes the pixel under each target pixel's centre.
    Returns:
        ``(h, w, ...)`` of the type of ``array``, contiguous, mirrored where the crop says so.
    Raises:
        ValueError: the crop does not lie within the image.
    """
    rows, columns = array.shape[:2]
    right, bottom = crop.left + crop.width, crop.top + crop.height
    if right > columns or bottom > rows:
        raise ValueError(f"{crop} does not lie within an image of {columns} x {rows} pixels")
    if kind == "nearest":
        at_rows = crop.top + _nearest(crop.height, size[0])
        at_columns = crop.left + _nearest(crop.width, size[1])
        resized = array[at_rows[:, None], at_columns]
    else:
        # Pillow's own box argument would let the filter reach over the edges of the crop.
        inside = np.ascontiguousarray(array[crop.top:bottom, crop.left:right])
        resized = _by_torch(inside, size) if kind == "torch" else np.array(
            Image.fromarray(inside).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(resized[:, ::-1]) if crop.flipped else resized


def _by_torch(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image ``(H, W, 3)`` uint8 resampled by torch; levels do not depend on its threads.

    Their number is left alone: threads that decode side by side would put back each other's, and
    the process would go on with one.
    """
    import torch
    writable = array if array.flags.writeable else array.copy()  # torch would warn
    planes = torch.from_numpy(writable).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, size, mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def _nearest(length: int, count: int) -> np.ndarray:
    """Index, in ``length`` pixels, under the centre of each of ``count`` pixels of a resampling."""
    return (2 * np.arange(count) + 1) * length // (2 * count)


def _decode_plain_jpeg(payload: bytes) -> np.ndarray | None:
    """Pixels ``(H, W, 3)`` of a sound JPEG by simplejpeg, equal to Pillow's.

    Returns:
        Nothing for what is left to Pillow: other formats, grey, CMYK, profiles other than of sRGB,
        and all damage.
    """
    import simplejpeg
    if not payload.startswith(JPEG_START):
        return None
    check_jpeg(payload)
    with Image.open(io.BytesIO(payload), formats=("JPEG",)) as image:
        refuse_as_pillow(*image.size)
        check_size(*image.size)
        if image.mode != "RGB" or not keeps_levels(image):
            return None
        turn = _turn_of(image)
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(payload, "RGB")
    except ValueError:
        return None
    return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))


def _upright(image: Image.Image) -> Image.Image:
    turn = _turn_of(image)
    return image.copy() if turn is None else image.transpose(turn)


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """How an image is turned upright, or nothing where it is."""
    try:
        orientation = image.getexif().get(ORIENTATION_TAG)
    except BROKEN:  # damaged EXIF data, as cameras and editors write it, says nothing about pixels
        return None
    return ORIENTATIONS.get(orientation) if isinstance(orientation, int) else None


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of 8 bits a channel: grey of more bits, or of floats, brought to so many."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    grey = Image.fromarray(_grey_levels(np.asarray(image)))
    grey.info = {name: value for name, value in image.info.items() if name == "icc_profile"}
    return grey


def _grey_levels(levels: np.ndarray) -> np.ndarray:
    """16-bit, 32-bit or float grey as uint8 levels."""
    if not np.isfinite(levels).all():
        raise UnreadableImage("its grey levels are not all finite numbers")
    low, high = float(levels.min()), float(levels.max())
    white = 65535.0
    if levels.dtype.kind == "f":
        white = 1.0 if high <= 1 else 255.0
    if low < 0 or high > white:
        raise UnreadableImage(f"its grey levels run from {low:g} to {high:g}, beyond 0 to "
                              f"{white:g}; convert it to 8 or 16 bits")
    return (levels * (255.0 / white) + 0.5).astype(np.uint8)


def _signature(payload: bytes) -> str | None:
    """The format that a file's first bytes announce."""
    for start, name in SIGNATURES.items():
        if payload.startswith(start):
            return name
    return "HEIC or AVIF" if payload[4:8] == b"ftyp" else None
