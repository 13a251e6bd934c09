"""What a corpus argument names: options, braces, stars, and short names of files."""
from pathlib import Path

import fsspec
import pytest
from corpus_files import save

from tokenizer.corpus.sources import SOURCES, open_source
from tokenizer.corpus.sources.urls import expand, identity, split_options, stems, suffix_of


@pytest.mark.parametrize(("url", "expected"), [
    ("photos", ("photos", {})), ("a#b.tar", ("a#b.tar", {})),
    ("list.csv#column=url&retries=5", ("list.csv", {"column": "url", "retries": "5"})),
    ("a#b.parquet#key=x.y", ("a#b.parquet", {"key": "x.y"})),
    ("0.tar#new%20line.jpg", ("0.tar#new%20line.jpg", {})),
    ("l.csv#column=my%20url", ("l.csv", {"column": "my url"}))])
def test_options_stand_behind_the_last_mark(url: str,
                                            expected: tuple[str, dict[str, str]]) -> None:
    assert split_options(url) == expected


@pytest.mark.parametrize(("url", "expected"), [
    ("a.tar", ["a.tar"]), ("{8..11}.tar", ["8.tar", "9.tar", "10.tar", "11.tar"]),
    ("{008..010}.tar", ["008.tar", "009.tar", "010.tar"]), ("{2..0}", ["2", "1", "0"]),
    ("{x,y}/{0..1}.tar", ["x/0.tar", "x/1.tar", "y/0.tar", "y/1.tar"]), ("{a,a}", ["a"]),
    ("https://h/{0..1}.tar?q=*", ["https://h/0.tar?q=*", "https://h/1.tar?q=*"])])
def test_braces_name_several_files(url: str, expected: list[str]) -> None:
    assert expand(url) == expected


def test_stars_find_files_on_any_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             ) -> None:
    fs = fsspec.filesystem("memory")
    for name in ("b/1.tar", "a/2.tar", "a/note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
        fs.pipe_file(f"/stars/{name}", b"x")
    monkeypatch.chdir(tmp_path)
    assert expand("*/*.tar") == ["a/2.tar", "b/1.tar"]
    assert expand(f"file://{tmp_path}/**/*.tar") == [
        f"file://{tmp_path}/{name}" for name in ("a/2.tar", "b/1.tar")]
    assert expand("memory://stars/**/*.tar") == [
        f"memory://stars/{name}" for name in ("a/2.tar", "b/1.tar")]
    fs.rm("/stars", recursive=True)


def test_stars_are_the_only_wildcards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a[1]/x?.tar", "a[1]/xy.tar", "a1/x?.tar", "a[1]/[0].tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    for root in ("", f"file://{tmp_path}/"):
        assert expand(f"{root}a[1]/x?*") == [f"{root}a[1]/x?.tar"]
        assert expand(f"{root}*/[0]*") == [f"{root}a[1]/[0].tar"]


@pytest.mark.parametrize(("urls", "expected"), [
    (["data/a.parquet"], ["a"]), (["/x/a.tar", "/x/b.tar"], ["a", "b"]),
    (["s3://k/a/0.tar", "s3://k/b/0.tar"], ["a/0", "b/0"]),
    (["x/0.tar", "y/z/0.tar"], ["x/0", "y/z/0"]), (["0.tar", "/0.tar"], ["0", "/0"]),
    (["0.tar", "0.tgz"], ["00000-0", "00001-0"])])
def test_files_have_short_names_of_their_own(urls: list[str], expected: list[str]) -> None:
    assert stems(urls) == expected


@pytest.mark.parametrize(("url", "suffix"), [
    ("a.b/C.TAR", ".tar"), ("https://h/x.tar?token=a.b", ".tar"), ("zip://in.csv::out.zip", ".csv"),
    ("photos", ""), ("s3://bucket.name/x", "")])
def test_the_suffix_is_that_of_the_path(url: str, suffix: str) -> None:
    assert suffix_of(url) == suffix


def test_an_identity_holds_size_and_tag(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"four")
    assert identity(str(tmp_path / "a")) == "4 bytes"
    fs = fsspec.filesystem("file")
    monkeypatch.setattr(type(fs), "info", lambda self, path: {"size": 4, "ETag": '"abc"'})
    assert identity(str(tmp_path / "a")) == "4 bytes, abc"


def test_what_is_no_source_is_told_what_would_be(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"is a file, not a folder; give a folder .*or: ") \
            as caught:
        open_source(f"{tmp_path}/a.docx")
    for cls in SOURCES.values():
        assert cls.form in str(caught.value)


def test_a_folder_of_archives_says_how_to_name_them(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"if the \.tar files hold them, give .*/\*\.tar"):
        list(open_source(str(tmp_path)).entries())


@pytest.mark.parametrize("suffix", ["tar", "parquet", "csv"])
def test_a_folder_that_is_called_like_a_file_is_a_folder(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / f"table.{suffix}"
    save(folder / "a.png", b"a")
    assert [entry.key for entry in open_source(str(folder)).entries()] == ["a"]
    (folder / "a.png").rename(folder / f"part-0.{suffix}")  # as Spark writes tables
    with pytest.raises(ValueError, match=rf"if the \.{suffix} files hold them, give .*\.{suffix}/"):
        list(open_source(str(folder)).entries())
