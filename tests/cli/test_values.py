"""Values of options: what cannot be read says what was expected."""
import click
import pytest

from cli.values import ERROR_LIMIT, PLACE, PNG, TOKENIZER_FOLDER, Value, at_least


@pytest.mark.parametrize("text", ["1e6", "2.5", "many", ""])
def test_a_count_that_is_no_whole_number_is_told_as_such(text: str) -> None:
    with pytest.raises(click.BadParameter, match=f"'{text}' is no whole number"):
        at_least(1).convert(text, None, None)


def test_a_count_that_no_machine_reaches_is_refused() -> None:
    assert at_least(1).convert("9223372036854775807", None, None) == 2 ** 63 - 1
    with pytest.raises(click.BadParameter, match="9223372036854775808 is larger than 92"):
        at_least(1).convert("9223372036854775808", None, None)


@pytest.mark.parametrize(("text", "words"), [
    ("", "'' is no path or URL; is a variable of the shell not set"), (" ", "' ' is no path"),
    ("a\udcff", r"'a\\udcff' is no text in UTF-8")])
@pytest.mark.parametrize("value", [PLACE, TOKENIZER_FOLDER], ids=["path", "tokenizer"])
def test_a_path_is_a_text_and_not_empty(value: Value, text: str, words: str) -> None:
    assert PLACE.convert("a", None, None) == "a"
    with pytest.raises(click.BadParameter, match=words):
        value.convert(text, None, None)


def test_a_png_is_named_as_one() -> None:
    assert PNG.convert("a/b.PNG", None, None) == "a/b.PNG"
    for text in ("sheet.jpg", "sheet"):
        with pytest.raises(click.BadParameter, match=f"'{text}' becomes a PNG: let its name end"):
            PNG.convert(text, None, None)


@pytest.mark.parametrize("text", ["50%%", "%", "1.0", "101%", "nan"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a number of images such as 5 nor"):
        ERROR_LIMIT.convert(text, None, None)


def test_a_count_has_its_least_value() -> None:
    assert at_least(1).convert("1", None, None) == 1
    with pytest.raises(click.BadParameter, match="0 is not in the range x>=1"):
        at_least(1).convert("0", None, None)
