"""A download that breaks off at nine tenths goes on there: after a kill, after a broken network."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy import images
from tests.registries import Registry
from tests.relay import Relay, relay
from tests.servers import Installation, MakeServer, Server

PLAIN = "application/vnd.oci.image.layer.v1.tar"
SIZE = 300 * 1000 * 1000  # bytes of the one layer


@pytest.fixture(scope="module")
def layer_bytes(registry: Registry) -> int:
    """What has to be downloaded of `resume/large:1`: one layer of noise, pushed once."""
    noise = images.layer([images.file("noise", os.urandom(SIZE))], media_type=PLAIN)
    registry.push("resume/large", "1", images.image([noise]))
    return len(noise.blob)


@pytest.fixture
def network(registry: Registry) -> Iterator[Relay]:
    with relay(registry.host) as made:
        yield made


@pytest.fixture
def server(network: Relay, tmp_path: Path, sqlite_url: str, serve: MakeServer) -> Server:
    return serve(
        Installation(
            tmp_path / "state",
            pool=f"dir:{tmp_path / 'pool'}",
            database_url=sqlite_url,
            COPPICE_ENGINE="native",
            COPPICE_REGISTRIES_INSECURE=network.host,
            COPPICE_PLATFORM="linux/amd64",
        )
    )


@pytest.mark.parametrize("how", ["the server is killed", "the network breaks"])
def test_nine_tenths_are_not_downloaded_again(
    how: str, server: Server, layer_bytes: int, network: Relay
):
    wanted = {"name": "web", "from": f"oci:{network.host}/resume/large:1"}
    network.stop_after = SIZE * 9 // 10
    network.breaks = how == "the network breaks"
    answers: list[httpx.Response] = []

    def first() -> None:
        try:
            answers.append(server.api("operator").post("/templates", json=wanted))
        except httpx.TransportError:
            return  # the server was killed

    waiting = threading.Thread(target=first)
    waiting.start()
    assert network.reached.wait(60)
    if how == "the server is killed":
        server.kill()
        waiting.join()
        network.heal()
        server.start()
    else:
        waiting.join()
        assert answers[0].status_code == 502, answers[0].text
        assert answers[0].json()["reason"] == "unreachable"
        network.heal()
    again = server.api("operator").post("/templates", json=wanted)
    assert again.status_code == 201, again.text
    assert network.passed < SIZE * 15 // 100
    event = server.installation.events()[-1]
    assert event["type"] == "imported"
    assert event["data"]["fetchedBytes"] < SIZE * 15 // 100
    assert event["data"]["fetchedBytes"] + event["data"]["cachedBytes"] == layer_bytes
