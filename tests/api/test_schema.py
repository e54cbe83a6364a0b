"""The OpenAPI document: held by a snapshot, and by requests made from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
            COPPICE_REQUIRE_SIGNED_TEMPLATES="on",
            # No registry may be asked: names made up by the test must not leave this machine.
            COPPICE_LIMIT_STEP_SECONDS="5",
        )
    )
    running.start()
    yield running
    running.stop()


def test_the_schema_is_the_one_that_was_agreed_on(server: Server):
    """To change it on purpose: manage.py spectacular --file docs/reference/openapi.yaml."""
    served = server.api(None).get("/schema", headers={"Accept": "application/vnd.oai.openapi"}).text
    assert served == SNAPSHOT.read_text()


def test_the_schema_has_no_warnings(server: Server):
    done = server.installation.manage("spectacular", "--validate", "--fail-on-warn")
    assert done.returncode == 0


@pytest.mark.parametrize("role", ["operator", "gateway", "signer"])
def test_made_up_requests_get_no_500_and_no_answer_outside_the_schema(
    server: Server, role: str, tmp_path: Path
):
    """schemathesis: each operation, with good, odd and hostile input."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{server.url}/schema?format=json",
            f"--header=Authorization: Bearer {server.installation.token(role)}",
            "--checks=not_a_server_error,status_code_conformance,content_type_conformance"
            ",response_schema_conformance",
            "--phases=examples,coverage,fuzzing",
            "--max-examples=25",
            "--seed=1",
            "--workers=1",
            "--no-color",
        ],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
