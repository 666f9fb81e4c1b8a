from __future__ import annotations

import re
import traceback
import weakref

import pytest

from s3_to_ecr import errors
from s3_to_ecr.errors import EmptyBlob, Rejected, RetryLater, S3ToEcrError, concerning


def test_the_docstring_draws_the_tree_of_errors() -> None:
    drawn = re.findall(r"^│  .*?─ (\w+)|^    .*?─ (\w+)|^[├└]── (\w+)", errors.__doc__ or "", re.MULTILINE)
    defined = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, S3ToEcrError)
    }
    assert {next(filter(None, names)) for names in drawn} == defined - {"S3ToEcrError"}


def test_every_error_is_either_rejected_or_retried() -> None:
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, S3ToEcrError) and value is not S3ToEcrError:
            assert issubclass(value, Rejected) != issubclass(value, RetryLater), value


def test_an_error_names_the_object_that_it_concerns() -> None:
    with pytest.raises(EmptyBlob) as raised, concerning("bucket", "app/empty"):
        raise EmptyBlob("the object is empty.")

    assert str(raised.value) == "s3://bucket/app/empty: the object is empty."
    assert raised.value.reason == "the object is empty."


def test_an_error_is_not_changed_by_whoever_knows_more() -> None:
    cause = KeyError("x")
    error = errors.BlobsMissing("has not arrived", "app/a", "app/b")
    error.__cause__ = cause

    copy = error.within("layer sha256:1").about("bucket", "app/index.json").awaiting("app/a")

    assert type(copy) is errors.BlobsMissing
    assert str(copy) == "s3://bucket/app/index.json: layer sha256:1: has not arrived"
    assert (copy.awaited, copy.only_waits, copy.__cause__) == (("app/a",), True, cause)
    assert (str(error), error.bucket, error.awaited) == ("has not arrived", None, ("app/a", "app/b"))


def test_several_failures_are_one_of_the_kind_that_ranks_first() -> None:
    missing = errors.BlobsMissing("a is missing", "app/a")
    late = errors.OutOfTime("no time")
    rejected = errors.EmptyBlob("empty")
    ranking = (errors.OutOfTime, errors.RetryLater, errors.Rejected)

    both = errors.combined([rejected, missing, late], ranking)
    assert isinstance(both, errors.OutOfTime)
    assert both.reason == "3 failures: empty; a is missing; no time"
    assert (both.awaited, both.only_waits) == (("app/a",), False)
    assert errors.combined([missing], ranking) is missing
    waiting = errors.combined([missing, errors.BlobsMissing("b is missing", "app/b")], ranking)
    assert isinstance(waiting, errors.RetryLater)
    assert (waiting.awaited, waiting.only_waits) == (("app/a", "app/b"), True)


def test_several_reasons_are_quoted_as_far_as_there_is_room() -> None:
    ranking = (errors.Rejected, errors.RetryLater)
    failures = [errors.TagTaken(f"{number} " + "x" * 300) for number in range(2000)]

    several = errors.combined(failures, ranking)

    assert several.reason == f"2000 failures: 0 {'x' * 300}; 1 {'x' * 300}; 2 {'x' * 300}; and 1997 more"
    nested = errors.combined([several.within("tag"), errors.EmptyBlob("y" * 10_000)], ranking)
    assert nested.reason.startswith("2 failures: tag: 2000 failures: 0 xxx")
    assert nested.reason.endswith("xxx; and 1997 more; and 1 more")
    assert len(nested.reason) <= 1024


def test_a_reason_can_be_shown_anywhere_whatever_it_quotes() -> None:
    error = errors.BrokenArchive("no member \udcff\0" + "x" * 10_000_000 + ". Save it again.")

    for shown in (error, error.within("layer \udcff" + "y" * 10_000_000), error.about("bucket", "app/x")):
        assert r"\udcff" in shown.reason
        assert shown.reason.endswith("x. Save it again.")
        assert len(shown.reason.encode()) <= 1026  # 1,024 characters, and what cuts them takes three bytes
        assert len(repr(shown)) <= 1100


class Part:
    """What takes memory."""


def test_a_kept_error_does_not_keep_what_was_in_memory() -> None:
    parts: list[weakref.ref[Part]] = []

    def send() -> None:
        part = Part()
        parts.append(weakref.ref(part))
        raise ConnectionError("broken")

    def translate() -> None:
        part = Part()
        parts.append(weakref.ref(part))
        try:
            send()
        except ConnectionError as error:
            raise errors.ServiceUnavailable("sending failed") from error

    kept: list[S3ToEcrError] = []
    try:
        translate()
    except S3ToEcrError as error:
        kept.append(error.within("layer"))
    trace = traceback.format_exception(kept[0])

    errors.forget_locals(kept[0])

    assert [part() for part in parts] == [None, None]
    assert traceback.format_exception(kept[0]) == trace
    assert "in send" in "".join(trace)
