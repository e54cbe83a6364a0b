"""A template that is replaced, rolled back and swept while sandboxes are launched from it."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy import images
from tests.registries import Registry
from tests.servers import Installation, MakeServer, Server

#: `make soak` asks for more.
IMPORTS = int(os.environ.get("SOAK_REPLACEMENTS", "6"))
LAUNCHES_AT_ONCE = 2
FILES = 20


def push(registry: Registry, generation: int) -> None:
    """An image whose every file says which generation it is of."""
    files = [images.file(f"d/{n}", f"{generation}") for n in range(FILES)]
    registry.push(
        "many/replaced", "1", images.image([images.layer([images.directory("d/"), *files])])
    )


@pytest.fixture
def server(tmp_path: Path, registry: Registry, serve: MakeServer) -> Server:
    return serve(
        Installation(
            tmp_path / "state",
            pool=f"dir:{tmp_path / 'pool'}",
            COPPICE_REGISTRIES_INSECURE=registry.host,
            COPPICE_PLATFORM="linux/amd64",
            COPPICE_RETAIN_GENERATIONS="0",
        )
    )


def test_every_launch_gets_one_whole_generation_while_it_is_replaced_and_swept(
    server: Server, registry: Registry, tmp_path: Path
):
    source = f"oci:{registry.host}/many/replaced:1"
    operator, gateway = server.api("operator"), server.api("gateway")
    push(registry, 1)
    assert operator.post("/templates", json={"name": "web", "from": source}).status_code == 201
    over = threading.Event()

    def launch(thread: int) -> list[tuple[int, str]]:
        made = []
        while not over.is_set():
            name = f"t{thread}-{len(made)}"
            made.append((gateway.post("/sandboxes", json={"template": "web", "name": name}), name))
        assert {answer.status_code for answer, _ in made} == {201}, [a.text for a, _ in made][-3:]
        return [(answer.json()["generation"], name) for answer, name in made]

    with ThreadPoolExecutor(LAUNCHES_AT_ONCE) as threads:
        running = [threads.submit(launch, number) for number in range(LAUNCHES_AT_ONCE)]
        try:
            for generation in range(2, IMPORTS + 1):
                push(registry, generation)
                answer = operator.post(
                    "/templates", json={"name": "web", "from": source, "force": True}
                )
                assert answer.status_code == 201, answer.text
                if generation % 3 == 0:
                    server.installation.manage("sweep_generations")
        finally:
            over.set()
        launched = [one for done in running for one in done.result()]

    for generation, name in launched:
        place = tmp_path / "pool" / f"sandbox-{name}" / "d"
        read = {path.read_text() for path in place.iterdir()}
        assert (read, len(list(place.iterdir()))) == ({str(generation)}, FILES)
    assert len({generation for generation, _ in launched}) > 1

    server.installation.manage("sweep_generations")
    used = {generation for generation, _ in launched} | {IMPORTS}
    rows = server.api("auditor").get("/templates/web/generations").json()
    assert {row["generation"] for row in rows} == used
    assert "sandbox-refused" not in server.installation.types()


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
