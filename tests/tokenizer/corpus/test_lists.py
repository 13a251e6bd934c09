"""Lists of files: paths and URLs by column, keys from paths, damaged rows told."""
import json
import pickle
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tokenizer.corpus.sources import Entry, open_source
from tokenizer.corpus.sources.lists import resolve
from tokenizer.corpus.sources.web import BadURL, FetchConfig

ROWS = [{"path": "cat/tom.png", "label": "cat", "caption": "a cat, sleeping"},
        {"path": "./rex.jpg", "label": "dog", "caption": None},
        {"path": "https://host.org/a/b.jpg?size=2", "label": None, "caption": "far\naway"}]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """The rows as a table of the kind that the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    else:
        comma = "\t" if path.suffix == ".tsv" else ","
        lines = [comma.join(rows[0])] + [comma.join(
            '"' + str(value or "").replace('"', '""') + '"' for value in row.values())
            for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return str(path)


def problems_of(entries: list[Entry]) -> dict[str, str]:
    return {entry.key: entry.problem[0] for entry in entries if entry.problem}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_list_of_each_kind_says_the_same(tmp_path: Path, suffix: str) -> None:
    url = write(tmp_path / f"list.{suffix}", ROWS)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/tom.png").write_bytes(b"tom")
    source = open_source(url)
    entries = list(source.entries())
    assert [(entry.key, entry.source, entry.class_name, entry.caption) for entry in entries] == [
        ("cat/tom", f"{tmp_path}/cat/tom.png", "cat", "a cat, sleeping"),
        ("rex", f"{tmp_path}/rex.jpg", "dog", None),
        ("host.org/a/b?size=2", "https://host.org/a/b.jpg?size=2", None, "far\naway")]
    assert source.classes() == ["cat", "dog"]
    assert pickle.loads(pickle.dumps(source)).read(entries[0]) == {"image": b"tom"}
    with pytest.raises(FileNotFoundError):
        source.read(entries[1])


def test_keys_of_files_in_the_lists_folder_are_those_of_the_folder(tmp_path: Path) -> None:
    url = write(tmp_path / "in/list.csv", [
        {"path": f"{tmp_path}/in/a/b.png"}, {"path": f"{tmp_path}/out/c.png"},
        {"path": "s3://bucket/d.png"}])
    assert [entry.key for entry in open_source(url).entries()] == [
        "a/b", f"{tmp_path}/out/c".lstrip("/"), "bucket/d"]


def test_columns_may_be_named(tmp_path: Path) -> None:
    url = write(tmp_path / "list.csv", [{"where": "a.png", "id": "7", "fine": "3", "title": "x",
                                         "depth_file": "d/a.npy", "label": "no"}])
    source = open_source(f"{url}#column=where&key=id&caption=title",
                         {"depth": "column:depth_file"}, "column:fine")
    entry, = source.entries()
    assert (entry.key, entry.label, entry.class_name, entry.caption) == ("7", 3, "3", "x")
    assert dict(entry.sources) == {"image": f"{tmp_path}/a.png", "depth": f"{tmp_path}/d/a.npy"}
    with pytest.raises(ValueError, match=r"known to hold paths or URLs of images \(#column=NAME"):
        list(open_source(url).entries())
    with pytest.raises(ValueError, match="no column 'depths' for paths or URLs of depth"):
        list(open_source(f"{url}#column=where", {"depth": "column:depths"}).entries())


def test_columns_of_json_lines_may_first_occur_later(tmp_path: Path) -> None:
    url = write(tmp_path / "list.jsonl", [{"path": "a.png"}, {"path": "b.png", "caption": "b"}])
    assert [entry.caption for entry in open_source(url).entries()] == [None, "b"]


def test_rows_that_name_nothing_are_dead_letters(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(b"key,path,depth\na,a.png,a.npy\nb,,b.npy\n,c.png,c.npy\nd,d.png,\n"
                     b"e,e.png,e.npy,more\na,f.png,f.npy\ng,\xff.png,g.npy\nh,h.png,h.npy\n")
    entries = list(open_source(str(path), {"depth": "column:depth"}).entries())
    assert [(entry.key, entry.problem and entry.problem[0]) for entry in entries] == [
        ("a", None), ("list-00000002", "NoPlace"), ("list-00000003", "NoKey"), ("d", "MissingMap"),
        ("list-00000005", "DamagedLine"), ("a", "DuplicateKey"), ("g", "NotUTF8"), ("h", None)]
    for entry in entries:
        (entry.source + str(entry.problem)).encode()


@pytest.mark.parametrize("bad", ["http://[host/x.jpg", "https://exam\u2100ple.org/x.jpg"])
def test_a_row_whose_address_is_none_is_a_dead_letter_and_the_others_are_read(
        tmp_path: Path, bad: str) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "list.csv").write_text(f"path,depth\n{bad},a.png\na.png,{bad}\na.png,a.png\n",
                                       encoding="utf-8")
    source = open_source(f"{tmp_path}/list.csv", {"depth": "column:depth"})
    first, second, third = source.entries()
    assert first.source == bad and third.problem is not None  # its key is that of the second
    for entry in (first, second):
        with pytest.raises(BadURL, match="is no web address"):
            source.read(entry)


def test_text_in_another_encoding_is_told(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("path,label,caption\na.png,bär,x\nb.png,x,Bär\nc.png,x,y"
                                        .encode("latin-1"))
    entries = list(open_source(f"{tmp_path}/list.csv").entries())
    assert problems_of(entries) == {"a": "NotUTF8", "b": "NotUTF8"}
    for entry in entries:
        f"{entry.class_name} {entry.caption}".encode()


def test_damaged_lines_are_dead_letters(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"path": "a.png"}\n{"path": \n[1]\n{"path": "b.png"}\n{"path": ["c"]}\n'
                    + "[" * 100_000)
    entries = list(open_source(str(path)).entries())
    assert [entry.key for entry in entries if entry.problem is None] == ["a", "b"]
    assert problems_of(entries) == {"list-00000002": "DamagedLine", "list-00000003": "DamagedLine",
                                    "list-00000005": "NoPlace", "list-00000006": "DamagedLine"}
    path = tmp_path / "open.csv"
    path.write_text('path\na.png\n"b.png\nc.png\n')
    entries = list(open_source(str(path)).entries())
    assert [entry.key for entry in entries] == ["a", "open-00000002"]
    assert "lines 3 to 4 are no CSV: unexpected end of data" in str(entries[1].problem)


@pytest.mark.parametrize("text", ["", "path\n"])
def test_an_empty_list_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ValueError, match="holds no image inputs; it is empty"):
        list(open_source(f"{tmp_path}/list.csv").entries())


def test_limits_are_options(tmp_path: Path) -> None:
    url = write(tmp_path / "list.csv", ROWS)
    source = open_source(f"{url}#timeout=2.5&retries=0&max_bytes=1000")
    assert source._limits == FetchConfig(  # type: ignore[attr-defined]
        timeout=2.5, retries=0, max_bytes=1000)
    with pytest.raises(ValueError, match="retries must be finite and at least 0, got -1"):
        open_source(f"{url}#retries=-1")
    with pytest.raises(ValueError, match="no option 'tries' behind its '#'; it has backoff, cap"):
        open_source(f"{url}#tries=1")


def test_a_changed_list_is_told(tmp_path: Path) -> None:
    url = write(tmp_path / "list.csv", ROWS)
    before = open_source(url).files()
    assert "sha256:" in before[url]
    write(tmp_path / "list.csv", [*ROWS[:2], {**ROWS[2], "caption": "far\naway!"}])
    assert open_source(url).files() != before


def test_remote_lists_name_files_beside_them() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/lists/a/list.csv", b"path\nx/b.png\n")
    fs.pipe_file("/lists/a/x/b.png", b"pixels")
    source = open_source("memory://lists/a/list.csv")
    entry, = source.entries()
    assert (entry.key, source.read(entry)) == ("x/b", {"image": b"pixels"})
    fs.rm("/lists", recursive=True)


@pytest.mark.parametrize(("place", "base", "found"), [
    ("a.png", "list.csv", "a.png"), ("../a.png", "x/y/list.csv", "x/y/../a.png"),
    ("/a.png", "s3://b/list.csv", "/a.png"), ("a.png", "s3://b/c/list.csv", "s3://b/c/a.png"),
    ("../a.png", "https://h/x/list.csv", "https://h/a.png"),
    ("/etc/a.png", "https://h/x/list.csv", "https://h/etc/a.png"),
    ("//[h", "https://h/x/list.csv", "https://[h"),
    ("https://h/a.png", "list.csv", "https://h/a.png")])
def test_paths_are_relative_to_the_list(place: str, base: str, found: str) -> None:
    assert resolve(place, base) == found
