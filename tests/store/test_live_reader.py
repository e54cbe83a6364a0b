"""Whoever tails the log sees exactly what is committed, while writers come, race and are killed."""

import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from django.db import connection

from templates_app import store
from templates_app.services import readmodels

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 5.0


def settled():
    """No server process of a killed writer is at work any more: what it began is decided."""
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return cursor.fetchone() == (0,)


def test_a_reader_sees_exactly_what_is_committed_while_writers_are_killed(any_database):
    writers = subprocess.Popen(
        [sys.executable, "-m", "tests.store.writers", str(SECONDS), "7"],
        cwd=ROOT,
        env={
            **os.environ,
            "DATABASE_URL": any_database,
            "DJANGO_SETTINGS_MODULE": "coppice_site.settings",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen, live = [], 0
    while writers.poll() is None:
        seen += store.read(after=seen[-1].position if seen else 0)
        live = len(seen)
        time.sleep(0.002)
    told, complaints = writers.communicate()
    assert (writers.returncode, complaints) == (0, "")
    deadline = time.monotonic() + 30
    while not settled():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    seen += store.read(after=seen[-1].position)

    committed = list(store.read())
    assert seen == committed
    assert [one.position for one in seen] == list(range(1, len(seen) + 1))
    assert store.size() == len(seen)
    versions = defaultdict(list)
    for one in seen:
        versions[one.stream].append(one.version)
    assert all(found == list(range(1, len(found) + 1)) for found in versions.values())
    assert "sandbox:undone" not in versions
    times = [one.recorded_at for one in seen]
    assert times == sorted(times)
    assert readmodels.check() == (len(seen), [])
    # That something was tried at all: killed in mid-write, seen while it went on.
    assert int(told) >= 20
    assert live > len(seen) / 2 > 25
