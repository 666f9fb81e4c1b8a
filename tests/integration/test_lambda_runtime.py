"""`sam build` makes a function that runs behind Lambda's own runtime API, without other packages."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from local.runtime_emulator import PYTHON, TEST_MESSAGE, build_for_this_machine, emulated, invoke, link_runtime_client
from local.samples import SAMPLES, put_samples
from local.stack import REPOSITORY, Stack
from operate import build
from tests.conftest import ROOT
from tests.doubles.checkout import run_in, shell_environment


def sam(*arguments: str) -> None:
    run_in(ROOT, shell_environment(), "sam", *arguments)


@pytest.fixture(scope="session", params=["arm64", "x86_64"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `sam build` makes for an architecture."""
    folder = tmp_path_factory.mktemp(f"build-{request.param}")
    sam("build", "--build-dir", str(folder), "--parameter-overrides", f"Architecture={request.param}")
    return folder / "Function"


@pytest.fixture(scope="session")
def runnable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build for the Python and the processor of this machine: it contains compiled code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", shell_environment()["PATH"])
        return build_for_this_machine(tmp_path_factory.mktemp("build"))


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """Lambda's runtime client alone, so the tests' packages cannot replace what the build lacks."""
    link_runtime_client(tmp_path)
    return tmp_path


def test_the_built_function_uploads_the_sample_behind_lambdas_runtime_api(
    runnable: Path, runtime: Path, stack: Stack, fresh: dict[str, str]
) -> None:
    put_samples(stack.s3)
    sample = next(sample for sample in SAMPLES if sample.key.endswith("put.layer"))
    event = (ROOT / "events/s3-put.json").read_bytes()

    with emulated(runnable, runtime, fresh) as url:
        answer = invoke(url, event)

    [result] = answer["results"]
    assert (result["action"], result["key"], result["repository"]) == ("uploaded", sample.key, REPOSITORY)
    assert (result["digest"], result["size"]) == (
        f"sha256:{hashlib.sha256(sample.body).hexdigest()}",
        len(sample.body),
    )
    checked = stack.ecr.batch_check_layer_availability(repositoryName=REPOSITORY, layerDigests=[result["digest"]])
    assert [layer["layerAvailability"] for layer in checked["layers"]] == ["AVAILABLE"]


def test_the_built_function_reports_a_missing_setting(runnable: Path, runtime: Path, stack: Stack) -> None:
    environment = {name: value for name, value in stack.environment.items() if name != "STATE_TABLE"}

    with emulated(runnable, runtime, environment) as url:
        answer = invoke(url, b"{}")

    assert "STATE_TABLE is not set" in answer["errorMessage"]


def compiled(function: Path, folder: Path) -> dict[str, bytes]:
    """The bytecode that `make build` adds to a copy of the function, by the paths of its files."""
    shutil.copytree(function, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", shell_environment()["PATH"])
        assert build.compile_modules(folder, PYTHON) is None
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.pyc")}


def test_bytecode_is_the_same_each_time_and_loaded_unchecked(runnable: Path, tmp_path: Path) -> None:
    first, second = (compiled(runnable, tmp_path / name) for name in ("first", "second"))

    assert first == second
    # What an earlier build has left behind is not among it.
    assert len(first) == len(list(runnable.rglob("*.py")))
    tag = sys.implementation.cache_tag
    module = first[f"botocore/__pycache__/session.{tag}.pyc"]
    # PEP 552: the interpreter's number, then 1 for a hash of the source that is not checked.
    assert module[:8] == importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little")
    assert b"/var/task/botocore/session.py" in module
    assert str(tmp_path).encode() not in module


def test_stale_bytecode_is_replaced(tmp_path: Path) -> None:
    module = tmp_path / "function/module.py"
    module.parent.mkdir()
    module.write_text("value = 1")
    [before] = compiled(module.parent, tmp_path / "built").values()
    (tmp_path / "built/module.py").write_text("value = 2")

    [after] = compiled(tmp_path / "built", tmp_path / "again").values()

    assert before[:8] == after[:8]
    assert before[8:] != after[8:]


def test_the_function_starts_from_its_bytecode(
    runnable: Path, runtime: Path, fresh: dict[str, str], tmp_path: Path
) -> None:
    compiled(runnable, tmp_path / "function")
    for source in (tmp_path / "function").rglob("*.py"):
        source.write_text("raise RuntimeError('the source was run')")

    with emulated(tmp_path / "function", runtime, fresh) as url:
        answer = invoke(url, TEST_MESSAGE)

    assert answer == {"batchItemFailures": []}


def test_the_build_contains_only_what_ships(built: Path) -> None:
    shipped = {path.name.split("-")[0].lower() for path in built.glob("[!.]*")}

    assert shipped == {
        "handler.py", "s3_to_ecr", "requirements.txt", "bin", "aws_lambda_powertools", "backports", "backports_zstd",
        "boto3", "botocore", "dateutil", "jmespath", "pybase64", "python_dateutil", "pyyaml", "_yaml", "s3transfer",
        "six", "six.py", "typing_extensions", "typing_extensions.py", "urllib3", "yaml", "zlib_ng",
    }  # fmt: skip


def test_compiled_code_is_for_lambdas_python_and_the_functions_processor(
    built: Path, request: pytest.FixtureRequest
) -> None:
    processor = {"arm64": ("aarch64", b"\xb7\x00"), "x86_64": ("x86_64", b"\x3e\x00")}
    name, machine = processor[request.node.callspec.params["built"]]
    extensions = list(built.rglob("*.so"))

    assert sorted(extension.parent.name for extension in extensions) == ["pybase64", "yaml", "zlib_ng", "zstd"]
    for extension in extensions:
        assert f"cpython-313-{name}" in extension.name
        assert extension.read_bytes()[18:20] == machine  # e_machine of the ELF header
