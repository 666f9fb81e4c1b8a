from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from s3_to_ecr.ecr.api import Registry
from s3_to_ecr.errors import AccessDenied, RepositoryMissing, RequestRefused, S3ToEcrError, ServiceUnavailable
from s3_to_ecr.push.repositories import Repositories
from s3_to_ecr.state.unfinished_repositories import UnfinishedRepositories
from tests.doubles.dynamodb import DynamoDBDouble
from tests.doubles.ecr import CREATION_TEMPLATE, LIFECYCLE_POLICY, REPOSITORY_POLICY, EcrDouble
from tests.doubles.invocation import DEADLINE
from tests.doubles.server import Fault

if TYPE_CHECKING:
    from types_boto3_ecr.client import ECRClient

NAME = "prod/app"
SCOPE = (None, NAME)
TEMPLATE = CREATION_TEMPLATE | {
    "prefix": "prod",
    "encryptionConfiguration": {"encryptionType": "KMS", "kmsKey": ""},
    "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
    "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "latest*"}],
    "resourceTags": [{"Key": "team", "Value": "a"}],
}
POLICY_CALLS = ["PutLifecyclePolicy", "SetRepositoryPolicy"]


@pytest.fixture
def unfinished() -> Iterator[UnfinishedRepositories]:
    with DynamoDBDouble().running() as double:
        double.tables["state"] = {}
        client = boto3.client("dynamodb", endpoint_url=double.url)
        yield UnfinishedRepositories(client, "state")
        client.close()


@pytest.fixture
def invocation(ecr_client: ECRClient, unfinished: UnfinishedRepositories) -> Callable[..., Repositories]:
    """Makes the repositories of a new invocation."""
    return lambda creates=True: Repositories(Registry(ecr_client, DEADLINE), unfinished, creates=creates)


@pytest.fixture
def templated(ecr: EcrDouble) -> EcrDouble:
    """An ECR with a template for `NAME`, and one for all other repositories."""
    ecr.creation_templates = [{"prefix": "ROOT", "appliedFor": ["CREATE_ON_PUSH"]}, TEMPLATE]
    return ecr


def push(repositories: Repositories, name: str = NAME) -> str:
    """Opens an upload in the repository."""
    return repositories.within(name, lambda: repositories.registry.initiate(name)).repository


def assert_finished(ecr: EcrDouble, unfinished: UnfinishedRepositories) -> None:
    made = ecr.repositories[NAME]
    assert (made.lifecycle_policy, made.repository_policy) == (LIFECYCLE_POLICY, REPOSITORY_POLICY)
    assert not unfinished.includes(SCOPE)


def test_a_missing_repository_is_rejected_unless_it_may_be_created(
    templated: EcrDouble, invocation: Callable[..., Repositories]
) -> None:
    with pytest.raises(RepositoryMissing):
        push(invocation(creates=False))
    assert templated.operations == ["InitiateLayerUpload"]


def test_a_missing_repository_is_created_as_its_template_says(
    templated: EcrDouble, invocation: Callable[..., Repositories], unfinished: UnfinishedRepositories
) -> None:
    assert push(invocation()) == NAME

    assert templated.repositories[NAME].settings == {
        "encryptionConfiguration": {"encryptionType": "KMS"},
        "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
        "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "latest*"}],
        "tags": [{"Key": "team", "Value": "a"}],
    }
    assert_finished(templated, unfinished)
    assert templated.operations == [
        "InitiateLayerUpload", "DescribeRepositoryCreationTemplates", "CreateRepository", "PutLifecyclePolicy",
        "SetRepositoryPolicy", "InitiateLayerUpload",
    ]  # fmt: skip


def test_without_a_template_a_missing_repository_gets_ecrs_defaults(
    ecr: EcrDouble, invocation: Callable[..., Repositories]
) -> None:
    repositories = invocation()
    for _ in range(2):
        push(repositories)
    push(repositories, "prod/other")

    assert ecr.repositories[NAME].settings == {}
    assert ecr.operations.count("CreateRepository") == 2
    assert ecr.operations.count("DescribeRepositoryCreationTemplates") == 1
    assert not set(ecr.operations) & set(POLICY_CALLS)


def test_a_repository_that_exists_is_left_as_it_is(
    templated: EcrDouble, invocation: Callable[..., Repositories]
) -> None:
    templated.create(NAME)
    push(invocation())

    assert templated.operations == ["InitiateLayerUpload"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"resourceTags": [{"Key": "aws:team", "Value": "a"}]}, RequestRefused),
        ({"resourceTags": [{"Key": str(number), "Value": ""} for number in range(51)]}, RequestRefused),
        ({"imageTagMutability": "MUTABLE"}, RequestRefused),
        ({"encryptionConfiguration": {"encryptionType": "AES256", "kmsKey": "key"}}, RequestRefused),
    ],
)
def test_settings_that_ecr_refuses_are_rejected_and_nothing_is_created(
    templated: EcrDouble,
    invocation: Callable[..., Repositories],
    unfinished: UnfinishedRepositories,
    change: dict[str, Any],
    error: type[S3ToEcrError],
) -> None:
    templated.creation_templates = [TEMPLATE | change]

    with pytest.raises(error, match="with the creation template prod: CreateRepository for ECR repository prod/app"):
        push(invocation())
    assert NAME not in templated.repositories
    assert not unfinished.includes(SCOPE)


@pytest.mark.parametrize("policy", ["not JSON", "{}" + " " * 100])
@pytest.mark.parametrize("member", ["lifecyclePolicy", "repositoryPolicy"])
def test_nothing_is_pushed_to_a_repository_until_it_has_its_policies(
    templated: EcrDouble,
    invocation: Callable[..., Repositories],
    unfinished: UnfinishedRepositories,
    member: str,
    policy: str,
) -> None:
    templated.creation_templates = [TEMPLATE | {member: policy}]
    same_invocation = invocation()

    for repositories in (same_invocation, same_invocation, invocation()):
        with pytest.raises(RequestRefused, match="nothing is pushed to ECR repository prod/app until it has all"):
            push(repositories)
    assert templated.uploads == {}

    templated.creation_templates = [TEMPLATE]
    assert push(invocation()) == NAME
    assert_finished(templated, unfinished)


@pytest.mark.parametrize("operation", ["CreateRepository", *POLICY_CALLS])
def test_a_repository_that_was_left_unfinished_is_finished_by_the_next_invocation(
    templated: EcrDouble, invocation: Callable[..., Repositories], unfinished: UnfinishedRepositories, operation: str
) -> None:
    templated.faults.add(operation, Fault("ThrottlingException"), times=2)
    with pytest.raises(ServiceUnavailable, match=operation):
        push(invocation())
    assert unfinished.includes(SCOPE)

    assert push(invocation()) == NAME
    assert_finished(templated, unfinished)


def test_a_repository_whose_creation_was_answered_too_late_gets_its_policies(
    templated: EcrDouble, invocation: Callable[..., Repositories], unfinished: UnfinishedRepositories
) -> None:
    templated.faults.add("CreateRepository", Fault(after=True))

    assert push(invocation()) == NAME
    assert templated.operations.count("CreateRepository") == 2
    assert_finished(templated, unfinished)


def test_policies_that_somebody_else_has_set_are_kept(
    templated: EcrDouble, invocation: Callable[..., Repositories], unfinished: UnfinishedRepositories
) -> None:
    templated.faults.add("PutLifecyclePolicy", Fault("AccessDeniedException"))
    with pytest.raises(AccessDenied):
        push(invocation())
    by_hand = LIFECYCLE_POLICY.replace("9", "5")
    templated.repositories[NAME].lifecycle_policy = by_hand

    assert push(invocation()) == NAME
    assert templated.repositories[NAME].lifecycle_policy == by_hand
    assert templated.repositories[NAME].repository_policy == REPOSITORY_POLICY
    assert not unfinished.includes(SCOPE)


def test_an_unfinished_repository_that_was_deleted_is_created_anew(
    templated: EcrDouble, invocation: Callable[..., Repositories], unfinished: UnfinishedRepositories
) -> None:
    unfinished.begin(SCOPE)

    assert push(invocation()) == NAME
    assert_finished(templated, unfinished)


@pytest.mark.parametrize("operation", [*POLICY_CALLS, "InitiateLayerUpload"])
def test_a_new_repository_that_ecr_does_not_find_yet_is_retried(
    templated: EcrDouble, invocation: Callable[..., Repositories], unfinished: UnfinishedRepositories, operation: str
) -> None:
    nth = 2 if operation == "InitiateLayerUpload" else 1
    templated.faults.add(operation, Fault("RepositoryNotFoundException"), nth=nth)

    with pytest.raises(ServiceUnavailable, match="does not know the repository yet"):
        push(invocation())
    assert push(invocation()) == NAME
    assert_finished(templated, unfinished)


def test_threads_create_a_repository_once(templated: EcrDouble, invocation: Callable[..., Repositories]) -> None:
    repositories = invocation()
    meeting = threading.Barrier(4)
    pushed: list[str] = []

    def work() -> str:
        try:
            return repositories.registry.initiate(NAME).repository
        except RepositoryMissing:
            meeting.wait(10)  # until all threads have found it missing
            raise

    threads = [threading.Thread(target=lambda: pushed.append(repositories.within(NAME, work))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert pushed == [NAME] * 4
    assert templated.operations.count("CreateRepository") == 1
