"""A folder holds one request: the same goes on, another is refused, other files are left alone."""
from pathlib import Path

import pytest

from tokenizer.claims import Claim

CLAIM = Claim(name="asked.json", keys=frozenset({"seed", "size"}), noun="pictures",
              participle="drawn", parts=("_SUCCESS", "data"))
REQUEST = {"seed": 1, "size": [2, 3], "inner": {"depth": 4}}


def test_the_same_request_goes_on_with_what_is_there(tmp_path: Path) -> None:
    CLAIM.claim(str(tmp_path / "out"), REQUEST, overwrite=False)
    (tmp_path / "out/data").mkdir()
    CLAIM.claim(str(tmp_path / "out"), REQUEST, overwrite=False)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["asked.json", "data"]


def test_another_request_is_refused_or_takes_the_place_of_the_parts(tmp_path: Path) -> None:
    CLAIM.claim(str(tmp_path), REQUEST, overwrite=False)
    for name in ("_SUCCESS", "data", "mine"):
        (tmp_path / name).touch()
    other = {**REQUEST, "inner": {"depth": 5}}
    with pytest.raises(ValueError, match=r"other pictures \(inner.depth was 4, now 5\): give"):
        CLAIM.claim(str(tmp_path), other, overwrite=False)
    CLAIM.claim(str(tmp_path), other, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["asked.json", "mine"]
    CLAIM.claim(str(tmp_path), other, overwrite=False)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("notes.txt", "x", "other files, such as notes.txt"), ("asked.json", "[", "such as asked.json"),
    ("asked.json", '{"seed": 1}', "such as asked.json"),
    ("manifest.json", "{}", "a token corpus that was not drawn")])
@pytest.mark.parametrize("overwrite", [False, True])
def test_folders_of_others_are_left_alone(tmp_path: Path, name: str, content: str, message: str,
                                          overwrite: bool) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        CLAIM.claim(str(tmp_path), REQUEST, overwrite)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == content
