"""The OpenAPI document, held by a snapshot."""

from __future__ import annotations

import pytest

from tests.servers import ROOT, Installation, Server

SNAPSHOT = ROOT / "docs" / "reference" / "openapi.yaml"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    place = tmp_path_factory.mktemp("schema")
    running = Server(
        Installation(
            place / "state",
            pool=f"dir:{place / 'pool'}",
        )
    )
    running.start()
    yield running
    running.stop()


def test_the_schema_is_the_one_that_was_agreed_on(server: Server):
    served = server.api(None).get("/schema", headers={"Accept": "application/vnd.oai.openapi"}).text
    assert served == SNAPSHOT.read_text(), (
        "The API's schema has changed. If that is meant, run `make docs`, look at the difference in"
        " docs/reference/openapi.yaml, and commit it with the change."
    )


def test_the_schema_has_no_warnings(server: Server):
    done = server.installation.manage("spectacular", "--validate", "--fail-on-warn")
    assert done.returncode == 0
