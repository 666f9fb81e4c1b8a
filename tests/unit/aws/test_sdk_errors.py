from __future__ import annotations

import pytest
from botocore.exceptions import ConnectionClosedError

from s3_to_ecr.aws.sdk_errors import translated
from s3_to_ecr.errors import ServiceUnavailable


def test_a_broken_connection_leaves_no_request_in_memory() -> None:
    """The request's body may be a part of a layer, of 14 MB."""
    with pytest.raises(ServiceUnavailable, match="sending failed: Connection was closed") as raised:  # noqa: SIM117
        with translated("sending", {}):
            raise ConnectionClosedError(endpoint_url="https://ecr", request=bytearray(10))

    assert isinstance(raised.value.__cause__, ConnectionClosedError)
    assert vars(raised.value.__cause__)["request"] is None
