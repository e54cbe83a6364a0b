"""A server that has the next launch's clone ready, over HTTP, on a real ZFS."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from deploy import images
from tests import layouts
from tests.pools import sh
from tests.servers import Installation, Keys, MakeServer, Server


@pytest.fixture
def installation(tmp_path: Path, zfs_root: str) -> Installation:
    layer = images.layer([images.directory("etc/"), images.file("etc/motd", "x")])
    layouts.write(tmp_path / "image", {"": images.image([layer])})
    return Installation(
        tmp_path / "state",
        pool=f"zfs:{zfs_root}",
        COPPICE_IMPORT_ROOTS=str(tmp_path),
        COPPICE_PLATFORM="linux/amd64",
        COPPICE_DNS_NAMESERVER="",
        COPPICE_REQUIRE_SIGNED_TEMPLATES="1",
    )


@pytest.fixture
def server(installation: Installation, keys: Keys, serve: MakeServer, tmp_path: Path) -> Server:
    """With a signed template, ``web``."""
    secret = keys.trust("ops", installation)
    server = serve(installation)
    body = {"name": "web", "from": f"oci-layout:{tmp_path / 'image'}"}
    assert server.api("operator").post("/templates", json=body).status_code == 201
    signer = server.api("signer")
    statement = signer.get("/templates/web/statement").content
    signed = signer.post(
        "/templates/web/signatures", json={"signature": keys.sign(secret, statement)}
    )
    assert signed.status_code == 201, signed.text
    return server


def waiting(state: Path) -> list[str]:
    place = state / "ready"
    return sorted(path.stem for path in place.iterdir()) if place.is_dir() else []


def until(come_true: Callable[[], bool]) -> None:
    over = time.monotonic() + 30
    while not come_true():
        assert time.monotonic() < over, "it does not come true"
        time.sleep(0.02)


def launch(server: Server) -> httpx.Response:
    return server.api("gateway").post("/sandboxes", json={"template": "web"})


def clones(root: str) -> set[str]:
    names = sh("zfs", "list", "-H", "-r", "-o", "name", root).split()
    return {name.rpartition("sandbox-")[2] for name in names if "sandbox-" in name}


def test_the_next_launch_has_it_and_the_gate_decides_on_it(
    server: Server, keys: Keys, tmp_path: Path, zfs_root: str
):
    state = tmp_path / "state"
    first = launch(server).json()
    until(lambda: len(waiting(state)) == 1)
    (ready,) = waiting(state)
    until(lambda: ready in clones(zfs_root))
    assert server.api("auditor").get(f"/sandboxes/{ready}").status_code == 404
    second = launch(server)
    assert second.status_code == 201 and second.json()["id"] == ready != first["id"]
    assert second.json()["signed"] is True
    root = Path(sh("zfs", "get", "-Hp", "-o", "value", "mountpoint", zfs_root).strip())
    assert (root / f"sandbox-{ready}/etc/motd").read_text() == "x"

    # One is ready again, and nobody's signature counts any more.
    until(lambda: len(waiting(state)) == 1 and waiting(state) != [ready])
    (state / "trusted-keys/ops.pub").unlink()
    refused = launch(server)
    assert refused.status_code == 403, refused.text
    assert server.installation.types()[-1] == "sandbox-refused"

    # It is in nobody's way.
    operator, gateway = server.api("operator"), server.api("gateway")
    conflict = operator.delete("/templates/web")
    assert conflict.status_code == 409
    assert sorted(conflict.json()["clones"]) == sorted(
        f"{zfs_root}/sandbox-{one}" for one in (first["id"], ready)
    )
    for one in (first["id"], ready):
        assert gateway.delete(f"/sandboxes/{one}").status_code == 204
    assert operator.delete("/templates/web").status_code == 204
    assert clones(zfs_root) == set() and waiting(state) == []


def test_many_launches_at_once_have_a_sandbox_each(server: Server, tmp_path: Path, zfs_root: str):
    state = tmp_path / "state"
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: launch(server), range(24)))
    assert [one.status_code for one in answers] == [201] * 24, [one.text for one in answers]
    ids = {one.json()["id"] for one in answers}
    assert len(ids) == 24
    until(lambda: clones(zfs_root) == ids | set(waiting(state)))
    assert server.api("auditor").get("/findings").json() == []
    reloaded = server.api("operator").post("/templates/reload").json()
    assert reloaded["findings"] == []


def test_a_server_that_was_killed_leaves_none_after_its_next_start(
    server: Server, tmp_path: Path, zfs_root: str
):
    state = tmp_path / "state"
    kept = launch(server).json()["id"]
    until(lambda: len(waiting(state)) == 1)
    server.kill()
    server.start()
    until(lambda: clones(zfs_root) == {kept})
    assert waiting(state) == []
    assert launch(server).status_code == 201


def test_a_server_that_was_stopped_leaves_none(server: Server, tmp_path: Path, zfs_root: str):
    state = tmp_path / "state"
    kept = {launch(server).json()["id"] for _ in range(3)}  # the last one's next is being made
    server.stop()
    assert waiting(state) == [] and clones(zfs_root) == kept
