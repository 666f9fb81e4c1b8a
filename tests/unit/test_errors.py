from __future__ import annotations

import re

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
