"""Foreign files of codes, written as their programs write them."""
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from job_fakes import GRID

from pipelines.importing import ImportConfig, import_corpus
from tokenizer.schema import codes_array
from tokenizer.tokens import TokenCorpus

K, NUM_CODES = 16, GRID[0] * GRID[1]
IMAGES = 5


def drawn(num_crops: int, seed: int = 0) -> np.ndarray:
    """Codes ``(IMAGES, num_crops, NUM_CODES)``, int64."""
    return np.random.default_rng(seed).integers(0, K, (IMAGES, num_crops, NUM_CODES))


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def write_llamagen(folder: Path, codes: np.ndarray) -> str:
    """As extract_codes_c2i.py writes it."""
    for number, crops in enumerate(codes):
        save(folder / f"imagenet256_codes/{number}.npy", crops[None])
        save(folder / f"imagenet256_labels/{number}.npy", np.array([number % 3]))
    return str(folder)


def write_rar(path: Path, codes: np.ndarray) -> str:
    """As pretokenization.py writes it."""
    with path.open("w") as file:
        for number, crops in enumerate(codes):
            for crop in crops:
                json.dump({"class_id": number % 3, "tokens": crop.tolist()}, file)
                file.write("\n")
    return str(path)


def write_4m(folder: Path, codes: np.ndarray) -> str:
    """As save_vq_tokens.py writes it; image i is i pixels high, its second crop mirrored."""
    for number, crops in enumerate(codes):
        place = f"class{number % 2}/img{number}.npy"
        save(folder / "rgb_dvae_BUa_224" / place, crops.astype(np.int16))
        boxes = [[1, 2, 10 + number, 20, index % 2] for index in range(len(crops))]
        save(folder / "crop_settings" / place, np.array(boxes))
    return str(folder / "rgb_dvae_BUa_224")


def write_tar(path: Path, members: dict[str, bytes]) -> str:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


def write_webdataset(path: Path, codes: np.ndarray) -> str:
    return write_tar(path, {f"a/{number:03d}{suffix}": content for number, crops in enumerate(codes)
                            for suffix, content in ((".npy", npy(crops)),
                                                    (".cls", b"%d" % (number % 3)),
                                                    (".txt", f"no. {number}".encode()))})


WRITERS: dict[str, Callable[[Path, np.ndarray], str]] = {
    "llamagen": lambda folder, codes: write_llamagen(folder / "c2i", codes),
    "rar": lambda folder, codes: write_rar(folder / "lines.jsonl", codes),
    "4m": lambda folder, codes: write_4m(folder / "train", codes),
    "webdataset": lambda folder, codes: write_webdataset(folder / "codes.tar", codes)}
"""Foreign files of each format, as other programs write them; returns what to convert."""


def imported(tmp_path: Path, source: str, format: str, **settings: Any) -> TokenCorpus:
    defaults: dict[str, Any] = {"output": str(tmp_path / "tokens"), "codebook_size": K,
                                "grid": GRID, "shard_size": 2}
    import_corpus(ImportConfig(source=source, format=format, **(defaults | settings)))
    return TokenCorpus.open(str(tmp_path / "tokens"))


def rows_of(corpus: TokenCorpus) -> list[dict[str, Any]]:
    return [row for table in corpus.tables() for row in table.to_pylist()]


def codes_of(corpus: TokenCorpus) -> np.ndarray:
    code, = corpus.spec.codes
    return np.concatenate([codes_array(code, table) for table in corpus.tables()])
