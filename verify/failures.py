"""What goes wrong, in sentences for people, and the permissions that the calls need."""

from __future__ import annotations

from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

# The IAM actions of every operation that is called.
ACTIONS: Final = {
    "DescribeStacks": ("cloudformation:DescribeStacks",),
    "PutObject": ("s3:PutObject",),
    "ListObjectVersions": ("s3:ListBucketVersions",),
    "DeleteObjects": ("s3:DeleteObject", "s3:DeleteObjectVersion"),
    "GetQueueAttributes": ("sqs:GetQueueAttributes",),
    "ReceiveMessage": ("sqs:ReceiveMessage",),
    "DeleteMessage": ("sqs:DeleteMessage",),
    "ChangeMessageVisibilityBatch": ("sqs:ChangeMessageVisibility",),
    "Invoke": ("lambda:InvokeFunction",),
    "CreateRepository": ("ecr:CreateRepository",),
    "DeleteRepository": ("ecr:DeleteRepository",),
    "InitiateLayerUpload": ("ecr:InitiateLayerUpload",),
    "UploadLayerPart": ("ecr:UploadLayerPart",),
    "CompleteLayerUpload": ("ecr:CompleteLayerUpload",),
    "BatchCheckLayerAvailability": ("ecr:BatchCheckLayerAvailability",),
    "GetDownloadUrlForLayer": ("ecr:GetDownloadUrlForLayer",),
    "PutImage": ("ecr:PutImage",),
    "BatchGetImage": ("ecr:BatchGetImage",),
    "DescribeImages": ("ecr:DescribeImages",),
}

_DENIED: Final = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"}


class Stopped(Exception):
    """Why the proof cannot go on, in a sentence for people."""


def lacking(error: Exception) -> tuple[str, ...]:
    """The IAM actions that the caller was denied, if that is the error."""
    if isinstance(error, ClientError) and error.response["Error"].get("Code") in _DENIED:
        return ACTIONS[error.operation_name]
    return ()


def explained(error: Exception) -> str:
    """The error in a sentence."""
    if isinstance(error, ClientError):
        said = f"AWS says: {error.response['Error'].get('Message') or error}"
        if actions := lacking(error):
            return f"You lack the permission {' and '.join(actions)}, which docs/verify.md lists. {said}"
        return f"{error.operation_name} failed. {said}"
    if isinstance(error, BotoCoreError):
        return f"AWS could not be asked: {error}"
    return str(error)
