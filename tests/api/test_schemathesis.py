"""Requests made up from the OpenAPI document, by schemathesis: good, odd and hostile ones.

No 500, and no answer outside the document: status, content type, headers, shape. On PostgreSQL,
with templates, signatures and sandboxes to be asked for, and a token of three roles.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import images
from tests.registries import Registry
from tests.servers import Installation, Keys, MakeServer, Server

#: Of each operation; besides those are the document's own examples and all that covers its shapes.
EXAMPLES = 100 if "SOAK_SECONDS" in os.environ else 15
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
)

#: Half of all names and digests are ones that are there; half are made up. Hosts are never made up
#: from thin air that could answer: the other references are refused or lead nowhere on this host.
CONFIG = """
[dictionaries.names]
values = ["web", "house", "nobody"]
[dictionaries.sandboxes]
values = ["one", "two", "nobody"]
[dictionaries.digests]
values = [{digests}]
[dictionaries.references]
values = ["oci:{host}/fuzz/x:1", "oci:{host}/fuzz/none:1", "oci:localhost:1/x/y", "oci:--help",
    "oci:docker://x/y", "git:https://x/y", "dockerfile:.", "oci:{host}/fuzz/x@sha256:{zeros}",
    "oci:169.254.169.254/x/y:1", "x", "ftp:x"]

[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 501, 502, 503, 504, 507]

[parameters]
"path.name" = {{ dictionary = "names", probability = 0.6 }}
"query.name" = {{ dictionary = "names", probability = 0.6 }}
"query.template" = {{ dictionary = "names", probability = 0.6 }}
"path.digest" = {{ dictionary = "digests", probability = 0.6 }}
"query.digest" = {{ dictionary = "digests", probability = 0.6 }}
"path.sandbox_id" = {{ dictionary = "sandboxes", probability = 0.6 }}
"body.template" = {{ dictionary = "names", probability = 1.0 }}
"body.from" = {{ dictionary = "references", probability = 1.0 }}
"""


@pytest.fixture
def server(
    tmp_path: Path, postgres_url: str, registry: Registry, keys: Keys, serve: MakeServer
) -> Server:
    """With an imported template, hand-made ones, a signature and a sandbox."""
    registry.push("fuzz/x", "1", images.image([images.layer([images.file("motd", "x")])]))
    installation = Installation(
        tmp_path / "state",
        pool=f"dir:{tmp_path / 'pool'}",
        database_url=postgres_url,
        COPPICE_REQUIRE_SIGNED_TEMPLATES="on",
        COPPICE_REGISTRIES_INSECURE=registry.host,
        COPPICE_PLATFORM="linux/amd64",
        COPPICE_LIMIT_STEP_SECONDS="20",
    )
    for name in ("house", "spare"):
        (tmp_path / "pool" / f"{name}-template@base").mkdir()
    running = serve(installation)
    operator, signer = running.api("operator"), running.api("signer")
    made = {"name": "web", "from": f"oci:{registry.host}/fuzz/x:1"}
    assert operator.post("/templates", json=made).status_code == 201
    assert operator.post("/templates/reload").status_code == 200
    secret = keys.trust("release", installation)
    signature = keys.sign(secret, signer.get("/templates/house/statement").content)
    signer.post("/templates/house/signatures", json={"signature": signature}).raise_for_status()
    gateway = running.api("gateway")
    gateway.post("/sandboxes", json={"template": "house", "name": "one"}).raise_for_status()
    return running


@pytest.mark.slow
def test_made_up_requests_get_no_500_and_no_answer_outside_the_schema(
    server: Server, registry: Registry, tmp_path: Path
):
    house = server.api("auditor").get("/templates/house").json()
    digests = [house["treeDigest"], house["statementDigest"], "sha256:" + "0" * 64]
    config = tmp_path / "schemathesis.toml"
    config.write_text(
        CONFIG.format(
            host=registry.host,
            zeros="0" * 64,
            digests=", ".join(f'"{digest}"' for digest in digests),
        )
    )
    roles = ("--role=operator", "--role=gateway", "--role=signer")
    token = server.installation.manage("create_token", "fuzz", *roles).stdout.strip()

    def fuzz(*which: str) -> None:
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                f"--config-file={config}",
                "run",
                f"{server.url}/schema?format=json",
                f"--header=Authorization: Bearer {token}",
                f"--checks={','.join(CHECKS)}",
                "--phases=examples,coverage,fuzzing",
                f"--max-examples={EXAMPLES}",
                "--seed=1",
                "--generation-database=none",
                "--workers=1",
                "--no-color",
                *which,
            ],
            capture_output=True,
            text=True,
            timeout=1200,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]

    destroy = ("templates_destroy", "sandboxes_destroy")
    fuzz(*(f"--exclude-operation-id={one}" for one in destroy))
    made = ("templates_import", "sandboxes_create", "signatures_add")
    fuzz("--mode=positive", *(f"--include-operation-id={one}" for one in made))
    fuzz(*(f"--include-operation-id={one}" for one in destroy))  # when all else was asked
    events = server.installation.events()
    asked = {
        event["data"]["reference"].removeprefix("oci:").partition("/")[0]
        for event in events
        if event["type"] in ("imported", "import-failed") and event["data"]["importId"]
    }
    # Not a request has left this machine, and the run was not just refusals at the door.
    assert asked <= {registry.host, "localhost:1", "169.254.169.254"}
    fuzzed = [event["type"] for event in events if event["meta"]["actor"] == "fuzz"]
    assert {"imported", "import-failed", "sandbox-created", "reloaded"} <= set(fuzzed), fuzzed
    assert server.installation.manage("rebuild_projections", "--check").returncode == 0
