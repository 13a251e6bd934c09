"""Names stay below their folder, differ, and lead back to the key."""
import posixpath

import pytest

from pipelines.names import DuplicateKey, NameTable, UnusableKey, file_name, key_of

KEYS = ["tom", "cats/tom", "cats/Tom 2 (old)", "ü/日本", "a.b/c.d", "../etc/passwd", "..", ".",
        ".hidden", "a/../../b", "/etc/passwd", "//x", "a//b", "a/", "a///", "/", "C:\\windows",
        "nul\0byte", "line\nbreak", "100%", "%2e%2e", "a~1", "what?*", "dot.", "space ", "a.png/b",
        "con", "NUL.txt/x", "a/Com1", "lpt9.b", "console",
        "_decode/x", "_DECODE", "x/_decode", "a/.b/c", "-rf", "~root", "e\u0301", "é"]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("key", KEYS)
def test_a_name_stays_below_its_folder_and_leads_back(key: str, strict: bool) -> None:
    name = file_name(key, strict=strict)
    path = posixpath.normpath(posixpath.join("/out", name + ".png"))
    assert path == f"/out/{name}.png"
    assert not any(part.startswith(".") or not part for part in name.split("/"))
    assert not name.lower().startswith("_decode")
    assert key_of(name) == (key, 0)


def test_harmless_keys_are_their_own_names() -> None:
    for key in ("tom", "cats/tom", "n01440764_tench", "Ünïcödé/日本 (2)", "v1.2/a-b_c+d=e"):
        assert file_name(key) == key


def test_devices_of_windows_are_no_names() -> None:
    names = [file_name(key) for key in ("con", "Aux.1/b", "a/COM7", "lpt0.x")]
    assert names == ["%63on", "%41ux.1/b", "a/%43OM7", "%6Cpt0.x"]
    assert [key_of(name)[0] for name in names] == ["con", "Aux.1/b", "a/COM7", "lpt0.x"]
    assert file_name("console/nulls.1") == "console/nulls.1"


def test_different_keys_have_different_names() -> None:
    assert len({file_name(key) for key in KEYS}) == len(KEYS)


def test_further_crops_add_their_number() -> None:
    assert file_name("tom", 2) == "tom~2" and key_of("tom~2") == ("tom", 2)
    assert file_name("tom~2") != "tom~2"


@pytest.mark.parametrize("key", ["", "n" * 252, "日" * 90, "/".join(["folder" * 10] * 20)])
def test_a_key_without_a_possible_name_is_refused(key: str) -> None:
    with pytest.raises(UnusableKey, match=r"empty|at most 255 bytes"):
        file_name(key)


def test_the_longest_key_leaves_room_for_every_suffix() -> None:
    assert file_name("n" * 250) == "n" * 250


def name_all(*keys: str) -> list[str]:
    table = NameTable()
    for key in keys:
        table.add(key, 0)
    return [table.name(key, 0) for key in keys]


def test_names_that_differ_in_letter_case_alone_are_told_apart() -> None:
    assert name_all("a/Tom", "a/tom", "A/tom", "b/Tom") == ["a/%54om", "a/tom", "%41/tom", "b/Tom"]


def test_names_that_differ_in_accents_alone_are_told_apart() -> None:
    names = name_all("é", "e\u0301", "É")
    assert len({name.casefold() for name in names}) == 3
    assert all(name.isascii() for name in names)
    assert [key_of(name)[0] for name in names] == ["é", "e\u0301", "É"]


def test_a_second_row_of_one_key_and_crop_is_refused() -> None:
    table = NameTable()
    for crop in (0, 1, 0):
        table.add("tom", crop)
    assert [table.name("tom", 0), table.name("tom", 1)] == ["tom", "tom~1"]
    with pytest.raises(DuplicateKey, match="'tom' and crop 0"):
        table.name("tom", 0)
