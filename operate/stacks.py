"""A deployed stack: its name, where it is, and what CloudFormation says about it."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

ROOT: Final = Path(__file__).parent.parent


@dataclass(frozen=True)
class Deployed:
    """The parameters and outputs of a stack that exists."""

    parameters: dict[str, str]
    outputs: dict[str, str]


def configured() -> dict[str, Any]:
    """The settings of `sam deploy` in samconfig.toml."""
    commands = tomllib.loads((ROOT / "samconfig.toml").read_text())["default"]
    settings: dict[str, Any] = {**commands["global"]["parameters"], **commands["deploy"]["parameters"]}
    return settings


def stack_name() -> str:
    """The stack that STACK names, or else samconfig.toml."""
    return os.environ.get("STACK") or str(configured()["stack_name"])


def open_session() -> boto3.Session:
    """A session in the region and with the profile that `sam deploy` is to use. Exits if there is no region."""
    settings = configured()
    # The AWS CLI and Lambda know AWS_REGION. boto3 and the SAM CLI do not.
    region = settings.get("region") or os.environ.get("AWS_REGION") or None
    session = boto3.Session(region_name=region, profile_name=settings.get("profile"))
    if not session.region_name:
        sys.exit("There is no AWS region. Set AWS_REGION, or choose a profile that has one with AWS_PROFILE.")
    return session


def find(session: boto3.Session, name: str) -> Deployed | None:
    """The stack of this name; `None` if there is none, or only a change set that nobody has executed."""
    cloudformation: Any = session.client("cloudformation")
    try:
        [stack] = cloudformation.describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        return None
    if stack["StackStatus"] == "REVIEW_IN_PROGRESS":
        return None
    return Deployed(
        parameters={given["ParameterKey"]: given["ParameterValue"] for given in stack.get("Parameters", [])},
        outputs={output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])},
    )


def outputs(session: boto3.Session, *names: str) -> list[str]:
    """These outputs of the stack that STACK or samconfig.toml names. Exits if there is no stack, or it lacks one."""
    stack = stack_name()
    deployed = find(session, stack)
    if deployed is None:
        sys.exit(f"There is no stack {stack} in {session.region_name}. Name one with STACK=…, or set AWS_REGION.")
    try:
        return [deployed.outputs[name] for name in names]
    except KeyError as missing:
        sys.exit(f"The stack {stack} has no output {missing.args[0]}. It is not one of s3-to-ecr, or not complete.")


def printable(text: str) -> str:
    """The text without control characters: whoever names an object must not command the reader's terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Exits with a sentence for what the SDK raises, and without a traceback on Ctrl-C."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError):
        sys.exit("There are no AWS credentials. Sign in, choose a profile with AWS_PROFILE, or set AWS_ACCESS_KEY_ID.")
    except ClientError as error:
        sys.exit(f"AWS refused {error.operation_name}: {error.response['Error'].get('Message') or error}")
    except BotoCoreError as error:
        sys.exit(f"AWS could not be asked: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
