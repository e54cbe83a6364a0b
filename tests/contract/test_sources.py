"""What the port to sources promises, with the real buildah, rsync and docker-registry."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deploy import images
from templates_app import sources
from templates_app.errors import (
    CoppiceError,
    ImportTimeout,
    MalformedReference,
    NotAnImage,
    OutOfSpace,
    PlatformIncompatible,
    ProgramKilled,
    PullFailed,
    RegistryNotAllowed,
    StorageReadOnly,
    TreeRefused,
    Unavailable,
)
from templates_app.names import Platform
from templates_app.run import IMPORT_MARK
from templates_app.sources import leftovers
from templates_app.sources.base import Progress, Receipt, Resolved, Source, SourceContext
from tests import oracle
from tests.pools import sh
from tests.registries import FaultProxy, Registry

#: Several workers' imports are told apart by it, so each has its own.
ID = f"{os.getpid():08x}"
LINUX, FREEBSD = Platform("linux", "amd64"), Platform("freebsd", "amd64")


def a_layer(text: str = "one") -> images.Layer:
    return images.layer([images.directory("etc"), images.file("etc/motd", text)])


def an_image(text: str = "one", **more: Any) -> images.Document:
    return images.image([a_layer(text)], **more)


both = pytest.mark.parametrize("engine", ["native", "buildah"], indirect=True)
of_buildah = pytest.mark.parametrize("engine", ["buildah"], indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    return getattr(request, "param", "native")


@pytest.fixture
def context(registry: Registry, tmp_path: Path, engine: str) -> SourceContext:
    place = tmp_path / "state"
    place.mkdir()
    return SourceContext(
        platform=LINUX,
        allowed=(),
        insecure=(registry.host,),
        auth_file=None,
        step_seconds=60,
        state_dir=place,
        limit_image_bytes=2**30,
        engine=engine,
    )


@pytest.fixture
def into(tmp_path: Path) -> Path:
    place = tmp_path / "into"
    place.mkdir()
    return place


def of(context: SourceContext, rest: str, registry: Registry | FaultProxy) -> Source:
    if registry.host not in context.insecure:
        context = replace(context, insecure=(*context.insecure, registry.host))
    return sources.parse(f"oci:{registry.host}/{rest}", context)


def resolve(context: SourceContext, rest: str, registry: Registry | FaultProxy) -> Resolved:
    return of(context, rest, registry).resolve()


def fetch(
    source: Source,
    into: Path,
    report: Callable[[Progress], None] = lambda _: None,
    resolved: Resolved | None = None,
    import_id: str = ID,
) -> Receipt:
    return source.fetch(resolved or source.resolve(), into, report, import_id)


def buildah(context: SourceContext, *words: str) -> list[str]:
    place = context.state_dir / "containers"
    argv = ["buildah", "--root", place / "storage", "--runroot", place / "run", *words]
    return sh(*argv).split()


def images_kept(context: SourceContext) -> list[str]:
    if not (context.state_dir / "containers/storage").exists():  # the native engine has none
        return []
    return buildah(context, "images", "--noheading", "--quiet", "--no-trunc")


def nothing_is_left(context: SourceContext) -> None:
    """No container, no mount, no temporary file, no process; the cache of images may stay."""
    place = context.state_dir / "containers"
    if (place / "storage").exists():
        assert buildah(context, "containers", "--noheading", "--quiet") == []
    if (place / "tmp").exists():
        assert list((place / "tmp").iterdir()) == []
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    # `buildah containers`, just now, may have left its storage mounted on itself: the test's doing,
    # without the settings that the server gives it.
    own = str(place / "storage" / "overlay")
    assert [one for one in mounts if one.startswith(f"{place}/") and one != own] == []
    assert marked() == []


def marked(name: str = "") -> list[psutil.Process]:
    """Programs of this worker's import, all or those of one name."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(IMPORT_MARK) == ID and name in ("", process.name()):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


class TestWhatAReferenceMeans:
    def test_a_tag_of_an_image(self, context, registry):
        image = an_image()
        registry.push("mean/image", "1", image)
        found = resolve(context, "mean/image:1", registry)
        assert found.canonical == f"{registry.host}/mean/image:1"
        assert found.floating
        assert found.digests.index is None
        assert found.digests.manifest == image.digest
        assert found.digests.config == image.parsed()["config"]["digest"]
        assert found.platform == LINUX
        assert found.config["rootfs"]["diff_ids"] == [a_layer().diff_id]
        (layer,) = found.layers
        assert (str(layer.digest), str(layer.diff_id)) == (a_layer().digest, a_layer().diff_id)
        assert list(map(images.sha256, found.documents)) == [image.digest, found.digests.config]
        assert (layer.size, layer.media_type) == (len(a_layer().blob), images.OCI_LAYER)

    def test_without_a_tag_it_is_latest(self, context, registry):
        registry.push("mean/latest", "latest", an_image())
        found = resolve(context, "mean/latest", registry)
        assert found.canonical.endswith("/mean/latest:latest") and found.floating

    @pytest.mark.parametrize("docker", [False, True])
    def test_all_three_digests_of_a_multi_platform_image(self, context, registry, docker):
        chosen = an_image("freebsd", platform="freebsd/amd64", docker=docker)
        others = [an_image(docker=docker), an_image(platform="linux/arm64/v8", docker=docker)]
        index = images.index([*others, chosen], docker=docker)
        registry.push("mean/index", "1", index)
        found = resolve(replace(context, platform=FREEBSD), "mean/index:1", registry)
        assert found.digests.index == index.digest
        assert found.digests.manifest == chosen.digest
        assert found.digests.config == chosen.parsed()["config"]["digest"]
        assert found.platform == FREEBSD

    def test_a_digest_is_not_floating(self, context, registry):
        image = an_image()
        registry.push("mean/digest", "1", image)
        found = resolve(context, f"mean/digest@{image.digest}", registry)
        assert not found.floating and found.digests.manifest == image.digest

    def test_the_digest_decides_when_the_tag_has_moved_on(self, context, registry):
        old, new = an_image("old"), an_image("new")
        registry.push("mean/both", "1", old)
        registry.push("mean/both", "1", new)
        found = resolve(context, f"mean/both:1@{old.digest}", registry)
        assert (found.digests.manifest, found.floating) == (old.digest, False)
        assert found.canonical == f"{registry.host}/mean/both:1@{old.digest}"
        assert resolve(context, "mean/both:1", registry).digests.manifest == new.digest

    def test_a_digest_may_be_an_indexs(self, context, registry):
        index = images.index([an_image()])
        registry.push("mean/index-digest", "1", index)
        found = resolve(context, f"mean/index-digest@{index.digest}", registry)
        assert found.digests.index == index.digest
        assert found.digests.manifest == an_image().digest

    def test_an_index_within_an_index(self, context, registry):
        inner = images.index([an_image()])
        outer = images.index([an_image("other", platform="linux/arm64"), inner])
        registry.push("mean/nested", "1", outer)
        found = resolve(context, "mean/nested:1", registry)
        assert found.digests.index == outer.digest
        assert found.digests.manifest == an_image().digest
        # All that leads to it, as it was served; what was looked at for another system is not.
        assert list(map(images.sha256, found.documents)) == [
            outer.digest,
            inner.digest,
            an_image().digest,
            found.digests.config,
        ]

    def test_indexes_without_end_are_not_followed(self, context, registry):
        document = an_image()
        for _ in range(4):
            document = images.index([document])
        registry.push("mean/deep", "1", document)
        with pytest.raises(NotAnImage, match="nested deeper"):
            resolve(context, "mean/deep:1", registry)
        many = images.index(
            [images.index([], members={"annotations": {"n": str(n)}}) for n in range(20)]
        )
        registry.push("mean/wide", "1", many)
        with pytest.raises(NotAnImage, match="more than 16"):
            resolve(context, "mean/wide:1", registry)

    def test_attestations_are_no_images(self, context, registry):
        image = an_image()
        registry.push("mean/att", "1", images.index([images.attestation(image), image]))
        assert resolve(context, "mean/att:1", registry).digests.manifest == image.digest

    def test_the_lower_variant_is_taken_where_there_is_no_other(self, context, registry):
        index = images.index([an_image(platform=f"linux/arm/v{n}") for n in (8, 6, 5)])
        registry.push("mean/variants", "1", index)
        wanted = replace(context, platform=Platform("linux", "arm", "v7"))
        assert str(resolve(wanted, "mean/variants:1", registry).platform) == "linux/arm/v6"

    @pytest.mark.parametrize("multi", [True, False])
    def test_nothing_for_the_platform(self, context, registry, multi):
        image = an_image(platform="linux/arm64")
        registry.push("mean/other", "1", images.index([image]) if multi else image)
        with pytest.raises(PlatformIncompatible) as refused:
            resolve(context, "mean/other:1", registry)
        assert refused.value.extra == {"wanted": "linux/amd64", "offered": ["linux/arm64"]}

    def test_an_index_that_lies_about_a_platform(self, context, registry):
        """The index says linux/amd64, the image itself linux/arm64: the image is believed."""
        lying = replace(
            an_image(platform="linux/arm64"), platform={"os": "linux", "architecture": "amd64"}
        )
        registry.push("mean/lying", "1", images.index([lying]))
        with pytest.raises(PlatformIncompatible):
            resolve(context, "mean/lying:1", registry)

    def test_an_artifact_is_no_image(self, context, registry):
        nothing = b"{}"
        kind = "application/vnd.oci.empty.v1+json"
        artifact = images.image(
            [images.Layer(nothing, images.sha256(nothing), kind)],
            manifest={"config": images.describe(nothing, kind)},
        )
        blobs = (*artifact.blobs, nothing)
        registry.push("mean/artifact", "1", replace(artifact, blobs=blobs))
        with pytest.raises(NotAnImage):
            resolve(context, "mean/artifact:1", registry)

    def test_no_layer_is_asked_for(self, context, registry, faults):
        image = an_image("not asked for")
        registry.push("mean/asked", "1", images.index([image]))
        resolve(context, "mean/asked:1", faults)
        asked = [path.rpartition("/")[2] for path in faults.paths()]
        assert a_layer("not asked for").digest not in asked
        assert image.parsed()["config"]["digest"] in asked

    def test_an_image_larger_than_allowed(self, context, registry):
        registry.push("mean/large", "1", an_image())
        size = len(a_layer().blob)
        resolve(replace(context, limit_image_bytes=size), "mean/large:1", registry)
        with pytest.raises(TreeRefused) as refused:
            resolve(replace(context, limit_image_bytes=size - 1), "mean/large:1", registry)
        assert refused.value.extra == {"rule": "image-size", "bytes": size, "limit": size - 1}

    @pytest.mark.parametrize("what", ["the manifest", "the index", "the child", "the config"])
    def test_a_changed_byte_is_noticed(self, context, registry, faults, what):
        image = an_image()
        index = images.index([image])
        registry.push("mean/flip", "1", index)
        changed, rest = {
            "the manifest": (image.digest, f"mean/flip@{image.digest}"),
            "the index": (index.digest, f"mean/flip@{index.digest}"),
            "the child": (image.digest, "mean/flip:1"),
            "the config": (image.parsed()["config"]["digest"], "mean/flip:1"),
        }[what]
        faults.on(changed, flip=-3)
        with pytest.raises(PullFailed) as failed:
            resolve(context, rest, faults)
        assert failed.value.reason == "corrupt"

    def test_a_size_that_is_not_the_promised_one_is_noticed(self, context, registry):
        child = an_image()
        said = {**child.descriptor(), "size": len(child.data) + 1}
        registry.push(
            "mean/size", "1", replace(images.index([child], members={"manifests": [said]}))
        )
        with pytest.raises(PullFailed) as failed:
            resolve(context, "mean/size:1", registry)
        assert failed.value.reason == "corrupt"

    @of_buildah
    def test_a_host_that_nobody_allowed_is_never_asked(self, context, faults):
        refused = sources.parse(f"oci:{faults.host}/mean/image:1", context)
        for call in (refused.resolve, lambda: refused.fetch(None, Path("/x"), print, ID)):
            with pytest.raises(RegistryNotAllowed):
                call()
        assert faults.requests == []

    def test_an_allowed_host_is_still_spoken_to_with_tls(self, context, faults):
        allowed = replace(context, allowed=(faults.host,))
        with pytest.raises(PullFailed) as failed:
            sources.parse(f"oci:{faults.host}/mean/image:1", allowed).resolve()
        assert failed.value.reason == "tls"
        assert faults.requests == []

    def test_an_ipv6_host_is_a_malformed_reference_at_the_most(self, context):
        named = replace(context, insecure=("[::1]:1",))
        with pytest.raises((MalformedReference, PullFailed)):
            sources.parse("oci:[::1]:1/a/b", named).resolve()

    def test_what_an_operator_has_configured_elsewhere_changes_nothing(
        self, context, registry, tmp_path, monkeypatch
    ):
        """A mirror that is not there, a policy that refuses all, odd credentials, in our HOME."""
        place = tmp_path / "home/.config/containers"
        place.mkdir(parents=True)
        (place / "registries.conf").write_text(
            f'[[registry]]\nprefix = "{registry.host}"\nlocation = "localhost:1"\n'
        )
        (place / "policy.json").write_text('{"default": [{"type": "reject"}]}')
        (place / "storage.conf").write_text('[storage]\ndriver = "nonsense"\n')
        (place / "auth.json").write_text("nonsense")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(place / "auth.json"))
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(place / "registries.conf"))
        registry.push("mean/configured", "1", an_image())
        (tmp_path / "configured").mkdir()
        fetch(of(context, "mean/configured:1", registry), tmp_path / "configured")


class TestWhatARegistryAnswers:
    """Each way to fail is a reason of its own, when it is asked and when it is pulled from."""

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            ({"status": 401}, "unauthorized"),
            ({"status": 403}, "denied"),
            ({"status": 404}, "not_found"),
            ({"status": 429, "headers": {"Retry-After": "1"}}, "rate_limited"),
            ({"status": 500}, "unreachable"),
            ({"status": 503}, "unreachable"),
            ({"truncate": 10}, "corrupt"),
            ({"body": b"<html>sign in to this network</html>"}, "corrupt"),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("asked", ["manifests", "blobs"])
    def test_a_fault(self, context, registry, faults, into, fault, reason, asked):
        image = an_image("faulty")
        registry.push("faulty/x", "1", image)
        source = of(context, "faulty/x:1", faults)
        if asked == "manifests":
            faults.on("manifests", **fault)
            if "body" in fault:
                # Not a manifest at all: no digest was promised for what a tag names.
                with pytest.raises(NotAnImage):
                    source.resolve()
                return
            with pytest.raises(PullFailed) as failed:
                source.resolve()
        else:
            resolved = source.resolve()
            faults.on(a_layer("faulty").digest, **fault)
            with pytest.raises(PullFailed) as failed:
                fetch(source, into, resolved=resolved)
        assert failed.value.reason == reason, failed.value.private
        assert failed.value.private
        assert "localhost" not in failed.value.detail.replace(source.canonical, "")
        nothing_is_left(context)
        assert not (context.state_dir / "containers/storage").exists() or (
            images_kept(context) == []
        )

    def test_a_registry_that_is_not_there(self, context, registry):
        nobody = replace(context, insecure=("localhost:1",))
        with pytest.raises(PullFailed) as failed:
            sources.parse("oci:localhost:1/a/b", nobody).resolve()
        assert failed.value.reason == "unreachable"

    def test_a_registry_that_does_not_answer(self, context, registry, faults):
        registry.push("faulty/hang", "1", an_image())
        faults.on("manifests", hang=True)
        with pytest.raises(PullFailed) as failed:
            resolve(replace(context, step_seconds=2), "faulty/hang:1", faults)
        assert failed.value.reason == "unreachable"

    def test_a_certificate_that_nobody_has_signed(self, context, tls_registry):
        allowed = replace(context, allowed=(tls_registry.host,))
        with pytest.raises(PullFailed) as failed:
            sources.parse(f"oci:{tls_registry.host}/a/b", allowed).resolve()
        assert failed.value.reason == "tls"

    def test_credentials(self, context, locked_registry, tmp_path, into):
        locked_registry.push("faulty/locked", "1", an_image())
        with pytest.raises(PullFailed) as failed:
            resolve(context, "faulty/locked:1", locked_registry)
        assert failed.value.reason == "unauthorized"
        wrong = locked_registry.credentials(tmp_path / "wrong.json", "guessed")
        with pytest.raises(PullFailed) as failed:
            resolve(replace(context, auth_file=wrong), "faulty/locked:1", locked_registry)
        assert failed.value.reason == "unauthorized"
        assert "refuses the credentials" in failed.value.detail
        right = replace(context, auth_file=locked_registry.credentials(tmp_path / "auth.json"))
        fetch(of(right, "faulty/locked:1", locked_registry), into)
        assert (into / "etc/motd").read_text() == "one"

    def test_credentials_that_cannot_be_read(self, context, registry, tmp_path):
        missing = replace(context, auth_file=tmp_path / "missing.json")
        with pytest.raises(Unavailable, match="credentials cannot be read") as failed:
            resolve(missing, "faulty/x:1", registry)
        assert str(tmp_path) not in failed.value.detail + failed.value.next_step


class TestFilling:
    @both
    def test_an_empty_directory_gets_the_images_files(self, context, registry, into, tmp_path):
        entries = [
            images.directory("./", 0o2750, uid=3, gid=4),
            images.directory("etc", 0o700, uid=5, gid=6),
            images.file("etc/motd", "hello", 0o4755, uid=7, gid=8, xattrs={"user.n": b"\0"}),
            images.hardlink("etc/same", "etc/motd", mode=0o4755, uid=7, gid=8),
            images.symlink("etc/link", "/etc/motd"),
            images.directory("empty"),
            images.fifo("pipe"),
        ]
        below = [images.directory("old"), images.file("old/gone"), images.file("hidden")]
        above = [images.whiteout("hidden"), images.directory("old"), images.opaque("old")]
        layers = [images.layer(below), images.layer(entries), images.layer(above)]
        registry.push("fill/exact", "1", images.image(layers))
        source = of(context, "fill/exact:1", registry)
        receipt = fetch(source, into)
        wanted = oracle.expected(f"{registry.host}/fill/exact:1", tmp_path)
        assert oracle.differences(wanted, oracle.found(into)) == []
        assert (receipt.engine, receipt.findings) == (context.engine, ())
        assert receipt.left_out == ("/dev/*", "/proc/*")
        assert set(receipt.milliseconds) == {"pull", "copy"}
        nothing_is_left(context)

    @both
    def test_a_root_of_which_the_layers_say_nothing_is_0755(self, context, registry, into):
        into.chmod(0o700)
        registry.push("fill/root", "1", an_image())
        fetch(of(context, "fill/root:1", registry), into)
        there = into.stat()
        assert (there.st_mode & 0o7777, there.st_uid, there.st_gid) == (0o755, 0, 0)

    @both
    def test_an_image_without_layers_is_an_empty_directory(self, context, registry, into):
        registry.push("fill/nothing", "1", images.image([]))
        fetch(of(context, "fill/nothing:1", registry), into)
        assert list(into.iterdir()) == []
        nothing_is_left(context)

    @both
    @pytest.mark.parametrize(
        "media_type",
        [images.OCI_LAYER.removesuffix("+gzip"), images.OCI_LAYER, "zstd"],
    )
    def test_every_kind_of_compression(self, context, registry, into, media_type):
        plain = images.tar([images.directory("etc"), images.file("etc/motd", "squeezed")])
        layer = images.layer_of(plain, media_type=media_type)
        if media_type == "zstd":
            layer = images.Layer(
                zstd(plain), layer.diff_id, images.OCI_LAYER.replace("gzip", "zstd")
            )
        registry.push("fill/squeezed", "1", images.image([layer]))
        fetch(of(context, "fill/squeezed:1", registry), into)
        assert (into / "etc/motd").read_text() == "squeezed"

    @both
    def test_an_image_for_another_system(self, context, registry, into):
        """On Linux, for FreeBSD: nothing of it is run, so it only has to be unpacked."""
        image = an_image("beastie", platform="freebsd/amd64", os_version="14.1")
        registry.push("fill/freebsd", "1", images.index([an_image(), image]))
        source = of(replace(context, platform=FREEBSD), "fill/freebsd:1", registry)
        assert fetch(source, into).findings == ()
        assert (into / "etc/motd").read_text() == "beastie"

    @both
    def test_a_directory_that_is_not_empty_is_left_alone(self, context, registry, into):
        (into / "etc").symlink_to("/etc")
        registry.push("fill/full", "1", an_image())
        with pytest.raises(ValueError, match="not empty"):
            fetch(of(context, "fill/full:1", registry), into)
        assert [path.name for path in into.iterdir()] == ["etc"]

    def test_what_was_resolved_is_fetched_although_the_tag_has_moved(self, context, registry, into):
        registry.push("fill/moved", "1", an_image("old"))
        source = of(context, "fill/moved:1", registry)
        resolved = source.resolve()
        registry.push("fill/moved", "1", an_image("new"))
        fetch(source, into, resolved=resolved)
        assert (into / "etc/motd").read_text() == "old"

    @both
    def test_a_moved_tag_gives_the_new_bytes_in_spite_of_the_cache(
        self, context, registry, tmp_path
    ):
        for number, text in enumerate(["first", "second", "first"]):
            registry.push("fill/again", "1", an_image(text))
            place = tmp_path / str(number)
            place.mkdir()
            fetch(of(context, "fill/again:1", registry), place)
            assert (place / "etc/motd").read_text() == text

    @both
    def test_a_second_fetch_asks_for_no_layer(self, context, registry, faults, tmp_path):
        registry.push("fill/cached", "1", an_image("cached"))
        layer = a_layer("cached").digest
        for place in (tmp_path / "first", tmp_path / "second"):
            place.mkdir()
            before = len(faults.paths())
            fetch(of(context, "fill/cached:1", faults), place)
            asked = [path for path in faults.paths()[before:] if path.endswith(layer)]
            assert bool(asked) is (place.name == "first")
        assert (tmp_path / "second/etc/motd").read_text() == "cached"

    @of_buildah
    def test_the_cache_is_no_answer_where_the_registry_refuses(
        self, context, registry, faults, tmp_path
    ):
        """Who may not pull it any more does not get it from us either."""
        registry.push("fill/refused", "1", an_image("refused"))
        source = of(context, "fill/refused:1", faults)
        for place in (tmp_path / "first", tmp_path / "second"):
            place.mkdir()
        resolved = source.resolve()
        fetch(source, tmp_path / "first", resolved=resolved)
        faults.on("manifests", status=403)
        with pytest.raises(PullFailed) as failed:
            fetch(source, tmp_path / "second", resolved=resolved)
        assert failed.value.reason == "denied"
        assert list((tmp_path / "second").iterdir()) == []

    @both
    def test_two_images_of_one_config_are_told_apart(self, context, registry, tmp_path):
        """Equal layers, compressed differently: equal configs, other manifests."""
        plain = images.tar([images.directory("etc"), images.file("etc/motd", "one")])
        for tag, level in (("1", 1), ("9", 9)):
            registry.push("fill/config", tag, images.image([images.layer_of(plain, level=level)]))
            place = tmp_path / tag
            place.mkdir()
            fetch(of(context, f"fill/config:{tag}", registry), place)
            assert (place / "etc/motd").read_text() == "one"
        nothing_is_left(context)

    @both
    def test_progress_has_bytes_and_then_entries(self, context, registry, into):
        entries = [images.file(f"{number:04}", str(number)) for number in range(200)]
        image = images.image([images.layer(entries)])
        registry.push("fill/progress", "1", image)
        seen: list[Progress] = []
        fetch(of(context, "fill/progress:1", registry), into, seen.append)
        total = image.parsed()["layers"][0]["size"]
        pulled = [one for one in seen if one.stage == "pull"]
        assert pulled and all(one.total == total and one.done <= total for one in pulled)
        copied = [one for one in seen if one.stage == "copy"]
        assert copied[-1].total == copied[-1].done >= 200
        assert {one.unit for one in copied} == {"entries"}

    @both
    def test_many_at_once_of_one_image(self, context, registry, tmp_path):
        registry.push("fill/crowd", "1", an_image("crowd"))
        source = of(context, "fill/crowd:1", registry)
        barrier = threading.Barrier(4)

        def one(number: int) -> str:
            place = tmp_path / f"crowd-{number}"
            place.mkdir()
            barrier.wait()
            fetch(source, place, import_id=f"{number:08x}")
            return (place / "etc/motd").read_text()

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(one, range(4))) == ["crowd"] * 4
        nothing_is_left(context)


def zstd(data: bytes) -> bytes:
    """A zstd frame (RFC 8878) of one raw block: valid, if not smaller."""
    assert len(data) < 128 * 1024
    header = bytes.fromhex("28b52ffd a0") + len(data).to_bytes(4, "little")
    return header + (len(data) << 3 | 1).to_bytes(3, "little") + data


class TestAFailedFill:
    """Whatever goes wrong: an error of ours, and neither container, mount, file nor image left."""

    def failed(self, context, source, into, error, **rest):
        with pytest.raises(error) as caught:
            fetch(source, into, **rest)
        nothing_is_left(context)
        assert images_kept(context) == []
        return caught.value

    @both
    def test_a_layer_with_a_changed_byte(self, context, registry, faults, into):
        registry.push("fail/flip", "1", an_image("flip"))
        faults.on(a_layer("flip").digest, flip=40)
        error = self.failed(context, of(context, "fail/flip:1", faults), into, PullFailed)
        assert error.reason == "corrupt"
        assert list(into.iterdir()) == []

    @both
    def test_a_layer_that_is_no_tar(self, context, registry, into):
        layer = images.layer_of(b"not a tar" * 1000)
        registry.push("fail/no-tar", "1", images.image([layer]))
        error = self.failed(context, of(context, "fail/no-tar:1", registry), into, TreeRefused)
        rules = {"native": "checksum", "buildah": "layer-unpack"}
        assert error.extra["rule"] == rules[context.engine]

    @both
    def test_a_layer_that_is_no_gzip(self, context, registry, into):
        layer = images.Layer(b"not gzip" * 1000, images.sha256(b"x"))
        registry.push("fail/no-gzip", "1", images.image([layer]))
        self.failed(context, of(context, "fail/no-gzip:1", registry), into, CoppiceError)

    @both
    def test_a_layer_whose_tar_is_not_what_the_config_says(self, context, registry, into):
        honest = a_layer("honest")
        lying = images.Layer(a_layer("lying").blob, honest.diff_id)
        registry.push("fail/lie", "1", images.image([lying]))
        error = self.failed(context, of(context, "fail/lie:1", registry), into, PullFailed)
        assert error.reason == "corrupt"

    @both
    def test_a_config_of_another_image_does_not_bring_that_image(self, context, registry, into):
        """The cache is by the config's digest: a manifest may name a config and other layers."""
        honest, lying = an_image("honest"), a_layer("lying")
        registry.push("fail/honest", "1", honest)
        poisoned = images.Document(
            images.canonical(
                {
                    **honest.parsed(),
                    "layers": [images.describe(lying.blob, images.OCI_LAYER)],
                }
            ),
            images.OCI_MANIFEST,
            blobs=(honest.blobs[0], lying.blob),
        )
        registry.push("fail/poison", "1", poisoned)
        error = self.failed(context, of(context, "fail/poison:1", registry), into, PullFailed)
        assert error.reason == "corrupt"
        fetch(of(context, "fail/honest:1", registry), into)
        assert (into / "etc/motd").read_text() == "honest"

    @both
    def test_a_registry_that_falls_silent(self, context, registry, faults, into):
        registry.push("fail/hang", "1", an_image("hang"))
        source = of(replace(context, step_seconds=3), "fail/hang:1", faults)
        resolved = source.resolve()
        faults.on("blobs", hang=True)
        self.failed(context, source, into, ImportTimeout, resolved=resolved)

    @of_buildah
    def test_a_buildah_that_somebody_kills(self, context, registry, faults, into):
        """As the kernel does when memory is short."""
        registry.push("fail/killed", "1", an_image("killed"))
        source = of(context, "fail/killed:1", faults)
        resolved = source.resolve()
        faults.on("blobs", hang=True)

        def report(progress: Progress) -> None:
            if progress.stage == "pull":
                kill(marked("buildah"))

        error = self.failed(context, source, into, ProgramKilled, resolved=resolved, report=report)
        assert error.detail == "buildah was killed by SIGKILL."

    @of_buildah
    @pytest.mark.parametrize("part", [0, 1, 2], ids=["sender", "generator", "receiver"])
    def test_an_rsync_of_which_somebody_kills_a_part(self, context, registry, into, part):
        """It is three processes, and the death of any is the end of it."""
        entries = [images.file(f"{number:05}", bytes(20_000)) for number in range(3000)]
        registry.push("fail/rsync", "1", images.image([images.layer(entries, level=1)]))
        killed: list[str] = []

        def report(progress: Progress) -> None:
            parts = sorted(marked("rsync"), key=lambda process: process.pid)
            if progress.stage == "copy" and progress.done and len(parts) == 3 and not killed:
                killed.append(parts[part].name())
                kill([parts[part]])

        source = of(context, "fail/rsync:1", registry)
        self.failed(context, source, into, ProgramKilled, report=report)
        assert killed == ["rsync"]

    @both
    @pytest.mark.parametrize("stage", ["pull", "copy"])
    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_an_interrupt(self, context, registry, into, stage, error):
        registry.push("fail/interrupt", "1", an_image("interrupt"))

        def report(progress: Progress) -> None:
            if progress.stage == stage:
                raise error

        source = of(context, "fail/interrupt:1", registry)
        self.failed(context, source, into, error, report=report)

    @both
    @pytest.mark.parametrize(
        ("option", "error"), [("size=64k", OutOfSpace), ("ro", StorageReadOnly)]
    )
    def test_a_place_that_takes_no_more(self, context, registry, into, option, error):
        layer = images.layer([images.file("large", bytes(range(256)) * 4096)])
        registry.push("fail/place", "1", images.image([layer]))
        sh("mount", "-t", "tmpfs", "-o", option, "small", into)
        try:
            self.failed(context, of(context, "fail/place:1", registry), into, error)
        finally:
            sh("umount", "--lazy", into)

    @of_buildah
    def test_container_storage_that_takes_no_more(self, context, registry, into):
        sh("mount", "-t", "tmpfs", "-o", "size=1m", "small", context.state_dir)
        try:
            layer = images.layer([images.file("large", bytes(4_000_000))])
            registry.push("fail/storage", "1", images.image([layer]))
            source = of(context, "fail/storage:1", registry)
            self.failed(context, source, into, OutOfSpace)
        finally:
            sh("umount", "--lazy", context.state_dir)

    @of_buildah
    def test_the_image_stays_if_it_was_there_before(self, context, registry, tmp_path):
        registry.push("fail/kept", "1", an_image("kept"))
        source = of(context, "fail/kept:1", registry)
        (tmp_path / "first").mkdir()
        fetch(source, tmp_path / "first")

        def report(progress: Progress) -> None:
            if progress.stage == "copy":
                raise KeyboardInterrupt

        (tmp_path / "second").mkdir()
        with pytest.raises(KeyboardInterrupt):
            fetch(source, tmp_path / "second", report)
        nothing_is_left(context)
        assert len(images_kept(context)) == 1


class TestRecovery:
    @of_buildah
    def test_what_a_killed_import_left_is_found_and_removed(self, context, registry, into):
        """A container, its mount, temporary files and a program, as SIGKILL leaves them."""
        registry.push("left/x", "1", an_image())
        fetch(of(context, "left/x:1", registry), into)
        (image,) = images_kept(context)
        buildah(context, "from", "--name", f"coppice-{ID}", "--pull-never", image)
        buildah(context, "mount", f"coppice-{ID}")
        temporary = context.state_dir / "containers/tmp" / ID
        temporary.mkdir()
        (temporary / "half").write_text("half")
        home = str(context.state_dir / "containers/home")
        # Not a child of ours: an orphan, as after a crash.
        env = f"{IMPORT_MARK}={ID} HOME={home}"
        number = int(sh("sh", "-c", f"{env} sleep 60 >/dev/null 2>&1 & echo $!"))
        assert psutil.pid_exists(number)
        done = leftovers.clean_all(context, alive=set())
        assert done == [
            f"killed sleep of import {ID}",
            f"removed the container coppice-{ID}",
            f"removed the temporary files of import {ID}",
        ]
        nothing_is_left(context)
        assert leftovers.clean_all(context, alive=set()) == []

    def test_a_process_of_the_native_engine_is_found_too(self, context):
        env = f"{IMPORT_MARK}={ID} HOME={context.state_dir}/engine/empty"
        number = int(sh("sh", "-c", f"{env} sleep 60 >/dev/null 2>&1 & echo $!"))
        assert leftovers.clean_all(context, alive=set()) == [f"killed sleep of import {ID}"]
        assert not psutil.pid_exists(number)

    def test_what_lives_is_left_alone(self, context, registry, into):
        temporary = context.state_dir / "containers/tmp" / ID
        temporary.mkdir(parents=True)
        assert leftovers.clean_all(context, alive={ID}) == []
        assert temporary.exists()

    def test_another_servers_programs_are_left_alone(self, context):
        env = {IMPORT_MARK: ID, "HOME": "/somewhere/else"}
        with subprocess.Popen(["sleep", "60"], env=env) as program:
            try:
                assert leftovers.clean_all(context, alive=set()) == []
                assert program.poll() is None
            finally:
                program.kill()


def test_the_registry_really_is_one(registry):
    answer = httpx.get(f"http://{registry.host}/v2/")
    assert answer.status_code == 200
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
    assert json.loads(answer.content) == {}
