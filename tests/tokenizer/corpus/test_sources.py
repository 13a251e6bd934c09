"""Sources list every input once, by key, pair maps, and pass over nothing in silence."""
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from corpus_files import broken_files, encode, noise, save
from object_store import ObjectStore

from tokenizer.corpus.images import UnreadableImage
from tokenizer.corpus.modalities import MODALITIES
from tokenizer.corpus.sources import Entry, FolderSource, folder, open_source

PIXEL = encode(noise(0, 2, 2))


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty place for files, on two kinds of file systems."""
    if request.param == "local":
        yield str(tmp_path)
        return
    fs = fsspec.filesystem("memory")
    fs.mkdir("/corpora")
    yield "memory://corpora"
    fs.rm("/corpora", recursive=True)


def put(root: str, *names: str, content: bytes = PIXEL) -> None:
    fs, path = fsspec.core.url_to_fs(root)
    for name in names:
        fs.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{path}/{name}", content)


def keys_of(entries: list[Entry]) -> list[str]:
    return [entry.key for entry in entries]


def problems_of(entries: list[Entry]) -> dict[str, str]:
    return {entry.key: entry.problem[0] for entry in entries if entry.problem}


def test_every_file_becomes_one_entry_in_the_order_of_keys(root: str) -> None:
    names = ["b.png", "a/z.JPEG", "a/b/c.webp", "a.jpg", "a-1.gif", "a1/x.tiff", "B.bmp", "ä.png"]
    put(root, *names)
    entries = list(open_source(root).entries())
    assert keys_of(entries) == sorted(name.rpartition(".")[0] for name in names)
    assert not problems_of(entries)
    by_key = {entry.key: entry for entry in entries}
    assert by_key["a/b/c"].source == f"{root}/a/b/c.webp"
    assert (by_key["a/b/c"].class_name, by_key["a/b/c"].label) == ("a", 0)
    assert (by_key["a1/x"].class_name, by_key["a1/x"].label) == ("a1", 1)
    assert by_key["b"].class_name is None and by_key["b"].label is None


def test_a_source_reads_the_bytes_of_each_modality(root: str) -> None:
    put(root, "images/a.png", content=b"image bytes")
    put(root, "depth/a.npy", content=b"depth bytes")
    source = open_source(f"{root}/images", {"depth": f"{root}/depth"})
    entry, = pickle.loads(pickle.dumps(source)).entries()
    assert list(entry.sources) == ["image", "depth"]
    assert source.read(entry) == {"image": b"image bytes", "depth": b"depth bytes"}


def test_what_is_no_image_is_counted_not_hidden(root: str) -> None:
    put(root, "a.png", "a.txt", "sub/b.txt", "README", ".hidden.png", ".git/c.png")
    source = open_source(root)
    assert keys_of(list(source.entries())) == ["a"]
    assert source.notes == {f".txt files in {root}": 2, f"suffixless files in {root}": 1,
                            "hidden files and folders": 2}


def test_a_key_that_occurs_twice_is_used_once(root: str) -> None:
    put(root, "x/a.png", "x/a.jpg", "x/a.webp")
    entries = list(open_source(root).entries())
    assert keys_of(entries) == ["x/a"] * 3
    assert [entry.problem[0] if entry.problem else None for entry in entries] == [
        None, "DuplicateKey", "DuplicateKey"]
    assert entries[1].source.endswith("a.png")
    assert "a.jpg has the same key 'x/a'" in entries[1].problem[1]


def test_maps_pair_by_key_and_what_has_no_partner_is_reported(root: str) -> None:
    put(root, "images/x/a.jpg", "images/x/b.jpg", "images/c.jpg")
    put(root, "depth/x/a.png", "depth/c.npy", "depth/y/d.png", "depth/x/notes.txt")
    source = open_source(f"{root}/images", {"depth": f"{root}/depth"})
    entries = list(source.entries())
    assert keys_of(entries) == ["c", "x/a", "x/b", "y/d"]
    assert problems_of(entries) == {"x/b": "MissingMap", "y/d": "MapWithoutImage"}
    assert entries[1].sources["depth"] == f"{root}/depth/x/a.png"
    assert f"there is no depth file {root}/depth/x/b" in entries[2].problem[1]
    assert entries[3].source == f"{root}/depth/y/d.png"
    assert source.notes == {f".txt files in {root}/depth": 1}
    assert source.classes() == ["x"]


def test_two_maps_of_one_image_are_ambiguous(root: str) -> None:
    put(root, "images/a.jpg", "depth/a.png", "depth/a.npy")
    entry, = open_source(f"{root}/images", {"depth": f"{root}/depth"}).entries()
    assert entry.problem == ("DuplicateKey",
                             "a.npy and a.png are both its depth map; remove one of them")


def test_maps_inside_the_corpus_are_not_images(root: str) -> None:
    put(root, "a.png", "maps/depth/a.png", "depth/b.png")
    source = open_source(root, {"depth": f"{root}/maps/depth"})
    entries = list(source.entries())
    assert keys_of(entries) == ["a", "depth/b"]
    assert problems_of(entries) == {"depth/b": "MissingMap"}


@pytest.mark.parametrize("modality", MODALITIES)
def test_maps_alone_are_a_corpus(root: str, modality: str) -> None:
    put(root, *(f"a{suffix}" for suffix in MODALITIES[modality].suffixes[:1]))
    source = open_source(root, modality=modality)
    entry, = source.entries()
    held = MODALITIES[modality].file_modality()
    assert source.modalities == (held,)
    assert list(entry.sources) == [held]


def test_an_empty_corpus_is_an_error_that_says_what_was_found(root: str) -> None:
    put(root, "images/notes.txt", "images/.a.png")
    with pytest.raises(ValueError, match=r"no image files \(.jpg, .*1 .txt files in .*hidden"):
        list(open_source(f"{root}/images").entries())


def test_missing_folders_are_named(root: str) -> None:
    put(root, "images/a.png")
    with pytest.raises(FileNotFoundError, match="the corpus .*photos does not exist"):
        open_source(f"{root}/photos")
    with pytest.raises(FileNotFoundError, match=r"a\.png is a file, not a folder"):
        open_source(f"{root}/images/a.png")
    with pytest.raises(FileNotFoundError, match="depth does not exist; give the folder of the"):
        open_source(f"{root}/images", {"depth": f"{root}/depth"})


def test_modalities_are_known_and_given_once(root: str) -> None:
    put(root, "a.png")
    with pytest.raises(ValueError, match="unknown modality 'sound'"):
        open_source(root, {"sound": root})
    with pytest.raises(ValueError, match="image is the corpus itself"):
        open_source(root, {"image": root})


def test_labels_come_from_a_table(root: str) -> None:
    put(root, "images/a.png", "images/b.png", "images/c.png")
    put(root, "labels.csv", content=b"key,label,caption\na,dog,a dog\nb.png,cat,\nz,dog,\n")
    source = open_source(f"{root}/images", labels=f"{root}/labels.csv")
    found = {entry.key: (entry.label, entry.class_name, entry.caption)
             for entry in source.entries()}
    assert source.classes() == ["cat", "dog"]
    assert found == {"a": (1, "dog", "a dog"), "b": (0, "cat", None), "c": (None, None, None)}
    assert source.notes == {"images without a row in the table of labels": 1,
                            "rows of the table of labels without an image": 1}


def test_labels_come_from_a_pattern(root: str) -> None:
    put(root, "n01_cat.png", "n02_dog.png", "other.png")
    source = open_source(root, labels=r"regex:_(\w+)$")
    assert [entry.label for entry in source.entries()] == [0, 1, None]
    assert source.notes == {"keys that the pattern of labels does not match": 1}


def test_listing_twice_gives_the_same(root: str) -> None:
    put(root, "a/x.png", "a/x.jpg", "b/y.png", "b/n.txt")
    source = open_source(root)
    first, notes = list(source.entries()), dict(source.notes)
    assert (list(source.entries()), dict(source.notes)) == (first, notes)


def test_a_folder_named_like_an_image_is_a_folder(root: str) -> None:
    put(root, "x.jpg/a.png")
    entry, = open_source(root).entries()
    assert entry.key == "x.jpg/a"


def test_broken_files_are_entries_that_read_but_do_not_decode(root: str) -> None:
    for name, (content, _) in broken_files().items():
        put(root, f"{name.replace('.', '-')}/{name}", content=content)
    put(root, "whole.png")
    source = open_source(root)
    failed = 0
    for entry in source.entries():
        payload = source.read(entry)["image"]
        if entry.key == "whole":
            MODALITIES["image"]().read(payload, entry.key)
        else:
            with pytest.raises(UnreadableImage):
                MODALITIES["image"]().read(payload, entry.key)
            failed += 1
    assert failed == 12


def test_broken_links_and_odd_names_are_reported(tmp_path: Path) -> None:
    save(tmp_path / "a.png", PIXEL)
    save(tmp_path / "b::c.png", PIXEL)
    os.symlink(tmp_path / "nowhere", tmp_path / "link.png")
    os.mkfifo(tmp_path / "pipe.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(PIXEL)
    entries = list(open_source(str(tmp_path)).entries())
    assert problems_of(entries) == {"b::c": "UnusableName", "link": "NotAFile", "pipe": "NotAFile",
                                    "\\udcff": "UnusableName"}
    for entry in entries:
        (entry.key + entry.source).encode()


def test_names_that_are_not_utf_8_show_as_escapes(tmp_path: Path) -> None:
    bad = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9t\xe9"))
    save(bad / "a.png", PIXEL)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/x.\xff")).write_bytes(b"1")
    for suffix in ("jpg", "png"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xfe." + suffix.encode())).write_bytes(PIXEL)
    source = open_source(str(tmp_path))
    entries = list(source.entries())
    assert source.classes() == ["\\udce9t\\udce9"]
    assert source.notes == {f".\\udcff files in {tmp_path}": 1}
    assert [(entry.key, entry.label, entry.problem and entry.problem[0]) for entry in entries] == [
        ("\\udce9t\\udce9/a", 0, "UnusableName"), ("\\udcfe", None, "UnusableName"),
        ("\\udcfe", None, "DuplicateKey")]
    repr([(entry.source, entry.problem) for entry in entries]).encode()
    entries[2].problem[1].encode()


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    save(tmp_path / "store/x.png", PIXEL)
    corpus = tmp_path / "corpus"
    save(corpus / "a/own.png", PIXEL)
    save(corpus / "b/own.png", PIXEL)
    os.symlink(tmp_path / "store/x.png", corpus / "linked.png")
    os.symlink(tmp_path / "store", corpus / "folder")
    os.symlink(corpus, corpus / "a/up")
    os.symlink(corpus / "a", corpus / "b/other")
    os.symlink(corpus / "b", corpus / "a/other")
    os.symlink("self", corpus / "self")
    keys = keys_of(list(open_source(str(corpus)).entries()))
    assert keys == ["a/other/own", "a/own", "b/other/own", "b/own", "folder/x", "linked"]


def test_a_zip_file_is_a_folder_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("photos/cat/a.png", PIXEL)
        archive.writestr("photos/b.png", PIXEL)
    source = open_source(f"zip://photos::{tmp_path}/photos.zip")
    entries = list(source.entries())
    assert keys_of(entries) == ["b", "cat/a"]
    assert source.read(entries[1]) == {"image": PIXEL}


def test_memory_holds_one_folder_not_the_corpus(monkeypatch: pytest.MonkeyPatch,
                                                tmp_path: Path) -> None:
    def listing(root: str, path: str) -> Iterator[folder.Listed]:
        if path == root:
            return (folder.Listed(f"{number:03d}", "folder") for number in range(100))
        return (folder.Listed(f"{number:03d}.png", "file") for number in range(50))

    monkeypatch.setattr(folder, "_list_local", listing)
    source = FolderSource(str(tmp_path), labels="none")
    next(source.entries())
    tracemalloc.start()
    count = sum(1 for _ in source.entries())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 5_000
    assert peak < 150_000


def test_keys_with_two_slashes_in_a_bucket_are_counted_not_hidden(s3: ObjectStore) -> None:
    for key in ("p/", "p/a.png", "p//b.png", "p//c.png", "p/d/", "p/d/e.png", "p/d//f.png"):
        s3.ask("PUT", key, b"" if key.endswith("/") else PIXEL)
    source = open_source(f"{s3.bucket}/p")
    assert [entry.key for entry in source.entries()] == ["a", "d/e"]
    assert source.notes == {f"folders without a name, as in a//b, below {s3.bucket}/p": 2}


def test_remote_listings_are_not_kept(root: str) -> None:
    put(root, "a/b.png")
    list(open_source(root).entries())
    fs, _ = fsspec.core.url_to_fs(root, use_listings_cache=False)
    assert not fs.dircache.use_listings_cache
    assert not list(fs.dircache)


def test_pixels_of_a_listed_image_are_those_that_were_saved(tmp_path: Path) -> None:
    pixels = noise(5)
    save(tmp_path / "a.png", pixels)
    source = open_source(str(tmp_path))
    entry, = source.entries()
    assert np.array_equal(MODALITIES["image"]().read(source.read(entry)["image"], "a.png"), pixels)


def test_the_source_of_a_computed_modality_lists_what_it_is_computed_from(root: str) -> None:
    put(root, "a.png", "b.jpg")
    source = open_source(root, modality="edges")
    assert source.modalities == ("image",)
    assert [list(entry.sources) for entry in source.entries()] == [["image"]] * 2
    with pytest.raises(ValueError, match="edges are computed from image files .* leave out"):
        open_source(root, {"edges": f"{root}/edges"})
    with pytest.raises(ValueError, match="unknown modality 'sound'; known are"):
        open_source(root, modality="sound")
    with pytest.raises(FileNotFoundError, match="give a folder of image files"):
        open_source(f"{root}/nowhere", modality="low_res")
