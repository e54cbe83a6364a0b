"""kill -9 in mid-import, then a start: nothing half-made is left, and the same import works."""

from __future__ import annotations

import functools
import subprocess
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from deploy import images
from tests.e2e.test_the_way_of_a_template import datasets
from tests.registries import FaultProxy, Registry
from tests.servers import Installation, MakeServer, Server


@functools.cache
def big() -> images.Document:
    """Enough that copying and hashing take a moment: 3,000 files, 60 MB."""
    entries = [images.directory("etc/"), images.directory("data/")]
    entries += [
        images.file(f"data/{number:05d}", number.to_bytes(4, "big") * 5000)
        for number in range(3000)
    ]
    return images.image([images.layer(entries, level=1)])


@pytest.fixture
def engine() -> str:
    return "native"


@pytest.fixture(params=["zfs", "dir"])
def server(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    registry: Registry,
    serve: MakeServer,
    engine: str,
) -> Server:
    pool = f"dir:{tmp_path / 'pool'}"
    if request.param == "zfs":
        pool = f"zfs:{request.getfixturevalue('zfs_root')}"
    return serve(
        Installation(
            tmp_path / "state",
            pool=pool,
            database_url=request.getfixturevalue("sqlite_url"),
            COPPICE_REGISTRIES_INSECURE=registry.host,
            COPPICE_PLATFORM="linux/amd64",
            COPPICE_ENGINE=engine,
        )
    )


@pytest.mark.parametrize(
    ("engine", "stage"),
    [("native", "pull"), ("native", "copy"), ("buildah", "copy"), ("buildah", "digest")],
)
def test_a_killed_server_leaves_nothing_half_made(
    server: Server, registry: Registry, engine: str, stage: str
):
    installation = server.installation
    digest = registry.push("crash/big", "1", big())
    source = f"oci:{registry.host}/crash/big:1"
    reader = server.api("auditor")
    start_import(server, source)
    wait_for_stage(reader, stage)
    server.kill()
    lost = installation.manage(
        "shell",
        "--no-imports",
        "-c",
        "from templates_app.models import Lease;"
        "print(*Lease.objects.values_list('import_id', flat=True))",
    ).stdout.split()
    assert len(lost) == 1, "the import was over before it could be killed"

    server.start()  # recovery runs before the first request is answered
    assert datasets(installation) == []
    assert containers(installation) == []
    assert mounts_below(installation.state) == []
    assert processes_of(lost[0]) == []
    (failed,) = [e for e in installation.events() if e["type"] == "import-failed"]
    assert failed["data"]["code"] == "interrupted"
    assert failed["data"]["importId"] == lost[0]
    assert failed["data"]["undone"]
    status = server.api("auditor").get("/templates/web/import").json()
    assert status["state"] == "failed"

    again = server.api("operator").post("/templates", json={"name": "web", "from": source})
    assert again.status_code == 201, again.text
    assert again.json()["digest"] == digest
    assert installation.types()[-1] == "imported"


def test_a_killed_forced_import_leaves_the_old_generation_current(
    server: Server, registry: Registry
):
    source = f"oci:{registry.host}/crash/forced:1"
    first = registry.push(
        "crash/forced",
        "1",
        images.image(
            [
                images.layer(
                    [
                        images.directory("etc/"),
                        images.file("etc/motd", "first"),
                    ]
                )
            ]
        ),
    )
    api = server.api("operator")
    assert api.post("/templates", json={"name": "web", "from": source}).status_code == 201
    before = sorted(datasets(server.installation))
    registry.push("crash/forced", "1", big())
    start_import(server, source, force=True)
    wait_for_stage(server.api("auditor"), "copy", "digest")
    server.kill()
    server.start()
    template = server.api("auditor").get("/templates/web").json()
    assert (template["generation"], template["digest"]) == (1, first)
    assert sorted(datasets(server.installation)) == before
    # The dead holder's lease does not need a restart either: the next import ends it.
    assert (
        server.api("operator")
        .post("/templates", json={"name": "web", "from": source, "force": True})
        .json()["generation"]
        == 2
    )


def test_the_next_import_ends_a_dead_ones_lease_without_a_restart(
    server: Server, registry: Registry, serve: MakeServer, faults: FaultProxy
):
    installation = server.installation
    registry.push("crash/lease", "1", images.image([images.layer([images.directory("etc/")])]))
    server.stop()
    installation.env["COPPICE_REGISTRIES_INSECURE"] = f"{registry.host},{faults.host}"
    faults.on("blobs", hang=True)
    server.start()
    start_import(server, f"oci:{faults.host}/crash/lease:1")
    wait_for_stage(server.api("auditor"), "resolve", "pull")
    other = serve(installation)
    server.kill()
    # Killed is not gone yet: its locks go with the last of its processes.
    until = time.monotonic() + 30
    asked = {"name": "web", "from": f"oci:{registry.host}/crash/lease:1"}
    while (again := other.api("operator").post("/templates", json=asked)).status_code == 409:
        assert time.monotonic() < until, again.text
        time.sleep(0.2)
    assert again.status_code == 201, again.text
    assert installation.types() == ["import-failed", "imported"]


def start_import(server: Server, source: str, **more: object) -> None:
    def post() -> None:
        try:
            server.api("operator").post("/templates", json={"name": "web", "from": source, **more})
        except httpx.TransportError:
            return  # the server was killed: that is the point

    server.installation.token("operator")
    server.installation.token("auditor")
    threading.Thread(target=post, daemon=True).start()


def wait_for_stage(reader: httpx.Client, *stages: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        status = reader.get("/templates/web/import")
        running = status.status_code == 200 and status.json()["state"] == "running"
        if running and status.json()["stage"] in stages:
            return
        time.sleep(0.005)
    raise AssertionError(f"never seen in {stages}")


def containers(installation: Installation) -> list[str]:
    storage = installation.state / "containers"
    done = subprocess.run(
        ["buildah", "--root", str(storage / "storage"), "--runroot", str(storage / "run")]
        + ["containers", "--noheading", "--quiet"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def mounts_below(place: Path) -> list[str]:
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    # buildah keeps its storage directory bind-mounted on itself; that is no image's mount.
    storage = str(place / "containers" / "storage" / "overlay")
    return [point for point in points if point.startswith(f"{place}/") and point != storage]


def processes_of(import_id: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("COPPICE_RUNS_IMPORT") == import_id:
                found.append(process.pid)
        except psutil.Error:
            continue  # it has just ended, or is the kernel's
    return found
