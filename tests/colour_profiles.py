"""ICC profiles made byte by byte: of colours, of grey and of inks."""
import struct

D50 = (0.9642, 1.0, 0.8249)
PRIMARIES = {"red": (0.4360747, 0.2225045, 0.0139322), "green": (0.3850649, 0.7168786, 0.0971045),
             "blue": (0.1430804, 0.0606169, 0.7141733)}
"""The white of profiles, and sRGB's primaries adapted to it, in XYZ."""


def profile(space: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr",
            connection: bytes = b"XYZ ") -> bytes:
    """An ICC profile of version 2 byte by byte."""
    start, table, body = 132 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(body), len(content))
        body += padded
    header = struct.pack(">IIIi", start + len(body), 0, 0x02400000, 0)[:12]
    header += kind + space + connection + bytes(12) + b"acsp" + bytes(28) + _fixed(*D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def rgb_profile(first: str = "red", second: str = "green", gamma: float = 2.2) -> bytes:
    """A profile whose first and second channel have these of sRGB's primaries."""
    colours = {b"rXYZ": PRIMARIES[first], b"gXYZ": PRIMARIES[second], b"bXYZ": PRIMARIES["blue"]}
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma))
    return profile(b"RGB ", {b"wtpt": b"XYZ \0\0\0\0" + _fixed(*D50), **curves, **{
        name: b"XYZ \0\0\0\0" + _fixed(*values) for name, values in colours.items()}})


def grey_profile(gamma: float) -> bytes:
    """A profile of grey levels."""
    return profile(b"GRAY", {b"wtpt": b"XYZ \0\0\0\0" + _fixed(*D50), b"kTRC": _curve(gamma)})


def ink_profile(cyan: tuple[int, int, int]) -> bytes:
    """A profile of CMYK in which paper is white, cyan has this CIELAB colour, all else is black."""
    table = bytearray(bytes((0, 128, 128)) * 16)
    table[:3] = 255, 128, 128
    table[24:27] = round(cyan[0] * 2.55), cyan[1] + 128, cyan[2] + 128
    lut = (b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
           + bytes(range(256)) * 4 + bytes(table) + bytes(range(256)) * 3)
    return profile(b"CMYK", {b"A2B0": lut, b"wtpt": b"XYZ \0\0\0\0" + _fixed(*D50)}, b"prtr",
                   b"Lab ")


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
