"""Text for people: reasons, and what they quote. Whoever uploads an object decides what that is, and how long it is."""

from __future__ import annotations

# The length of S3's longest key. Far more would not fit where a reason is shown: SQS, S3's reports, CloudWatch.
MOST_CHARACTERS = 1024

_CUT = " … "


def readable(text: str) -> str:
    """The text in at most `MOST_CHARACTERS`, with whatever is not printable escaped as in Python.

    Such as control characters, which SQS refuses, and lone surrogates, which Lambda's runtime cannot encode.
    """
    text = shortened(text)
    if text.isprintable():
        return text
    return shortened("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    """The text, without its middle if it is longer than that: it begins with what happened, and ends with advice."""
    if len(text) <= most:
        return text
    kept = most - len(_CUT)
    return text[: kept - kept // 2] + _CUT + text[len(text) - kept // 2 :]
