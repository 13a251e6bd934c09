"""Tar files: samples by name, members by their bytes, and what is damaged is told."""
import io
import pickle
import tarfile
import threading
import tracemalloc
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from corpus_files import encode, noise

from tokenizer.corpus.sources import Entry, SourceChanged, open_source

PIXEL = encode(noise(0, 2, 2))
BLOCK = tarfile.BLOCKSIZE


def tar(members: Mapping[str, bytes], **options: object) -> bytes:
    """An archive of files, in order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def save_tar(path: Path, members: Mapping[str, bytes]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar(members))
    return str(path)


def keys_of(entries: list[Entry]) -> list[str]:
    return [entry.key for entry in entries]


def problems_of(entries: list[Entry]) -> dict[str, str]:
    return {entry.key: entry.problem[0] for entry in entries if entry.problem}


def test_members_are_read_by_their_bytes(tmp_path: Path) -> None:
    url = save_tar(tmp_path / "00.tar", {"./cat/1.jpg": b"one", "dog/2.PNG": b"two" * 1000,
                                         "3.webp": b""})
    source = open_source(url)
    entries = list(source.entries())
    assert keys_of(entries) == ["cat/1", "dog/2", "3"]
    assert entries[1].source == f"{url}#dog/2.PNG"
    assert [entry.class_name for entry in entries] == ["cat", "dog", None]
    sent = pickle.dumps(source)
    assert source.files()[url] not in str(sent)  # of ten thousand archives it would be megabytes
    read = pickle.loads(sent).read
    assert [read(entry) for entry in entries] == [
        {"image": b"one"}, {"image": b"two" * 1000}, {"image": b""}]


def test_a_sample_holds_maps_label_caption_and_json(tmp_path: Path) -> None:
    url = save_tar(tmp_path / "00.tar", {
        "a.jpg": b"image", "a.segmentation.png": b"map", "a.cls": b"7\n",
        "a.txt": " ein Bär ".encode(),
        "b.cls": b"3", "b.jpg": b"image b", "b.seg.png": b"other", "b.segmentation.png": b"map b",
        "c.jpg": b"image c", "c.segmentation.tif": b"map c",
        "c.json": b'{"label": 2, "caption": "c", "width": 5}'})
    source = open_source(url, {"segmentation": "column:segmentation"})
    entries = list(source.entries())
    assert source.classes() == [str(number) for number in range(8)]
    assert [(entry.key, entry.label, entry.class_name, entry.caption) for entry in entries] == [
        ("a", 7, "7", "ein Bär"), ("b", 3, "3", None), ("c", 2, "2", "c")]
    assert [source.read(entry)["segmentation"] for entry in entries] == [b"map", b"map b", b"map c"]
    assert source.notes == {".seg.png members": 1}


def test_maps_are_named_by_their_suffix(tmp_path: Path) -> None:
    url = save_tar(tmp_path / "00.tar", {"a.jpg": b"image", "a.seg.png": b"map", "b.jpg": b"image"})
    source = open_source(url, {"segmentation": ".seg.png"})
    entries = list(source.entries())
    assert source.read(entries[0]) == {"image": b"image", "segmentation": b"map"}
    assert problems_of(entries) == {"b": "MissingMap"}
    with pytest.raises(FileNotFoundError, match="maps does not exist.* segmentation=column:NAME"):
        open_source(url, {"segmentation": "maps"})


def test_maps_train_alone_and_a_suffix_may_be_chosen(tmp_path: Path) -> None:
    url = save_tar(tmp_path / "00.tar", {"a.png": b"image", "a.depth.png": b"map",
                                         "a.thumb.png": b"small"})
    depth = open_source(url, modality="depth")
    assert [depth.read(entry) for entry in depth.entries()] == [{"depth": b"map"}]
    thumb = open_source(f"{url}#column=thumb")
    assert [thumb.read(entry) for entry in thumb.entries()] == [{"image": b"small"}]
    with pytest.raises(ValueError, match="no option 'colum'.*it has column, keys"):
        open_source(f"{url}#colum=thumb")


def test_members_of_a_sample_need_not_follow_one_another(tmp_path: Path) -> None:
    url = save_tar(tmp_path / "00.tar", {"b.jpg": b"b", "a.jpg": b"a", "a.cls": b"x",
                                         "b.cls": b"y"})
    source = open_source(url)
    assert [(entry.key, entry.class_name) for entry in source.entries()] == [("b", "y"), ("a", "x")]
    assert source.classes() == ["x", "y"]


@pytest.mark.parametrize(("labels", "found"), [
    ("auto", ["7", "8"]), ("none", [None, None]), ("folder", ["cat", "dog"]),
    ("column:kind", ["big", "small"]), ("column:json.size", ["1", "2"]),
    ("regex:(.)$", ["a", "b"])])
def test_labels_come_from_where_they_are_asked_for(tmp_path: Path, labels: str,
                                                   found: list[str | None]) -> None:
    url = save_tar(tmp_path / "00.tar", {
        "cat/a.jpg": b"", "cat/a.cls": b"7", "cat/a.kind": b"big", "cat/a.json": b'{"size": 1}',
        "dog/b.jpg": b"", "dog/b.cls": b"8", "dog/b.kind": b"small", "dog/b.json": b'{"size": 2}'})
    entries = list(open_source(url, labels=labels).entries())
    assert [entry.class_name for entry in entries] == found


def test_several_archives_are_one_corpus(tmp_path: Path) -> None:
    for number in range(3):
        save_tar(tmp_path / f"{number:02d}.tar", {f"{number}.jpg": b"x"})
    for pattern in ("{00..02}.tar", "*.tar", "{00,01,02}.tar"):
        source = open_source(f"{tmp_path}/{pattern}")
        assert keys_of(list(source.entries())) == ["0", "1", "2"]
        assert list(source.files()) == [f"{tmp_path}/{number:02d}.tar" for number in range(3)]
    with pytest.raises(FileNotFoundError, match=r"03\.tar does not exist"):
        open_source(f"{tmp_path}/{{00..03}}.tar")
    with pytest.raises(FileNotFoundError, match=r"no file matches .*x\*\.tar"):
        open_source(f"{tmp_path}/x*.tar")


def test_a_key_in_two_archives_is_used_once_or_named_after_its_file(tmp_path: Path) -> None:
    for number in range(2):
        save_tar(tmp_path / f"{number}.tar", {"a.jpg": b"x"})
    first, second = open_source(f"{tmp_path}/*.tar").entries()
    assert first.problem is None and second.problem is not None
    assert second.problem[0] == "DuplicateKey" and f"{tmp_path}/0.tar#a.jpg" in second.problem[1]
    assert "#keys=files" in second.problem[1]
    entries = list(open_source(f"{tmp_path}/*.tar#keys=files").entries())
    assert keys_of(entries) == ["0/a", "1/a"] and not problems_of(entries)


def test_a_file_per_archive_tells_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    url = save_tar(path, {"a.jpg": b"one", "b.jpg": b"two"})
    before = open_source(url).files()
    assert open_source(url).files() == before and before[url].startswith(f"{path.stat().st_size} b")
    save_tar(path, {"a.jpg": b"one", "c.jpg": b"two"})
    assert open_source(url).files() != before


def test_an_archive_that_changed_after_its_listing_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    source = open_source(save_tar(path, {"a.jpg": b"one", "b.jpg": b"two"}))
    _, entry = source.entries()
    save_tar(path, {"z.jpg": bytes(900), "b.jpg": b"two"})
    with pytest.raises(SourceChanged, match="changed since it was listed"):
        source.read(entry)
    path.unlink()
    with pytest.raises(SourceChanged, match="not there any more"):
        source.read(entry)


def test_a_truncated_archive_gives_its_intact_members(tmp_path: Path) -> None:
    members = {f"{name}.jpg": name.encode() * 700 for name in "abc"}
    whole = tar(members)
    starts = [whole.index(name.encode() * 700) for name in "abc"]
    path = tmp_path / "0.tar"
    for cut in range(BLOCK, starts[2] + 700, 300):
        path.write_bytes(whole[:cut])
        entries = list(open_source(str(path)).entries())
        sound = [entry.key for entry in entries if entry.problem is None]
        assert sound == [name for name, start in zip("abc", starts, strict=True)
                         if start + 700 <= cut], cut
        assert set(problems_of(entries).values()) & {"DamagedArchive", "TruncatedArchive"}, cut


def test_members_behind_damage_are_found(tmp_path: Path) -> None:
    members = {f"{name}.jpg": name.encode() * 700 for name in "abcd"}
    content = bytearray(tar(members))
    header = content.index(b"b" * 700) - BLOCK
    content[header:header + BLOCK] = b"\xff" * BLOCK
    (tmp_path / "0.tar").write_bytes(content)
    source = open_source(f"{tmp_path}/0.tar")
    entries = list(source.entries())
    assert keys_of(entries) == ["a", "c", "d", f"0#{header}"]
    assert problems_of(entries) == {f"0#{header}": "DamagedArchive"}
    assert [source.read(entry)["image"][:1] for entry in entries[:3]] == [b"a", b"c", b"d"]
    assert f"bytes {header} to {header + 3 * BLOCK}" in str(entries[3].problem)


def test_every_flipped_header_byte_is_told_or_harmless(tmp_path: Path) -> None:
    whole = tar({"a.jpg": b"one", "b.jpg": b"two"})
    for position in range(2 * BLOCK, 3 * BLOCK, 7):
        content = bytearray(whole)
        content[position] ^= 0x11
        (tmp_path / "0.tar").write_bytes(content)
        entries = list(open_source(f"{tmp_path}/0.tar").entries())
        assert keys_of(entries)[0] == "a"
        assert problems_of(entries) == {"0#1024": "DamagedArchive"}, position


@pytest.mark.parametrize("content", [b"", b"\0" * 300, b"not a tar" * 200])
def test_what_is_no_archive_is_a_dead_letter_beside_those_that_are(tmp_path: Path,
                                                                  content: bytes) -> None:
    save_tar(tmp_path / "0.tar", {"a.jpg": b"x"})
    (tmp_path / "1.tar").write_bytes(content)
    entries = list(open_source(f"{tmp_path}/*.tar").entries())
    assert keys_of(entries) == ["a", "1#0"] and problems_of(entries) == {"1#0": "DamagedArchive"}


def test_archives_put_one_after_another_are_read_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(tar({"a.jpg": b"x"}) + tar({"b.jpg": b"y"}))
    source = open_source(f"{tmp_path}/0.tar")
    entries = list(source.entries())
    assert keys_of(entries) == ["a", "b"] and source.read(entries[1]) == {"image": b"y"}


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    import gzip
    (tmp_path / "0.tar").write_bytes(gzip.compress(tar({"a.jpg": b"x"})))
    with pytest.raises(ValueError, match="compressed with gzip"):
        list(open_source(f"{tmp_path}/0.tar").entries())
    with pytest.raises(ValueError, match="is compressed, and no part of it"):
        open_source(f"{tmp_path}/0.tar.gz")


def test_links_devices_and_hostile_names_are_told_or_harmless(tmp_path: Path) -> None:
    long = "d/" * 1500 + "long.jpg"
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for name, kind in (("link.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE),
                           ("pipe.jpg", tarfile.FIFOTYPE), ("device.jpg", tarfile.CHRTYPE),
                           ("folder.jpg", tarfile.DIRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for name in ("../up.jpg", "/root.jpg", "new\nline.jpg", "bad\udcff.jpg", long, "._x.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    source = open_source(f"{tmp_path}/0.tar")
    entries = list(source.entries())
    assert problems_of(entries) == dict.fromkeys(["link", "hard", "pipe", "device"], "NotAFile")
    sound = [entry for entry in entries if entry.problem is None]
    assert keys_of(sound) == ["../up", "/root", "new\nline", "bad\\udcff", long[:-4]]
    assert [source.read(entry)["image"] for entry in sound] == [b"abc"] * 5
    assert source.notes == {"hidden members": 1}


def test_names_with_dots_are_images_unless_a_map_is_meant(tmp_path: Path) -> None:
    url = save_tar(tmp_path / "0.tar", {"x/p.v1.jpg": b"1", "x/p.v2.jpg": b"2", "q.jpg": b"3",
                                        "q.mask.png": b"m", "r.depth.png": b"d"})
    source = open_source(f"{url}#keys=files")
    assert keys_of(list(source.entries())) == ["0/x/p.v1", "0/x/p.v2", "0/q"]
    assert source.notes == {".mask.png members": 1, ".depth.png members": 1}


def test_a_sample_twice_and_broken_texts_are_dead_letters(tmp_path: Path) -> None:
    url = save_tar(tmp_path / "0.tar", {"a.jpg": b"1", "a.png": b"2", "b.jpg": b"3", "b.json": b"{",
                                        "c.jpg": b"4", "c.txt": b"\xff\xfe", "d.jpg": b"5",
                                        "d.json": b"[" * 100_000})
    entries = list(open_source(url).entries())
    assert [(entry.key, entry.problem and entry.problem[0]) for entry in entries] == [
        ("a", None), ("a", "DuplicateKey"), ("b", "DamagedText"), ("c", "DamagedText"),
        ("d", "DamagedText")]


def test_archives_without_an_image_are_refused(tmp_path: Path) -> None:
    url = save_tar(tmp_path / "0.tar", {"a.cls": b"1", "a.npy": b"2"})
    with pytest.raises(ValueError, match=r"no image inputs; passed over: 1 \.cls members without"):
        list(open_source(url).entries())


def test_a_remote_archive_is_read_by_ranges() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/tars/0.tar", tar({"a.jpg": b"one", "b.jpg": bytes(3 << 20), "c.jpg": b"three"}))
    source = open_source("memory://tars/*.tar")
    entries = list(source.entries())
    assert entries[2].source == "memory://tars/0.tar#c.jpg"
    assert source.read(entries[2]) == {"image": b"three"}
    fs.rm("/tars", recursive=True)


def test_the_listing_holds_no_payload(tmp_path: Path) -> None:
    url = save_tar(tmp_path / "0.tar", {f"{number:04d}.jpg": bytes(5000) for number in range(2000)})
    source = open_source(url)
    tracemalloc.start()
    count = sum(1 for _ in source.entries())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 2000 and peak < 1_500_000


class Ranges(BaseHTTPRequestHandler):
    """Serves one archive in ranges, and counts the bytes it sends."""
    content = b""
    sent: ClassVar[list[int]] = []

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(self.content)))
        self.send_header("ETag", '"first"')
        self.end_headers()

    def do_GET(self) -> None:
        if self.headers["Range"] is None:  # whether the file exists is asked for like this
            return self.do_HEAD()
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        body = self.content[int(first):int(last) + 1]
        self.sent.append(len(body))
        self.send_response(206)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(self.content)}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def test_an_archive_on_the_web_is_read_by_ranges() -> None:
    Ranges.content = tar({"a.jpg": b"one", "b.jpg": bytes(9 << 20), "c.jpg": b"three"})
    Ranges.sent.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Ranges) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/0.tar?token=x"
        source = open_source(url)
        entries = list(source.entries())
        assert keys_of(entries) == ["a", "b", "c"]
        assert source.files()[url].startswith(f"{len(Ranges.content)} bytes, first, headers sha256")
        assert sum(Ranges.sent) < 5 << 20
        assert source.read(entries[2]) == {"image": b"three"}
        assert Ranges.sent[-1] == BLOCK + 5
        server.shutdown()


def test_mutated_archives_lose_nothing_without_a_word(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    members = {f"{number}.jpg": bytes([number]) * (200 + 300 * number) for number in range(6)}
    whole = np.frombuffer(tar(members), np.uint8)
    for _ in range(150):
        content = whole.copy()
        headers = np.flatnonzero(generator.random(12) < 0.1) * BLOCK
        content[headers + generator.integers(0, BLOCK, len(headers))] ^= 0x55
        end = len(whole) if generator.random() < 0.6 else generator.integers(BLOCK, len(whole))
        (tmp_path / "0.tar").write_bytes(content[:end].tobytes())
        source = open_source(f"{tmp_path}/0.tar")
        entries = list(source.entries())
        sound = [entry for entry in entries if entry.problem is None]
        assert len(sound) == 6 or problems_of(entries), (headers, end)
        for entry in sound:
            assert len(source.read(entry)["image"]) == 200 + 300 * int(entry.key)


def extension(size: int, content: bytes = b"", kind: bytes = tarfile.XHDTYPE) -> bytes:
    """A header about the member behind it that states a size, and some content."""
    info = tarfile.TarInfo("about")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % BLOCK)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_that_would_fill_the_memory_are_damage(tmp_path: Path, kind: bytes) -> None:
    first, last = (tar({f"{name}.jpg": b"x"})[:2 * BLOCK] for name in "az")
    content = bytes(3 << 20)
    (tmp_path / "0.tar").write_bytes(first + extension(len(content), content, kind) + last
                                     + bytes(2 * BLOCK))
    entries = list(open_source(f"{tmp_path}/0.tar").entries())
    assert keys_of(entries) == ["a", "z", "0#1024"] and problems_of(entries) == {
        "0#1024": "DamagedArchive"}
    assert "a header about a member has 3145728 bytes" in str(entries[2].problem)
    for size in (1 << 40, 1 << 80):
        (tmp_path / "0.tar").write_bytes(first + extension(size, b"", kind) + last)
        entries = list(open_source(f"{tmp_path}/0.tar").entries())
        assert keys_of(entries) == ["a", "0#1024"]


def test_a_long_row_of_headers_is_one_damage_and_takes_no_time(tmp_path: Path) -> None:
    first, last = (tar({f"{name}.jpg": b"x"})[:2 * BLOCK] for name in "az")
    (tmp_path / "0.tar").write_bytes(first + extension(0) * 20_000 + last + bytes(2 * BLOCK))
    entries = list(open_source(f"{tmp_path}/0.tar").entries())
    assert keys_of(entries) == ["a", "z", "0#1024"]
    assert "20000 headers about one member; at most 16" in str(entries[2].problem)


@pytest.mark.parametrize("header", [
    b"\x80" + b"\xff" * 11, b"\x80\0\0\0\x7f" + b"\xff" * 7, b"\xff" * 12], ids=repr)
def test_sizes_that_no_member_has_are_damage(tmp_path: Path, header: bytes) -> None:
    content = bytearray(tar({"a.jpg": b"x", "b.jpg": b"y", "c.jpg": b"z"}))
    start = 2 * BLOCK
    content[start + 124:start + 136] = header
    content[start + 148:start + 156] = b" " * 8
    content[start + 148:start + 156] = b"%06o\0 " % sum(content[start:start + BLOCK])
    (tmp_path / "0.tar").write_bytes(content)
    entries = list(open_source(f"{tmp_path}/0.tar").entries())
    assert keys_of(entries)[0] == "a"
    assert set(problems_of(entries).values()) <= {"DamagedArchive", "TruncatedArchive"}
    assert problems_of(entries)


def test_a_sparse_member_whose_headers_end_the_file_is_damage(tmp_path: Path) -> None:
    info = tarfile.TarInfo("s.jpg")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[482] = 1  # more such headers follow
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "0.tar").write_bytes(tar({"a.jpg": b"x"})[:2 * BLOCK] + bytes(header))
    entries = list(open_source(f"{tmp_path}/0.tar").entries())
    assert keys_of(entries)[0] == "a" and len(entries) == 2
    assert problems_of(entries)


def test_members_that_have_become_zeros_are_noted_unless_they_may_be_padding(
        tmp_path: Path) -> None:
    whole = tar({f"{number}.jpg": b"x" for number in range(30)})
    for kept, note in ((30, {}), (1, {"blocks of zeros at the end of archives, more than padding":
                                      len(whole) // BLOCK - 2})):
        content = whole[:kept * 2 * BLOCK]
        (tmp_path / "0.tar").write_bytes(content + bytes(len(whole) - len(content)))
        source = open_source(f"{tmp_path}/0.tar")
        assert len(list(source.entries())) == kept and source.notes == note
