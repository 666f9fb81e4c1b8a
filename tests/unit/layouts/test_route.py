from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_to_ecr.errors import InvalidPath, InvalidRepositoryName, Rejected, RepositoryNotNamed
from s3_to_ecr.images.references import Reference
from s3_to_ecr.layouts import route
from s3_to_ecr.layouts.helm_chart import HelmChart, Provenance
from s3_to_ecr.layouts.image_archive import ImageArchive
from s3_to_ecr.layouts.jobs import Ignore, PushImages, UploadLayer
from s3_to_ecr.layouts.oci_layout import OciLayout
from s3_to_ecr.layouts.registry_storage import RegistryLink
from s3_to_ecr.layouts.skopeo_dir import DirLayout, DirVersion
from s3_to_ecr.layouts.static_registry import StaticManifest
from s3_to_ecr.settings import Settings

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"
REGISTRY = "docker/registry/v2"


def settings(key_prefix: str = "", repository_prefix: str = "", default_repository: str | None = None) -> Settings:
    return Settings(
        "state",
        key_prefix=key_prefix,
        repository_prefix=repository_prefix,
        default_repository=default_repository,
    )


@pytest.mark.parametrize(
    ("key", "repository", "digest"),
    [
        ("app/layer", "app", None),
        ("team/app/layer.tar.zst", "team/app", None),
        ("app/Any Name + 100% ✨", "app", None),
        (f"app/{DIGEST}", "app", DIGEST),
        # What only resembles a digest or a layout is a name like any other.
        (f"app/{HEX}0", "app", None),
        (f"app/{HEX.upper()}", "app", None),
        (f"app/sha512:{HEX}", "app", None),
        ("manifests/latest", "manifests", None),
        ("app/blobs/picture", "app/blobs", None),
        ("app/blobs/md5/picture", "app/blobs/md5", None),
        ("manifests/app/layer", "manifests/app", None),
        (f"app/manifests/folder/{DIGEST}", "app/manifests/folder", DIGEST),
        ("app/tags/list.txt", "app/tags", None),
        ("tags/list", "tags", None),
        ("app/index.json.bak", "app", None),
        ("app/my-index.json", "app", None),
        (f"app/{HEX}\n", "app", None),
    ],
)
def test_a_blob_goes_to_the_repository_that_its_folder_names(key: str, repository: str, digest: str | None) -> None:
    job = route(key, settings())

    assert isinstance(job, UploadLayer)
    assert (job.repository, job.digest) == (repository, digest)


def layer_or_images(repository: str, name: str, folder: str | None) -> UploadLayer:
    return UploadLayer(repository, None, recognised=ImageArchive(name, is_tar=False), folder=folder)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("v1", "v1"),
        ("v1.2", "v1.2"),
        ("v1.2.TGZ", "v1.2"),
        ("v1.tar.gz", "v1"),
        ("v1.Tar.Zst", "v1"),
        ("v1.tzst", "v1"),
        ("v1.tar.xz", "v1"),
        ("v1.txz", "v1"),
        ("v1.tar.bz2", "v1"),
        ("v1.tbz2", "v1"),
        ("v1.gz", "v1"),
        ("v1.oci", "v1"),
        ("v1.image", "v1"),
        ("v1.oci.tar.zstd", "v1"),
        ("v1.tar.gz.bak", "v1.tar.gz.bak"),
        ("v1.tar\n", "v1.tar\n"),
        (".tar.gz", ".tar"),
    ],
)
def test_what_may_be_an_archive_is_known_by_its_name_without_the_endings(file: str, name: str) -> None:
    assert route(f"team/app/{file}", settings()) == layer_or_images("team/app", name, "team/app")


@pytest.mark.parametrize(
    "key",
    [
        f"app/blobs/sha256/{HEX.upper()}",
        f"app/blobs/sha256/{HEX}0",
        f"app/blobs/sha256/{HEX}.tmp",
        f"app/blobs/sha256/{HEX}.tar",
        f"app/blobs/sha256/{HEX}/data",
        f"app/blobs/sha256/01/{HEX}",
        f"app/blobs/sha512/{HEX}{HEX}",
        f"blobs/sha256/01/{HEX}/data",  # KEY_PREFIX has cut a registry's storage off in its middle
        f"blobs/sha256/{HEX[1:]}",
        f"app/blobs/sha256:{HEX.upper()}",
        f"team/app/blobs/sha256:{HEX}0",
        f"app/blobs/sha512:{HEX}{HEX}",
        "app/blobs/sha256:",
        "app/manifests/a/b",
        "app/manifests/sha256/a",
        "team/app/manifests/v1/a/b",
        "app/blobs/sha256/manifests/1.0",
        "app/tags/list",
    ],
)
def test_what_looks_like_a_path_in_a_layout_and_is_none_is_rejected(key: str) -> None:
    with pytest.raises(InvalidPath):
        route(key, settings(default_repository="base"))


@pytest.mark.parametrize(
    ("key", "folder"),
    [
        ("app/manifests/team/1.0.tar", "app/manifests/team"),
        ("app/manifests/team/index.json", "app/manifests/team"),
        ("app/manifests/team/manifests/1.0", "app/manifests/team"),
    ],
)
def test_a_repository_may_have_a_folder_of_a_layout_in_its_name(key: str, folder: str) -> None:
    job = route(key, settings())
    assert isinstance(job, PushImages)
    assert job.folder == folder


@pytest.mark.parametrize("key", ["app/", "app/folder/", "/", f"app/{DIGEST}/"])
def test_folder_markers_are_ignored(key: str) -> None:
    assert isinstance(route(key, settings()), Ignore)


def test_the_key_prefix_is_stripped_first() -> None:
    assert route("layers/app/file", settings(key_prefix="layers/")) == layer_or_images("app", "file", "app")
    assert route("img-app/file", settings(key_prefix="img-")) == layer_or_images("app", "file", "app")


def test_objects_outside_the_key_prefix_are_ignored() -> None:
    assert isinstance(route("logs/app/file", settings(key_prefix="layers/")), Ignore)
    assert isinstance(route("layers/", settings(key_prefix="layers/")), Ignore)
    assert isinstance(route("layers", settings(key_prefix="layers")), Ignore)


def test_the_repository_prefix_comes_before_the_folder() -> None:
    assert route("app/file", settings(repository_prefix="mirror/")) == layer_or_images("mirror/app", "file", "app")


def test_a_key_with_no_folder_goes_to_the_default_repository() -> None:
    assert route("file", settings(default_repository="base")) == layer_or_images("base", "file", None)
    assert route(DIGEST, settings(default_repository="base")) == UploadLayer("base", DIGEST)
    assert route("layers/file", settings("layers/", "mirror/", "base")) == layer_or_images("mirror/base", "file", None)


@pytest.mark.parametrize("key", [DIGEST, HEX, "index.json", f"blobs/sha256/{HEX}", "manifest.json"])
def test_a_key_with_no_folder_and_no_default_is_rejected(key: str) -> None:
    with pytest.raises(RepositoryNotNamed, match="DEFAULT_REPOSITORY"):
        route(key, settings())


@pytest.mark.parametrize("key", [f"team/_/{DIGEST}", f"_/a/{DIGEST}"])
def test_a_layer_cannot_be_in_a_bundle(key: str) -> None:
    with pytest.raises(RepositoryNotNamed, match="under <repository>/"):
        route(key, settings(default_repository="base"))


def test_an_archive_with_no_folder_may_be_a_bundle_if_there_is_no_default() -> None:
    assert route("x.tar", settings()) == PushImages(None, ImageArchive("x"))
    assert route("x.tar.gz", settings()) == PushImages(None, ImageArchive("x", is_tar=False))


def test_a_tgz_may_be_a_chart_or_an_archive_and_what_signs_it_its_provenance() -> None:
    chart = HelmChart(ImageArchive("web-1.0", is_tar=False))

    assert route("charts/web-1.0.tgz", settings()) == UploadLayer("charts", None, recognised=chart, folder="charts")
    assert route("charts/_/web-1.0.tgz", settings()) == PushImages("charts/_", chart)
    assert route("web-1.0.tgz", settings()) == PushImages(None, chart)
    assert route("charts/web-1.0.tgz.prov", settings()) == UploadLayer(
        "charts", None, recognised=Provenance(), folder="charts"
    )
    assert route("charts/web.prov", settings()) == layer_or_images("charts", "web.prov", "charts")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("docker/registry/lockfiles/database-in-use", "GitLab"),
        ("root/docker/registry/lockfiles/database-in-use", "GitLab"),
        ("_global_blobstore_migrated", "zot"),
        ("zot/_global_blobstore_migrated", "zot"),
    ],
)
def test_a_registry_that_cannot_be_mirrored_is_told_by_a_file_that_it_writes_once(key: str, reason: str) -> None:
    job = route(key, settings())

    assert isinstance(job, Ignore)
    assert job.trouble
    assert reason in job.reason


@pytest.mark.parametrize(
    "key",
    [
        "app:1.0/file",
        "host:5000/app:1.0/version",
        "App/file",
        "a b/file",
        "/app/file",
        "app//file",
        "a/file",
        "äpp/file",
    ],
)
def test_a_folder_that_ecr_does_not_accept_is_rejected(key: str) -> None:
    with pytest.raises(InvalidRepositoryName):
        route(key, settings())


@pytest.mark.parametrize(
    ("key", "job"),
    [
        ("app/index.json", PushImages("app", OciLayout())),
        ("index.json", PushImages(None, OciLayout())),
        (f"blobs/sha256/{HEX}", UploadLayer("base", DIGEST, part_of_image=True, may_be_manifest=True)),
        (f"a1/b/blobs/sha256/{HEX}", UploadLayer("a1/b", DIGEST, part_of_image=True, may_be_manifest=True)),
        ("app/manifests/latest", PushImages("app", StaticManifest("latest"))),
        (f"app/manifests/{DIGEST}", PushImages("app", StaticManifest(DIGEST), part_of_image=True)),
        (f"team/app/blobs/{DIGEST}", UploadLayer("team/app", DIGEST, part_of_image=True)),
        ("app/1.0.tar", PushImages("app", ImageArchive("1.0"))),
        ("image.tar", PushImages(None, ImageArchive("image"))),
        (f"app/{DIGEST}.tar", PushImages("app", ImageArchive(DIGEST))),
        ("app/IMAGE.TAR", PushImages("app", ImageArchive("IMAGE"))),
        ("team/app/manifest.json", PushImages("team/app", DirLayout(Reference(None, "team/app"), is_sure=False))),
        ("team/app:1.0/manifest.json", PushImages("team/app", DirLayout(Reference("1.0", "team/app"), is_sure=True))),
        (f"app@{DIGEST}/manifest.json", PushImages("app", DirLayout(Reference(None, "app"), is_sure=True))),
        ("manifest.json", PushImages(None, DirLayout(Reference(None), is_sure=False))),
        ("app/version", PushImages("app", DirVersion())),
        ("app:1.0/version", PushImages("app", DirVersion())),
        (f"team/app/{HEX}", UploadLayer("team/app", DIGEST, part_of_image=True)),
        (f"team/app:1.0/{HEX}", UploadLayer("team/app", DIGEST, part_of_image=True)),
        ("_/x.tar", PushImages("_", ImageArchive("x"))),
        ("_/x.tar.zst", PushImages("_", ImageArchive("x", is_tar=False))),
        ("team/_/file", PushImages("team/_", ImageArchive("file", is_tar=False))),
        ("team/_/a/b/x.tar", PushImages("team/_/a/b", ImageArchive("x"))),
        ("_/any/index.json", PushImages("_/any", OciLayout())),
    ],
)
def test_a_key_of_a_layout_gives_the_job_for_its_image_or_part(key: str, job: PushImages | UploadLayer) -> None:
    assert route(key, settings(default_repository="base")) == job


@pytest.mark.parametrize("root", [REGISTRY, f"root/{REGISTRY}", f"deep/er root/{REGISTRY}"])
def test_a_registrys_links_give_the_jobs_for_their_targets(root: str) -> None:
    repositories = f"{root}/repositories/team/app"
    blob_key = f"in/{root}/blobs/sha256/01/{HEX}/data"
    layer = f"in/{repositories}/_layers/sha256/{HEX}/link"
    revision = f"repositories/team/app/_manifests/revisions/sha256/{HEX}/link"
    tag = "repositories/team/app/_manifests/tags/v1/current/link"

    assert route(layer, settings("in/")) == UploadLayer("team/app", DIGEST, blob_key=blob_key, part_of_image=True)
    assert route(f"in/{root}/{revision}", settings("in/")) == PushImages("team/app", RegistryLink(revision, DIGEST))
    assert route(f"in/{root}/{tag}", settings("in/")) == PushImages("team/app", RegistryLink(tag, tag="v1"))


@pytest.mark.parametrize(
    ("key", "part_of_image"),
    [
        ("app/oci-layout", False),
        ("oci-layout", False),
        (f"{REGISTRY}/blobs/sha256/01/{HEX}/data", True),
        (f"root/{REGISTRY}/repositories/app/_uploads/1234/data", False),
        (f"{REGISTRY}/repositories/app/_manifests/tags/v1/index/sha256/{HEX}/link", False),
        (f"{REGISTRY}/repositories/app/_layers/sha256/{HEX}0/link", False),
        (f"{REGISTRY}/", False),
        (f"{REGISTRY}/index.json", False),
        (f"{REGISTRY}/image.tar", False),
        (f"_/any/blobs/sha256/{HEX}", True),
        (f"_/quay.io/team/app:1.0/{HEX}", True),
        ("_/any/oci-layout", False),
        (f"app/{HEX}.manifest.json", True),
        (f"app:1.0/{HEX}.signature-1", False),
        ("app/signature-12", False),
        ("app/.uploads/1234", False),
        ("zot/app/.uploads/1234/5", False),
        (f"_blobstore/blobs/sha256/{HEX}", False),
        (f"zot/_blobstore/blobs/sha256/{HEX}", False),
        ("docker/registry/lockfiles/filesystem-in-use", False),
    ],
)
def test_other_files_of_a_layout_are_ignored(key: str, part_of_image: bool) -> None:
    job = route(key, settings())
    assert isinstance(job, Ignore)
    assert job.part_of_image is part_of_image


@pytest.mark.parametrize(
    "key",
    [
        "../index.json",
        "app/../../manifests/latest",
        f"{REGISTRY}/repositories/../../secret/_manifests/tags/v1/current/link",
        f"a/../blobs/sha256/{HEX}",
    ],
)
def test_a_path_with_dot_dot_is_rejected(key: str) -> None:
    with pytest.raises(InvalidRepositoryName):
        route(key, settings())


@pytest.mark.slow
@given(st.text() | st.from_regex(r"[a-z/]{0,9}(blobs/|docker/registry/v2/)?(sha256[:/])?[0-9a-f]{63,65}(/link)?"))
def test_any_key_gives_a_job_or_is_rejected(key: str) -> None:
    try:
        job = route(key, settings("la", "mirror/", "base"))
    except Rejected:
        return
    assert isinstance(job, (Ignore, PushImages)) or job.repository.startswith("mirror/")
