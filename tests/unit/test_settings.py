from __future__ import annotations

import pytest

from s3_to_ecr.settings import Settings, SettingsError


def test_only_the_state_table_is_required() -> None:
    assert Settings.from_environment({"STATE_TABLE": "state"}) == Settings(state_table="state")


def test_all_variables_are_read() -> None:
    assert Settings.from_environment(
        {
            "STATE_TABLE": "state",
            "ECR_REGISTRY_ID": "123456789012",
            "KEY_PREFIX": "layers/",
            "REPOSITORY_PREFIX": "mirror/",
            "DEFAULT_REPOSITORY": "base",
            "CREATE_REPOSITORIES": "true",
            "KEEP_REGISTRY_HOST": "true",
            "QUEUE_URL": "https://queue",
            "DEAD_LETTER_QUEUE_URL": "https://dead-letters",
            "OUTCOME_BUS": "outcomes",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        }
    ) == Settings(
        state_table="state",
        registry_id="123456789012",
        key_prefix="layers/",
        repository_prefix="mirror/",
        default_repository="base",
        create_repositories=True,
        keep_registry_host=True,
        queue_url="https://queue",
        dead_letter_queue_url="https://dead-letters",
        outcome_bus="outcomes",
        memory=512 * 1024 * 1024,
    )


def test_an_empty_variable_counts_as_unset() -> None:
    names = (
        "ECR_REGISTRY_ID",
        "DEFAULT_REPOSITORY",
        "CREATE_REPOSITORIES",
        "KEEP_REGISTRY_HOST",
        "QUEUE_URL",
        "DEAD_LETTER_QUEUE_URL",
        "OUTCOME_BUS",
    )
    assert Settings.from_environment({"STATE_TABLE": "state"} | dict.fromkeys(names, "")) == Settings("state")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "STATE_TABLE is not set"),
        ({"STATE_TABLE": "state", "ECR_REGISTRY_ID": "12345"}, "ECR_REGISTRY_ID is '12345'"),
        ({"STATE_TABLE": "state", "CREATE_REPOSITORIES": "yes"}, "CREATE_REPOSITORIES is 'yes'"),
        ({"STATE_TABLE": "state", "KEEP_REGISTRY_HOST": "1"}, "KEEP_REGISTRY_HOST is '1'"),
        ({"STATE_TABLE": "state", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1G"}, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE is '1G'"),
    ],
)
def test_a_wrong_setting_is_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.from_environment(environment)
