from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_to_ecr.text import MOST_CHARACTERS, readable, shortened

# All of Unicode, including lone surrogates.
TEXT = st.text(st.characters(exclude_categories=[]), max_size=300)


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    text = readable("What happened: " + "x" * 10_000_000 + ". What to do.")

    assert len(text) == MOST_CHARACTERS
    assert text.startswith("What happened: xxx")
    assert text.endswith("xxx. What to do.")


@pytest.mark.parametrize("most", range(3, 12))
def test_a_text_is_as_long_as_it_may_be(most: int) -> None:
    assert len(shortened("0123456789abc", most)) == most
    assert shortened("0123456789abc"[:most], most) == "0123456789abc"[:most]


def test_the_longest_key_stays_whole() -> None:
    assert readable("k" * 1024) == "k" * 1024


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("app/Käse ✨.tar", "app/Käse ✨.tar"),
        ("half \ud83d", r"half \ud83d"),
        ("bell \x07, line\nbreak", r"bell \x07, line\nbreak"),
        ("right \u202e to left", r"right \u202e to left"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert readable(text) == shown


@given(TEXT, st.integers(1, 2000))
def test_any_text_becomes_printable_once_and_for_all(text: str, times: int) -> None:
    shown = readable(text * times)

    assert shown.encode().decode().isprintable()
    assert len(shown) <= MOST_CHARACTERS
    assert readable(shown) == shown
