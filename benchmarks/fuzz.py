"""Damages files with a seed and reads them as the job does: nothing may crash, hang or vanish.

    python benchmarks/fuzz.py [--files 2000] [--seed 0] [--megabytes 3000] [--seconds 60]

Sound files of every kind in `samples` are damaged by `MUTATIONS` and go through sources and
`encode_entries`, with an encoder that takes no time, in a process of its own with a limit of memory
(RLIMIT_AS) and of seconds for each file. It ends in one JSON object and, where anything is amiss,
in exit code 1 with the numbers of the files: ``--first N --files 1`` damages file N alone again.

    crash    the process died, or an error other than one line for the user came out of a file
    hang     a file took longer than ``--seconds``
    lost     an input is neither a row nor a dead letter; or a tar member or a row of a Parquet file
             is no input, and nothing says so

To add a kind of file, add it to `samples`; to add a damage, a function to `MUTATIONS`.
"""
import argparse
import faulthandler
import io
import json
import os
import re
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

MEMBERS = 8
"""Images in each archive and table."""

MODALITIES_OF = {".png": ("image", "depth", "segmentation"), ".tif": ("image", "depth"),
                 ".npy": ("depth",)}
"""What files of a suffix are read for, where not only for images."""

FORMATS = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".gif": "GIF",
           ".bmp": "BMP"}
"""Pillow's names of the formats by suffix."""

EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\1\0\0")


@dataclass(frozen=True, kw_only=True)
class FuzzConfig:
    """What is tried.

    Attributes:
        first: number of the first file.
        files: how many.
        seed: of all damage.
        megabytes: of address space that the reading process may have.
        seconds: that one file may take.
    """
    first: int
    files: int
    seed: int
    megabytes: int
    seconds: float

    def __post_init__(self) -> None:
        if min(self.files, self.megabytes) < 1 or self.seconds <= 0 or self.first < 0:
            raise ValueError(f"files, megabytes and seconds must be above 0, got {self}")


class Levels:
    """Stands in for a codec: a code is the mean of its 8 x 8 pixels; see `pipelines.shard`."""
    batch_size = 4

    def __init__(self, modality: Any) -> None:
        from tokenizer.schema import CodeSpec
        self.modality = modality
        self.spec = CodeSpec(modality=modality.name, grid=(2, 2), codebook_size=1 << 16,
                             image_size=(16, 16), tokenizer="sha256:0",
                             preprocessing=modality.preprocessing())

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        self.modality.check_pixels(pixels)
        grey = pixels.reshape(len(pixels), 2, 8, 2, 8, -1).mean((2, 4, 5))
        return grey.astype(np.uint16)


def samples() -> dict[str, bytes]:
    """Sound files by name; what stands before the first dot tells those of one suffix apart."""
    floats = io.BytesIO()
    np.save(floats, np.arange(480, dtype=np.float32).reshape(20, 24))
    made = {f"{name}{suffix}": _written(image.copy(), FORMATS[suffix], options)
            for suffix, images in _pictures().items() for name, (image, options) in images.items()}
    return {**made, "float.npy": floats.getvalue(), **_tars(made), **_tables(made)}


def _pictures() -> dict[str, dict[str, tuple[Image.Image, dict[str, Any]]]]:
    """By suffix and name, a picture of each mode, and what it is written with."""
    rough = np.random.default_rng(7).integers(0, 256, (20, 24, 3), np.uint8)
    colour = Image.fromarray(np.sort(rough, 0))
    grey, inks, palette = (colour.convert(mode) for mode in ("L", "CMYK", "P"))
    deep = Image.fromarray(rough[..., 0].astype(np.uint16) * 257)
    alpha = colour.copy()
    alpha.putalpha(grey)
    exif = Image.Exif()
    exif[0x0112], exif[0x010e] = 6, "a picture"
    icc = {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    moving = {"save_all": True, "append_images": [colour.rotate(90)]}
    return {
        ".jpg": {"plain": (colour, {**icc, "exif": exif}), "inks": (inks, {}), "grey": (grey, {}),
                 "progressive": (colour, {"progressive": True})},
        ".png": {"plain": (colour, {**icc, "exif": exif}), "deep": (deep, {}), "grey": (grey, {}),
                 "alpha": (alpha, {}), "palette": (palette, {"transparency": 3}),
                 "moving": (colour, moving), "bits": (grey.convert("1"), {})},
        ".webp": {"plain": (colour, {**icc, "exif": exif}), "lossless": (alpha, {"lossless": True}),
                  "moving": (alpha, moving)},
        ".tif": {"plain": (colour, icc), "deep": (deep, {}), "float": (grey.convert("F"), {}),
                 "lzw": (colour, {"compression": "tiff_lzw"}),
                 "deflate": (alpha, {"compression": "tiff_adobe_deflate"}),
                 "jpeg": (colour, {"compression": "jpeg"}),
                 "fax": (grey.convert("1"), {"compression": "group4"})},
        ".gif": {"plain": (palette, {}), "moving": (colour, moving)},
        ".bmp": {"plain": (colour, {}), "palette": (palette, {})}}


def _written(image: Image.Image, file_format: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _tars(images: dict[str, bytes]) -> dict[str, bytes]:
    """Archives of images with labels: of each format of tar, one with long names."""
    archives = {}
    for name, kind in (("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT),
                       ("pax", tarfile.PAX_FORMAT)):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
            for number in range(MEMBERS):
                key = f"{number}" if name == "ustar" else f"{number}-{'long' * 30}-ä"
                for suffix, content in (("jpg", images["grey.jpg"]), ("json", b'{"label": 3}')):
                    info = tarfile.TarInfo(f"{key}.{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        members = buffer.getvalue().rstrip(b"\0")
        archives[f"{name}.tar"] = members + bytes(-len(members) % 512 + 1024)
    return archives


def _tables(images: dict[str, bytes]) -> dict[str, bytes]:
    """Parquet files of two row groups: compressed, plain, and with checksums."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    table = pa.table({"key": [f"key-{number}" for number in range(MEMBERS)],
                      "image": [{"bytes": images["grey.png"], "path": None}] * MEMBERS,
                      "label": list(range(MEMBERS))})
    tables = {}
    for name, options in (("zstd", {"compression": "zstd"}), ("checked", {
            "write_page_checksum": True}), ("plain", {"compression": "none",
                                                      "use_dictionary": False})):
        buffer = io.BytesIO()
        pq.write_table(table, buffer, row_group_size=MEMBERS // 2, **options)
        tables[f"{name}.parquet"] = buffer.getvalue()
    return tables


Mutation = Callable[[bytearray, bytes, np.random.Generator], None]


def flip_bits(content: bytearray, other: bytes, generator: np.random.Generator) -> None:
    """Change up to eight bits, half of the time among the first bytes, where headers are."""
    reach = len(content) if generator.random() < 0.5 else min(len(content), 64)
    for place in generator.integers(0, reach, generator.integers(1, 9)):
        content[place] ^= 1 << int(generator.integers(8))


def cut(content: bytearray, other: bytes, generator: np.random.Generator) -> None:
    """Cut off the end, or cut out a stretch."""
    start = int(generator.integers(len(content)))
    end = len(content) if generator.random() < 0.5 else start + int(generator.integers(1, 200))
    del content[start:end]


def insert(content: bytearray, other: bytes, generator: np.random.Generator) -> None:
    """Insert random bytes, or a part of the file once more."""
    start, length = (int(generator.integers(1, limit)) for limit in (len(content) + 1, 200))
    added = generator.bytes(length) if generator.random() < 0.5 else content[start:start + length]
    content[start:start] = added


def extreme(content: bytearray, other: bytes, generator: np.random.Generator) -> None:
    """Put the least or the greatest number in the place of four bytes, as in sizes and counts."""
    start = int(generator.integers(min(len(content), 600)))
    content[start:start + 4] = EXTREMES[int(generator.integers(len(EXTREMES)))]


def swap_header(content: bytearray, other: bytes, generator: np.random.Generator) -> None:
    """Put the first bytes of another kind of file in the place of one's own."""
    length = int(generator.choice([4, 8, 32, 128]))
    content[:length] = other[:length]


def zeros(content: bytearray, other: bytes, generator: np.random.Generator) -> None:
    """Turn a stretch, or all to the end, into zeros, as of a disk that was not written to."""
    start = int(generator.integers(len(content)))
    end = len(content) if generator.random() < 0.5 else min(len(content), start + 512)
    content[start:end] = bytes(end - start)


MUTATIONS: tuple[Mutation, ...] = (flip_bits, cut, insert, extreme, swap_header, zeros)


def mend_png(content: bytearray) -> None:
    """Make the checksum of every chunk right, so that damage gets past it."""
    start = 8
    while start + 12 <= len(content):
        end = start + 8 + int.from_bytes(content[start:start + 4], "big")
        content[end:end + 4] = zlib.crc32(content[start + 4:end]).to_bytes(4, "big")
        start = end + 4


def mend_tar(content: bytearray) -> None:
    """Make the checksum of every header right."""
    for start in range(0, len(content) - 511, 512):
        if content[start + 257:start + 262] == b"ustar":
            content[start + 148:start + 156] = b" " * 8
            total = sum(content[start:start + 512])
            content[start + 148:start + 156] = b"%06o\0 " % total


MENDERS = {".png": mend_png, ".tar": mend_tar}
"""For files with checksums: what makes them right after the damage, for one file of two."""


def damaged(number: int, seed: int, sound: dict[str, bytes]) -> tuple[str, bytes, bool]:
    """Name and content of one damaged file, a function of seed and number alone; and whether its
    checksums were mended."""
    generator = np.random.default_rng((seed, number))
    names = sorted(sound)
    name = names[number % len(names)]
    content = bytearray(sound[name])
    for _ in range(int(generator.integers(1, 4))):
        other = sound[names[int(generator.integers(len(names)))]]
        if content:
            MUTATIONS[int(generator.integers(len(MUTATIONS)))](content, other, generator)
    mender = MENDERS.get(Path(name).suffix) if generator.random() < 0.5 else None
    if mender is not None:
        mender(content)
    return name, bytes(content), mender is not None


def read(name: str, content: bytes, is_mended: bool, folder: Path) -> dict[str, Any]:
    """What the job makes of one file: inputs, rows, dead letters by reason, and what is lost.

    Of an archive whose headers are right again, nothing can tell that a size or a type was another;
    and where members have become zeros, so few that they may be padding, that there were some.
    """
    from tokenizer.corpus.sources.tar_members import MAX_PADDING
    suffix = Path(name).suffix
    path = folder / f"file{suffix}"
    path.write_bytes(content)
    holds_many = suffix in (".tar", ".parquet")
    found: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for modality in MODALITIES_OF.get(suffix, ("image",)):
        num_zeros = len(content) - len(content.rstrip(b"\0"))
        is_padded = suffix == ".tar" and 2 * 512 + 511 < num_zeros < 512 * (MAX_PADDING + 1)
        least = 0 if is_mended or is_padded or not holds_many else MEMBERS
        _read_as(modality, str(path if holds_many else folder), least, found, reasons)
    path.unlink()
    return {"kind": suffix, "reasons": reasons, **found}


def _read_as(modality: str, url: str, least: int, found: Counter[str],
             reasons: Counter[str]) -> None:
    """Read a source for one modality; inputs that are fewer than ``least`` without a word are lost.
    """
    from pipelines.shard import encode_entries
    from tokenizer.corpus.modalities import modality_from_dict, new_settings
    from tokenizer.corpus.sources import open_source
    settings = new_settings(modality)
    if modality == "segmentation":
        settings["num_classes"] = 256
    try:
        source = open_source(url, labels="none", modality=modality)
        entries = list(source.entries())
    except ValueError as error:  # one line for the user, before any work
        reasons[f"refused: {_kind_of(str(error))}"] += 1
        found["refused"] += 1
        return
    codec = Levels(modality_from_dict(settings))
    rows, dead = encode_entries(entries, source, [{modality: codec}], 1)
    reasons.update(f"{letter.error}: {_kind_of(letter.message)}" for letter in dead)
    found.update(inputs=len(entries), rows=rows.num_rows, dead=len(dead))
    untold = len(entries) + sum(source.notes.values()) < least and not dead
    found["lost"] += untold or len(entries) != rows.num_rows + len(dead)


def _kind_of(message: str) -> str:
    """A message without what differs from file to file."""
    return re.sub(r"/\S+|'[^']*'|\"[^\"]*\"|\d[\d.]*", "_", message).split(":")[0][:60].strip()


def work(config: FuzzConfig) -> None:
    """Read the files in this process, under its limits; prints a line before and after each."""
    import pyarrow.parquet  # noqa: F401 - loaded before the limit

    import pipelines.shard  # noqa: F401
    limit = config.megabytes << 20
    sound = samples()
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(config.first, config.first + config.files):
            print(json.dumps({"begin": number}), flush=True)
            faulthandler.dump_traceback_later(config.seconds, exit=True)
            name, content, is_mended = damaged(number, config.seed, sound)
            try:
                result = read(name, content, is_mended, Path(folder))
            except Exception as error:  # the job would have stopped
                result = {"kind": Path(name).suffix, "error": f"{type(error).__name__}: {error}"}
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps({"end": number, **result}), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"peak_kilobytes": peak}), flush=True)


def results_of(config: FuzzConfig) -> Iterator[dict[str, Any]]:
    """What came of each file; a process that dies is started again behind the file at fault."""
    first, end = config.first, config.first + config.files
    while first < end:
        done = subprocess.run(
            [sys.executable, __file__, "--worker", "--first", str(first), "--files",
             str(end - first), "--seed", str(config.seed), "--megabytes", str(config.megabytes),
             "--seconds", str(config.seconds)], capture_output=True, text=True)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        yield from (line for line in lines if "begin" not in line)
        if done.returncode == 0:
            return
        if not lines or "begin" not in lines[-1]:
            raise RuntimeError(f"the reading process cannot start: {done.stderr[-2000:]}")
        first = lines[-1]["begin"] + 1
        state = "hang" if done.stderr.startswith("Timeout") else "crash"
        yield {"end": first - 1, "kind": "?", state: done.stderr[-300:] or done.returncode}


def report(config: FuzzConfig) -> dict[str, Any]:
    """Everything that was found, as JSON values."""
    began = time.monotonic()
    sums: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    faults: dict[str, list[Any]] = {"crashes": [], "hangs": [], "lost": []}
    peak = 0
    for result in results_of(config):
        peak = max(peak, result.get("peak_kilobytes", 0))
        if "end" not in result:
            continue
        kinds[result["kind"]] += 1
        reasons.update(result.get("reasons", {}))
        sums.update({name: result.get(name, 0) for name in ("inputs", "rows", "dead", "refused")})
        for name, fault in (("error", "crashes"), ("crash", "crashes"), ("hang", "hangs")):
            if name in result:
                faults[fault].append([result["end"], result[name]])
        if result.get("lost"):
            faults["lost"].append(result["end"])
    return {"files": sum(kinds.values()), "seed": config.seed,
            "by_kind": dict(sorted(kinds.items())), **sums, **faults,
            "peak_megabytes": round(peak / 1024), "seconds": round(time.monotonic() - began, 1),
            "reasons": dict(reasons.most_common())}


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, and print one JSON object; returns whether anything is amiss."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--megabytes", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = vars(parser.parse_args(arguments))
    is_worker = options.pop("worker")
    config = FuzzConfig(**options)
    if is_worker:
        work(config)
        return 0
    found = report(config)
    print(json.dumps(found, indent=1))
    return int(bool(found["crashes"] or found["hangs"] or found["lost"]))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    sys.exit(main())
