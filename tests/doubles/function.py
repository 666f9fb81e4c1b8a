"""The function in this process, configured from the environment, with its own clients and clock."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from s3_to_ecr.app import App
from s3_to_ecr.aws.clients import Clients
from s3_to_ecr.settings import Settings
from s3_to_ecr.state.leases import LEASE_SECONDS, Leases
from s3_to_ecr.state.unfinished_repositories import UnfinishedRepositories
from s3_to_ecr.telemetry.logs import logger
from s3_to_ecr.telemetry.metrics import metrics
from tests.doubles.sqs import strict

if TYPE_CHECKING:
    from types_boto3_sqs.client import SQSClient

    from local.invocation import Invocation


class _StrictClients(Clients):
    """The clients, with an SQS that refuses what AWS refuses."""

    @cached_property
    def sqs(self) -> SQSClient:
        return strict(super().sqs)


class Function:
    """One function. `clock_ahead` is how many seconds its leases' clock is ahead."""

    def __init__(self) -> None:
        self.clients = _StrictClients()
        self.clock_ahead = 0.0
        self.configure()

    def configure(self, **settings: Any) -> None:
        """Reads the settings from the environment, except for these."""
        self._settings = replace(Settings.from_environment(os.environ), **settings)
        self._app = App(self.clients, self._settings, self._clock)

    def lambda_handler(self, event: Any, context: Invocation) -> Any:
        """Runs an invocation, with logs and metrics as in `handler.py`."""
        answer = logger.inject_lambda_context(metrics.log_metrics(self._app.answer), clear_state=True)
        return answer(event, context)

    @property
    def leases(self) -> Leases:
        """Leases for another holder with the same clock."""
        return Leases(self.clients.dynamodb, self._settings.state_table, self._clock)

    @property
    def unfinished_repositories(self) -> UnfinishedRepositories:
        """The notes that the function keeps."""
        return UnfinishedRepositories(self.clients.dynamodb, self._settings.state_table)

    def let_leases_end(self) -> None:
        """Moves the clock past the end of every lease that is held now."""
        self.clock_ahead += LEASE_SECONDS + 1

    def close(self) -> None:
        """Closes the clients' connections."""
        for client in vars(self.clients).values():
            client.close()

    def _clock(self) -> float:
        return time.time() + self.clock_ahead
