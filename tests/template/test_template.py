"""What the stack grants and how it is wired, read from the template as SAM renders it."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from local.stack import REGION
from s3_to_ecr.settings import Settings
from tests.template.rendering import (
    NOTHING,
    OWN_ACCOUNT,
    REGISTRY,
    Template,
    actions,
    arn_of,
    by_sid,
    deployed,
    of_type,
    only_allowed,
    properties,
    statements,
)


@pytest.mark.parametrize("name", ["Bucket", "BackfillBucket"])
def test_the_buckets_are_private_encrypted_and_kept(resources: dict[str, Any], name: str) -> None:
    bucket = properties(resources, name)

    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    rules = bucket["LifecycleConfiguration"]["Rules"]
    assert {rule["Status"] for rule in rules} == {"Enabled"}
    assert [rule["AbortIncompleteMultipartUpload"] for rule in rules if "AbortIncompleteMultipartUpload" in rule] == [
        {"DaysAfterInitiation": 7}
    ]
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    # Kept when the stack is deleted, but not when its creation failed.
    assert resources[name]["DeletionPolicy"] == "RetainExceptOnCreate"
    assert resources[name]["UpdateReplacePolicy"] == "Retain"


def test_layers_are_versioned_and_reports_expire(resources: dict[str, Any]) -> None:
    assert properties(resources, "Bucket")["VersioningConfiguration"] == {"Status": "Enabled"}
    layers = properties(resources, "Bucket")["LifecycleConfiguration"]["Rules"]
    [reports] = properties(resources, "BackfillBucket")["LifecycleConfiguration"]["Rules"]
    assert not [rule for rule in layers if "ExpirationInDays" in rule]
    assert reports["ExpirationInDays"] == 90


def test_an_old_version_outlasts_every_message_about_it_and_then_expires(resources: dict[str, Any]) -> None:
    rules = properties(resources, "Bucket")["LifecycleConfiguration"]["Rules"]
    [old] = [rule for rule in rules if "NoncurrentVersionExpiration" in rule]

    # A message that the function reports starts a second retention period, in the dead-letter queue.
    on_queues = sum(properties(resources, name)["MessageRetentionPeriod"] for name in ("WorkQueue", "DeadLetterQueue"))
    assert old["NoncurrentVersionExpiration"]["NoncurrentDays"] * 24 * 3600 > on_queues
    assert old["ExpiredObjectDeleteMarker"] is True


@pytest.mark.parametrize(
    ("policy", "resource"),
    [
        ("BucketPolicy", {"Fn::GetAtt": ["Bucket", "Arn"]}),
        ("BackfillBucketPolicy", {"Fn::GetAtt": ["BackfillBucket", "Arn"]}),
        ("WorkQueuePolicy", {"Fn::GetAtt": ["WorkQueue", "Arn"]}),
        ("DeadLetterQueuePolicy", {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}),
    ],
)
def test_buckets_and_queues_accept_tls_only(resources: dict[str, Any], policy: str, resource: dict[str, Any]) -> None:
    found = properties(resources, policy)["PolicyDocument"]["Statement"]
    [deny] = [statement for statement in found if statement["Sid"] == "TlsOnly"]

    assert (deny["Effect"], deny["Principal"]) == ("Deny", "*")
    assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert resource in (deny["Resource"] if isinstance(deny["Resource"], list) else [deny["Resource"]])


def test_every_way_to_create_an_object_reaches_the_queue(source: Template, resources: dict[str, Any]) -> None:
    [notification] = properties(resources, "Bucket")["NotificationConfiguration"]["QueueConfigurations"]
    assert notification == {"Event": "s3:ObjectCreated:*", "Queue": {"Fn::GetAtt": ["WorkQueue", "Arn"]}}
    assert resources["Bucket"]["DependsOn"] == "WorkQueuePolicy"

    prefixed = properties(deployed(source, KeyPrefix="layers/"), "Bucket")
    [notification] = prefixed["NotificationConfiguration"]["QueueConfigurations"]
    assert notification["Filter"] == {"S3Key": {"Rules": [{"Name": "prefix", "Value": {"Ref": "KeyPrefix"}}]}}


def test_only_this_bucket_may_send_to_the_queue(resources: dict[str, Any]) -> None:
    allow = only_allowed(resources, "WorkQueuePolicy")

    assert allow["Principal"] == {"Service": "s3.amazonaws.com"}
    assert allow["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    # The bucket's name, because a reference to the bucket would be circular.
    name, unique = properties(resources, "Bucket")["BucketName"]["Fn::Sub"]
    assert allow["Condition"]["ArnEquals"]["aws:SourceArn"] == {
        "Fn::Sub": [f"arn:${{AWS::Partition}}:s3:::{name}", unique]
    }
    assert not [entry for entry in by_sid(properties(resources, "DeadLetterQueuePolicy")) if entry != "TlsOnly"]
    # With the longest region name, it is within S3's limit of 63.
    longest = name.replace("${AWS::AccountId}", "1" * 12).replace("${AWS::Region}", "ap-northeast-1" + "x" * 6)
    assert len(longest.replace("${Unique}", "0" * 8)) <= 63


def test_messages_are_hidden_longer_than_an_invocation_and_finally_dead_lettered(resources: dict[str, Any]) -> None:
    queue, dead_letters = properties(resources, "WorkQueue"), properties(resources, "DeadLetterQueue")

    assert queue["VisibilityTimeout"] > properties(resources, "Function")["Timeout"]
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}
    # Enough for a day's outage, at 15 minutes between deliveries.
    assert 96 <= queue["RedrivePolicy"]["maxReceiveCount"] <= 100
    assert queue["SqsManagedSseEnabled"] is dead_letters["SqsManagedSseEnabled"] is True
    assert "KmsMasterKeyId" not in queue.keys() | dead_letters.keys()
    assert queue["MessageRetentionPeriod"] == dead_letters["MessageRetentionPeriod"] == 14 * 24 * 3600


def test_the_function_takes_one_message_at_a_time_and_reports_failures(resources: dict[str, Any]) -> None:
    [mapping] = of_type(resources, "AWS::Lambda::EventSourceMapping")

    assert mapping["EventSourceArn"] == {"Fn::GetAtt": ["WorkQueue", "Arn"]}
    assert mapping["BatchSize"] == 1
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": {"Ref": "MaximumConcurrency"}}


def test_the_function_has_its_handler_runtime_timeout_and_role(source: Template, resources: dict[str, Any]) -> None:
    function = properties(resources, "Function")

    assert (function["Handler"], function["Runtime"]) == ("handler.lambda_handler", "python3.13")
    assert function["Timeout"] == 900
    assert function["Architectures"] == [{"Ref": "Architecture"}]
    assert source["Parameters"]["Architecture"]["Default"] == "arm64"
    assert source["Parameters"]["Architecture"]["AllowedValues"] == ["arm64", "x86_64"]
    assert source["Resources"]["Function"]["Metadata"]["BuildMethod"] == "python-uv"
    assert function["Role"] == {"Fn::GetAtt": ["FunctionRole", "Arn"]}


def test_the_function_gets_every_variable_that_it_reads(resources: dict[str, Any]) -> None:
    variables = properties(resources, "Function")["Environment"]["Variables"]

    assert {name for name in variables if not name.startswith("POWERTOOLS_")} == {
        "STATE_TABLE", "ECR_REGISTRY_ID", "KEY_PREFIX", "REPOSITORY_PREFIX", "DEFAULT_REPOSITORY",
        "CREATE_REPOSITORIES", "KEEP_REGISTRY_HOST", "QUEUE_URL", "DEAD_LETTER_QUEUE_URL", "OUTCOME_BUS",
        "MALLOC_ARENA_MAX",
    }  # fmt: skip
    assert variables["POWERTOOLS_SERVICE_NAME"] == {"Ref": "AWS::StackName"}
    assert variables["POWERTOOLS_METRICS_NAMESPACE"] == "S3ToEcr"
    assert variables["POWERTOOLS_LOG_LEVEL"] == {"Ref": "LogLevel"}


def test_only_sam_local_can_set_the_sdks_endpoint(source: Template) -> None:
    variables = source["Resources"]["Function"]["Properties"]["Environment"]["Variables"]

    # SAM passes only variables that the template names. CloudFormation drops those without a value.
    assert variables["AWS_ENDPOINT_URL"] == NOTHING


def test_the_parameters_defaults_are_valid_settings(source: Template, resources: dict[str, Any]) -> None:
    variables = properties(resources, "Function")["Environment"]["Variables"]
    defaults = {name: entry["Default"] for name, entry in source["Parameters"].items()}
    environment = {
        name: str(defaults.get(value["Ref"], value["Ref"]) if isinstance(value, dict) else value)
        for name, value in variables.items()
    }

    assert Settings.from_environment(environment) == Settings(
        state_table="StateTable", queue_url="WorkQueue", dead_letter_queue_url="DeadLetterQueue"
    )


def test_logs_are_json_and_expire(resources: dict[str, Any]) -> None:
    logging = properties(resources, "Function")["LoggingConfig"]

    assert logging == {
        "LogFormat": "JSON",
        "LogGroup": {"Ref": "FunctionLogs"},
        "ApplicationLogLevel": "INFO",
    }
    assert properties(resources, "FunctionLogs")["RetentionInDays"] == {"Ref": "LogRetentionDays"}


def test_the_state_table_has_its_key_and_time_to_live(resources: dict[str, Any]) -> None:
    table = properties(resources, "StateTable")

    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["KeySchema"] == [{"AttributeName": "id", "KeyType": "HASH"}]
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expiration", "Enabled": True}
    assert table["SSESpecification"] == {"SSEEnabled": True}
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": False}


def test_the_role_grants_what_the_function_calls_and_no_more(source: Template) -> None:
    resources = deployed(source, CreateRepositories="true")

    assert {sid: actions(statement) for sid, statement in statements(resources).items()} == {
        "ReadObjects": {"s3:GetObject", "s3:GetObjectVersion"},
        "TellMissingFromForbidden": {"s3:ListBucket"},
        "PushLayersAndImages": {
            "ecr:BatchCheckLayerAvailability",
            "ecr:InitiateLayerUpload",
            "ecr:UploadLayerPart",
            "ecr:CompleteLayerUpload",
            "ecr:BatchGetImage",
            "ecr:PutImage",
        },
        "CreateRepositories": {"ecr:CreateRepository"},
        "ReadCreationTemplates": {"ecr:DescribeRepositoryCreationTemplates"},
        "FollowCreationTemplates": {
            "ecr:TagResource",
            "ecr:GetLifecyclePolicy",
            "ecr:PutLifecyclePolicy",
            "ecr:GetRepositoryPolicy",
            "ecr:SetRepositoryPolicy",
        },
        "EncryptRepositories": {"kms:CreateGrant", "kms:DescribeKey"},
        "KeepState": {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"},
        "TakeMessages": {
            "sqs:ReceiveMessage",
            "sqs:DeleteMessage",
            "sqs:GetQueueAttributes",
            "sqs:ChangeMessageVisibility",
        },
        "ReportRejected": {"sqs:SendMessage"},
        "WriteLogs": {"logs:CreateLogStream", "logs:PutLogEvents"},
    }


@pytest.mark.parametrize("registry", ["", "123456789012"])
@pytest.mark.parametrize("bucket", ["", REGISTRY])
def test_every_grant_is_scoped_to_a_resource_of_the_stack(source: Template, bucket: str, registry: str) -> None:
    resources = deployed(source, CreateRepositories="true", ExistingBucket=bucket, RegistryId=registry)
    bucket_arn = {"Fn::Sub": "arn:${AWS::Partition}:s3:::${ExistingBucket}"} if bucket else arn_of("Bucket")
    objects = "arn:${AWS::Partition}:s3:::${ExistingBucket}/${KeyPrefix}*" if bucket else "${Bucket.Arn}/${KeyPrefix}*"
    repositories = {
        "Fn::Sub": [
            "arn:${AWS::Partition}:ecr:${AWS::Region}:${Registry}:repository/${RepositoryPrefix}*",
            {"Registry": {"Ref": "RegistryId" if registry else "AWS::AccountId"}},
        ]
    }
    following = {
        "FollowCreationTemplates": {
            "Fn::Sub": "arn:${AWS::Partition}:ecr:${AWS::Region}:${AWS::AccountId}:repository/${RepositoryPrefix}*"
        },
        "EncryptRepositories": {"Fn::Sub": "arn:${AWS::Partition}:kms:${AWS::Region}:${AWS::AccountId}:key/*"},
    }
    log_group = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:${FunctionLogs}:*"

    assert {sid: statement["Resource"] for sid, statement in statements(resources).items()} == {
        "ReadObjects": {"Fn::Sub": objects},
        "TellMissingFromForbidden": bucket_arn,
        "PushLayersAndImages": repositories,
        "CreateRepositories": repositories,
        "ReadCreationTemplates": "*",
        **({} if registry else following),
        "KeepState": {"Fn::GetAtt": ["StateTable", "Arn"]},
        "TakeMessages": {"Fn::GetAtt": ["WorkQueue", "Arn"]},
        "ReportRejected": {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]},
        "WriteLogs": {"Fn::Sub": log_group},
    }


def test_repositories_may_be_created_only_if_the_parameter_says_so(source: Template) -> None:
    granted = set(statements(deployed(source, CreateRepositories="true")))

    assert granted - set(statements(deployed(source))) == {
        "CreateRepositories",
        "ReadCreationTemplates",
        "FollowCreationTemplates",
        "EncryptRepositories",
    }


def test_only_the_accounts_own_creation_templates_can_be_followed(source: Template) -> None:
    def granted(registry: str) -> set[str]:
        return set(statements(deployed(source, CreateRepositories="true", RegistryId=registry)))

    assert granted("") == granted(OWN_ACCOUNT)
    assert granted("") - granted("123456789012") == {"FollowCreationTemplates", "EncryptRepositories"}


def test_ecr_alone_makes_the_grants_for_a_repositorys_key(source: Template) -> None:
    found = statements(deployed(source, CreateRepositories="true"))["EncryptRepositories"]

    assert found["Condition"] == {
        "StringEquals": {"kms:ViaService": {"Fn::Sub": "ecr.${AWS::Region}.${AWS::URLSuffix}"}}
    }


def test_a_backfill_may_invoke_the_function_list_the_bucket_and_write_its_reports(resources: dict[str, Any]) -> None:
    assert {
        sid: (actions(statement), statement["Resource"])
        for sid, statement in statements(resources, "BackfillRole").items()
    } == {
        "InvokeFunction": ({"lambda:InvokeFunction"}, arn_of("Function")),
        "ListObjects": ({"s3:PutInventoryConfiguration"}, arn_of("Bucket")),
        "KeepListsAndReports": (
            {"s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"},
            {"Fn::Sub": "${BackfillBucket.Arn}/*"},
        ),
    }


def test_backfills_and_the_queue_share_a_concurrency_limit(source: Template) -> None:
    limited = properties(deployed(source, ReservedConcurrency="15"), "Function")

    assert limited["ReservedConcurrentExecutions"] == {"Ref": "ReservedConcurrency"}
    # Lambda polls messages for the queue's maximum concurrency, and these must not be throttled.
    assert source["Parameters"]["MaximumConcurrency"]["Default"] < 15


def test_by_default_nothing_is_reserved_because_new_accounts_cannot(resources: dict[str, Any]) -> None:
    assert "ReservedConcurrentExecutions" not in properties(resources, "Function")


def command(source: Template, output: str) -> list[str]:
    """The command in an output, with its references replaced by well-formed names."""
    value = source["Outputs"][output]["Value"]["Fn::Sub"]
    text = value if isinstance(value, str) else value[0]
    known = {"AWS::Region": REGION, "AWS::AccountId": "123456789012", "AWS::Partition": "aws", "Source": "bucket"}
    for kind, resource in {"sqs": "Queue", "lambda": "Function", "s3": "Bucket"}.items():
        known |= {
            f"{name}.Arn": f"arn:aws:{kind}:eu-central-1:123456789012:{name}"
            for name in source["Resources"]
            if name.endswith(resource)
        }
    known |= {
        "BackfillRole.Arn": "arn:aws:iam::123456789012:role/backfill",
        "BackfillBucket.Arn": "arn:aws:s3:::backfill",
    }
    return shlex.split(re.sub(r"\$\{(.+?)\}", lambda found: known[found[1]], text))


def options(words: list[str]) -> dict[str, Any]:
    """A command's options as the SDK's parameters."""
    found: dict[str, Any] = {}
    for word in words:
        if word.startswith("--"):
            name = "".join(part.capitalize() for part in word.removeprefix("--").split("-"))
            found[name] = True
        else:
            found[name] = json.loads(word) if word[0] in "{0123456789" and name != "AccountId" else word
    return found


def test_s3_accepts_the_backfill_command(source: Template) -> None:
    [aws, service, operation, *words] = command(source, "BackfillCommand")
    assert (aws, service, operation) == ("aws", "s3control", "create-job")
    parameters = options(words)
    assert parameters.pop("Region") == REGION
    assert parameters.pop("NoConfirmationRequired")

    client = boto3.client("s3control")
    with Stubber(client) as stub:
        stub.add_response("create_job", {"JobId": "a job"})
        client.create_job(**parameters, ConfirmationRequired=False, ClientRequestToken="once")
    assert parameters["Operation"]["LambdaInvoke"]["InvocationSchemaVersion"] == "2.0"
    assert parameters["Report"]["Bucket"] == "arn:aws:s3:::backfill"
    assert parameters["Report"]["ReportScope"] == "FailedTasksOnly"
    assert source["Outputs"]["BackfillCommand"]["Value"]["Fn::Sub"][1] == {
        "Source": {"Fn::If": ["HasExistingBucket", {"Ref": "ExistingBucket"}, {"Ref": "Bucket"}]}
    }
    assert source["Conditions"]["HasExistingBucket"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "ExistingBucket"}, ""]}]}


def test_sqs_accepts_the_redrive_command(source: Template) -> None:
    [aws, service, operation, *words] = command(source, "RedriveCommand")
    assert (aws, service, operation) == ("aws", "sqs", "start-message-move-task")
    parameters = options(words)
    assert parameters.pop("Region") == REGION

    client = boto3.client("sqs")
    with Stubber(client) as stub:
        stub.add_response("start_message_move_task", {"TaskHandle": "task"})
        client.start_message_move_task(**parameters)
    assert parameters["SourceArn"].endswith("DeadLetterQueue")
    assert parameters["DestinationArn"].endswith("WorkQueue")


def test_there_are_no_roles_or_policies_but_our_own(resources: dict[str, Any]) -> None:
    roles = {
        name: resource["Properties"] for name, resource in resources.items() if resource["Type"] == "AWS::IAM::Role"
    }

    assert {
        name: role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["Service"] for name, role in roles.items()
    } == {"FunctionRole": "lambda.amazonaws.com", "BackfillRole": "batchoperations.s3.amazonaws.com"}
    assert not any("ManagedPolicyArns" in role for role in roles.values())
    assert not list(of_type(resources, "AWS::IAM::ManagedPolicy"))
