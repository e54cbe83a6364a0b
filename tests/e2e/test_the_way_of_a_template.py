"""Import, refuse, sign, launch, swap, audit: the real server on the real programs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy import images
from tests.registries import Registry
from tests.servers import Installation, Keys, MakeServer, Server


def small(text: str = "first") -> images.Document:
    """A tree with what imports get wrong: hard links, set-id, a deep dev/, a resolv.conf link."""
    entries = [
        images.directory("etc/"),
        images.file("etc/motd", text),
        images.symlink("etc/resolv.conf", "../run/resolv.conf"),
        images.directory("usr/"),
        images.directory("usr/bin/"),
        images.file("usr/bin/tool", "#!/bin/sh\n", mode=0o4755),
        images.hardlink("usr/bin/same", "usr/bin/tool", mode=0o4755),
        images.directory("usr/include/"),
        images.directory("usr/include/dev/"),
        images.file("usr/include/dev/kept.h", "kept"),
        images.directory("dev/"),
        images.device("dev/null", 1, 3),
        images.directory("proc/"),
        images.file("proc/left-out", "x"),
    ]
    return images.image([images.layer(entries)])


@pytest.fixture(params=["zfs", "dir"])
def installation(
    request: pytest.FixtureRequest, tmp_path: Path, registry: Registry
) -> Installation:
    """zfs with SQLite, dir with PostgreSQL: each pool and each database once."""
    if request.param == "zfs":
        pool = f"zfs:{request.getfixturevalue('zfs_root')}"
        url = request.getfixturevalue("sqlite_url")
    else:
        pool, url = f"dir:{tmp_path / 'pool'}", request.getfixturevalue("postgres_url")
    return Installation(
        tmp_path / "state",
        pool=pool,
        database_url=url,
        COPPICE_REQUIRE_SIGNED_TEMPLATES="1",
        COPPICE_REGISTRIES_INSECURE=registry.host,
        COPPICE_PLATFORM="linux/amd64",
    )


@pytest.fixture
def server(installation: Installation, serve: MakeServer) -> Server:
    return serve(installation)


def test_the_way_of_a_template(
    server: Server, installation: Installation, registry: Registry, keys: Keys
):
    operator, signer = server.api("operator"), server.api("signer")
    gateway, auditor = server.api("gateway"), server.api("auditor")
    digest = registry.push("way/small", "1", small())
    source = f"oci:{registry.host}/way/small:1"

    # Import.
    made = operator.post("/templates", json={"name": "web", "from": source})
    assert made.status_code == 201, made.text
    template = made.json()
    assert made.headers["Location"] == "/templates/web"
    assert template["snapshot"].endswith("/web-template@base")
    assert template["digest"] == digest
    assert template["generation"] == 1
    assert not template["signed"] and template["blocked"]
    assert [d["path"] for d in template["deviations"]] == ["/etc/resolv.conf"]

    # Unsigned: refused, with every check and the next step.
    refused = gateway.post("/sandboxes", json={"template": "web"})
    assert refused.status_code == 403
    assert refused.headers["Content-Type"] == "application/problem+json"
    decision = refused.json()
    assert decision["code"] == "template_unsigned"
    assert decision["nextStep"] == "Sign it: coppice tpl sign web"
    shown = auditor.get("/templates/web/gate").json()
    assert shown == {key: decision[key] for key in shown}

    # Signed by signify on the served bytes, launched, and the clone holds the image's files.
    secret = keys.trust("release", installation)
    statement = auditor.get("/templates/web/statement").content
    signature = keys.sign(secret, statement)
    signed = signer.post("/templates/web/signatures", json={"signature": signature})
    assert signed.status_code == 201, signed.text
    launched = gateway.post("/sandboxes", json={"template": "web", "name": "one"})
    assert launched.status_code == 201, launched.text
    assert launched.json()["signed"] is True
    assert launched.json()["origin"] == template["origin"]
    root = mountpoint(installation, launched.json()["dataset"])
    assert (root / "etc/motd").read_text() == "first"
    assert (root / "etc/resolv.conf").read_text().endswith("nameserver 10.78.0.1\n")
    assert (root / "usr/bin/tool").stat().st_ino == (root / "usr/bin/same").stat().st_ino
    assert (root / "usr/bin/tool").stat().st_mode & 0o7777 == 0o4755
    assert (root / "usr/include/dev/kept.h").exists()
    assert list((root / "dev").iterdir()) == list((root / "proc").iterdir()) == []

    # A re-import of the same bytes: another generation, the same statement, still launched.
    again = operator.post("/templates", json={"name": "web", "from": source, "force": True})
    assert again.status_code == 201, again.text
    assert again.json()["generation"] == 2
    assert auditor.get("/templates/web/statement").content == statement
    assert gateway.post("/sandboxes", json={"template": "web"}).status_code == 201

    # Other bytes under the same tag: unsigned again, and the old signature does not fit.
    registry.push("way/small", "1", small("second"))
    other = operator.post("/templates", json={"name": "web", "from": source, "force": True})
    assert other.json()["generation"] == 3
    assert gateway.post("/sandboxes", json={"template": "web"}).json()["code"] == (
        "template_unsigned"
    )
    stale = signer.post("/templates/web/signatures", json={"signature": signature})
    assert (stale.status_code, stale.json()["code"]) == (422, "signature_invalid")
    # The first sandbox lives on its own generation.
    assert (root / "etc/motd").read_text() == "first"

    # The log tells it all, in order, without gaps.
    feed = auditor.get("/events", params={"limit": 500}).json()["events"]
    assert [event["position"] for event in feed] == list(range(1, len(feed) + 1))
    assert [event["type"] for event in feed] == [
        "policy-changed",  # what the server is set to, at its first start
        "imported",
        "sandbox-refused",
        "policy-changed",  # the key's file has come
        "signed",
        "sandbox-created",
        "imported",
        "sandbox-created",
        "imported",
        "sandbox-refused",
    ]
    facts = auditor.get(f"/digests/{digest}").json()
    assert [g["generation"] for g in facts["generations"]] == [1, 2]
    assert len(facts["signatures"]) == 1 and len(facts["sandboxes"]) == 2
    assert installation.manage("rebuild_projections", "--check").returncode == 0

    # In use: not destroyed; then free: gone, and nothing is left.
    in_use = operator.delete("/templates/web")
    assert (in_use.status_code, in_use.json()["code"]) == (409, "template_in_use")
    assert len(in_use.json()["clones"]) == 2
    for sandbox in auditor.get("/sandboxes").json():
        assert gateway.delete(f"/sandboxes/{sandbox['id']}").status_code == 204
    would = operator.delete("/templates/web", params={"dryRun": "true"}).json()
    assert len(would["datasets"]) == 4  # alias and three generations
    assert operator.delete("/templates/web").status_code == 204
    assert auditor.get("/templates/web").json()["code"] == "template_not_found"
    assert datasets(installation) == []
    assert installation.manage("rebuild_projections", "--check").returncode == 0


def mountpoint(installation: Installation, dataset: str) -> Path:
    """Where a dataset's files are."""
    if installation.env["COPPICE_POOL"].startswith("dir:"):
        return Path(dataset)
    found = subprocess.run(
        ["zfs", "get", "-Hp", "-o", "value", "mountpoint", dataset],
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(found.stdout.strip())


def datasets(installation: Installation) -> list[str]:
    """Everything on the pool that belongs to a template or a sandbox, and container storage."""
    found = installation.manage(
        "shell",
        "--no-imports",
        "-c",
        "from templates_app.services.common import driver;"
        "print(*[f.relative for f in driver().find_all() if f.relative != 'coppice'])",
    )
    return found.stdout.split()
