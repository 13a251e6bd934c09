"""Values of options: what cannot be read says what was expected."""
import click
import pytest

from cli.values import at_least


@pytest.mark.parametrize("text", ["1e6", "2.5", "many", ""])
def test_a_count_that_is_no_whole_number_is_told_as_such(text: str) -> None:
    with pytest.raises(click.BadParameter, match=f"'{text}' is no whole number"):
        at_least(1).convert(text, None, None)


def test_a_count_has_its_least_value() -> None:
    assert at_least(1).convert("1", None, None) == 1
    with pytest.raises(click.BadParameter, match="0 is not in the range x>=1"):
        at_least(1).convert("0", None, None)
