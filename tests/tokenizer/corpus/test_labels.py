"""Labels from folders, patterns and tables."""
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from corpus_files import save

from tokenizer.corpus import labels
from tokenizer.corpus.labels import Label, Labels, labels_from
from tokenizer.corpus.sources import open_source


class Corpus:
    """A source that has only keys."""

    def __init__(self, *keys: str) -> None:
        self._keys = keys

    def keys(self) -> Iterator[str]:
        return iter(self._keys)

    def folders(self) -> list[str]:
        return sorted({key.split("/")[0] for key in self._keys if "/" in key})


CORPUS = Corpus("cat/a", "cat/deep/b", "dog/c", "loose")


def table(path: Path, text: str) -> Labels:
    path.write_text(text, encoding="utf-8")
    return labels_from(str(path))


def test_the_first_folder_is_the_class() -> None:
    found = labels_from("folder")
    assert found.classes(CORPUS) == ["cat", "dog"]
    assert [found.of(key, f"{key}.png").class_name for key in CORPUS.keys()] == [  # noqa: SIM118
        "cat", "cat", "dog", None]


def test_a_key_that_begins_with_a_slash_has_no_first_folder() -> None:
    assert labels_from("folder").of("/cat/a", "/cat/a.png") == Label()


def test_none_gives_no_class() -> None:
    found = labels_from("none")
    assert found.classes(CORPUS) == []
    assert found.of("cat/a", "cat/a.png") == Label(None, None, False)


@pytest.mark.parametrize("pattern", ["regex:^(.)(?P<class>.*)/(deep/)?.$", "regex:^.([a-z]+)/"])
def test_a_pattern_gives_its_class_group_or_its_first(pattern: str) -> None:
    found = labels_from(pattern)
    assert set(found.classes(CORPUS)) >= {"at", "og"}
    assert found.of("dog/c", "dog/c.png") == Label("og", None, True)
    assert found.of("loose", "loose.png") == Label()
    assert found.notes(3, 4) == {"keys that the pattern of labels does not match": 1}


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"matches no key of .*; the first key is 'cat/a'"):
        labels_from("regex:^(bird)").classes(CORPUS)


@pytest.mark.parametrize(("text", "message"), [
    ("regex:(", "not a regular expression"), ("regex:cat", "has no group"),
    ("folders", "labels are auto, folder, none, column:NAME, regex:PATTERN, or")])
def test_wrong_options_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        labels_from(text)


def test_a_missing_table_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"no-such\.csv does not exist"):
        labels_from("no-such.csv")


TABLES = {
    "names.csv": "\ufeffkey,label,caption\ncat/a,cat,\"a cat, asleep\"\ndog/c.png,dog,\n",
    "names.tsv": "caption\tlabel\tkey\na cat, asleep\tcat\tcat/a\n\tdog\tdog/c.png\n",
    "names.jsonl": ('{"key": "cat/a", "label": "cat", "caption": "a cat, asleep", "more": [1]}\n\n'
                    '{"key": "dog/c.png", "label": "dog", "caption": null}\n'),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_give_classes_and_captions_by_key_with_or_without_suffix(tmp_path: Path,
                                                                      name: str) -> None:
    found = table(tmp_path / name, TABLES[name])
    assert found.classes(CORPUS) == ["cat", "dog"]
    assert found.of("cat/a", "cat/a.png") == Label("cat", "a cat, asleep", True)
    assert found.of("dog/c", "dog/c.png") == Label("dog", None, True)
    assert found.of("loose", "loose.png") == Label()
    assert found.notes(2, 3) == {"images without a row in the table of labels": 1,
                                 "rows of the table of labels without an image": 0}


def test_whole_numbers_are_labels_already(tmp_path: Path) -> None:
    for found in (table(tmp_path / "a.csv", "key,label\na,3\nb,010\nc,\n"),
                  table(tmp_path / "a.jsonl", '{"key":"a","label":3}\n{"key":"b","label":10}\n'
                                              '{"key":"c"}\n')):
        assert found.classes(CORPUS) == [str(number) for number in range(11)]
        assert [found.of(key, key).class_name for key in "abc"] == ["3", "10", None]


@pytest.mark.parametrize("suffix", ["", ".png"])
@pytest.mark.parametrize("kind", ["folder", "tar", "list"])
def test_keys_of_a_table_may_have_suffixes_whatever_the_corpus_lies_in(
        tmp_path: Path, kind: str, suffix: str) -> None:
    for name in ("cat/a.png", "b.png"):
        save(tmp_path / "photos" / name, b"x")
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(tmp_path / "photos", ".")
    (tmp_path / "photos" / "list.csv").write_text("path\ncat/a.png\nb.png\n")
    (tmp_path / "labels.csv").write_text(f"key,label\ncat/a{suffix},tom\nb{suffix},rex\n")
    url = {"folder": "photos", "tar": "photos.tar", "list": "photos/list.csv"}[kind]
    source = open_source(f"{tmp_path}/{url}", labels=f"{tmp_path}/labels.csv")
    assert {entry.key: entry.class_name for entry in source.entries()} == {
        "cat/a": "tom", "b": "rex"}


def test_numbers_among_names_are_names(tmp_path: Path) -> None:
    assert table(tmp_path / "a.csv", "key,label\na,3\nb,cat\n").classes(CORPUS) == ["3", "cat"]


def test_captions_need_no_labels(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", "key,caption\na,two dogs\n")
    assert found.classes(CORPUS) == []
    assert found.of("a", "a.jpg") == Label(None, "two dogs", True)


def test_the_exact_key_wins_over_the_name_with_suffix(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", "key,label\na.png,suffix\na,exact\n")
    assert found.of("a", "a.png").class_name == "exact"


@pytest.mark.parametrize(("name", "text", "message"), [
    ("a.csv", "key,label\na,x\na,y\n", "line 3 repeats the key 'a'"),
    ("a.csv", "key,label\n,x\n", "line 2 has no key"),
    ("a.csv", "name,label\na,x\n", "the columns key, label and caption; it holds name, label"),
    ("a.csv", "", "it holds nothing"),
    ("a.csv", "key,label\na,x,more\n", "line 2 holds more values"),
    ("a.csv", 'key,label\n"a,x\n', "unexpected end of data"),
    ("a.csv", "key,label\na,-1\n", "holds the label -1; .*leave it empty where there is none"),
    ("a.csv", f"key,label\na,{labels.MAX_LABEL + 1}\n", "holds the label 1000001"),
    ("a.jsonl", '{"key": "a"}\n{"key"\n', "line 2 is not JSON"),
    ("a.jsonl", '["a"]\n', "line 1 is not an object"),
    ("a.jsonl", '{"key": "a", "label": 1.5}\n', "line 1 holds 1.5; values are texts or whole"),
    ("a.jsonl", '{"key": "a", "label": true}\n', "line 1 holds True")])
def test_a_damaged_table_is_refused_with_its_line(tmp_path: Path, name: str, text: str,
                                                  message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(tmp_path / name, text).classes(CORPUS)


def test_a_table_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"key,label\n\xff\xfe,x\n")
    with pytest.raises(ValueError, match=r"a\.csv.*utf-8"):
        labels_from(str(tmp_path / "a.csv")).classes(CORPUS)


def test_a_table_for_another_corpus_is_refused(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", "key,label\n/photos/a,x\n")
    with pytest.raises(ValueError, match=r"no key of .*a\.csv is one of the corpus; .*'/photos/a'"):
        found.notes(0, 4)


def test_tables_lie_on_any_file_system() -> None:
    with fsspec.open("memory://labels/a.csv", "w") as file:
        file.write("key,label\na,x\n")
    assert labels_from("memory://labels/a.csv").of("a", "a.png").class_name == "x"


def test_labels_travel_to_other_processes(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", "key,label\na,x\n")
    assert found.classes(CORPUS) == ["x"]
    assert pickle.loads(pickle.dumps(found)).of("a", "a.png").class_name == "x"
