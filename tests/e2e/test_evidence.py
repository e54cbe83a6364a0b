"""A bundle on an auditor's machine: no network, an empty home, no Coppice; and every byte counts.

Made by the real server of a real registry's image, fetched with the command line, checked with the
system's own Python and the real signify in a network namespace that has no interface up.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import images
from tests.registries import Registry
from tests.servers import ROOT, Installation, Keys, MakeServer


def an_image() -> images.Document:
    entries = [
        images.directory("etc/"),
        images.file("etc/motd", "hello"),
        images.file("etc/su", "#!/bin/sh\n", mode=0o4755),
    ]
    wanted = images.image([images.layer(entries)], platform="linux/amd64")
    other = images.image([images.layer(entries)], platform="freebsd/amd64")
    return images.index([other, wanted])


class Auditor:
    """What he has: a directory, two keys from elsewhere, his own copy of verify.py."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "home").mkdir(parents=True)
        shutil.copy(ROOT / "templates_app/evidence/verify.py", place / "verify.py")

    def verify(self, bundle: Path, program: Path | None = None) -> subprocess.CompletedProcess[str]:
        python = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin")
        assert python is not None
        return subprocess.run(
            [
                *("unshare", "--net", "--", "env", "-i", "PATH=/usr/bin:/bin"),
                *(f"HOME={self.place / 'home'}", python, "-I"),
                *(
                    str(program or self.place / "verify.py"),
                    "--log-key",
                    str(self.place / "log.pub"),
                ),
                *("--key", str(self.place / "release.pub"), str(bundle)),
            ],
            cwd=self.place / "home",
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def auditor(
    tmp_path: Path, registry: Registry, sqlite_url: str, serve: MakeServer, keys: Keys
) -> Auditor:
    installation = Installation(
        tmp_path / "state",
        pool=f"dir:{tmp_path / 'pool'}",
        database_url=sqlite_url,
        COPPICE_REQUIRE_SIGNED_TEMPLATES="1",
        COPPICE_REGISTRIES_INSECURE=registry.host,
        COPPICE_PLATFORM="linux/amd64",
        COPPICE_NODE="jail1",
    )
    server = serve(installation)
    registry.push("evidence/web", "1", an_image())
    source = {"name": "web", "from": f"oci:{registry.host}/evidence/web:1"}
    assert server.api().post("/templates", json=source).status_code == 201
    secret = keys.trust("release", installation)
    statement = server.api("auditor").get("/templates/web/statement").content
    signed = {"signature": keys.sign(secret, statement)}
    made = server.api("signer").post("/templates/web/signatures", json=signed)
    assert made.status_code == 201, made.text
    launched = server.api("gateway").post("/sandboxes", json={"template": "web"})
    assert launched.status_code == 201, launched.text
    found = Auditor(tmp_path / "auditor")
    shutil.copy(installation.keys / "release.pub", found.place / "release.pub")
    coppice = [sys.executable, "-m", "templates_app.cli.main", "--url", server.url]
    environ = {**os.environ, "COPPICE_TOKEN": installation.token("auditor")}
    words = ["tpl", "evidence", "web", "-o", str(found.place / "web.evidence.tar")]
    subprocess.run([*coppice, *words], cwd=ROOT, env=environ, check=True, capture_output=True)
    shutil.copy(installation.state / "log/log.pub", found.place / "log.pub")
    # While the server runs: the whole log, by who trusts nobody.
    words = ["log", "verify", "--key", str(found.place / "log.pub")]
    done = subprocess.run([*coppice, *words], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return found


def test_it_is_verified_without_network_home_or_coppice_and_every_byte_counts(auditor: Auditor):
    subprocess.run(["tar", "-xf", "web.evidence.tar"], cwd=auditor.place, check=True)
    place = auditor.place / "web.evidence"
    done = auditor.verify(place)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.splitlines()[-1] == "web: all of this holds."
    for name in ("template.mtree", "image/index.json", "image/manifest.json", "image/config.json"):
        assert f"holds   {name!r}, as recorded" in done.stdout
    assert "holds   signed by 'release'" in done.stdout
    assert "1 x sandbox-created" in done.stdout
    # With the program that came in it, as VERIFY.md says.
    assert auditor.verify(place, place / "verify.py").returncode == 0

    files = sorted(path for path in place.rglob("*") if path.is_file())
    assert len(files) == 16
    for path in files:
        name, content = str(path.relative_to(place)), path.read_bytes()
        for at in {len(content) // 3, len(content) - 1}:
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            done = auditor.verify(place)
            assert done.returncode == 1, f"{name}, byte {at}: {done.stdout}"
            assert done.stderr.startswith(f"FAILED  {name}: "), f"byte {at}: {done.stderr}"
        path.write_bytes(content)
    assert auditor.verify(place).returncode == 0
    assert list((auditor.place / "home").iterdir()) == []
