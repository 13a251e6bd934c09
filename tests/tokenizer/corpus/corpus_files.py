"""Small image files made in memory, sound and broken."""
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode(pixels: np.ndarray | Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    """Pixels as the bytes of one file, by Pillow."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG file with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(width: int, height: int, bits: int, colour: int, rows: list[bytes],
            extra: bytes = b"") -> bytes:
    """A PNG file byte by byte: of sizes, bit depths and chunks that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (PNG_SIGNATURE + png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", pixels)
            + png_chunk(b"IEND", b""))


def noise(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Random colours, ``(height, width, 3)`` uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path: Path, content: bytes | np.ndarray) -> None:
    """Write bytes, or pixels as PNG, making the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else encode(content))


def broken_files() -> dict[str, tuple[bytes, str]]:
    """Twelve kinds of broken files by name, with words of the reason that each must give."""
    jpeg, png = encode(noise(0), "JPEG"), encode(noise(0))
    flipped = bytearray(png)
    flipped[png.index(b"IDAT") + 20] ^= 1
    tail = bytes(len(jpeg) - len(jpeg) // 2)
    return {
        "empty.jpg": (b"", "empty"),
        "notes.jpg": ("# Notes\nnächste Woche\n".encode(), "text, not an image.*Notes"),
        "page.jpg": (b"\r\n<!DOCTYPE html><html>404</html>", "HTML page"),
        "cut.jpg": (jpeg[:len(jpeg) // 2], "truncated JPEG"),
        "zeros.jpg": (jpeg[:len(jpeg) // 2] + tail, "truncated JPEG.*end marker"),
        "cut.png": (png[:len(png) // 2], "truncated PNG.*IDAT"),
        "checksum.png": (bytes(flipped), "IDAT.*wrong checksum"),
        "magic.png": (b"\x00\x01\x02\x03" + png[4:], "no known image format.*00 01 02 03"),
        "document.jpg": (b"%PDF-1.7\n1 0 obj", "a PDF file; images are read from JPEG"),
        "bomb.png": (raw_png(60_000, 60_000, 8, 0, [b"\0"]), "178000000 pixels"),
        "nothing.png": (raw_png(0, 5, 8, 0, [b""]), "its width or its height is 0"),
        "cut.webp": (encode(noise(0), "WEBP")[:100], "WebP"),
    }
