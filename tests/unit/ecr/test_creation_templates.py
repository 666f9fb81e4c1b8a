from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from s3_to_ecr.ecr.api import Registry
from s3_to_ecr.ecr.creation_templates import CreationTemplate, parse_template, template_for
from s3_to_ecr.errors import AccessDenied
from tests.doubles.ecr import EcrDouble
from tests.doubles.invocation import DEADLINE
from tests.doubles.server import Fault

if TYPE_CHECKING:
    from types_boto3_ecr.client import ECRClient

KEY = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
# Prefixes of six templates. They overlap, and two are as long as each other.
PREFIXES = ["ROOT", "prod", "prod/team", "prod/team/app/", "prod-like", "mirror/"]


def described(prefix: str, *applied_for: str, **more: Any) -> dict[str, Any]:
    return {"prefix": prefix, "appliedFor": list(applied_for or ("CREATE_ON_PUSH",)), **more}


@pytest.mark.parametrize(
    ("repository", "prefix"),
    [
        ("app", "ROOT"),
        ("prod", "ROOT"),
        ("production/app", "ROOT"),
        ("mirror", "ROOT"),
        ("prod/app", "prod"),
        ("prod/teams/app", "prod"),
        ("prod/team", "prod"),
        ("prod/team/other", "prod/team"),
        ("prod/team/app", "prod/team"),
        ("prod/team/app/web", "prod/team/app/"),
        ("prod/team/app/web/debug", "prod/team/app/"),
        ("prod-like/app", "prod-like"),
        ("mirror/library/nginx", "mirror/"),
        ("other/prod/app", "ROOT"),
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_the_longest_prefix_that_is_a_folder_of_the_repository_applies(
    repository: str, prefix: str, backwards: bool
) -> None:
    templates = [CreationTemplate(prefix) for prefix in (reversed(PREFIXES) if backwards else PREFIXES)]

    assert template_for(repository, templates).prefix == prefix


def test_without_a_matching_template_a_repository_has_ecrs_defaults() -> None:
    assert template_for("app", [CreationTemplate("prod", {"imageTagMutability": "IMMUTABLE"})]) == CreationTemplate()


def test_a_template_gives_the_members_of_create_repository_and_the_policies() -> None:
    filters = [{"filterType": "WILDCARD", "filter": "latest*"}]
    template = parse_template(
        described(
            "prod",
            "PULL_THROUGH_CACHE",
            "CREATE_ON_PUSH",
            description="for production",
            encryptionConfiguration={"encryptionType": "KMS", "kmsKey": KEY},
            imageTagMutability="IMMUTABLE_WITH_EXCLUSION",
            imageTagMutabilityExclusionFilters=filters,
            resourceTags=[{"Key": "team", "Value": "a"}],
            lifecyclePolicy='{"rules": []}',
            repositoryPolicy='{"Statement": []}',
            customRoleArn="arn:aws:iam::123456789012:role/ecr",
        )
    )

    assert template == CreationTemplate(
        prefix="prod",
        settings={
            "encryptionConfiguration": {"encryptionType": "KMS", "kmsKey": KEY},
            "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
            "imageTagMutabilityExclusionFilters": filters,
            "tags": [{"Key": "team", "Value": "a"}],
        },
        lifecycle_policy='{"rules": []}',
        repository_policy='{"Statement": []}',
    )


def test_what_is_empty_in_a_template_is_left_out() -> None:
    template = parse_template(
        described(
            "prod",
            encryptionConfiguration={"encryptionType": "KMS", "kmsKey": ""},
            imageTagMutabilityExclusionFilters=[],
            resourceTags=[],
            lifecyclePolicy="",
            repositoryPolicy="",
        )
    )

    assert template == CreationTemplate("prod", {"encryptionConfiguration": {"encryptionType": "KMS"}})


def test_templates_for_other_repositories_than_those_of_a_push_do_not_apply(
    ecr: EcrDouble, ecr_client: ECRClient
) -> None:
    ecr.creation_templates = [
        described("a"), described("b", "REPLICATION", "PULL_THROUGH_CACHE"), described("c"),
        described("d", "REPLICATION"), described("e", "REPLICATION", "CREATE_ON_PUSH"),
    ]  # fmt: skip

    assert [template.prefix for template in Registry(ecr_client, DEADLINE).creation_templates()] == ["a", "c", "e"]
    assert len(ecr.calls) == 3  # pages of two


def test_another_accounts_templates_cannot_be_read(ecr: EcrDouble, ecr_client: ECRClient) -> None:
    ecr.creation_templates = [described("ROOT")]

    assert Registry(ecr_client, DEADLINE, "123456789012").creation_templates() == [CreationTemplate("ROOT")]
    ecr.registry_id = "9" * 12
    assert Registry(ecr_client, DEADLINE, "123456789012").creation_templates() == []
    # ECR would refuse the member that names another registry.
    assert ecr.calls[0].members == {}


def test_an_ecr_without_creation_templates_has_none(ecr: EcrDouble, ecr_client: ECRClient) -> None:
    ecr.faults.add("DescribeRepositoryCreationTemplates", Fault("UnknownOperationException"))

    assert Registry(ecr_client, DEADLINE).creation_templates() == []


def test_templates_that_may_not_be_read_are_an_error(ecr: EcrDouble, ecr_client: ECRClient) -> None:
    ecr.faults.add("DescribeRepositoryCreationTemplates", Fault("AccessDeniedException"))

    with pytest.raises(AccessDenied, match="DescribeRepositoryCreationTemplates"):
        Registry(ecr_client, DEADLINE).creation_templates()
