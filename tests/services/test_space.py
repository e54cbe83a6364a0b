"""What generations take of a real, small disk; and imports that cannot fit, refused beforehand."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

from deploy import images
from templates_app import store
from templates_app.datasets.base import DatasetDriver
from templates_app.errors import OutOfSpace, PoolUnavailable, TemplateNotFound
from templates_app.services import common, imports, launches, space
from templates_app.sources.native.cache import BlobCache
from tests.pools import sh
from tests.registries import Registry
from tests.services.conftest import WHO, standing, types

SIZE = 300_000  # bytes that do not compress


@pytest.fixture
def small(
    tiny_pool: DatasetDriver, any_database: str, settings, pool_state: Path, registry: Registry
) -> Iterator[DatasetDriver]:
    settings.COPPICE_POOL = tiny_pool.pool
    settings.COPPICE_STATE_DIR = pool_state
    settings.COPPICE_NODE = "test"
    settings.COPPICE_DNS_NAMESERVER = ""
    settings.COPPICE_REQUIRE_SIGNED_TEMPLATES = "off"
    settings.COPPICE_TRUSTED_KEYS = None
    settings.COPPICE_REGISTRIES_INSECURE = (registry.host,)
    settings.COPPICE_SPACE_MARGIN_BYTES = 0
    content = random.Random(1).randbytes(SIZE)
    files = [images.file("data", content), images.hardlink("again", "data")]
    registry.push("space/x", "1", images.image([images.layer(files)]))
    tiny_pool.check()
    yield common.driver()
    connection.close()


def import_it(registry: Registry, name: str = "web") -> None:
    imports.import_template(name=name, source=f"oci:{registry.host}/space/x:1", context=WHO)


def test_an_import_that_cannot_fit_is_refused_before_it_begins(small, registry, settings):
    free = small.space().available_bytes
    settings.COPPICE_SPACE_MARGIN_BYTES = free - SIZE // 2
    with pytest.raises(OutOfSpace, match="^The pool has") as refused:
        import_it(registry)
    assert refused.value.extra["neededBytes"] >= SIZE
    (failed,) = [one.event for one in store.read()]
    assert (failed.type, failed.code, failed.stage) == ("import-failed", "out_of_space", "create")
    assert standing(small) == []
    kept = BlobCache.of(common.source_context()).listing()
    assert sum(one.size_bytes for one in kept) < SIZE  # no layer was pulled
    settings.COPPICE_SPACE_MARGIN_BYTES = 0
    import_it(registry)
    assert types() == ["import-failed", "imported"]


def test_an_import_whose_blobs_cannot_be_kept_is_refused_before_it_begins(
    small, registry, pool_state
):
    place = pool_state / "blobs"
    place.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=128k", "tiny", place)
    try:
        with pytest.raises(OutOfSpace, match="^The file system of the state directory"):
            import_it(registry)
    finally:
        sh("umount", "--lazy", place)
    assert standing(small) == []


def test_what_a_generation_takes_is_told_with_what_it_shares(small, registry):
    import_it(registry)
    launches.create_sandbox(template="web", name="one", context=WHO)
    sandbox = small.full_name("sandbox-one")
    place = (
        Path(sh("zfs", "get", "-Hp", "-o", "value", "mountpoint", sandbox).strip())
        if small.kind == "zfs"
        else Path(sandbox)
    )
    (place / "mine").write_bytes(random.Random(2).randbytes(100_000))
    if small.kind == "zfs":
        sh("zfs", "snapshot", f"{sandbox}@now")  # what was written is on the disk, and counted
    found = space.report()
    (web,) = found.generations
    assert web.current and sandbox in web.clones
    # The hard link is no second file. ZFS rounds up to its records.
    assert SIZE <= web.referenced_bytes < 1.6 * SIZE
    if small.kind == "zfs":
        assert web.unique_bytes < SIZE / 2 and web.shared_bytes > SIZE / 2
        assert web.origin and "coppice-layers" in web.origin
        assert SIZE <= found.layers_bytes < 2 * SIZE
        assert 100_000 <= web.clones_bytes < SIZE
    else:
        assert web.unique_bytes == web.referenced_bytes
        assert (web.origin, found.layers_bytes) == (None, None)
        assert web.clones_bytes >= SIZE + 100_000  # a copy
    assert found.available_bytes == small.space().available_bytes
    assert found.cache_bytes >= SIZE
    assert space.report(name="web").generations == found.generations
    with pytest.raises(TemplateNotFound):
        space.report(name="nobody")


def test_images_and_sandboxes_have_the_quota(small, registry, settings):
    settings.COPPICE_QUOTA_BYTES = SIZE // 2
    if small.kind == "dir":
        with pytest.raises(PoolUnavailable, match="quota"):
            common.driver()
        return
    # Nothing is written beyond it: zfs-fuse 0.7 ends itself now and then where a write meets a
    # refquota, and takes every pool of the host with it. That ZFS holds it is ZFS's promise.
    settings.COPPICE_QUOTA_BYTES = 4 * SIZE
    import_it(registry)
    made = launches.create_sandbox(template="web", name="one", context=WHO)
    told = sh("zfs", "get", "-Hpr", "-o", "name,value", "refquota", small.pool.removeprefix("zfs:"))
    quotas = dict(line.split("\t") for line in told.splitlines())
    # What the image was unpacked into, and what a tenant writes into.
    (unpacked,) = [name for name in quotas if "/coppice-layers/" in name and "@" not in name]
    assert {quotas[unpacked], quotas[made.event.dataset]} == {str(4 * SIZE)}
