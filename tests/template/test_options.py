"""What the template's parameters change: the bucket, the keys, the limits of the roles."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from tests.template.conftest import Lint
from tests.template.rendering import (
    BOUNDARY,
    BUS,
    KEY,
    OTHER_KEY,
    REGISTRY,
    SIGNING_PROFILE,
    TOPIC,
    Template,
    actions,
    arn_of,
    by_sid,
    concrete,
    deployed,
    of_type,
    only_allowed,
    properties,
    statements,
)


@pytest.fixture(scope="module")
def existing(source: Template) -> dict[str, Any]:
    """The resources of a stack for an existing bucket."""
    return deployed(source, ExistingBucket=REGISTRY)


def test_an_existing_bucket_is_not_created_and_sends_events_through_eventbridge(
    source: Template, existing: dict[str, Any]
) -> None:
    assert not {"Bucket", "BucketPolicy"} & existing.keys()
    rule = properties(existing, "ExistingBucketEvents")
    assert rule["EventPattern"] == {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": [{"Ref": "ExistingBucket"}]}},
    }
    [target] = rule["Targets"]
    assert target["Arn"] == arn_of("WorkQueue")
    assert target["DeadLetterConfig"] == {"Arn": arn_of("DeadLetterQueue")}

    prefixed = deployed(source, ExistingBucket=REGISTRY, KeyPrefix="layers/")
    detail = properties(prefixed, "ExistingBucketEvents")["EventPattern"]["detail"]
    assert detail["object"] == {"key": [{"prefix": {"Ref": "KeyPrefix"}}]}


@pytest.mark.parametrize("queue", ["WorkQueue", "DeadLetterQueue"])
def test_only_the_rule_may_send_an_existing_buckets_events(existing: dict[str, Any], queue: str) -> None:
    assert only_allowed(existing, f"{queue}Policy") == {
        "Sid": "BucketEvents" if queue == "WorkQueue" else "UndeliveredEvents",
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn_of(queue),
        "Condition": {"ArnEquals": {"aws:SourceArn": rules_arn(existing)}},
    }


def rules_arn(resources: dict[str, Any]) -> dict[str, Any]:
    """The rule's ARN by its name: with a reference, the rule could send before the policies exist."""
    name, unique = properties(resources, "ExistingBucketEvents")["Name"]["Fn::Sub"]
    assert set(resources["ExistingBucketEvents"]["DependsOn"]) == {"WorkQueuePolicy", "DeadLetterQueuePolicy"}
    return {"Fn::Sub": [f"arn:${{AWS::Partition}}:events:${{AWS::Region}}:${{AWS::AccountId}}:rule/{name}", unique]}


@pytest.fixture(scope="module")
def encrypted(source: Template) -> dict[str, Any]:
    """The resources of a stack with the customer's keys."""
    return deployed(source, BucketKmsKey=KEY, StateKmsKey=OTHER_KEY)


def via(*services: str) -> dict[str, Any]:
    """The condition that a key is used through these services only."""
    names = [{"Fn::Sub": f"{service}.${{AWS::Region}}.${{AWS::URLSuffix}}"} for service in services]
    return {"StringEquals": {"kms:ViaService": names if len(names) > 1 else names[0]}}


@pytest.mark.parametrize(("bucket", "parameter"), [("Bucket", "BucketKmsKey"), ("BackfillBucket", "StateKmsKey")])
def test_a_customers_key_encrypts_the_buckets(
    resources: dict[str, Any], encrypted: dict[str, Any], bucket: str, parameter: str
) -> None:
    def rule(found: dict[str, Any]) -> Any:
        return properties(found, bucket)["BucketEncryption"]["ServerSideEncryptionConfiguration"]

    assert rule(resources) == [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
    by_default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": {"Ref": parameter}}
    assert rule(encrypted) == [{"ServerSideEncryptionByDefault": by_default, "BucketKeyEnabled": True}]


def test_a_customers_key_encrypts_table_and_queues(encrypted: dict[str, Any]) -> None:
    assert properties(encrypted, "StateTable")["SSESpecification"] == {
        "SSEEnabled": True,
        "SSEType": "KMS",
        "KMSMasterKeyId": {"Ref": "StateKmsKey"},
    }
    for queue in of_type(encrypted, "AWS::SQS::Queue"):
        # SQS accepts only one of the two.
        assert queue["SqsManagedSseEnabled"] is False
        assert queue["KmsMasterKeyId"] == {"Ref": "StateKmsKey"}


def test_the_roles_may_use_the_keys_only_through_s3_dynamodb_and_sqs(
    resources: dict[str, Any], encrypted: dict[str, Any]
) -> None:
    function, backfill = statements(encrypted), statements(encrypted, "BackfillRole")

    assert function["DecryptObjects"]["Resource"] == {"Ref": "BucketKmsKey"}
    assert actions(function["DecryptObjects"]) == {"kms:Decrypt"}
    assert function["DecryptObjects"]["Condition"] == via("s3")
    assert function["DecryptStateAndMessages"]["Resource"] == {"Ref": "StateKmsKey"}
    assert actions(function["DecryptStateAndMessages"]) >= {"kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey"}
    assert function["DecryptStateAndMessages"]["Condition"] == via("dynamodb", "sqs")
    assert backfill["EncryptReports"]["Resource"] == {"Ref": "StateKmsKey"}
    assert actions(backfill["EncryptReports"]) == {"kms:Decrypt", "kms:GenerateDataKey"}
    assert backfill["EncryptReports"]["Condition"] == via("s3")
    without = [*statements(resources).values(), *statements(resources, "BackfillRole").values()]
    assert not [action for statement in without for action in actions(statement) if action.startswith("kms:")]


def test_an_existing_buckets_key_may_be_used_to_read_it(source: Template) -> None:
    found = statements(deployed(source, ExistingBucket=REGISTRY, BucketKmsKey=KEY))

    assert found["DecryptObjects"]["Resource"] == {"Ref": "BucketKmsKey"}
    assert "DecryptStateAndMessages" not in found


def test_a_backfill_lists_the_existing_bucket(existing: dict[str, Any]) -> None:
    listed = statements(existing, "BackfillRole")["ListObjects"]

    assert listed["Resource"] == {"Fn::Sub": "arn:${AWS::Partition}:s3:::${ExistingBucket}"}


def test_the_role_may_sign_with_the_profile_that_is_named_and_with_no_other(
    source: Template, resources: dict[str, Any]
) -> None:
    signing = statements(deployed(source, SigningProfile=SIGNING_PROFILE))["SignImages"]

    assert actions(signing) == {"signer:SignPayload"}
    assert signing["Resource"] == {"Ref": "SigningProfile"}
    granted = set().union(*map(actions, statements(resources).values()))
    assert not [action for action in granted if action.startswith("signer:")]


@pytest.mark.parametrize(
    ("arn", "taken"),
    [
        ("", True),
        (SIGNING_PROFILE, True),
        (SIGNING_PROFILE.replace("aws", "aws-us-gov"), True),
        (SIGNING_PROFILE.replace("images", "*"), False),
        (SIGNING_PROFILE + "/version", False),
        ("images", False),
    ],
)
def test_a_signing_profile_is_one_arn_of_signer(source: Template, arn: str, taken: bool) -> None:
    assert bool(re.fullmatch(source["Parameters"]["SigningProfile"]["AllowedPattern"], arn)) is taken


def test_a_permissions_boundary_applies_to_every_role(source: Template, resources: dict[str, Any]) -> None:
    bounded = list(of_type(deployed(source, PermissionsBoundary=BOUNDARY), "AWS::IAM::Role"))

    assert [role["PermissionsBoundary"] for role in bounded] == [{"Ref": "PermissionsBoundary"}] * len(bounded)
    assert len(bounded) == 2
    assert not [role for role in of_type(resources, "AWS::IAM::Role") if "PermissionsBoundary" in role]


@pytest.mark.parametrize(
    ("bus", "resource"),
    [
        (
            "default",
            {"Fn::Sub": "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/${OutcomeBus}"},
        ),
        (BUS, {"Ref": "OutcomeBus"}),
    ],
)
def test_the_function_may_send_events_to_the_outcome_bus_only(
    source: Template, bus: str, resource: dict[str, str]
) -> None:
    rendered = deployed(source, OutcomeBus=bus)

    assert statements(rendered)["SendOutcomes"] == {
        "Sid": "SendOutcomes",
        "Effect": "Allow",
        "Action": "events:PutEvents",
        "Resource": resource,
    }
    assert properties(rendered, "Function")["Environment"]["Variables"]["OUTCOME_BUS"] == {"Ref": "OutcomeBus"}


def test_without_an_outcome_bus_the_function_may_send_no_events(resources: dict[str, Any]) -> None:
    allowed = set().union(*map(actions, statements(resources).values()))

    assert not [action for action in allowed if action.startswith("events:")]


@pytest.mark.parametrize(
    ("bus", "taken"),
    [
        ("", True),
        ("default", True),
        ("team.a/b-c_d", True),
        (BUS, True),
        (BUS.removesuffix("outcomes"), False),
        ("arn:aws:sns:eu-central-1:123456789012:topic", False),
        ("*", False),
        ("a b", False),
    ],
)
def test_an_outcome_bus_is_a_name_or_an_arn_that_iam_takes_literally(source: Template, bus: str, taken: bool) -> None:
    assert bool(re.fullmatch(source["Parameters"]["OutcomeBus"]["AllowedPattern"], bus)) is taken


def test_the_outputs_name_the_bucket_that_is_mirrored(source: Template) -> None:
    own, of_theirs = concrete(source)["Outputs"], concrete(source, ExistingBucket=REGISTRY)["Outputs"]

    assert own["BucketName"]["Value"] == {"Ref": "Bucket"}
    assert of_theirs["BucketName"]["Value"] == {"Ref": "ExistingBucket"}
    assert own["FunctionRoleArn"]["Value"] == arn_of("FunctionRole")


def combinations() -> list[Any]:
    """The parameters of every possible stack. Those without their own resources are changed together."""
    options: list[dict[str, str]] = [
        {"ExistingBucket": REGISTRY},
        {"BucketKmsKey": KEY},
        {"StateKmsKey": OTHER_KEY},
        {"PermissionsBoundary": BOUNDARY},
        {"AlarmTopic": TOPIC},
        {
            "KeyPrefix": "layers/",
            "RepositoryPrefix": "mirror/",
            "CreateRepositories": "true",
            "KeepRegistryHost": "true",
            "RegistryId": "123456789012",
            "SigningProfile": SIGNING_PROFILE,
            "RegistryStorage": "false",
            "OutcomeBus": "default",
            "ReservedConcurrency": "15",
            "Architecture": "x86_64",
        },
    ]
    chosen = itertools.product([False, True], repeat=len(options))
    stacks = []
    for choice in chosen:
        parameters = {
            name: value
            for option, wanted in zip(options, choice, strict=True)
            if wanted
            for name, value in option.items()
        }
        marks = [] if sum(choice) in (0, len(options)) else [pytest.mark.slow]  # the defaults, and all together
        stacks.append(pytest.param(parameters, id="+".join(parameters) or "defaults", marks=marks))
    # Another account's registry takes away what goes with the account's own creation templates.
    return [*stacks, pytest.param({"CreateRepositories": "true"}, id="CreateRepositories")]


every_combination = pytest.mark.parametrize("parameters", combinations())


@every_combination
def test_the_deployed_template_passes_cfn_lint_with_any_parameters(
    source: Template, parameters: dict[str, str], lint: Lint
) -> None:
    rendered = concrete(source, **parameters)
    del rendered["Metadata"]["AWS::ServerlessRepo::Application"]  # which CloudFormation never reads

    assert lint(rendered) == []


def test_cfn_lint_finds_a_property_that_does_not_exist(source: Template, lint: Lint) -> None:
    rendered = concrete(source)
    del rendered["Metadata"]["AWS::ServerlessRepo::Application"]
    rendered["Resources"]["WorkQueue"]["Properties"]["VisibilityTimout"] = 1

    [found] = lint(rendered)
    assert "'VisibilityTimout' was unexpected" in found


@every_combination
def test_no_policy_allows_every_resource_or_everybody(source: Template, parameters: dict[str, str]) -> None:
    resources = deployed(source, **parameters)
    policies = [policy for role in of_type(resources, "AWS::IAM::Role") for policy in role["Policies"]]
    policies += [*of_type(resources, "AWS::SQS::QueuePolicy"), *of_type(resources, "AWS::S3::BucketPolicy")]
    allowed = [
        statement for policy in policies for statement in by_sid(policy).values() if statement["Effect"] == "Allow"
    ]

    assert len(allowed) > 10
    for statement in allowed:
        if statement["Sid"] in UNBOUNDED:
            continue
        named = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        # A resource of the stack, or one that a parameter names.
        assert not [resource for resource in named if is_everything(resource)]
        assert not [action for action in actions(statement) if "*" in action]
        assert "Principal" not in statement or list(statement["Principal"]) == ["Service"]


# IAM has no resource for templates, and only templates name their keys. Their own tests hold what bounds them.
UNBOUNDED = ("ReadCreationTemplates", "EncryptRepositories")


def is_everything(resource: Any) -> bool:
    """Whether a resource is a wildcard without a name from this template before it."""
    [(function, value)] = resource.items()
    if function != "Fn::Sub":
        return function not in {"Ref", "Fn::GetAtt"}
    text = value if isinstance(value, str) else value[0]
    # Any reference except to the partition, the region, the account or the registry is such a name.
    named = text.rpartition(":*")[0] or text if text.endswith(":*") else text
    return not re.search(r"\$\{(?!AWS::|Registry\})\w[\w.]*\}", named)


@pytest.mark.parametrize("wide", ["*", "arn:${AWS::Partition}:s3:::*", "arn:${AWS::Partition}:ecr:*:${Registry}:*"])
def test_a_wildcard_resource_is_detected(wide: str) -> None:
    assert is_everything({"Fn::Sub": wide})
    assert not is_everything({"Fn::Sub": "${Bucket.Arn}/${KeyPrefix}*"})


def test_a_registrys_storage_can_be_kept_out_of_the_bucket(source: Template, resources: dict[str, Any]) -> None:
    without = by_sid(properties(deployed(source, RegistryStorage="false"), "BucketPolicy"))

    assert without.keys() == {"TlsOnly", "NoRegistryStorage"}
    assert without["NoRegistryStorage"]["Effect"] == "Deny"
    assert actions(without["NoRegistryStorage"]) == {"s3:PutObject", "s3:ReplicateObject"}
    assert without["NoRegistryStorage"]["Resource"] == {"Fn::Sub": "${Bucket.Arn}/*docker/registry/v2/*"}
    assert by_sid(properties(resources, "BucketPolicy")).keys() == {"TlsOnly"}


@pytest.mark.parametrize(
    ("prefix", "taken"),
    [
        ("", True),
        ("eu/", True),
        ("a/b.c_d-e/", True),
        ("img-", False),
        ("a b/", False),
        ("*/", False),
        ("${x}/", False),
    ],
)
def test_a_key_prefix_has_only_folders_that_s3_and_iam_take_literally(
    source: Template, prefix: str, taken: bool
) -> None:
    assert bool(re.fullmatch(source["Parameters"]["KeyPrefix"]["AllowedPattern"], prefix)) is taken


def test_the_console_groups_and_labels_every_parameter_once_in_the_order_of_the_template(source: Template) -> None:
    interface = source["Metadata"]["AWS::CloudFormation::Interface"]
    groups = interface["ParameterGroups"]
    labels = {name: label["default"] for name, label in interface["ParameterLabels"].items()}

    # The SAM CLI asks in the order of the template.
    assert [name for group in groups for name in group["Parameters"]] == list(source["Parameters"])
    assert labels.keys() == source["Parameters"].keys()
    assert len(set(labels.values())) == len(labels)
    assert all(0 < len(label) <= 40 for label in labels.values())
    assert all(group["Label"]["default"] for group in groups)
