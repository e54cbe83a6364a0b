"""manage.py reimport: what is unchanged is skipped; through the queue each is imported once."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from deploy import images
from tests.registries import Registry
from tests.servers import Installation, MakeServer

TEMPLATES = 12


def version(number: int) -> images.Document:
    entries = [images.directory("etc/"), images.file("etc/version", str(number))]
    entries += [images.file(f"etc/file-{i}", os.urandom(16).hex() * 500) for i in range(100)]
    return images.image([images.layer(entries)])


@pytest.fixture
def installation(tmp_path: Path, registry: Registry, database_url: str) -> Installation:
    return Installation(
        tmp_path / "state",
        pool=f"dir:{tmp_path / 'pool'}",
        database_url=database_url,
        COPPICE_REGISTRIES_INSECURE=registry.host,
        COPPICE_PLATFORM="linux/amd64",
        # The queue delivers a lost task again after twelve times this: see `let_go`.
        COPPICE_LIMIT_STEP_SECONDS="60",
    )


def test_each_template_is_imported_once_though_a_worker_is_killed(
    installation: Installation, registry: Registry, serve: MakeServer
):
    names = [f"fleet-{number:02d}" for number in range(TEMPLATES)]
    api = serve(installation).api("operator", timeout=300)
    for name in names:
        registry.push(f"fleet/{name}", "1", version(1))
        answer = api.post(
            "/templates", json={"name": name, "from": f"oci:{registry.host}/fleet/{name}:1"}
        )
        assert answer.status_code == 201, answer.text
        registry.push(f"fleet/{name}", "1", version(2))
    queued = installation.manage("reimport", "--all", "--queue", "--json")
    assert [item["action"] for item in json.loads(queued.stdout)["templates"]] == (
        ["queued"] * TEMPLATES
    )
    clusters = [installation.spawn("qcluster"), installation.spawn("qcluster")]
    try:
        wait_until(lambda: imports_of_second_version(installation) >= 2, 60)
        os.killpg(clusters[0].pid, signal.SIGKILL)
        clusters[0].wait()
        # The other one does what it can get. What is left was in the hands of the killed one.
        wait_until(lambda: stands_still(installation), 150)
        lost = queue_length(installation)
        assert 0 < lost < TEMPLATES
        let_go(installation)
        # Delivered again, also what had been done already: nothing may be imported twice by that.
        wait_until(lambda: queue_length(installation) == 0, 150)
    finally:
        for cluster in clusters:
            if cluster.poll() is None:
                os.killpg(cluster.pid, signal.SIGKILL)
                cluster.wait()
    imported: dict[str, list[int]] = {}
    for event in installation.events():
        if event["type"] == "imported":
            imported.setdefault(event["data"]["template"], []).append(event["data"]["generation"])
    assert imported == {name: [1, 2] for name in names}
    assert installation.manage("recover").returncode == 0
    assert [t["generation"] for t in api.get("/templates").json()] == [2] * TEMPLATES


def test_reimport_skips_what_is_unchanged_and_goes_on_after_failures(
    installation: Installation, registry: Registry, serve: MakeServer
):
    api = serve(installation).api("operator")
    for name in ("gone", "moved", "same"):
        registry.push(f"bulk/{name}", "1", version(1))
        made = api.post(
            "/templates", json={"name": name, "from": f"oci:{registry.host}/bulk/{name}:1"}
        )
        assert made.status_code == 201, made.text
    new = registry.push("bulk/moved", "1", version(2))
    registry.delete("bulk/gone", "1")

    dry = installation.manage("reimport", "--all", "--dry-run", "--json", check=False)
    plan = {item["name"]: item["action"] for item in json.loads(dry.stdout)["templates"]}
    assert plan == {"gone": "failed", "moved": "import", "same": "unchanged"}
    assert installation.types().count("imported") == 3

    done = installation.manage("reimport", "--all", "--jobs", "3", check=False)
    assert done.returncode == 1
    assert "1 of 3 failed" in done.stderr
    assert "unchanged" in done.stdout and "pull_failed" in done.stdout
    generations = {t["name"]: t["generation"] for t in api.get("/templates").json()}
    assert generations == {"gone": 1, "moved": 2, "same": 1}
    assert api.get("/templates/moved").json()["digest"] == new

    forced = installation.manage("reimport", "same", "--force", "--json")
    assert json.loads(forced.stdout)["templates"][0]["action"] == "imported"
    assert api.get("/templates/same").json()["generation"] == 2


def test_reimport_refuses_what_it_cannot_understand(installation: Installation):
    assert installation.manage("reimport", check=False).returncode == 2
    assert installation.manage("reimport", "x", "--all", check=False).returncode == 2
    assert installation.manage("reimport", "nobody", check=False).returncode == 1


def imports_of_second_version(installation: Installation) -> int:
    return sum(
        event["type"] == "imported" and event["data"]["generation"] > 1
        for event in installation.events()
    )


def queue_length(installation: Installation) -> int:
    return int(of_queue(installation, "print(OrmQ.objects.count())"))


def stands_still(installation: Installation) -> bool:
    """Whether all that is queued is in somebody's hands, and nothing is done for two seconds."""
    free = "print(OrmQ.objects.filter(lock__lt=timezone.now()).count())"
    before = queue_length(installation)
    time.sleep(2)
    return of_queue(installation, free) == "0" and queue_length(installation) == before


def let_go(installation: Installation) -> None:
    """As if the time were over for which a task is in the hands of who took it."""
    of_queue(installation, "OrmQ.objects.update(lock=timezone.now())")


def of_queue(installation: Installation, code: str) -> str:
    names = "from django.utils import timezone; from django_q.models import OrmQ; "
    return installation.manage("shell", "--no-imports", "-c", names + code).stdout.strip()


def wait_until(holds, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.3)
