"""Bytes to maps: depth and class-id files as arrays of what they hold, and back to PNG.

A depth map is one number a pixel in the file's own units; a label map is one class id a pixel.
Palettes, alpha and low bit depths are undone exactly: values come back as they were stored.

Letters: H and W rows and columns of the map.
"""
import io
import tokenize
from typing import IO, Any

import numpy as np
from PIL import Image

from tokenizer.corpus.images import (
    BROKEN,
    PNG_SIGNATURE,
    UnreadableImage,
    check_size,
    open_image,
)
from tokenizer.pictures import label_colours

NPY_MAGIC = b"\x93NUMPY"
BITS_PER_SAMPLE_TAG = 258


def decode_depth(payload: bytes) -> np.ndarray:
    """Decode a depth map.

    Args:
        payload: an 8- or 16-bit grey image, a float TIFF, a PNG whose R, G, B and A are the four
            bytes of a little-endian float32, or a ``.npy`` array of one number a pixel.
    Returns:
        ``(H, W)``, float32, in the units of the file (grey levels for integer images).
    Raises:
        UnreadableImage: the file is damaged or a colour picture, or a value is not finite.
    """
    if payload.startswith(NPY_MAGIC):
        depth = _decode_npy(payload)
    else:
        image = open_image(payload)
        packed = (image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255)
                  and _sample_bits(payload) == 8)
        depth = (np.array(image).view("<f4")[..., 0] if packed
                 else np.asarray(_one_channel(payload, image, "a depth map")))
    depth = depth.astype(np.float32)
    if num_bad := int((~np.isfinite(depth)).sum()):
        raise UnreadableImage(f"{num_bad} of {depth.size} depth values are not finite numbers; "
                              "fill the holes of the map first")
    return depth


def decode_labels(payload: bytes) -> np.ndarray:
    """Decode a map of class ids.

    Args:
        payload: a grey or palette image of 1 to 16 bits; of a palette the indices are taken.
    Returns:
        ``(H, W)``, uint16 class ids as they are stored.
    Raises:
        UnreadableImage: the file is damaged or a colour picture, or an id lies beyond 65535.
    """
    image = open_image(payload)
    if image.mode == "P":
        return np.array(image, np.uint16)
    labels = np.asarray(_one_channel(payload, image, "a map of class ids"))
    if labels.dtype.kind == "f" or int(labels.min()) < 0 or int(labels.max()) > 65535:
        raise UnreadableImage("class ids are whole numbers from 0 to 65535; this image of mode "
                              f"{image.mode} holds {labels.min()} to {labels.max()}")
    if image.mode == "L" and (bits := _sample_bits(payload)) < 8:
        labels = labels // (255 // ((1 << bits) - 1))  # Pillow stretches few bits over 0 to 255
    return labels.astype(np.uint16)


def encode_depth(depth: np.ndarray) -> bytes:
    """Depth ``(H, W)`` uint16 as a 16-bit grey PNG."""
    return _png(Image.fromarray(depth))


def encode_labels(labels: np.ndarray) -> bytes:
    """Class ids ``(H, W)`` as PNG: uint8 with a palette of class colours, uint16 as 16-bit grey."""
    image = Image.fromarray(labels)
    if labels.dtype == np.uint8:
        image.putpalette(label_colours().tobytes())
    return _png(image)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _one_channel(payload: bytes, image: Image.Image, what: str) -> Image.Image:
    """A grey image, also where it is stored as three equal channels or with an opaque alpha."""
    if image.mode in ("LA", "RGBA", "RGB") and _sample_bits(payload) > 8:
        raise UnreadableImage(f"{image.mode} of 16 bits a channel where {what} is expected; store "
                              "it as 16-bit grey without alpha")
    if image.mode in ("LA", "RGBA") and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert(image.mode[:-1])
    if image.mode == "RGB":
        red, *others = image.split()
        if all(red.tobytes() == other.tobytes() for other in others):
            return red
    if image.mode in ("1", "L", "F") or image.mode.startswith("I"):
        return image
    raise UnreadableImage(f"a colour picture (mode {image.mode}) where {what} is expected, which "
                          "has one value a pixel")


def _sample_bits(payload: bytes) -> int:
    """Bits of one channel of one pixel in a PNG or TIFF file; 8 for other formats."""
    if payload.startswith(PNG_SIGNATURE):
        if payload[12:16] != b"IHDR":
            raise UnreadableImage("a PNG file that does not begin with its header")
        return payload[len(PNG_SIGNATURE) + 16]
    if payload[:2] in (b"II", b"MM"):
        with Image.open(io.BytesIO(payload)) as tiff:
            tags: Any = getattr(tiff, "tag_v2", {})
            return int(tags.get(BITS_PER_SAMPLE_TAG, (8,))[0])
    return 8


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array of a .npy file, of which nothing is unpickled; the file is at its
    values then.

    Raises:
        ValueError: the header is damaged.
    """
    try:
        version = np.lib.format.read_magic(file)
        read_header = (np.lib.format.read_array_header_1_0 if version == (1, 0)
                       else np.lib.format.read_array_header_2_0)
        shape, _, dtype = read_header(file)
    except (*BROKEN, tokenize.TokenError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    if min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape}")
    return shape, dtype


def _decode_npy(payload: bytes) -> np.ndarray:
    """The ``(H, W)`` array of a .npy file, never unpickled, its size checked before it is made."""
    file = io.BytesIO(payload)
    try:
        shape, dtype = npy_header(file)
    except ValueError as error:
        raise UnreadableImage(f"damaged .npy file: {error}") from error
    sides = [side for side in shape if side != 1] if len(shape) == 3 else list(shape)
    if len(sides) != 2 or min(sides) < 1 or dtype.kind not in "fiub":
        raise UnreadableImage(f"a .npy depth map holds numbers of shape (H, W), got {dtype} of "
                              f"shape {shape}")
    check_size(sides[1], sides[0])
    expected = sides[0] * sides[1] * dtype.itemsize
    if len(payload) - file.tell() != expected:
        raise UnreadableImage(f"damaged .npy file: {len(payload) - file.tell()} bytes of values, "
                              f"{dtype} of shape {shape} takes {expected}")
    file.seek(0)
    array: np.ndarray = np.load(file, allow_pickle=False).reshape(sides)
    return array
