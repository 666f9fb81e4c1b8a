"""What the stack grants and how it is wired, read from the template as SAM renders it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from samtranslator.translator.transform import transform

from s3_to_ecr.settings import Settings
from tests.conftest import ROOT

Template = dict[str, Any]


class CloudFormationLoader(yaml.SafeLoader):
    """YAML with CloudFormation's tags: `!Ref X` as `{"Ref": "X"}`, `!Sub X` as `{"Fn::Sub": "X"}`."""


def _function(loader: CloudFormationLoader, tag: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        value = value.split(".", 1) if tag == "GetAtt" else value
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        raise TypeError(f"!{tag} with a mapping")
    return {tag if tag == "Ref" else f"Fn::{tag}": value}


CloudFormationLoader.add_multi_constructor("!", _function)


class ManagedPolicies:
    """None: a managed policy in the stack would be an error."""

    def load(self) -> dict[str, str]:
        return {}


@pytest.fixture(scope="module")
def source() -> Template:
    with (ROOT / "template.yaml").open() as file:
        loaded: Template = yaml.load(file, CloudFormationLoader)  # noqa: S506 (a SafeLoader)
    return loaded


@pytest.fixture(scope="module")
def rendered(source: Template) -> Template:
    """The template after SAM's transform."""
    copy = json.loads(json.dumps(source))
    copy["Resources"]["Function"]["Properties"]["CodeUri"] = "s3://bucket/code"
    result: Template = transform(copy, {}, ManagedPolicies())
    return result


@pytest.fixture(scope="module")
def resources(rendered: Template) -> dict[str, Any]:
    found: dict[str, Any] = rendered["Resources"]
    return found


def properties(resources: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = resources[name]["Properties"]
    return found


def of_type(resources: dict[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    return (resource["Properties"] for resource in resources.values() if resource["Type"] == kind)


def statements(resources: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The role's statements by their Sid, those behind a condition, too."""
    [policy] = properties(resources, "FunctionRole")["Policies"]
    found = [entry.get("Fn::If", [None, entry])[1] for entry in policy["PolicyDocument"]["Statement"]]
    return {statement["Sid"]: statement for statement in found}


def actions(statement: dict[str, Any]) -> set[str]:
    action = statement["Action"]
    return {action} if isinstance(action, str) else set(action)


def test_the_bucket_is_private_encrypted_and_versioned(resources: dict[str, Any]) -> None:
    bucket = properties(resources, "Bucket")

    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    [rule] = bucket["LifecycleConfiguration"]["Rules"]
    assert rule["Status"] == "Enabled"
    assert rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 7
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert resources["Bucket"]["DeletionPolicy"] == resources["Bucket"]["UpdateReplacePolicy"] == "Retain"


@pytest.mark.parametrize(
    ("policy", "resource"),
    [
        ("BucketPolicy", {"Fn::GetAtt": ["Bucket", "Arn"]}),
        ("WorkQueuePolicy", {"Fn::GetAtt": ["WorkQueue", "Arn"]}),
        ("DeadLetterQueuePolicy", {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}),
    ],
)
def test_bucket_and_queues_are_reached_by_tls_only(
    resources: dict[str, Any], policy: str, resource: dict[str, Any]
) -> None:
    found = properties(resources, policy)["PolicyDocument"]["Statement"]
    [deny] = [statement for statement in found if statement["Sid"] == "TlsOnly"]

    assert (deny["Effect"], deny["Principal"]) == ("Deny", "*")
    assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert resource in (deny["Resource"] if isinstance(deny["Resource"], list) else [deny["Resource"]])


def test_every_way_to_create_an_object_reaches_the_queue(resources: dict[str, Any]) -> None:
    bucket = properties(resources, "Bucket")

    [notification] = bucket["NotificationConfiguration"]["QueueConfigurations"]
    assert notification["Event"] == "s3:ObjectCreated:*"
    assert notification["Queue"] == {"Fn::GetAtt": ["WorkQueue", "Arn"]}
    prefix = {"Rules": [{"Name": "prefix", "Value": {"Ref": "KeyPrefix"}}]}
    assert notification["Filter"] == {"Fn::If": ["HasKeyPrefix", {"S3Key": prefix}, {"Ref": "AWS::NoValue"}]}
    assert resources["Bucket"]["DependsOn"] == "WorkQueuePolicy"


def test_only_this_bucket_may_send_to_the_queue(resources: dict[str, Any]) -> None:
    found = properties(resources, "WorkQueuePolicy")["PolicyDocument"]["Statement"]
    [allow] = [statement for statement in found if statement["Effect"] == "Allow"]

    assert allow["Principal"] == {"Service": "s3.amazonaws.com"}
    assert allow["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    # The very name that the bucket is given: a reference to the bucket would make a circle.
    name, unique = properties(resources, "Bucket")["BucketName"]["Fn::Sub"]
    assert allow["Condition"]["ArnEquals"]["aws:SourceArn"]["Fn::Sub"] == [
        f"arn:${{AWS::Partition}}:s3:::{name}", unique,
    ]  # fmt: skip
    # The longest a region's name may make it, against S3's limit of 63.
    longest = name.replace("${AWS::AccountId}", "1" * 12).replace("${AWS::Region}", "ap-northeast-1" + "x" * 6)
    assert len(longest.replace("${Unique}", "0" * 8)) <= 63


def test_messages_wait_longer_than_an_invocation_and_give_up_in_the_end(resources: dict[str, Any]) -> None:
    queue, dead_letters = properties(resources, "WorkQueue"), properties(resources, "DeadLetterQueue")

    assert queue["VisibilityTimeout"] > properties(resources, "Function")["Timeout"]
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}
    assert 10 <= queue["RedrivePolicy"]["maxReceiveCount"] <= 100
    assert queue["SqsManagedSseEnabled"] is dead_letters["SqsManagedSseEnabled"] is True
    assert queue["MessageRetentionPeriod"] == dead_letters["MessageRetentionPeriod"] == 14 * 24 * 3600


def test_the_function_takes_one_message_at_a_time_and_answers_for_it(resources: dict[str, Any]) -> None:
    [mapping] = of_type(resources, "AWS::Lambda::EventSourceMapping")

    assert mapping["EventSourceArn"] == {"Fn::GetAtt": ["WorkQueue", "Arn"]}
    assert mapping["BatchSize"] == 1
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": {"Ref": "MaximumConcurrency"}}


def test_the_function_is_what_the_contract_says(source: Template, resources: dict[str, Any]) -> None:
    function = properties(resources, "Function")

    assert (function["Handler"], function["Runtime"]) == ("handler.lambda_handler", "python3.13")
    assert function["Timeout"] == 900
    assert function["Architectures"] == [{"Ref": "Architecture"}]
    assert source["Parameters"]["Architecture"]["Default"] == "arm64"
    assert source["Parameters"]["Architecture"]["AllowedValues"] == ["arm64", "x86_64"]
    assert source["Resources"]["Function"]["Metadata"] == {"BuildMethod": "python-uv"}
    assert function["Role"] == {"Fn::GetAtt": ["FunctionRole", "Arn"]}


def test_the_function_is_given_every_variable_of_the_contract(resources: dict[str, Any]) -> None:
    variables = properties(resources, "Function")["Environment"]["Variables"]

    assert {name for name in variables if not name.startswith("POWERTOOLS_")} == {
        "STATE_TABLE", "ECR_REGISTRY_ID", "KEY_PREFIX", "REPOSITORY_PREFIX", "DEFAULT_REPOSITORY",
        "CREATE_REPOSITORIES", "QUEUE_URL", "DEAD_LETTER_QUEUE_URL",
    }  # fmt: skip
    assert variables["POWERTOOLS_SERVICE_NAME"] == "s3-to-ecr"
    assert variables["POWERTOOLS_METRICS_NAMESPACE"] == "S3ToEcr"
    # The one place for the log level is the template's own.
    assert "POWERTOOLS_LOG_LEVEL" not in variables


def test_the_parameters_defaults_are_settings_that_the_function_takes(
    source: Template, resources: dict[str, Any]
) -> None:
    variables = properties(resources, "Function")["Environment"]["Variables"]
    defaults = {name: entry["Default"] for name, entry in source["Parameters"].items()}
    environment = {
        name: str(defaults.get(value["Ref"], value["Ref"]) if isinstance(value, dict) else value)
        for name, value in variables.items()
    }

    assert Settings.from_environment(environment) == Settings(
        state_table="StateTable", queue_url="WorkQueue", dead_letter_queue_url="DeadLetterQueue"
    )


def test_logs_are_json_and_end_some_day(resources: dict[str, Any]) -> None:
    logging = properties(resources, "Function")["LoggingConfig"]

    assert logging == {
        "LogFormat": "JSON",
        "LogGroup": {"Ref": "FunctionLogs"},
        "ApplicationLogLevel": {"Ref": "LogLevel"},
    }
    assert properties(resources, "FunctionLogs")["RetentionInDays"] == {"Ref": "LogRetentionDays"}


def test_the_state_table_is_what_powertools_writes_to(resources: dict[str, Any]) -> None:
    table = properties(resources, "StateTable")

    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["KeySchema"] == [{"AttributeName": "id", "KeyType": "HASH"}]
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expiration", "Enabled": True}
    assert table["SSESpecification"] == {"SSEEnabled": True}
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def test_the_role_grants_what_the_function_calls_and_no_more(resources: dict[str, Any]) -> None:
    assert {sid: actions(statement) for sid, statement in statements(resources).items()} == {
        "ReadObjects": {"s3:GetObject", "s3:GetObjectVersion"},
        "TellMissingFromForbidden": {"s3:ListBucket"},
        "UploadLayers": {
            "ecr:BatchCheckLayerAvailability",
            "ecr:InitiateLayerUpload",
            "ecr:UploadLayerPart",
            "ecr:CompleteLayerUpload",
        },
        "CreateRepositories": {"ecr:CreateRepository"},
        "KeepState": {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"},
        "TakeMessages": {
            "sqs:ReceiveMessage",
            "sqs:DeleteMessage",
            "sqs:GetQueueAttributes",
            "sqs:ChangeMessageVisibility",
        },
        "ReportRejected": {"sqs:SendMessage"},
        "WriteLogs": {"logs:CreateLogStream", "logs:PutLogEvents"},
    }


def test_every_grant_is_scoped_to_a_resource_of_the_stack(resources: dict[str, Any]) -> None:
    repositories = "arn:${AWS::Partition}:ecr:${AWS::Region}:${Registry}:repository/${RepositoryPrefix}*"
    registry = {"Registry": {"Fn::If": ["OwnRegistry", {"Ref": "AWS::AccountId"}, {"Ref": "RegistryId"}]}}
    log_group = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:${FunctionLogs}:*"

    assert {sid: statement["Resource"] for sid, statement in statements(resources).items()} == {
        "ReadObjects": {"Fn::Sub": "${Bucket.Arn}/${KeyPrefix}*"},
        "TellMissingFromForbidden": {"Fn::GetAtt": ["Bucket", "Arn"]},
        "UploadLayers": {"Fn::Sub": [repositories, registry]},
        "CreateRepositories": {"Fn::Sub": [repositories, registry]},
        "KeepState": {"Fn::GetAtt": ["StateTable", "Arn"]},
        "TakeMessages": {"Fn::GetAtt": ["WorkQueue", "Arn"]},
        "ReportRejected": {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]},
        "WriteLogs": {"Fn::Sub": log_group},
    }


def test_repositories_may_be_created_only_where_the_parameter_says_so(
    rendered: Template, resources: dict[str, Any]
) -> None:
    [policy] = properties(resources, "FunctionRole")["Policies"]
    [conditional] = [entry["Fn::If"] for entry in policy["PolicyDocument"]["Statement"] if "Fn::If" in entry]

    assert conditional[0] == "MayCreateRepositories"
    assert conditional[2] == {"Ref": "AWS::NoValue"}
    assert rendered["Conditions"]["MayCreateRepositories"] == {"Fn::Equals": [{"Ref": "CreateRepositories"}, "true"]}


def test_there_is_no_role_or_policy_but_our_own(resources: dict[str, Any]) -> None:
    [role] = of_type(resources, "AWS::IAM::Role")

    assert "ManagedPolicyArns" not in role
    assert role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"Service": "lambda.amazonaws.com"}
    assert not list(of_type(resources, "AWS::IAM::ManagedPolicy"))
