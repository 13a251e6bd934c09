"""Parquet with images: columns by name, rows by row group, damage told, memory small."""
import json
import os
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tokenizer.corpus.sources import Entry, InputError, Source, SourceChanged, open_source, parquet


def save(path: Path, columns: dict[str, Any], rows_of_a_group: int = 4, **options: Any) -> str:
    metadata = options.pop("metadata", None)
    table = pa.table(columns)
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    pq.write_table(table, path, row_group_size=rows_of_a_group, **options)
    return str(path)


def images(count: int, size: int = 5) -> list[bytes]:
    return [bytes([number % 256]) * size for number in range(count)]


def problems_of(entries: list[Entry]) -> dict[str, str]:
    return {entry.key: entry.problem[0] for entry in entries if entry.problem}


def contents(source: Source) -> list[bytes]:
    return [source.read(entry)[source.modalities[0]] for entry in source.entries()]


def test_rows_are_read_by_row_group(tmp_path: Path) -> None:
    url = save(tmp_path / "data.parquet", {"image": images(10),
                                           "key": [f"k{number}" for number in range(10)]})
    source = open_source(url)
    entries = list(source.entries())
    assert [entry.key for entry in entries] == [f"k{number}" for number in range(10)]
    assert entries[9].source == f"{url}#rowgroup=2&row=1"
    assert [pickle.loads(pickle.dumps(source)).read(entry)["image"] for entry in entries[::-1]] \
        == images(10)[::-1]


def test_rows_without_keys_are_named_by_file_and_row(tmp_path: Path) -> None:
    for number in range(2):
        save(tmp_path / f"part-{number}.parquet", {"jpg": images(5)})
    entries = list(open_source(f"{tmp_path}/*.parquet").entries())
    assert [entry.key for entry in entries][3:7] == [
        "part-0-00000003", "part-0-00000004", "part-1-00000000", "part-1-00000001"]
    assert {entry.class_name for entry in entries} == {None}


def test_hugging_face_images_and_classes_are_understood(tmp_path: Path) -> None:
    (tmp_path / "beside.png").write_bytes(b"beside")
    rows = [{"bytes": b"one", "path": "x/a.png"}, {"bytes": None, "path": "beside.png"}, None]
    url = save(tmp_path / "data.parquet",
               {"image": rows, "label": [1, 0, -1], "text": ["a cat", "", None]},
               metadata={"info": {"features": {"label": {"names": ["dog", "cat", "bird"]}}}})
    source = open_source(url)
    entries = list(source.entries())
    assert source.classes() == ["dog", "cat", "bird"]
    assert [(entry.label, entry.class_name, entry.caption) for entry in entries] == [
        (1, "cat", "a cat"), (0, "dog", None), (None, None, None)]
    assert [source.read(entry)["image"] for entry in entries[:2]] == [b"one", b"beside"]
    with pytest.raises(InputError, match="row 2 of row group 0 has no image in column image"):
        source.read(entries[2])
    assert [entry.key for entry in open_source(f"{url}#key=image.path").entries()][:2] == [
        "x/a.png", "beside.png"]


def test_maps_are_columns(tmp_path: Path) -> None:
    url = save(tmp_path / "data.parquet", {"depth_map": images(3, 7), "photo": images(3)})
    source = open_source(f"{url}#column=photo", {"depth": "column:depth_map"})
    entry = list(source.entries())[2]
    assert dict(entry.sources) == {"image": f"{url}#rowgroup=0&row=2",
                                   "depth": f"{url}#rowgroup=0&row=2&column=depth_map"}
    assert source.read(entry) == {"image": b"\2" * 5, "depth": b"\2" * 7}
    alone = open_source(url, {"depth": "column:depth_map"})
    assert contents(alone) == images(3)


@pytest.mark.parametrize(("suffix", "labels", "words"), [
    ("", "auto", r"2 columns hold files \(a, b of a, b, c, d\); name the one of image: #column=N"),
    ("#column=e", "auto", "no column 'e' for image; there are a, b, c, d"),
    ("#column=c", "auto", "column c .* is of type int64 and holds no files"),
    ("#column=a&key=x", "auto", "no column 'x' for the key"),
    ("#column=a", "column:x", "no column 'x' for the label"),
    ("#column=a", "column:d", "holds the label .* class names or whole numbers"),
    ("#columns=a", "auto", "no option 'columns' behind its '#'; it has caption, column, key")])
def test_wrong_columns_are_refused_by_name(tmp_path: Path, suffix: str, labels: str,
                                           words: str) -> None:
    url = save(tmp_path / "data.parquet", {"a": images(2), "b": images(2), "c": [1, 2],
                                           "d": [[1], [2]]})
    with pytest.raises(ValueError, match=words):
        list(open_source(url + suffix, labels=labels).entries())


@pytest.mark.parametrize("image", [
    pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(5), pa.dictionary(
        pa.int32(), pa.binary())], ids=str)
@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(
    pa.int32(), pa.string())], ids=str)
def test_columns_may_be_of_any_type_that_holds_bytes_and_texts(
        tmp_path: Path, image: pa.DataType, text: pa.DataType) -> None:
    try:
        names = pa.array(["a", "b"], pa.string()).cast(text)
        payloads = (pa.array(images(2)).dictionary_encode() if pa.types.is_dictionary(image)
                    else pa.array(images(2), image))
        url = save(tmp_path / "data.parquet", {"image": payloads, "key": names, "label": names,
                                               "caption": names})
    except pa.ArrowNotImplementedError as error:
        pytest.skip(f"pyarrow {pa.__version__} cannot write it: {error}")
    source = open_source(url)
    assert [(entry.key, entry.class_name, entry.caption) for entry in source.entries()] == [
        ("a", "a", "a"), ("b", "b", "b")]
    assert contents(source) == images(2)


def test_a_column_called_like_one_of_paths_that_holds_neither_paths_nor_files_is_refused(
        tmp_path: Path) -> None:
    url = save(tmp_path / "data.parquet", {"image": [[{"bytes": b"a"}]], "key": ["a"]})
    with pytest.raises(ValueError, match=r"0 columns hold files \(none of image, key\); name the"):
        list(open_source(url).entries())


def test_labels_are_a_column_that_is_asked_for(tmp_path: Path) -> None:
    url = save(tmp_path / "data.parquet", {
        "image": images(3), "label": ["x", "y", "z"], "fine": pd_like([3.0, None, 0.0])})
    assert [entry.class_name for entry in open_source(url).entries()] == ["x", "y", "z"]
    fine = open_source(url, labels="column:fine")
    assert [entry.label for entry in fine.entries()] == [3, None, 0]
    assert fine.classes() == ["0", "1", "2", "3"]


def pd_like(values: list[float | None]) -> pa.Array:
    return pa.array(values, pa.float64())


def test_keys_that_are_missing_or_twice_are_dead_letters(tmp_path: Path) -> None:
    url = save(tmp_path / "data.parquet", {"image": images(4), "key": ["a", None, "a", "b"]})
    entries = list(open_source(url).entries())
    assert [(entry.key, entry.problem and entry.problem[0]) for entry in entries] == [
        ("a", None), ("data-00000001", "NoKey"), ("a", "DuplicateKey"), ("b", None)]


def test_a_file_that_is_cut_off_is_one_dead_letter(tmp_path: Path) -> None:
    whole = Path(save(tmp_path / "0.parquet", {"image": images(8)})).read_bytes()
    for cut in (0, 3, 11, len(whole) // 2, len(whole) - 1):
        (tmp_path / "1.parquet").write_bytes(whole[:cut])
        entries = list(open_source(f"{tmp_path}/*.parquet").entries())
        assert len(entries) == 9 and problems_of(entries) == {"1": "DamagedFile"}, cut
    only = open_source(f"{tmp_path}/1.parquet")
    assert problems_of(list(only.entries())) == {"1": "DamagedFile"}


def test_a_file_without_the_column_is_one_dead_letter(tmp_path: Path) -> None:
    save(tmp_path / "0.parquet", {"image": images(2)})
    save(tmp_path / "1.parquet", {"picture": images(2)})
    entries = list(open_source(f"{tmp_path}/*.parquet").entries())
    assert len(entries) == 3 and problems_of(entries) == {"1": "MissingColumn"}


def damage(path: Path, column: int) -> None:
    """Change one byte of the values in a column of the second row group."""
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(column)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size - 9] ^= 0xff
    path.write_bytes(content)


def test_a_damaged_row_group_costs_its_own_rows_alone(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    save(path, {"image": [bytes([number]) * 300 + bytes(range(200)) for number in range(12)]},
         use_dictionary=False, write_page_checksum=True, compression="zstd")
    damage(path, 0)
    source = open_source(str(path))
    sound, lost = [], []
    for entry in source.entries():
        try:
            sound.append(source.read(entry)["image"][0])
        except InputError as error:
            lost.append((entry.key, type(error).__name__))
    assert sound == [0, 1, 2, 3, 8, 9, 10, 11]
    assert lost == [(f"data-{row:08d}", "DamagedRowGroup") for row in range(4, 8)]


def test_damaged_keys_are_dead_letters_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    save(path, {"image": images(8), "key": [f"key-{number}" * 20 for number in range(8)]},
         use_dictionary=False, write_page_checksum=True)
    damage(path, 1)
    entries = list(open_source(str(path)).entries())
    assert problems_of(entries) == {f"data-{row:08d}": "DamagedRowGroup" for row in range(4, 8)}


def test_texts_that_are_not_utf_8_cost_their_row_group(tmp_path: Path) -> None:
    keys = pa.array([b"a", b"b", b"\xff", b"d"], pa.binary()).view(pa.string())
    url = save(tmp_path / "data.parquet", {"image": images(4), "key": keys}, 2)
    entries = list(open_source(url).entries())
    assert [(entry.key, entry.problem and entry.problem[0]) for entry in entries] == [
        ("a", None), ("b", None), ("data-00000002", "DamagedRowGroup"),
        ("data-00000003", "DamagedRowGroup")]


def test_a_file_that_changed_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    source = open_source(save(path, {"image": images(4)}))
    entry = list(source.entries())[1]
    before = source.files()
    save(path, {"image": images(8)[4:]}, compression="none")
    assert open_source(str(path)).files() != before
    with pytest.raises(SourceChanged, match="has changed since it was listed"):
        source.read(entry)
    path.unlink()
    with pytest.raises(SourceChanged, match="not there any more"):
        source.read(entry)


def test_a_store_that_fails_is_not_a_damaged_file(tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(save(tmp_path / "data.parquet", {"image": images(4)}))
    entry = list(source.entries())[1]
    sound = parquet.StoredFile.read

    def fail(self: Any, size: int = -1) -> bytes:
        self.error = ConnectionResetError("peer")
        raise self.error
    monkeypatch.setattr(parquet.StoredFile, "read", fail)
    with pytest.raises(OSError) as caught:
        source.read(entry)
    assert not isinstance(caught.value, InputError)
    monkeypatch.setattr(parquet.StoredFile, "read", sound)
    assert source.read(entry) == {"image": b"\1" * 5}


def test_threads_read_the_rows_they_ask_for(tmp_path: Path) -> None:
    source = open_source(save(tmp_path / "data.parquet", {"image": images(200)}, 50))
    entries = list(source.entries())
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda entry: source.read(entry)["image"], entries)) == images(200)


def test_groups_that_were_read_long_ago_are_given_up(tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MAX_SPOOLED_BYTES", 10)
    source = open_source(save(tmp_path / "data.parquet", {"image": images(40)}))
    assert contents(source) == images(40)
    assert len(source._groups._groups) == 2  # type: ignore[attr-defined]


def open_files() -> list[str]:
    return [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
            if os.path.islink(f"/proc/self/fd/{name}")]


@pytest.mark.parametrize("rows_of_a_group", [1, 3])
def test_thousands_of_row_groups_take_few_open_files(tmp_path: Path, rows_of_a_group: int) -> None:
    url = save(tmp_path / "data.parquet", {"image": images(200)}, rows_of_a_group)
    source = open_source(url)
    entries = list(source.entries())
    before = len(open_files())
    for number in np.random.default_rng(0).permutation(200):
        assert source.read(entries[number])["image"] == images(200)[number]
    assert open_files().count(url) <= parquet.MAX_OPEN
    assert len(open_files()) <= before + parquet.MAX_OPEN + 1


def test_groups_that_are_read_to_their_end_are_closed(tmp_path: Path) -> None:
    url = save(tmp_path / "data.parquet", {"image": images(12)})
    source = open_source(url)
    assert contents(source) == images(12)
    assert url not in open_files()


@pytest.mark.parametrize("max_open", [1, 2, 9])
def test_a_group_that_was_closed_goes_on_behind_what_was_read(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_open: int) -> None:
    monkeypatch.setattr(parquet, "MAX_OPEN", max_open)
    rows = [{"bytes": None, "path": "gone.png"} if number % 7 == 3 else
            {"bytes": bytes([number]), "path": None} for number in range(60)]
    source = open_source(save(tmp_path / "data.parquet", {"image": rows}, 20))
    entries = list(source.entries())
    for number in (place + group for place in range(20) for group in (0, 20, 40)):
        if number % 7 == 3:
            with pytest.raises(FileNotFoundError, match=r"gone\.png"):
                source.read(entries[number])
        else:
            assert source.read(entries[number]) == {"image": bytes([number])}


def test_one_great_row_group_does_not_fill_the_memory(tmp_path: Path) -> None:
    payloads = [bytes([number % 256]) * 50_000 for number in range(400)]
    source = open_source(save(tmp_path / "data.parquet", {"image": payloads}, 400,
                              use_dictionary=False, compression="none",
                              write_batch_size=8))
    pa.default_memory_pool().release_unused()
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    count = peak = 0
    for entry in source.entries():
        count += len(source.read(entry)["image"])
        peak = max(peak, pa.total_allocated_bytes() - before)
    _, python_peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 400 * 50_000
    assert peak < 8_000_000 and python_peak < 6_000_000


def test_remote_files_are_read(tmp_path: Path) -> None:
    save(tmp_path / "data.parquet", {"image": images(6)})
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/tables/a/0.parquet", (tmp_path / "data.parquet").read_bytes())
    source = open_source("memory://tables/**/*.parquet")
    assert contents(source) == images(6)
    assert next(source.entries()).source == "memory://tables/a/0.parquet#rowgroup=0&row=0"
    fs.rm("/tables", recursive=True)


def test_a_row_group_with_fewer_keys_than_rows_loses_none_without_a_word(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = save(tmp_path / "data.parquet", {"image": images(8), "key": list("abcdefgh")})
    whole = parquet.ParquetSource._text_rows

    def fewer(self: Any, file: Any, group: int, num_rows: int) -> Any:
        rows = list(whole(self, file, group, num_rows))
        yield from rows[:1] if group else rows * 2
    monkeypatch.setattr(parquet.ParquetSource, "_text_rows", fewer)
    entries = list(open_source(url).entries())
    assert [entry.key for entry in entries] == [
        *"abcde", "data-00000005", "data-00000006", "data-00000007"]
    assert set(problems_of(entries).values()) == {"DamagedRowGroup"}
    assert "fewer rows than its file's footer states" in str(entries[-1].problem)


def test_labels_that_are_no_numbers_of_the_named_classes_are_refused_with_the_remedy(
        tmp_path: Path) -> None:
    url = save(tmp_path / "data.parquet", {"image": images(2), "label": ["0", "dog"]},
               metadata={"info": {"features": {"label": {"names": ["dog", "cat"]}}}})
    with pytest.raises(ValueError, match="row=1 holds the label 'dog', but the file names its "
                                         "classes by numbers: .*--labels column:NAME"):
        list(open_source(url).entries())


def test_a_file_that_a_row_names_and_that_is_gone_costs_this_row_alone(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"two")
    names = ["a.png", "b.png", None, "folder"]
    (tmp_path / "folder").mkdir()
    rows = [{"bytes": None if name else b"three", "path": name} for name in names]
    source = open_source(save(tmp_path / "data.parquet", {"image": rows}))
    first, second, third, fourth = source.entries()
    for _ in range(2):
        assert (source.read(second), source.read(third)) == ({"image": b"two"}, {"image": b"three"})
        with pytest.raises(FileNotFoundError, match=r"a\.png"):
            source.read(first)
        with pytest.raises(IsADirectoryError):
            source.read(fourth)
