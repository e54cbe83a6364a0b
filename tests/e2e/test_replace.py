"""A template that is replaced, rolled back and swept while sandboxes are launched from it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from deploy import images
from tests.pools import sh
from tests.registries import Registry
from tests.servers import Installation, MakeServer, Server

#: `make soak` asks for more.
REPLACEMENTS = int(os.environ.get("SOAK_REPLACEMENTS", "4"))
#: While each of them runs; so many at once.
LAUNCHES, AT_ONCE = 10, 2
FILES = 20


def push(registry: Registry, generation: int) -> None:
    """An image whose every file says which generation it is of."""
    files = [images.file(f"d/{n}", f"{generation}") for n in range(FILES)]
    registry.push(
        "many/replaced", "1", images.image([images.layer([images.directory("d/"), *files])])
    )


@pytest.fixture
def server(
    request: pytest.FixtureRequest, tmp_path: Path, registry: Registry, serve: MakeServer
) -> Server:
    on_zfs = getattr(request, "param", "dir") == "zfs"
    return serve(
        Installation(
            tmp_path / "state",
            pool=request.getfixturevalue("own_zfs_pool").pool if on_zfs else f"dir:{tmp_path}/pool",
            COPPICE_REGISTRIES_INSECURE=registry.host,
            COPPICE_PLATFORM="linux/amd64",
            COPPICE_RETAIN_GENERATIONS="0",
        )
    )


def place_of(dataset: str) -> Path:
    """Where it is mounted; on a directory pool a dataset is a directory."""
    if dataset.startswith("/"):
        return Path(dataset)
    return Path(sh("zfs", "get", "-Hp", "-o", "value", "mountpoint", dataset).strip())


def read(dataset: str) -> list[str]:
    return [path.read_text() for path in (place_of(dataset) / "d").iterdir()]


@pytest.mark.parametrize("server", ["zfs", "dir"], indirect=True)
def test_every_launch_gets_one_whole_generation_while_it_is_replaced_and_swept(
    server: Server, registry: Registry
):
    source = f"oci:{registry.host}/many/replaced:1"
    operator, gateway = server.api("operator"), server.api("gateway")
    push(registry, 1)
    assert operator.post("/templates", json={"name": "web", "from": source}).status_code == 201

    def launch(_number: int) -> tuple[str, int, str]:
        answer = gateway.post("/sandboxes", json={"template": "web"})
        assert answer.status_code == 201, answer.text
        made = answer.json()
        assert read(made["dataset"]) == [str(made["generation"])] * FILES
        return made["id"], made["generation"], made["dataset"]

    def end(launched: tuple[str, int, str]) -> int:
        return gateway.delete(f"/sandboxes/{launched[0]}").status_code

    launched: list[tuple[str, int, str]] = []
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for generation in range(2, REPLACEMENTS + 2):
            push(registry, generation)
            meanwhile = threads.map(launch, range(LAUNCHES))
            body = {"name": "web", "from": source, "force": True}
            answer = operator.post("/templates", json=body)
            assert answer.status_code == 201, answer.text
            if generation % 3 == 0:
                server.installation.manage("sweep_generations")
            launched += meanwhile
    assert len(launched) == REPLACEMENTS * LAUNCHES
    used = {generation for _, generation, _ in launched}
    assert len(used) > 1
    for _, generation, dataset in launched:
        assert read(dataset) == [str(generation)] * FILES

    server.installation.manage("sweep_generations")
    auditor, last = server.api("auditor"), REPLACEMENTS + 1
    assert generations(auditor) == used | {last}
    assert "sandbox-refused" not in server.installation.types()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        assert set(threads.map(end, launched)) == {204}
    server.installation.manage("sweep_generations")
    assert generations(auditor) == {last}


def generations(auditor: httpx.Client) -> set[int]:
    rows = auditor.get("/templates/web/generations").json()
    return {row["generation"] for row in rows}


def test_a_repeated_request_is_answered_with_the_first_ones_generation(
    server: Server, registry: Registry
):
    push(registry, 1)
    operator = server.api("operator")
    body = {"name": "web", "from": f"oci:{registry.host}/many/replaced:1"}
    answers = [
        operator.post("/templates", json=body, headers={"Idempotency-Key": "a-key"})
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert server.installation.types() == ["imported"]
