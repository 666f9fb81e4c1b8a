from __future__ import annotations

import pytest

from s3_to_ecr.errors import InvalidRepositoryName, RepositoryNotNamed
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
            "QUEUE_URL": "https://queue",
            "DEAD_LETTER_QUEUE_URL": "https://dead-letters",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        }
    ) == Settings(
        state_table="state",
        registry_id="123456789012",
        key_prefix="layers/",
        repository_prefix="mirror/",
        default_repository="base",
        create_repositories=True,
        queue_url="https://queue",
        dead_letter_queue_url="https://dead-letters",
        memory=512 * 1024 * 1024,
    )


def test_what_the_template_leaves_empty_counts_as_unset() -> None:
    names = ("ECR_REGISTRY_ID", "DEFAULT_REPOSITORY", "CREATE_REPOSITORIES", "QUEUE_URL", "DEAD_LETTER_QUEUE_URL")
    assert Settings.from_environment({"STATE_TABLE": "state"} | dict.fromkeys(names, "")) == Settings("state")


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "STATE_TABLE is not set"),
        ({"STATE_TABLE": "state", "ECR_REGISTRY_ID": "12345"}, "ECR_REGISTRY_ID is '12345'"),
        ({"STATE_TABLE": "state", "CREATE_REPOSITORIES": "yes"}, "CREATE_REPOSITORIES is 'yes'"),
        ({"STATE_TABLE": "state", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1G"}, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE is '1G'"),
    ],
)
def test_a_wrong_setting_is_named(environment: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        Settings.from_environment(environment)


def test_the_prefix_stands_before_every_repository() -> None:
    settings = Settings("state", repository_prefix="mirror/", default_repository="base")

    assert settings.target_repository("team/app") == "mirror/team/app"
    assert settings.target_repository(None) == "mirror/base"


@pytest.mark.parametrize("folder", ["", "/app", "/a"])
def test_a_prefix_does_not_make_up_for_an_empty_folder(folder: str) -> None:
    with pytest.raises(InvalidRepositoryName):
        Settings("state", repository_prefix="mirror").target_repository(folder)


def test_a_key_with_no_folder_needs_a_default() -> None:
    with pytest.raises(RepositoryNotNamed, match="DEFAULT_REPOSITORY"):
        Settings("state").target_repository(None)


@pytest.mark.parametrize("name", ["ab", "a1", "team/app", "a.b_c-d__e--f/9", "x" * 256])
def test_names_that_ecr_takes(name: str) -> None:
    assert Settings("state").target_repository(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "a", "App", "app/", "/app", "a//b", "-app", "app-", "a..b", "a___b", "a b", "äpp", "..", "a/../b", "app\n",
     "x" * 257],
)  # fmt: skip
def test_names_that_ecr_does_not_take(name: str) -> None:
    with pytest.raises(InvalidRepositoryName, match="Rename the object's folder"):
        Settings("state").target_repository(name)
