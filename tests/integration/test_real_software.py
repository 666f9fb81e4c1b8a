"""Images that skopeo, umoci, podman and a registry write are mirrored, and skopeo pulls them with the same digests."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local import images
from local.images import Built, Files
from local.invocation import Invocation
from local.layers import gzipped_layer, layer
from local.stack import DIRECT, REGION, Stack, free_port, queue_arn
from s3_to_ecr.errors import BlobsMissing
from tests.conftest import Load, needed, needed_engine
from tests.doubles.ecr import EcrDouble
from tests.doubles.function import Function

if TYPE_CHECKING:
    from types_boto3_sqs.type_defs import MessageTypeDef

MULTI_ARCH = images.index(
    images.image([layer("srv/one", b"one"), layer("srv/two", b"two")]),
    images.image([layer("srv/one", b"one"), layer("srv/arm", b"arm")], architecture="arm64"),
)


@functools.cache
def large() -> Built:
    """An image whose layer takes several parts. It is made when it is needed: every process imports this module."""
    return images.image([gzipped_layer(12_000_000)], layer_type="application/vnd.oci.image.layer.v1.tar+gzip")


def run(*command: str, **environment: str) -> bytes:
    """Runs a tool without proxies and AWS settings, and returns its output."""
    needed(shutil.which(command[0]) is not None, f"{command[0]} is not installed: .ci/run installs it")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        command, env=clean | {"no_proxy": "127.0.0.1"} | environment, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, (command, done.stderr.decode())
    return done.stdout


def copy(source: str, destination: str, *options: str) -> None:
    """Runs `skopeo copy`. Images keep their digests unless an option changes them."""
    tls = ["--src-tls-verify=false"] * source.startswith("docker:")
    tls += ["--dest-tls-verify=false"] * destination.startswith("docker:")
    run("skopeo", "copy", "--insecure-policy", "--quiet", *tls, *options, source, destination)


def inspect(reference: str, *options: str) -> bytes:
    """The exact bytes of a manifest, or what `skopeo inspect` prints with other options."""
    tls = ["--tls-verify=false"] * reference.startswith("docker:")
    return run("skopeo", "inspect", *tls, *(options or ["--raw"]), reference)


def digest(reference: str) -> str:
    return images.digest_of(inspect(reference))


def files_in(folder: Path, first: str = "index.json") -> Files:
    """The files below a folder, the one that names the others first: the worst order."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    contents = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    return dict(sorted(contents.items(), key=lambda item: item[0] != first))


def write(folder: Path, files: Files) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@dataclass(frozen=True)
class Bucket:
    """A bucket on moto, the queue that gets its events, and the function behind that queue."""

    stack: Stack
    name: str
    queue: str
    handler: Function

    def put(self, key: str, content: bytes) -> None:
        self.stack.s3.put_object(Bucket=self.name, Key=key, Body=content)

    def drop(self, key: str, content: bytes) -> list[dict[str, Any]]:
        """Puts an object, has its events handled, and returns them."""
        self.put(key, content)
        events = self.drain()
        self.invoke(events)
        return events

    def drain(self) -> list[dict[str, Any]]:
        """Removes the events from the queue, and returns them."""
        received: list[MessageTypeDef] = []
        while messages := self.stack.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                self.stack.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
            received += messages
        return [event for event in (json.loads(message["Body"]) for message in received) if "Records" in event]

    def invoke(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Handles each event once. A later event pushes the images that wait."""
        results = []
        for event in events:
            with suppress(BlobsMissing):
                results += self.handler.lambda_handler(event, Invocation())["results"]
        return results


@pytest.fixture
def bucket(stack: Stack, fresh: dict[str, str], strict_ecr: EcrDouble, load_handler: Load) -> Bucket:
    name = f"images-{uuid.uuid4().hex}"
    queue = stack.sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = queue_arn(stack.sqs, queue)
    stack.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    stack.s3.put_bucket_notification_configuration(
        Bucket=name,
        NotificationConfiguration={"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]},
    )
    handler = load_handler(fresh, AWS_ENDPOINT_URL_ECR=strict_ecr.url)
    return Bucket(stack, name, queue, handler)


def in_ecr(ecr: EcrDouble, repository: str) -> str:
    """A repository as skopeo names it."""
    return f"docker://{ecr.url.removeprefix('http://')}/{repository}"


@pytest.fixture
def ecr(strict_ecr: EcrDouble) -> str:
    """The repository `app` as skopeo names it."""
    return in_ecr(strict_ecr, "app")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout that skopeo and umoci have written: images with gzip and zstd layers, an index, an empty image."""
    folder = tmp_path_factory.mktemp("layout")
    ours = write(folder / "ours", images.oci_layout({"multi": MULTI_ARCH, "large": large()}))
    written = folder / "written"
    run("umoci", "init", "--layout", str(written))
    run("umoci", "new", "--image", f"{written}:umoci")
    (folder / "file").write_text("inserted")
    run("umoci", "insert", "--rootless", "--image", f"{written}:umoci", str(folder / "file"), "/srv/file")
    copy(f"oci:{ours}:multi", f"oci:{written}:multi", "--all")
    copy(f"oci:{ours}:large", f"oci:{written}:large")
    copy(f"oci:{written}:umoci", f"oci:{written}:zstd", "--dest-compress-format", "zstd", "--dest-compress")
    return written


TAGS = ["umoci", "multi", "large", "zstd"]


def assert_pulled(source: str, ecr: str, tag: str, folder: Path) -> None:
    """The manifest is the source's byte for byte. skopeo pulls the whole image and verifies every digest."""
    assert inspect(f"{ecr}:{tag}") == inspect(source)
    pulled = folder / f"pulled-{tag}"
    pulled.mkdir(parents=True)
    copy(f"{ecr}:{tag}", f"dir:{pulled}", "--all", "--preserve-digests")
    assert digest(f"dir:{pulled}") == digest(source)


def assert_repeat_is_free(bucket: Bucket, events: list[dict[str, Any]], strict_ecr: EcrDouble) -> None:
    """The second delivery of every event sends no byte, and none fails."""
    strict_ecr.calls.clear()
    for event in events:
        [result] = bucket.handler.lambda_handler(event, Invocation())["results"]
        assert result["action"] in ("skipped", "ignored")
    assert set(strict_ecr.operations) <= {"BatchGetImage", "BatchCheckLayerAvailability"}


def test_an_oci_layout_that_is_synced_in_the_worst_order_is_mirrored(
    layout: Path, bucket: Bucket, ecr: str, strict_ecr: EcrDouble, tmp_path: Path
) -> None:
    events: list[dict[str, Any]] = []
    for path, content in files_in(layout).items():
        events += bucket.drop(f"app/{path}", content)

    assert sorted(strict_ecr.repositories["app"].tags) == sorted(TAGS)
    for tag in TAGS:
        assert_pulled(f"oci:{layout}:{tag}", ecr, tag, tmp_path)
    assert_repeat_is_free(bucket, events, strict_ecr)


@pytest.mark.parametrize("command", ["gzip --best", "zstd --ultra -20 --long=27"])
def test_archives_that_the_tools_have_compressed_are_mirrored(
    command: str, layout: Path, bucket: Bucket, ecr: str, strict_ecr: EcrDouble, tmp_path: Path
) -> None:
    events: list[dict[str, Any]] = []
    for form, tag in (("oci-archive", "multi"), ("docker-archive", "umoci")):
        archive = tmp_path / f"{form}.tar"
        reference = f"{archive}:{tag}" if form == "oci-archive" else f"{archive}:example.com/app:{tag}"
        copy(f"oci:{layout}:{tag}", f"{form}:{reference}", *(["--all"] if form == "oci-archive" else []))
        packed = run(*command.split(), "--stdout", "--quiet", str(archive))
        events += bucket.drop(f"app/{form}", packed)

    assert_pulled(f"oci-archive:{tmp_path / 'oci-archive.tar'}:multi", ecr, "multi", tmp_path)
    assert_same_config_and_diff_ids(f"docker-archive:{tmp_path / 'docker-archive.tar'}", f"{ecr}:umoci", tmp_path)
    assert_repeat_is_free(bucket, events, strict_ecr)


@pytest.mark.parametrize("tag", TAGS)
def test_an_oci_archive_is_mirrored(
    tag: str, layout: Path, bucket: Bucket, ecr: str, strict_ecr: EcrDouble, tmp_path: Path
) -> None:
    archive = tmp_path / "image.tar"
    copy(f"oci:{layout}:{tag}", f"oci-archive:{archive}:{tag}", "--all")

    events = bucket.drop("app/any.tar", archive.read_bytes())

    assert_pulled(f"oci-archive:{archive}:{tag}", ecr, tag, tmp_path)
    assert_repeat_is_free(bucket, events, strict_ecr)


@pytest.mark.parametrize("tag", ["umoci", "large"])
def test_a_docker_archive_keeps_its_config_and_layers(
    tag: str, layout: Path, bucket: Bucket, ecr: str, strict_ecr: EcrDouble, tmp_path: Path
) -> None:
    archive = tmp_path / "image.tar"
    copy(f"oci:{layout}:{tag}", f"docker-archive:{archive}:example.com/team/app:{tag}")

    events = bucket.drop("app/any.tar", archive.read_bytes())

    assert_same_config_and_diff_ids(f"docker-archive:{archive}", f"{ecr}:{tag}", tmp_path)
    assert_repeat_is_free(bucket, events, strict_ecr)


def assert_same_config_and_diff_ids(source: str, pulled: str, folder: Path) -> None:
    config = inspect(source, "--config", "--raw")
    assert inspect(pulled, "--config", "--raw") == config
    manifest = json.loads(inspect(pulled))
    assert manifest["config"]["digest"] == images.digest_of(config)
    assert [entry["digest"] for entry in manifest["layers"]] == json.loads(config)["rootfs"]["diff_ids"]
    copy(pulled, f"oci:{folder / 'pulled'}:image")


def test_docker_save_before_docker_25_keeps_its_config_and_layers(
    bucket: Bucket, ecr: str, strict_ecr: EcrDouble, tmp_path: Path
) -> None:
    [image, _] = MULTI_ARCH.children
    archive = write(tmp_path, {"save.tar": images.docker_save(["app:1.0"], image)}) / "save.tar"

    events = bucket.drop("app/any.tar", archive.read_bytes())

    assert_same_config_and_diff_ids(f"docker-archive:{archive}", f"{ecr}:1.0", tmp_path)
    assert_repeat_is_free(bucket, events, strict_ecr)


def test_docker_save_since_docker_25_is_mirrored(
    bucket: Bucket, ecr: str, strict_ecr: EcrDouble, tmp_path: Path
) -> None:
    [image, _] = MULTI_ARCH.children
    archive = write(tmp_path, {"save.tar": images.docker_save_25(["app:1.0"], image)}) / "save.tar"

    events = bucket.drop("app/any.tar", archive.read_bytes())

    assert_pulled(f"oci-archive:{archive}", ecr, "1.0", tmp_path)
    assert_repeat_is_free(bucket, events, strict_ecr)


@pytest.mark.parametrize("tag", ["multi", "zstd"])
def test_skopeos_directory_that_is_synced_in_the_worst_order_is_mirrored(
    tag: str, layout: Path, bucket: Bucket, ecr: str, strict_ecr: EcrDouble, tmp_path: Path
) -> None:
    written = tmp_path / "written"
    copy(f"oci:{layout}:{tag}", f"dir:{written}", "--all")
    events: list[dict[str, Any]] = []
    for path, content in files_in(written, first="manifest.json").items():
        events += bucket.drop(f"app:{tag}/{path}", content)

    assert_pulled(f"dir:{written}", ecr, tag, tmp_path)
    assert_repeat_is_free(bucket, events, strict_ecr)


def test_a_bundle_goes_to_the_repositories_of_its_references(
    layout: Path, bucket: Bucket, strict_ecr: EcrDouble, tmp_path: Path
) -> None:
    bundled = {
        "multi": ("quay.io/team/app:1.0", "team/app", "1.0"),
        "zstd": ("docker.io/library/web:2", "library/web", "2"),
    }
    strict_ecr.create(*(repository for _, repository, _ in bundled.values()))
    for tag, (reference, _, _) in bundled.items():
        copy(f"oci:{layout}:{tag}", f"oci:{tmp_path}/store:{reference}", "--all")
    run("tar", "--create", "--file", str(tmp_path / "store.tar"), "--directory", str(tmp_path), "store")

    events = bucket.drop("_/store.tar", (tmp_path / "store.tar").read_bytes())

    for tag, (_, repository, wanted) in bundled.items():
        pulled = f"{in_ecr(strict_ecr, repository)}:{wanted}"
        assert inspect(pulled) == inspect(f"oci:{layout}:{tag}")
        copy(pulled, f"dir:{tmp_path / tag}", "--all", "--preserve-digests")
    assert_repeat_is_free(bucket, events, strict_ecr)


# Images of a k3s release and of other registries, and the repository of each.
BUNDLED = {
    "docker.io/rancher/klipper-helm:v0.9.4-build20250113": "rancher/klipper-helm",
    "docker.io/rancher/klipper-lb:v0.4.13": "rancher/klipper-lb",
    "docker.io/rancher/local-path-provisioner:v0.0.31": "rancher/local-path-provisioner",
    "docker.io/rancher/mirrored-coredns-coredns:1.12.0": "rancher/mirrored-coredns-coredns",
    "docker.io/rancher/mirrored-library-busybox:1.36.1": "rancher/mirrored-library-busybox",
    "docker.io/rancher/mirrored-library-traefik:3.3.2": "rancher/mirrored-library-traefik",
    "docker.io/rancher/mirrored-metrics-server:v0.7.2": "rancher/mirrored-metrics-server",
    "docker.io/rancher/mirrored-pause:3.6": "rancher/mirrored-pause",
    "docker.io/library/nginx:1.27": "library/nginx",
    "registry.example.com:5000/team/tool:2.0": "team/tool",
    "localhost/team/local:latest": "team/local",
    "quay.io/team_x/app.web__two:1.0.0_rc.1": "team_x/app.web__two",
}


@functools.cache
def bundled() -> dict[str, Built]:
    """The images of the bundle, by reference. They share a layer."""
    base = layer("srv/base", b"base")
    return {reference: images.image([base, layer("srv/name", reference.encode())]) for reference in BUNDLED}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle as `docker save` writes it before Docker 25."""
    saved = images.docker_save_several(([reference], built) for reference, built in bundled().items())
    return write(tmp_path_factory.mktemp("bundle"), {"k3s.tar": saved}) / "k3s.tar"


Podman = Callable[..., bytes]


@pytest.fixture(scope="module")
def podman(bundle: Path) -> Iterator[Podman]:
    """Runs podman, which has loaded the bundle."""
    if os.geteuid():
        pytest.skip("podman without root needs subordinate user IDs")
    with tempfile.TemporaryDirectory() as store:  # podman refuses paths that are as long as pytest's
        folders = [f"--{name}={store}/{name}" for name in ("root", "runroot", "tmpdir")]
        podman = functools.partial(run, "podman", "--storage-driver=vfs", *folders)
        podman("load", "--quiet", "--input", str(bundle))
        yield podman


def assert_bundle_is_there(ecr: EcrDouble, folder: Path) -> None:
    """Each image is in the repository that its reference names, and skopeo pulls it."""
    ecr_tags = {name: found.tags for name, found in ecr.repositories.items() if found.images}
    built = bundled()
    assert len(ecr_tags) == 12
    for reference, repository in BUNDLED.items():
        tag = reference.rpartition(":")[2]
        assert ecr_tags[repository] == {tag: built[reference].digest}
        pulled = folder / "pulled" / repository
        pulled.mkdir(parents=True)
        copy(f"{in_ecr(ecr, repository)}:{tag}", f"dir:{pulled}", "--preserve-digests")


@pytest.mark.parametrize("command", ["gzip", "zstd"])
def test_a_k3s_bundle_goes_to_twelve_repositories(
    command: str, bundle: Path, bucket: Bucket, strict_ecr: EcrDouble, tmp_path: Path
) -> None:
    strict_ecr.create(*BUNDLED.values())
    ending = {"gzip": "gz", "zstd": "zst"}[command]

    events = bucket.drop(f"_/k3s-airgap-images-amd64.tar.{ending}", run(command, "--stdout", "--quiet", str(bundle)))

    assert_bundle_is_there(strict_ecr, tmp_path)
    assert_repeat_is_free(bucket, events, strict_ecr)


def test_podmans_archive_of_several_images_is_mirrored(
    podman: Podman, bucket: Bucket, strict_ecr: EcrDouble, tmp_path: Path
) -> None:
    strict_ecr.create(*BUNDLED.values())
    podman("save", "--quiet", "--multi-image-archive", "--output", str(tmp_path / "saved.tar"), *BUNDLED)

    events = bucket.drop("_/saved.tar.gz", run("gzip", "--stdout", str(tmp_path / "saved.tar")))

    assert_bundle_is_there(strict_ecr, tmp_path)
    assert_repeat_is_free(bucket, events, strict_ecr)


def test_podmans_oci_archive_is_mirrored(
    podman: Podman, bucket: Bucket, ecr: str, strict_ecr: EcrDouble, tmp_path: Path
) -> None:
    archive = tmp_path / "saved.tar"
    podman("save", "--quiet", "--format=oci-archive", "--output", str(archive), "docker.io/library/nginx:1.27")

    events = bucket.drop("app/saved.tar.zst", run("zstd", "--stdout", "--quiet", str(archive)))

    assert_pulled(f"oci-archive:{archive}", ecr, "1.27", tmp_path)
    assert_repeat_is_free(bucket, events, strict_ecr)


@pytest.fixture
def in_docker(tmp_path: Path) -> Iterator[dict[str, Built]]:
    """Two images in the container engine that answers, by references that nobody else has."""
    needed_engine()
    above = f"registry.invalid:5000/{uuid.uuid4().hex}"
    built = {f"{above}/{name}:1.0": images.image([layer("srv/name", name.encode())]) for name in ("one", "two")}
    saved = images.docker_save_several(([reference], image) for reference, image in built.items())
    run("docker", "load", "--quiet", "--input", str(write(tmp_path, {"load.tar": saved}) / "load.tar"))
    yield built
    run("docker", "image", "rm", *built)


def test_what_docker_saves_of_several_images_is_mirrored(
    in_docker: dict[str, Built], bucket: Bucket, strict_ecr: EcrDouble, tmp_path: Path
) -> None:
    repositories = {reference: reference.partition("/")[2].removesuffix(":1.0") for reference in in_docker}
    strict_ecr.create(*repositories.values())

    run("docker", "save", "--output", str(tmp_path / "saved.tar"), *in_docker)

    events = bucket.drop("_/saved.tar.zst", run("zstd", "--stdout", "--quiet", str(tmp_path / "saved.tar")))

    for reference, built in in_docker.items():
        pulled = f"{in_ecr(strict_ecr, repositories[reference])}:1.0"
        config, *layers = built.blobs
        assert images.digest_of(inspect(pulled, "--config", "--raw")) == config
        assert [entry["digest"] for entry in json.loads(inspect(pulled))["layers"]] == layers
        copy(pulled, f"oci:{tmp_path / 'pulled'}:image")
    assert_repeat_is_free(bucket, events, strict_ecr)


@contextmanager
def docker_registry(stack: Stack, bucket: str, folder: Path) -> Iterator[str]:
    """Debian's docker-registry with its storage in a bucket. Yields its address."""
    needed(shutil.which("docker-registry") is not None, "docker-registry is not installed: .ci/run installs it")
    port = free_port()
    storage = {
        "region": REGION,
        "regionendpoint": stack.endpoint,
        "bucket": bucket,
        "accesskey": "local",
        "secretkey": "local",
        "secure": False,
        "rootdirectory": "/some/root",
    }
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"s3": storage},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (folder / "registry.yml").write_text(json.dumps(config))
    # It does not start with AWS_CA_BUNDLE.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    process = subprocess.Popen(
        ["docker-registry", "serve", str(folder / "registry.yml")],  # noqa: S607 (the machine's)
        env=environment | {"no_proxy": "127.0.0.1", "OTEL_TRACES_EXPORTER": "none"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                DIRECT.open(f"http://127.0.0.1:{port}/v2/", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, "docker-registry has ended"
                assert time.monotonic() < deadline, "docker-registry does not answer"
                time.sleep(0.1)
        yield f"docker://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def test_images_in_a_self_hosted_registry_are_mirrored_by_its_buckets_events(
    layout: Path, bucket: Bucket, stack: Stack, strict_ecr: EcrDouble, tmp_path: Path
) -> None:
    strict_ecr.create("team/app", "other")
    events: list[dict[str, Any]] = []
    with docker_registry(stack, bucket.name, tmp_path) as registry:
        for tag in TAGS:
            copy(f"oci:{layout}:{tag}", f"{registry}/team/app:{tag}", "--all")
        copy(f"oci:{layout}:multi", f"{registry}/team/app:docker", "--all", "--format", "v2s2")
        # The registry has these blobs already, so it only links them.
        copy(f"{registry}/team/app:large", f"{registry}/other:large")
        events = bucket.drain()
        results = bucket.invoke(events)

        assert {result["repository"] for result in results} == {None, "team/app", "other"}
        for repository, tag in [*(("team/app", tag) for tag in [*TAGS, "docker"]), ("other", "large")]:
            assert_pulled(f"{registry}/{repository}:{tag}", in_ecr(strict_ecr, repository), tag, tmp_path / repository)
        assert_repeat_is_free(bucket, events, strict_ecr)

        # A tag that moves in the registry moves in ECR.
        copy(f"{registry}/team/app:umoci", f"{registry}/team/app:large")
        bucket.invoke(bucket.drain())
        assert_pulled(f"{registry}/team/app:umoci", in_ecr(strict_ecr, "team/app"), "large", tmp_path / "moved")


def test_what_skopeo_syncs_to_a_folder_is_mirrored(
    layout: Path, bucket: Bucket, stack: Stack, strict_ecr: EcrDouble, tmp_path: Path
) -> None:
    strict_ecr.create("team/app", "mirror/app")
    storage = f"storage-{uuid.uuid4().hex}"
    stack.s3.create_bucket(Bucket=storage, CreateBucketConfiguration={"LocationConstraint": REGION})
    with docker_registry(stack, storage, tmp_path) as registry:
        copy(f"oci:{layout}:multi", f"{registry}/team/app:multi", "--all")
        source = f"{registry.removeprefix('docker://')}/team/app"
        for options, folder, repository in (([], "mirror", "mirror/app"), (["--scoped"], "_", "team/app")):
            written = tmp_path / folder
            written.mkdir()
            run("skopeo", "--insecure-policy", "sync", "--all", "--src-tls-verify=false", "--src", "docker",
                "--dest", "dir", *options, source, str(written))  # fmt: skip
            for path, content in files_in(written).items():
                bucket.put(f"{folder}/{path}", content)

            bucket.invoke(bucket.drain())

            assert_pulled(
                f"{registry}/team/app:multi", in_ecr(strict_ecr, repository), "multi", tmp_path / "pulled" / folder
            )


def test_a_static_registry_is_mirrored(bucket: Bucket, ecr: str, strict_ecr: EcrDouble, tmp_path: Path) -> None:
    ours = {"multi": MULTI_ARCH, "large": large()}
    layout = write(tmp_path / "ours", images.oci_layout(ours))
    for tag, built in ours.items():
        for path, content in images.static_registry(tag, built).items():
            bucket.put(f"app/{path}", content)
    events = bucket.drain()

    bucket.invoke(events)

    for tag in ours:
        assert_pulled(f"oci:{layout}:{tag}", ecr, tag, tmp_path)
    assert_repeat_is_free(bucket, events, strict_ecr)
