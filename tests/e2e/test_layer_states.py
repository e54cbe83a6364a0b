"""Layer states with the real engine, registry and server: what is fetched, written and kept.

That a tree is the same whether it was made in one go or from states is compared with a directory
pool, where there are none.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from deploy import images
from templates_app import layered, pipeline
from templates_app.datasets.base import DatasetDriver
from templates_app.names import TemplateName
from templates_app.sources.oci import OciSource
from templates_app.trust import tree
from templates_app.trust.manifests import Archive, Texts
from tests.imports import a_context
from tests.pools import sh
from tests.registries import FaultProxy, Registry
from tests.servers import Installation, MakeServer, Server

BASE = [
    images.layer(
        [
            images.directory("bin/"),
            images.file("bin/tool", "tool" * 1000, mode=0o4755),
            images.hardlink("bin/same", "bin/tool"),
            images.symlink("bin/sh", "tool"),
            images.directory("etc/"),
            images.file("etc/motd", "base"),
            images.directory("var/"),
            images.file("var/gone", "gone"),
            images.file("var/opaque/below", "below"),
        ]
    ),
    images.layer([images.file("etc/motd", "second"), images.file("lib/a", "a", uid=7, gid=8)]),
]
#: Each does to the base what a restored model has to know about: links, whiteouts, retyped names.
UPPERS = {
    "plain": [images.file("srv/web", "w")],
    "links": [images.hardlink("bin/third", "bin/same"), images.file("bin/tool", "new")],
    "whiteouts": [images.file("var/.wh.gone", ""), images.file("var/opaque/.wh..wh..opq", "")],
    "retyped": [images.symlink("var", "lib"), images.directory("etc/motd/")],
    "owners": [images.directory("etc/", mode=0o700, uid=5), images.file("etc/x", "x")],
}


def image_of(name: str) -> images.Document:
    return images.image([*BASE, images.layer(UPPERS[name])])


@pytest.fixture
def kept(zfs_pool, tmp_path: Path) -> layered.Kept:
    zfs_pool.check()
    return layered.Kept(
        store=zfs_pool.layers,
        manifests=Texts(tmp_path / "manifests"),
        notes=Texts(tmp_path / "layers"),
        engine="native",
        patience=30,
        make_room=lambda _transferred: None,
    )


def native(
    pool: DatasetDriver, rest: str, registry: Registry, state: Path, kept=None, import_id="0000000a"
) -> pipeline.Made:
    context = a_context(registry, state, engine="native")
    job = pipeline.Job(
        name=TemplateName("web"),
        source=OciSource.parse(f"{registry.host}/{rest}", context),
        import_id=import_id,
        generation=1,
        driver=pool,
        archive=Archive.of(state),
        rules=pipeline.Rules(nameserver="10.78.0.1", limit_entries=1000, refuse_foreign=False),
        report=lambda _progress: None,
        kept=kept,
    )
    return pipeline.run(job, lambda made: made, lambda: None)


@pytest.mark.parametrize("upper", UPPERS)
def test_over_a_kept_base_the_tree_is_the_same(zfs_pool, dir_pool, kept, registry, tmp_path, upper):
    registry.push("states/base", "1", images.image(BASE))
    registry.push("states/upper", upper, image_of(upper))
    native(zfs_pool, "states/base:1", registry, tmp_path / "a", kept)
    made = native(zfs_pool, f"states/upper:{upper}", registry, tmp_path / "a", kept, "0000000b")
    assert len(kept.store.images()[1].states) == 2  # its own layer, and the whole
    dir_pool.check()
    other = native(dir_pool, f"states/upper:{upper}", registry, tmp_path / "b")
    assert made.tree_digest == other.tree_digest
    assert made.entries == other.entries
    # And it is what lies on the disk, not only what the model thinks.
    relative = made.dataset.removeprefix(f"{zfs_pool.root}/")
    with zfs_pool.reading(relative) as path:
        assert tree.scan(path, limit_entries=1000).digest == made.tree_digest


def serve_on(zfs_root: str, state: Path, host: str, serve: MakeServer, **settings: str) -> Server:
    return serve(
        Installation(
            state,
            pool=f"zfs:{zfs_root}",
            COPPICE_ENGINE="native",
            COPPICE_REGISTRIES_INSECURE=host,
            COPPICE_PLATFORM="linux/amd64",
            **settings,
        )
    )


@pytest.fixture
def server(tmp_path: Path, registry: Registry, zfs_root: str, serve: MakeServer) -> Server:
    for name in ("plain", "links"):
        registry.push("states/served", name, image_of(name))
    return serve_on(zfs_root, tmp_path / "state", registry.host, serve)


def below(zfs_root: str, kind: str) -> list[str]:
    return sh("zfs", "list", "-H", "-r", "-t", kind, "-o", "name", zfs_root).split()


def test_the_way_of_an_image_that_is_known(server: Server, registry: Registry, zfs_root: str):
    api = server.api("operator")

    def post(name, tag, **more):
        source = f"oci:{registry.host}/states/served:{tag}"
        answer = api.post("/templates", json={"name": name, "from": source, **more})
        assert answer.status_code == 201, answer.text
        return answer.json()

    first = post("web", "plain")
    assert first["fetchedBytes"] > 0
    other = post("db", "links")
    assert 0 < other["fetchedBytes"] < first["fetchedBytes"]
    # The same digest under another name, and again under its own: nothing moves.
    for again in (post("copy", "plain"), post("web", "plain", force=True)):
        assert again["treeDigest"] == first["treeDigest"]
        assert (again["fetchedBytes"], again["cachedBytes"], again["writtenBytes"]) == (0, 0, 0)
        assert sh("zfs", "get", "-H", "-o", "value", "origin", again["snapshot"].split("@")[0])
    gateway = server.api("gateway")
    sandbox = gateway.post("/sandboxes", json={"template": "copy"}).json()
    place = Path(sh("zfs", "get", "-H", "-o", "value", "mountpoint", sandbox["dataset"]).strip())
    assert (place / "srv/web").read_text() == "w"
    assert sh("zfs", "get", "-H", "-o", "value", "setuid", sandbox["dataset"]).strip() == "on"
    # What is in use stays; what no template needs goes when it is asked for, not before.
    refused = api.delete("/templates/copy")
    assert refused.status_code == 409
    assert refused.json()["clones"] == [sandbox["dataset"]]
    assert gateway.delete(f"/sandboxes/{sandbox['id']}").status_code == 204
    for name in ("web", "db", "copy"):
        assert api.delete(f"/templates/{name}").status_code == 204
    left = below(zfs_root, "filesystem")
    assert [one for one in left if "/coppice/" in one or one.endswith("-template")] == []
    assert len([one for one in left if "/image-" in one]) == 2
    server.installation.manage("prune_layers", "--all")
    left = below(zfs_root, "filesystem")
    assert [one for one in left if "/image-" in one] == []
    assert api.post("/templates/reload").json()["findings"] == []
    assert post("web", "plain")["treeDigest"] == first["treeDigest"]


def test_a_killed_import_is_gone_on_with_at_its_last_layer(
    tmp_path: Path, zfs_root: str, faults: FaultProxy, serve: MakeServer
):
    server = serve_on(zfs_root, tmp_path / "state", faults.host, serve)
    upper = images.layer([images.file("srv/web", "w" * 1000)])
    images.push(faults.upstream, "states/killed", "1", images.image([*BASE, upper]))
    body = {"name": "web", "from": f"oci:{faults.host}/states/killed:1"}
    come = threading.Event()
    faults.on(upper.digest, until=come)
    with ThreadPoolExecutor(1) as other:
        lost = other.submit(server.api("operator").post, "/templates", json=body)
        until = time.monotonic() + 60
        while len(below(zfs_root, "snapshot")) < len(BASE):
            assert time.monotonic() < until
            time.sleep(0.05)
        server.kill()
        come.set()
        with pytest.raises(httpx.TransportError):
            lost.result()
    server.start()  # recovery runs before the first request is answered
    states = below(zfs_root, "snapshot")
    assert len(states) == len(BASE)
    image = states[0].partition("@")[0]
    assert sh("zfs", "get", "-H", "-o", "value", "mounted", image).strip() == "no"
    assert [one for one in below(zfs_root, "filesystem") if "/coppice/" in one] == []

    answer = server.api("operator").post("/templates", json=body)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["fetchedBytes"], answer.json()["cachedBytes"]) == (len(upper.blob), 0)
    assert answer.json()["writtenBytes"] == 1000


def test_what_a_failed_import_kept_is_within_the_limit(
    tmp_path: Path, zfs_root: str, faults: FaultProxy, serve: MakeServer
):
    """Else whoever has images that fail in their last layer fills the pool."""
    settings = {"COPPICE_LIMIT_LAYERS_BYTES": "0"}
    server = serve_on(zfs_root, tmp_path / "state", faults.host, serve, **settings)
    twice = images.layer([images.file("x", "1"), images.file("x", "2")])
    images.push(faults.upstream, "states/failed", "1", images.image([*BASE, twice]))
    body = {"name": "web", "from": f"oci:{faults.host}/states/failed:1"}
    come = threading.Event()
    faults.on(twice.digest, until=come)
    with ThreadPoolExecutor(1) as other:
        refused = other.submit(server.api("operator").post, "/templates", json=body)
        until = time.monotonic() + 60
        while len(below(zfs_root, "snapshot")) < len(BASE):
            assert time.monotonic() < until
            time.sleep(0.05)
        come.set()
        assert refused.result().json()["rule"] == "duplicate"
    assert [one for one in below(zfs_root, "filesystem") if "/image-" in one] == []
