"""The photos of a folder, laid down as each other kind of source; every writer returns its URL."""
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Writer = Callable[[Path, Path], str]


def save_tars(photos: Path, folder: Path, maps: Path | None = None) -> str:
    """Photos, their labels and maps as three archives; returns what names them."""
    folder.mkdir(exist_ok=True)
    for number in range(3):
        with tarfile.open(folder / f"{number:02d}.tar", "w") as archive:
            for path in sorted(photos.iterdir())[number * 4:number * 4 + 4]:
                members = {path.name: path.read_bytes(),
                           f"{path.stem}.cls": str(int(path.stem[-3:]) % 3).encode()}
                if maps is not None:
                    members[f"{path.stem}.segmentation.png"] = (maps / path.name).read_bytes()
                for name, content in members.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return f"{folder}/{{00..02}}.tar"


def as_folder(photos: Path, folder: Path) -> str:
    return str(photos)


def save_parquet(photos: Path, folder: Path, maps: Path | None = None) -> str:
    """The same in two Parquet files of two row groups each."""
    folder.mkdir(exist_ok=True)
    paths = sorted(photos.iterdir())
    for number in range(2):
        some = paths[number * 5:number * 5 + 5]
        columns = {"key": [path.stem for path in some],
                   "image": [{"bytes": path.read_bytes(), "path": path.name} for path in some],
                   "label": [int(path.stem[-3:]) % 3 for path in some]}
        if maps is not None:
            columns["seg"] = [(maps / path.name).read_bytes() for path in some]
        pq.write_table(pa.table(columns), folder / f"{number}.parquet", row_group_size=3)
    return f"{folder}/*.parquet"


def save_list(photos: Path, folder: Path, maps: Path | None = None) -> str:
    """The same named by a table."""
    folder.mkdir(exist_ok=True)
    lines = [f"{path},{path.stem},{int(path.stem[-3:]) % 3},{maps and maps / path.name}"
             for path in sorted(photos.iterdir())]
    (folder / "list.csv").write_text("\n".join(["path,key,label,seg", *lines]))
    return f"{folder}/list.csv"


def save_dataset(photos: Path, folder: Path, maps: Path | None = None) -> str:
    """The same as a data set of the library `datasets`."""
    import datasets
    paths = sorted(photos.iterdir())
    columns = {"key": [path.stem for path in paths],
               "image": [{"bytes": path.read_bytes(), "path": None} for path in paths],
               "label": [int(path.stem[-3:]) % 3 for path in paths],
               "seg": [(maps / path.name).read_bytes() if maps else b"" for path in paths]}
    features = datasets.Features({
        "key": datasets.Value("string"), "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["0", "1", "2"]), "seg": datasets.Value("binary")})
    if not folder.exists():
        datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder))
    return str(folder)


WRITERS: dict[str, Writer] = {"folder": as_folder, "tar": save_tars, "parquet": save_parquet,
                              "list": save_list, "datasets": save_dataset}
LABELLED = ["tar", "parquet", "list", "datasets"]
CHANGED = {"tar": "01.tar", "parquet": "1.parquet"}
"""A file of each kind of source that holds many inputs."""
