"""Many at once, on both databases: one winner for a name, no lock errors for many names."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest

from deploy import images
from tests.registries import Registry
from tests.servers import Installation, MakeServer, Server


@pytest.fixture
def server(tmp_path: Path, registry: Registry, database_url: str, serve: MakeServer) -> Server:
    registry.push(
        "many/small",
        "1",
        images.image([images.layer([images.directory("etc/"), images.file("etc/motd", "x")])]),
    )
    return serve(
        Installation(
            tmp_path / "state",
            pool=f"dir:{tmp_path / 'pool'}",
            database_url=database_url,
            COPPICE_REGISTRIES_INSECURE=registry.host,
            COPPICE_PLATFORM="linux/amd64",
        )
    )


def post_all(server: Server, registry: Registry, names: list[str]) -> list[httpx.Response]:
    api = server.api("operator")
    source = f"oci:{registry.host}/many/small:1"

    def post(name: str) -> httpx.Response:
        return api.post("/templates", json={"name": name, "from": source})

    with ThreadPoolExecutor(len(names)) as threads:
        return list(threads.map(post, names))


def test_of_sixteen_imports_of_one_name_one_wins(server: Server, registry: Registry):
    answers = post_all(server, registry, ["web"] * 16)
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201] + [409] * 15, [a.text for a in answers]
    codes = {answer.json()["code"] for answer in answers if answer.status_code == 409}
    assert codes <= {"import_in_progress", "template_exists"}
    assert server.installation.types() == ["imported"]


def test_eight_imports_of_different_names_all_succeed(server: Server, registry: Registry):
    names = [f"web-{number}" for number in range(8)]
    answers = post_all(server, registry, names)
    assert [answer.status_code for answer in answers] == [201] * 8, [a.text for a in answers]
    assert "database is locked" not in server.log.read_text()
    listed = server.api("auditor").get("/templates").json()
    assert [template["name"] for template in listed] == names


def test_reads_stay_fast_while_an_import_hangs(server: Server, registry: Registry, faults):
    """An import that waits for its registry holds its own thread only."""
    import threading
    import time

    faults.on("manifests", hang=True)
    server.stop()
    server.installation.env["COPPICE_REGISTRIES_INSECURE"] = f"{registry.host},{faults.host}"
    server.installation.env["COPPICE_LIMIT_STEP_SECONDS"] = "8"
    server.start()
    operator, auditor = server.api("operator"), server.api("auditor")
    slow = threading.Thread(
        target=operator.post,
        args=("/templates",),
        kwargs={"json": {"name": "slow", "from": f"oci:{faults.host}/many/small:1"}},
    )
    slow.start()
    until = time.monotonic() + 5
    while auditor.get("/templates/slow/import").status_code != 200:
        assert time.monotonic() < until
    status = auditor.get("/templates/slow/import").json()
    assert (status["state"], status["stage"]) == ("running", "resolve")
    second = operator.post(
        "/templates", json={"name": "slow", "from": f"oci:{registry.host}/many/small:1"}
    )
    assert (second.status_code, second.json()["code"]) == (409, "import_in_progress")
    begun = time.monotonic()
    for _ in range(20):
        assert auditor.get("/templates").status_code == 200
    assert time.monotonic() - begun < 7
    slow.join()
    ended = auditor.get("/templates/slow/import").json()
    # A registry that says nothing is one that cannot be reached.
    assert ended["state"] == "failed"
    data = ended["event"]["data"]
    assert (data["code"], data["reason"]) == ("pull_failed", "unreachable")


def test_two_servers_see_each_others_changes_without_a_restart(
    server: Server, registry: Registry, serve: MakeServer
):
    other = serve(server.installation)
    reader = other.api("auditor")
    before = reader.get("/templates")
    assert before.json() == []
    known = {"If-None-Match": before.headers["ETag"]}
    assert reader.get("/templates", headers=known).status_code == 304
    post_all(server, registry, ["web"])
    after = reader.get("/templates", headers=known)
    assert [template["name"] for template in after.json()] == ["web"]
    assert server.api("operator").delete("/templates/web").status_code == 204
    assert reader.get("/templates").json() == []


def test_a_database_that_was_restarted_fails_no_request(
    tmp_path: Path, postgres_url: str, serve: MakeServer
):
    pool = f"dir:{tmp_path / 'pool'}"
    server = serve(Installation(tmp_path / "state", pool=pool, database_url=postgres_url))
    reader = server.api("auditor")

    def ask(count: int) -> set[int]:
        with ThreadPoolExecutor(count) as threads:
            return set(threads.map(lambda _: reader.get("/sandboxes").status_code, range(count)))

    assert ask(16) == {200}  # each thread of the server has a connection now
    with psycopg.connect(postgres_url, autocommit=True) as beside:
        ended = beside.execute(
            "SELECT count(pg_terminate_backend(pid, 30000)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    assert ended is not None and ended[0] > 1
    assert ask(16) == {200}
