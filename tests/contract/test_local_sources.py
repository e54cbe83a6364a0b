"""Image files of this host: what is read of them, what is refused, and what never leaves a root."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from deploy import images
from deploy.images import Document, canonical
from templates_app import sources
from templates_app.errors import (
    CoppiceError,
    ImportTimeout,
    MalformedReference,
    NotAnImage,
    PlatformIncompatible,
    PullFailed,
    SchemeNotImplemented,
    SourceNotAllowed,
    TreeRefused,
)
from templates_app.names import Platform
from templates_app.sources.base import Resolved, SourceContext
from templates_app.sources.native.cache import BlobCache
from tests import layouts
from tests.pools import sh

LINUX, FREEBSD = Platform("linux", "amd64"), Platform("freebsd", "amd64")


def an_image(text: str = "one", **more: Any) -> Document:
    base = images.layer([images.directory("etc"), images.file("etc/motd", text)])
    return images.image([base, images.layer([images.file("more", text)])], **more)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "images"
    place.mkdir()
    return place


@pytest.fixture
def context(tmp_path: Path, root: Path) -> SourceContext:
    state = tmp_path / "state"
    state.mkdir()
    return SourceContext(
        platform=LINUX,
        allowed=(),
        insecure=(),
        auth_file=None,
        step_seconds=60,
        state_dir=state,
        limit_image_bytes=2**30,
        import_roots=(root,),
    )


def resolve(context: SourceContext, text: str) -> Resolved:
    return sources.parse(text, context).resolve()


def layers(context: SourceContext, text: str) -> list[bytes]:
    """The image's layers, each asked of the source alone, in two parts."""
    source = sources.parse(text, context)
    found = source.resolve()
    sh("rm", "-rf", context.state_dir / "blobs")  # evicted meanwhile
    blobs = source._image  # type: ignore[attr-defined]
    return [
        b"".join(blobs.blob(one.digest, one.size))[:7]
        + b"".join(blobs.blob(one.digest, one.size, offset=7))
        for one in found.layers
    ]


def refused(context: SourceContext, text: str, error: type[CoppiceError]) -> CoppiceError:
    with pytest.raises(error) as raised:
        resolve(context, text)
    assert str(context.state_dir) not in raised.value.detail
    return raised.value


class TestReferences:
    @pytest.mark.parametrize(
        "rest",
        ["", "x.tar", "./x.tar", "//x", "/a//b", "/a/../b", "/a/./b", "/..", "/a b", "/a\nb", "/ä"]
        + [
            "/a:",
            "/a:-x",
            "/a:x@",
            "/a@sha256:1",
            "/a@md5:0",
            "/a:b c",
            "/",
            "-x",
            "/" + "a" * 512,
        ],
    )
    @pytest.mark.parametrize("scheme", ["oci-layout", "oci-archive", "docker-archive"])
    def test_malformed(self, context, scheme, rest):
        with pytest.raises(MalformedReference) as raised:
            sources.parse(f"{scheme}:{rest}", context)
        assert f"{scheme}:/PATH" in raised.value.next_step

    def test_a_docker_archive_has_no_digests(self, context, root):
        with pytest.raises(MalformedReference):
            sources.parse(f"docker-archive:{root}/a.tar@sha256:{'0' * 64}", context)

    def test_what_it_means_names_no_directory_of_the_host(self, context, root):
        image = an_image()
        layouts.write(root / "deep" / "web", {"1.0": image})
        found = resolve(context, f"oci-layout:{root}/deep/web:1.0")
        assert found.canonical == f"web:1.0@{image.digest}"
        assert found.floating
        pinned = resolve(context, f"oci-layout:{root}/deep/web@{image.digest}")
        assert (pinned.canonical, pinned.floating) == (f"web@{image.digest}", False)


class TestRoots:
    @pytest.mark.parametrize("path", ["/etc", "/etc/passwd", "{root}", "{root}x/a", "/"])
    def test_nothing_beside_a_root_is_looked_at(self, context, root, path):
        (root.parent / "imagesx").mkdir()
        layouts.write(root.parent / "imagesx" / "a", {"": an_image()})
        with pytest.raises((SourceNotAllowed, MalformedReference)):
            sources.parse(f"oci-layout:{path.format(root=root)}", context)

    def test_without_roots_there_is_nothing(self, context, root):
        layouts.write(root / "a", {"": an_image()})
        with pytest.raises(SourceNotAllowed):
            sources.parse(f"oci-layout:{root}/a", replace(context, import_roots=()))

    @pytest.mark.parametrize("scheme", ["oci-layout", "oci-archive", "docker-archive"])
    def test_a_symlink_on_the_way_is_not_followed(self, context, root, tmp_path, scheme):
        outside = layouts.write(tmp_path / "outside" / "web", {"": an_image()})
        layouts.archive(outside, tmp_path / "outside" / "web.tar")
        (root / "way").symlink_to(tmp_path / "outside")
        (root / "web").symlink_to(outside)
        (root / "web.tar").symlink_to(tmp_path / "outside" / "web.tar")
        name = "web" if scheme == "oci-layout" else "web.tar"
        refused(context, f"{scheme}:{root}/{name}", SourceNotAllowed)
        refused(context, f"{scheme}:{root}/way/{name}", SourceNotAllowed)

    def test_a_root_may_be_a_symlink_itself(self, context, root, tmp_path):
        layouts.write(root / "web", {"": an_image()})
        (tmp_path / "named").symlink_to(root)
        named = replace(context, import_roots=(tmp_path / "named",))
        assert resolve(named, f"oci-layout:{tmp_path}/named/web").platform == LINUX

    def test_only_regular_files_are_archives(self, context, root):
        os.mkfifo(root / "fifo")
        (root / "directory").mkdir()
        for name in ("fifo", "directory"):
            refused(context, f"oci-archive:{root}/{name}", SourceNotAllowed)
        (root / "file").write_text("")
        refused(context, f"oci-layout:{root}/file", SourceNotAllowed)

    def test_what_is_not_there(self, context, root):
        for scheme in ("oci-layout", "oci-archive", "docker-archive"):
            error = refused(context, f"{scheme}:{root}/none/x", PullFailed)
            assert error.extra["reason"] == "not_found"


#: How an image is put beneath the root, and the reference that names it. Each by name or without.
Put = Callable[[Path, dict[str, Document]], str]


def _layout(root: Path, offered: dict[str, Document]) -> str:
    return f"oci-layout:{layouts.write(root / 'layout', offered)}"


def _archive(root: Path, offered: dict[str, Document]) -> str:
    place = layouts.write(root / "packed", offered)
    return f"oci-archive:{layouts.archive(place, root / 'packed.tar')}"


PUTS = pytest.mark.parametrize("put", [_layout, _archive])


@PUTS
class TestLayouts:
    def test_an_image(self, context, root, put):
        image = an_image()
        found = resolve(context, put(root, {"": image}))
        assert found.digests.index is None
        assert found.digests.manifest == image.digest
        assert found.digests.config == image.parsed()["config"]["digest"]
        assert [one.digest.text for one in found.layers] == [
            one["digest"] for one in image.parsed()["layers"]
        ]

    def test_its_layers(self, context, root, put):
        image = an_image()
        text = put(root, {"": image})
        assert layers(context, text) == list(image.blobs[1:])

    def test_an_index_in_it(self, context, root, put):
        chosen = an_image("freebsd", platform="freebsd/amd64")
        index = images.index([an_image(), chosen])
        found = resolve(replace(context, platform=FREEBSD), put(root, {"14": index}))
        assert (found.digests.index, found.digests.manifest) == (index.digest, chosen.digest)
        assert found.canonical.endswith(f"@{index.digest}")

    def test_several_platforms_without_an_index_of_their_own(self, context, root, put):
        """One name for two entries: as some tools write an image for several platforms."""
        one, two = an_image(platform="freebsd/amd64"), an_image("two")
        text = put(root, {"": one, "1": two})
        place = Path(text.partition(":")[2].removesuffix(".tar"))
        listed = json.loads((place / "index.json").read_bytes())
        for entry in listed["manifests"]:
            entry.pop("annotations", None)
        (place / "index.json").write_bytes(images.canonical(listed))
        if text.endswith(".tar"):
            layouts.archive(place, Path(text.partition(":")[2]))
        found = resolve(context, text)
        assert (found.digests.index, found.digests.manifest) == (None, two.digest)
        assert list(map(images.sha256, found.documents)) == [two.digest, found.digests.config]
        assert found.canonical.endswith(f"@{two.digest}")

    def test_which_of_several(self, context, root, put):
        one, two = an_image("one"), an_image("two")
        text = put(root, {"one": one, "docker.io/library/two:2": two})
        assert resolve(context, f"{text}:one").digests.manifest == one.digest
        name = f"{text}:docker.io/library/two:2"
        assert resolve(context, name).digests.manifest == two.digest
        assert resolve(context, f"{text}@{two.digest}").digests.manifest == two.digest
        assert "'one', 'docker.io/library/two:2'" in refused(context, text, NotAnImage).detail
        assert refused(context, f"{text}:three", PullFailed).extra["reason"] == "not_found"
        digest = f"sha256:{'0' * 64}"
        assert refused(context, f"{text}@{digest}", PullFailed).extra["reason"] == "not_found"

    def test_nothing_for_the_platform(self, context, root, put):
        text = put(root, {"": an_image(platform="linux/arm64")})
        refused(context, text, PlatformIncompatible)

    def test_a_larger_image_than_allowed(self, context, root, put):
        text = put(root, {"": an_image()})
        error = refused(replace(context, limit_image_bytes=10), text, TreeRefused)
        assert error.extra["rule"] == "image-size"


@PUTS
@pytest.mark.parametrize("off", [-1, 1])
def test_a_manifest_that_lies_about_a_size(context, root, put, off):
    good = an_image()
    layer = good.parsed()["layers"][0]
    lying = {**layer, "size": layer["size"] + off}
    said = canonical({**good.parsed(), "layers": [lying, good.parsed()["layers"][1]]})
    text = put(root, {"": replace(good, data=said)})
    assert refused(context, text, PullFailed).extra["reason"] == "corrupt"


class TestDamagedLayouts:
    @pytest.fixture(params=["layout", "archive"])
    def damage(self, request, context, root) -> Callable[[Callable[[Path], None]], str]:
        """Changes a good layout, and says the reference of what became of it."""

        def apply(change: Callable[[Path], None]) -> str:
            place = layouts.write(root / "web", {"": an_image()})
            change(place)
            if request.param == "layout":
                return f"oci-layout:{place}"
            return f"oci-archive:{layouts.archive(place, root / 'web.tar')}"

        return apply

    @pytest.mark.parametrize("what", ["manifest", "config", "layer"])
    def test_a_blob_that_is_missing(self, context, damage, what):
        text = damage(lambda place: self._blob(place, what).unlink())
        assert refused(context, text, PullFailed).extra["reason"] == "not_found"

    @pytest.mark.parametrize("what", ["manifest", "config", "layer"])
    def test_a_blob_of_another_size(self, context, damage, what):
        def longer(place: Path) -> None:
            with self._blob(place, what).open("ab") as file:
                file.write(b" ")

        assert refused(context, damage(longer), PullFailed).extra["reason"] == "corrupt"

    @pytest.mark.parametrize("what", ["manifest", "config"])
    def test_a_document_of_other_bytes(self, context, damage, what):
        text = damage(lambda place: self._flip(self._blob(place, what)))
        assert refused(context, text, PullFailed).extra["reason"] == "corrupt"

    @pytest.mark.parametrize("what", ["manifest", "config", "layer"])
    def test_a_blob_that_is_a_symlink(self, context, damage, tmp_path, what):
        def link(place: Path) -> None:
            path = self._blob(place, what)
            path.rename(tmp_path / "outside")
            path.symlink_to(tmp_path / "outside")

        assert refused(context, damage(link), TreeRefused).extra["rule"] == "blob-not-a-file"

    @pytest.mark.parametrize("what", ["index.json", "oci-layout", "blobs"])
    def test_other_parts_that_are_symlinks(self, context, damage, tmp_path, what):
        def link(place: Path) -> None:
            (place / what).rename(tmp_path / "outside")
            (place / what).symlink_to(tmp_path / "outside")

        error = refused(context, damage(link), CoppiceError)
        # In an archive a link named "blobs" is nothing that is looked at: its blobs are missing.
        assert error.extra.get("rule") == "blob-not-a-file" or what == "blobs"

    @pytest.mark.parametrize("kind", [os.mkfifo, os.mkdir])
    def test_a_blob_that_is_something_else(self, context, damage, kind):
        def change(place: Path) -> None:
            self._blob(place, "layer").unlink()
            kind(self._blob(place, "layer"))

        error = refused(context, damage(change), CoppiceError)
        assert error.extra in (
            {"path": error.extra.get("path"), "rule": "blob-not-a-file"},
            {"reason": "not_found"},
        )

    def test_a_descriptor_whose_digest_would_be_a_path(self, context, damage):
        def change(place: Path) -> None:
            index = json.loads((place / "index.json").read_text())
            index["manifests"][0]["digest"] = "sha256:../../../../etc/passwd"
            (place / "index.json").write_text(json.dumps(index))

        refused(context, damage(change), NotAnImage)

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("oci-layout", '{"imageLayoutVersion": "2.0.0"}'),
            ("oci-layout", "{}"),
            ("oci-layout", "not JSON"),
            ("index.json", "[]"),
            ("index.json", '{"schemaVersion": 2, "manifests": [], "manifests": []}'),
            ("index.json", '{"schemaVersion": 2, "manifests": [], "layers": []}'),
            ("index.json", '{"schemaVersion": 2, "config": {}, "layers": []}'),
        ],
    )
    def test_a_list_that_is_none(self, context, damage, name, text):
        refused(context, damage(lambda place: (place / name).write_text(text)), NotAnImage)

    def test_a_list_that_is_empty(self, context, damage):
        empty = '{"schemaVersion": 2, "manifests": []}'
        text = damage(lambda place: (place / "index.json").write_text(empty))
        assert refused(context, text, PullFailed).extra["reason"] == "not_found"

    def test_a_list_that_is_too_long(self, context, damage):
        text = damage(lambda place: (place / "index.json").write_bytes(b" " * 5 * 2**20))
        refused(context, text, NotAnImage)

    @staticmethod
    def _blob(place: Path, what: str) -> Path:
        image = an_image()
        digest = {
            "manifest": image.digest,
            "config": image.parsed()["config"]["digest"],
            "layer": image.parsed()["layers"][1]["digest"],
        }[what]
        return layouts.blob(place, digest)

    @staticmethod
    def _flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[-2] ^= 1
        path.write_bytes(data)


class TestArchives:
    @pytest.mark.parametrize(
        "pack",
        [
            gzip.compress,
            lzma.compress,
            zstandard.compress,
            lambda data: lzma.compress(data[:1000]) + bytes(8) + lzma.compress(data[1000:]),
        ],
        ids=["gzip", "xz", "zstd", "xz streams"],
    )
    def test_compressed(self, context, root, pack):
        """FreeBSD publishes its images as .txz."""
        image = an_image()
        place = layouts.write(root / "web", {"": image})
        file = layouts.archive(place, root / "web.txz")
        file.write_bytes(pack(file.read_bytes()))
        assert layers(context, f"oci-archive:{file}") == list(image.blobs[1:])

    def test_that_of_skopeo(self, context, root):
        image = an_image()
        place = layouts.write(root / "web", {"1": image})
        layouts.copy(f"oci:{place}:1", f"oci-archive:{root}/web.tar:1")
        found = resolve(context, f"oci-archive:{root}/web.tar:1")
        assert found.digests.manifest == image.digest
        assert layers(context, f"oci-archive:{root}/web.tar") == list(image.blobs[1:])

    def test_its_blobs_are_in_the_cache_and_not_taken_again(self, context, root):
        place = layouts.write(root / "web", {"": an_image()})
        text = f"oci-archive:{layouts.archive(place, root / 'web.tar')}"
        resolve(context, text)
        cache = BlobCache.of(context)
        kept = {one.digest.text: one.path.stat().st_ino for one in cache.listing()}
        assert set(kept) == {f"sha256:{path.name}" for path in (place / "blobs/sha256").iterdir()}
        resolve(context, text)
        assert {one.digest.text: one.path.stat().st_ino for one in cache.listing()} == kept

    def test_a_layer_of_other_bytes_is_found_at_once(self, context, root):
        place = layouts.write(root / "web", {"": an_image()})
        path = layouts.blob(place, an_image().parsed()["layers"][0]["digest"])
        path.write_bytes(bytes(len(path.read_bytes())))
        text = f"oci-archive:{layouts.archive(place, root / 'web.tar')}"
        assert refused(context, text, PullFailed).extra["reason"] == "corrupt"
        assert path.name not in [one.digest.hex for one in BlobCache.of(context).listing()]

    @pytest.mark.parametrize(
        ("pack", "error"),
        [
            (lambda data: lzma.compress(data)[:-20], PullFailed),
            (lambda data: lzma.compress(data) + b"more than zeros", PullFailed),
            (lambda data: gzip.compress(data)[:-9], PullFailed),
            (lambda data: data[:2000], TreeRefused),
            (lambda _: b"", NotAnImage),
            (lambda _: b"something else" * 100, TreeRefused),
            (bz2.compress, NotAnImage),
        ],
    )
    def test_damaged(self, context, root, pack, error):
        place = layouts.write(root / "web", {"": an_image()})
        file = layouts.archive(place, root / "web.tar")
        file.write_bytes(pack(file.read_bytes()))
        refused(context, f"oci-archive:{file}", error)

    def test_names_that_lead_out_lead_nowhere(self, context, root, tmp_path):
        """`../` and absolute names are names of nothing that is looked for."""
        place = layouts.write(root / "web", {"": an_image()})
        file = root / "web.tar"
        with tarfile.open(file, "w") as made:
            for name in ("../escape", "/escape", "blobs/sha256/../../../escape"):
                made.addfile(_member(name, b"x"), io.BytesIO(b"x"))
            made.add(place, arcname=".")
        assert resolve(context, f"oci-archive:{file}").digests.manifest == an_image().digest
        assert not list(tmp_path.rglob("escape"))

    def test_a_list_twice(self, context, root):
        place = layouts.write(root / "web", {"": an_image()})
        file = layouts.archive(place, root / "web.tar")
        with tarfile.open(file, "a") as made:
            made.add(place / "index.json", arcname="index.json")
        error = refused(context, f"oci-archive:{file}", TreeRefused)
        assert error.extra["rule"] == "archive-duplicate"

    def test_more_entries_than_any_image_has(self, context, root):
        with tarfile.open(root / "many.tar", "w") as made:
            for number in range(10_001):
                made.addfile(_member(f"{number}", b""))
        error = refused(context, f"oci-archive:{root}/many.tar", TreeRefused)
        assert error.extra["rule"] == "archive-entries"

    def test_a_bomb(self, context, root):
        with (
            lzma.open(root / "bomb.txz", "wb") as packed,
            tarfile.open(fileobj=packed, mode="w") as made,
        ):
            large = _member("blobs/zeros", b"")
            large.size = 3 * 2**20
            made.addfile(large, io.BytesIO(bytes(large.size)))
        small = replace(context, limit_image_bytes=2**20)
        error = refused(small, f"oci-archive:{root}/bomb.txz", TreeRefused)
        assert error.extra["rule"] == "image-size"

    def test_it_takes_no_longer_than_a_step(self, context, root):
        layouts.archive(layouts.write(root / "web", {"": an_image()}), root / "web.tar")
        refused(replace(context, step_seconds=-1), f"oci-archive:{root}/web.tar", ImportTimeout)


class TestDockerArchives:
    def test_that_of_skopeo(self, context, root):
        image = an_image()
        place = layouts.write(root / "web", {"1": image})
        file = layouts.saved(place, "1", root / "saved.tar", "web:1")
        text = f"docker-archive:{file}"
        found = resolve(context, text)
        plain = [gzip.decompress(blob) for blob in image.blobs[1:]]
        assert [one.digest.text for one in found.layers] == [images.sha256(one) for one in plain]
        assert [one.diff_id for one in found.layers] == [one.digest for one in found.layers]
        assert {one.media_type for one in found.layers} == {
            "application/vnd.docker.image.rootfs.diff.tar"
        }
        assert layers(context, text) == plain
        assert found.digests.index is None and found.floating

    def test_the_manifests_digest_is_what_skopeo_says(self, context, root):
        """An auditor can see the digest that we record without us."""
        place = layouts.write(root / "web", {"1": an_image()})
        file = layouts.saved(place, "1", root / "saved.tar", "web:1")
        raw = sh("skopeo", "inspect", "--raw", f"docker-archive:{file}")
        found = resolve(context, f"docker-archive:{file}:web:1")
        assert found.digests.manifest == images.sha256(raw.encode())
        assert found.canonical == f"saved.tar:web:1@{found.digests.manifest}"

    def test_which_of_several(self, context, root):
        one, two = an_image("one"), an_image("two")
        file = _save(root / "two.tar", {"one:1": one, "docker.io/library/two:latest": two})
        text = f"docker-archive:{file}"
        assert "2 images" in refused(context, text, NotAnImage).detail
        for name, image in (
            ("one:1", one),
            ("docker.io/library/one:1", one),
            ("two", two),
            ("library/two:latest", two),
        ):
            config = images.sha256(image.blobs[0])
            assert resolve(context, f"{text}:{name}").digests.config == config
        for name in ("one", "three:1", "one:2"):
            assert refused(context, f"{text}:{name}", PullFailed).extra["reason"] == "not_found"

    def test_a_layer_that_stands_twice_as_a_link(self, context, root):
        """So old versions of Docker write an image that has the same layer twice."""
        layer = images.layer_of(
            images.tar([images.file("a", "x")]), media_type="application/vnd.oci.image.layer.v1.tar"
        )
        image = images.image([layer, layer])
        file = root / "links.tar"
        listed = [{"Config": "c.json", "RepoTags": None, "Layers": ["a/layer.tar", "b/layer.tar"]}]
        with tarfile.open(file, "w") as made:
            for name, data in (
                ("c.json", image.blobs[0]),
                ("a/layer.tar", layer.blob),
                ("manifest.json", json.dumps(listed).encode()),
            ):
                made.addfile(_member(name, data), io.BytesIO(data))
            link = _member("b/layer.tar", b"")
            link.type, link.linkname = tarfile.SYMTYPE, "../a/layer.tar"
            made.addfile(link)
        found = resolve(context, f"docker-archive:{file}")
        assert [one.digest.text for one in found.layers] == [layer.digest, layer.digest]

    @pytest.mark.parametrize("target", ["../../../../etc/passwd", "/etc/passwd", "b/layer.tar"])
    def test_a_link_that_leads_out_leads_nowhere(self, context, root, target):
        file = root / "out.tar"
        listed = [{"Config": "c.json", "RepoTags": None, "Layers": ["b/layer.tar"]}]
        image = images.image([images.layer([])])
        with tarfile.open(file, "w") as made:
            for name, data in (
                ("c.json", image.blobs[0]),
                ("manifest.json", json.dumps(listed).encode()),
            ):
                made.addfile(_member(name, data), io.BytesIO(data))
            link = _member("b/layer.tar", b"")
            link.type, link.linkname = tarfile.SYMTYPE, target
            made.addfile(link)
        error = refused(context, f"docker-archive:{file}", PullFailed)
        assert error.extra["reason"] == "not_found"

    def test_a_layer_that_is_not_what_the_config_says(self, context, root):
        file = _save(root / "lie.tar", {"a:1": an_image("one")}, config=an_image("two").blobs[0])
        assert refused(context, f"docker-archive:{file}", PullFailed).extra["reason"] == "corrupt"

    @pytest.mark.parametrize(
        "listed",
        ["{}", "[1]", "[{}]", '[{"Config": 1}]', '[{"Config": "c", "Layers": 1}]', "[", "[]"]
        + ['[{"Config": "c", "Layers": [1]}]', '[{"Config": "c", "RepoTags": {}, "Layers": []}]'],
    )
    def test_a_list_that_is_none(self, context, root, listed):
        with tarfile.open(root / "x.tar", "w") as made:
            made.addfile(_member("manifest.json", listed.encode()), io.BytesIO(listed.encode()))
        refused(context, f"docker-archive:{root}/x.tar", NotAnImage)

    def test_an_oci_archive_is_none(self, context, root):
        layouts.archive(layouts.write(root / "web", {"": an_image()}), root / "web.tar")
        refused(context, f"docker-archive:{root}/web.tar", NotAnImage)

    def test_what_broke_off_leaves_nothing_half(self, context, root):
        place = layouts.write(root / "web", {"1": an_image()})
        file = layouts.saved(place, "1", root / "saved.tar", "web:1")
        file.write_bytes(file.read_bytes()[:2000])
        refused(context, f"docker-archive:{file}", TreeRefused)
        assert list(BlobCache.of(context).nameless.iterdir()) == []


class TestBroughtOver:
    def test_the_same_image_is_the_same_tree_whatever_it_lies_in(
        self, context, root, registry, tmp_path
    ):
        image = an_image()
        place = layouts.write(root / "web", {"1": image})
        layouts.archive(place, root / "web.tar")
        (root / "web.txz").write_bytes(lzma.compress((root / "web.tar").read_bytes()))
        layouts.saved(place, "1", root / "saved.tar", "web:1")
        registry.push("local/web", "1", image)
        insecure = replace(context, insecure=(registry.host,))
        manifests = set()
        for number, text in enumerate(
            (
                f"oci:{registry.host}/local/web:1",
                f"oci-layout:{root}/web:1",
                f"oci-archive:{root}/web.tar",
                f"oci-archive:{root}/web.txz:1",
                f"docker-archive:{root}/saved.tar:web:1",
            )
        ):
            # Each with a cache of its own: what one brought must not be what the next finds.
            state = tmp_path / f"state{number}"
            state.mkdir()
            source = sources.parse(text, replace(insecure, state_dir=state))
            into = tmp_path / f"into{number}"
            into.mkdir()
            receipt = source.fetch(source.resolve(), into, lambda _: None, f"{number:08x}")
            assert (into / "etc/motd").read_text() == "one"
            manifests.add(receipt.manifest)
        assert len(manifests) == 1 and None not in manifests

    def test_an_image_as_freebsd_makes_and_publishes_it(self, context, root, tmp_path):
        """The steps of release/scripts/make-oci-image.sh in FreeBSD's source tree."""
        rootfs, oci = tmp_path / "rootfs", tmp_path / "oci"
        (rootfs / "etc").mkdir(parents=True)
        (rootfs / "etc/motd").write_text("FreeBSD")
        (rootfs / "bin").mkdir()
        (rootfs / "bin/sh").write_bytes(b"\x7fELF")
        (rootfs / "bin/-sh").hardlink_to(rootfs / "bin/sh")
        bsdtar = ("bsdtar", "--strip-components", "1", "--no-read-sparse")
        tar = tmp_path / "rootfs.tar"
        sh(*bsdtar, "-C", rootfs, "-cf", tar, ".")
        diff_id = images.sha256(tar.read_bytes())
        sh("gzip", "-f", tar)
        blobs = {"layer": tar.with_name("rootfs.tar.gz").read_bytes()}
        layer = images.describe(blobs["layer"], images.OCI_LAYER)
        blobs["config"] = canonical(
            {
                "created": "2025-06-01T00:00:00Z",
                "architecture": "amd64",
                "os": "freebsd",
                "config": {"cmd": ["/bin/sh"]},
                "rootfs": {"type": "layers", "diff_ids": [diff_id]},
                "history": [{"created_by": "make-oci-image.sh"}],
            }
        )
        blobs["manifest"] = canonical(
            {
                "schemaVersion": 2,
                "mediaType": images.OCI_MANIFEST,
                "config": images.describe(blobs["config"], images.OCI_CONFIG),
                "layers": [layer],
                "annotations": {},
            }
        )
        entry = images.describe(blobs["manifest"], images.OCI_MANIFEST)
        name = "freebsd-runtime:14.3-RELEASE-amd64"
        entry["annotations"] = {layouts.REF_NAME: name}
        for number, blob in enumerate(blobs.values()):
            path = layouts.blob(oci, images.sha256(blob))
            path.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / str(number)).write_bytes(blob)
            path.hardlink_to(tmp_path / str(number))
        (oci / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}\n')
        (oci / "index.json").write_bytes(canonical({"schemaVersion": 2, "manifests": [entry]}))
        file = root / "FreeBSD-14.3-RELEASE-amd64-container-image-runtime.txz"
        sh(*bsdtar, "-C", oci, "--xz", "-a", "-cf", file, ".")

        freebsd = replace(context, platform=FREEBSD)
        source = sources.parse(f"oci-archive:{file}", freebsd)
        resolved = source.resolve()
        assert resolved.canonical == f"{file.name}@{entry['digest']}"
        named = sources.parse(f"oci-archive:{file}:{name}", freebsd).resolve()
        assert named.digests == resolved.digests
        into = tmp_path / "into"
        into.mkdir()
        source.fetch(resolved, into, lambda _: None, "0000000b")
        assert (into / "etc/motd").read_text() == "FreeBSD"
        assert (into / "bin/-sh").stat().st_nlink == 2

    def test_what_was_evicted_meanwhile_is_read_once_more(self, context, root, tmp_path):
        layouts.archive(layouts.write(root / "web", {"": an_image()}), root / "web.tar")
        source = sources.parse(f"oci-archive:{root}/web.tar", context)
        resolved = source.resolve()
        BlobCache.of(context).evict(down_to=0)
        into = tmp_path / "into"
        into.mkdir()
        receipt = source.fetch(resolved, into, lambda _: None, "0000000a")
        assert (into / "etc/motd").read_text() == "one"
        assert receipt.fetched_bytes == sum(one.size for one in resolved.layers)

    @pytest.mark.parametrize("scheme", ["oci-layout", "oci-archive", "docker-archive"])
    def test_not_by_buildah(self, context, root, scheme):
        layouts.write(root / "web", {"": an_image()})
        with pytest.raises(SchemeNotImplemented) as refused:
            sources.parse(f"{scheme}:{root}/web", replace(context, engine="buildah"))
        assert "COPPICE_ENGINE=native" in refused.value.next_step


def _member(name: str, data: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    return member


def _save(file: Path, offered: dict[str, Document], *, config: bytes | None = None) -> Path:
    """As `docker save` since version 25 does: blobs by their digest, beside a manifest.json."""
    listed, blobs = [], {}
    for name, image in offered.items():
        parts = [config or image.blobs[0], *(gzip.decompress(one) for one in image.blobs[1:])]
        names = [f"blobs/sha256/{hashlib.sha256(one).hexdigest()}" for one in parts]
        blobs.update(zip(names, parts, strict=True))
        listed.append({"Config": names[0], "RepoTags": [name], "Layers": names[1:]})
    blobs["manifest.json"] = json.dumps(listed).encode()
    with tarfile.open(file, "w") as made:
        for name, data in blobs.items():
            made.addfile(_member(name, data), io.BytesIO(data))
    return file
