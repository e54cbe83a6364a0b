"""An import that is watched: by the command line, by the API; and what is recorded of it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import images
from tests.cli import spawn
from tests.registries import FaultProxy
from tests.servers import Installation, MakeServer, Server

WITHIN = 30.0  # seconds


def layers() -> list[images.Layer]:
    """Of 3, 5 and 2 entries."""
    return [
        images.layer(
            [
                images.directory(f"srv/{number}"),
                *(images.file(f"srv/{number}/{name}", "x" * 1000) for name in range(count - 1)),
            ]
        )
        for number, count in enumerate((3, 5, 2))
    ]


@pytest.fixture
def server(tmp_path: Path, sqlite_url: str, faults: FaultProxy, serve: MakeServer) -> Server:
    return serve(
        Installation(
            tmp_path / "state",
            pool=f"dir:{tmp_path / 'pool'}",
            database_url=sqlite_url,
            COPPICE_ENGINE="native",
            COPPICE_REGISTRIES_INSECURE=faults.host,
            COPPICE_PLATFORM="linux/amd64",
        )
    )


def seen(server: Server, what: Any) -> dict[str, Any]:
    """The import's status, when ``what`` of it is true."""
    api, until = server.api("auditor"), time.monotonic() + WITHIN
    while time.monotonic() < until:
        status = api.get("/templates/web/import").json()
        if status.get("state") == "running" and what(status["layers"]):
            return dict(status)
        time.sleep(0.05)
    raise AssertionError(f"not seen within {WITHIN} s; the last was {status}")


@contextlib.contextmanager
def released(held: threading.Event, *, after: float) -> Iterator[None]:
    """Let go in any case, so that who waits for the command's next line does not wait for ever."""
    timer = threading.Timer(after, held.set)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def test_every_layer_is_followed_and_the_figures_are_kept(server: Server, faults: FaultProxy):
    parts = layers()
    reference = f"{faults.host}/watched:1"
    images.push(faults.upstream, "watched", "1", images.image(parts))
    second = threading.Event()  # until it is set, the second layer does not come
    faults.on(parts[1].digest, until=second)
    token = server.installation.token("operator")
    command = spawn(server.url, "tpl", "import-oci", "web", reference, COPPICE_TOKEN=token)
    try:
        # The third is here before the second, and waits for it.
        status = seen(server, lambda all_: [one["entries"] for one in all_] == [3, 0, 0])
        sizes = [len(one.blob) for one in parts]
        assert (status["stage"], status["unit"]) == ("pull", "bytes")
        assert (status["done"], status["total"]) == (sizes[0] + sizes[2], sum(sizes))
        assert [one["state"] for one in status["layers"]] == ["done", "waiting", "pull"]
        assert [one["totalBytes"] for one in status["layers"]] == sizes
        # The command, too, has said so before the second is let go; it asks once in a while only.
        told = f"web: layer 1/3 done, {sizes[0]}B/{sizes[0]}B, 3 entries\n"
        assert command.stderr is not None
        with released(second, after=WITHIN):
            assert told in iter(command.stderr.readline, "")
    finally:
        second.set()
        out, said = command.communicate(timeout=WITHIN)
    assert command.returncode == 0, said
    assert out.startswith("template=web ")

    first = server.api("auditor").get("/templates/web").json()
    assert (first["fetchedBytes"], first["cachedBytes"]) == (sum(sizes), 0)
    assert first["writtenBytes"] == 7 * 1000
    assert {"resolve", "pull", "copy", "seal"} <= set(first["milliseconds"])
    again = (
        server.api().post("/templates", json={"name": "same", "from": f"oci:{reference}"}).json()
    )
    assert (again["fetchedBytes"], again["cachedBytes"]) == (0, sum(sizes))
    (event,) = [e for e in server.installation.events() if e["data"]["template"] == "web"]
    assert (event["schema"], event["data"]["fetchedBytes"]) == (2, sum(sizes))
