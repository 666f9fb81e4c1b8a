"""The program: which source an event came from, and the objects that run it, made for each invocation in one place."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from s3_to_ecr.aws.clients import Clients
from s3_to_ecr.aws.s3 import ObjectReader
from s3_to_ecr.deadline import Deadline
from s3_to_ecr.dispatcher import Dispatcher
from s3_to_ecr.ecr.api import Registry
from s3_to_ecr.errors import MalformedEvent
from s3_to_ecr.event_sources import batch_operations, notifications
from s3_to_ecr.event_sources.sqs import WorkQueue
from s3_to_ecr.push.image import ImagePusher
from s3_to_ecr.push.image_layers import ImageLayers
from s3_to_ecr.push.image_manifests import ImageManifests
from s3_to_ecr.push.layer import LayerPusher
from s3_to_ecr.push.layer_upload import LayerUploader
from s3_to_ecr.push.repositories import Repositories
from s3_to_ecr.settings import Settings
from s3_to_ecr.state.completed_writes import CompletedWrites
from s3_to_ecr.state.leases import Leases
from s3_to_ecr.state.tag_writes import TagWrites
from s3_to_ecr.state.unfinished_repositories import UnfinishedRepositories
from s3_to_ecr.state.waiting_images import WaitingImages
from s3_to_ecr.telemetry.outcome_events import OutcomeEvents
from s3_to_ecr.telemetry.outcomes import Outcomes

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext


class App:
    """The program, with its clients and settings. `clock` gives seconds since 1970, for the leases."""

    def __init__(self, clients: Clients, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._clients = clients
        self._settings = settings
        self._clock = clock
        self._work_queue = WorkQueue(clients, settings)

    def answer(self, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        """Answers an event as its source expects. One object's failure stops no other object."""
        outcomes = Outcomes()
        events = OutcomeEvents(self._clients, self._settings, context.invoked_function_arn)
        dispatcher = self._dispatcher(Deadline(context), outcomes, events)
        try:
            if notifications.is_sqs(event):
                return self._work_queue.answer(event, dispatcher.run, outcomes, events)
            if notifications.is_batch_operations(event):
                return batch_operations.answer(event, dispatcher.run, events)
            attempts = notifications.run_records(event, dispatcher.run)
        except MalformedEvent as error:  # the event itself, not one of its records
            outcomes.record(error)
            raise
        return notifications.answer(events.announce(attempts))

    def _dispatcher(self, deadline: Deadline, outcomes: Outcomes, events: OutcomeEvents) -> Dispatcher:
        """The objects that run one invocation."""
        clients, settings = self._clients, self._settings
        registry = Registry(clients.ecr, deadline, settings.registry_id)
        unfinished = UnfinishedRepositories(clients.dynamodb, settings.state_table)
        repositories = Repositories(registry, unfinished, creates=settings.create_repositories)
        leases = Leases(clients.dynamodb, settings.state_table, self._clock)
        completed = CompletedWrites(clients.dynamodb, settings.state_table)
        tag_writes = TagWrites(clients.dynamodb, settings.state_table)
        uploader = LayerUploader(registry, deadline, outcomes)
        layers = LayerPusher(repositories, uploader, leases, completed, settings.memory)
        images = ImagePusher(
            repositories=repositories,
            layers=ImageLayers(registry, layers, deadline, outcomes, settings.memory),
            manifests=ImageManifests(registry, leases, tag_writes, deadline, outcomes),
            deadline=deadline,
            outcomes=outcomes,
        )
        return Dispatcher(
            reader=ObjectReader(clients.s3, deadline, settings.memory),
            layers=layers,
            images=images,
            waiting=WaitingImages(clients.dynamodb, settings.state_table),
            outcomes=outcomes,
            events=events,
            deadline=deadline,
            settings=settings,
        )
