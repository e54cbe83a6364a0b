"""Whoever tails the log sees exactly what is committed, while writers come, race and are killed.

``make soak`` is this test, at it for SOAK_SECONDS on each database.
"""

import hashlib
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
SECONDS = float(os.environ.get("SOAK_SECONDS", "5"))


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


def read(after):
    """What there is after a position. The leaf hash stands for the content: it is made of it."""
    return [
        (one.position, one.stream, one.version, one.recorded_at, one.event_id, one.leaf_hash)
        for one in store.read(after=after)
    ]


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
        seen += read(seen[-1][0] if seen else 0)
        live = len(seen)
        time.sleep(0.002)
    told, complaints = writers.communicate()
    assert (writers.returncode, complaints) == (0, "")
    deadline = time.monotonic() + 30
    while not settled():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    seen += read(seen[-1][0])

    assert seen == read(0)
    assert [position for position, *_ in seen] == list(range(1, len(seen) + 1))
    assert store.size() == len(seen)
    versions = defaultdict(list)
    for _, stream, version, *_ in seen:
        versions[stream].append(version)
    assert all(found == list(range(1, len(found) + 1)) for found in versions.values())
    assert "sandbox:undone" not in versions
    ids = [event_id for *_, event_id, _ in seen]
    assert len(set(ids)) == len(ids)
    told_by_ids = {n: one.int >> 80 for n, one in enumerate(ids, 1) if one.version == 8}
    assert all(n == position for n, position in told_by_ids.items())
    assert 0 < len(told_by_ids) < len(ids)  # a redelivered task gives ids of its own
    for _, data, leaf in store.leaves():
        assert hashlib.sha256(b"\0" + data).hexdigest() == leaf
    times = [recorded_at for _, _, _, recorded_at, *_ in seen]
    assert times == sorted(times)
    assert readmodels.check() == (len(seen), [])
    # That something was tried at all: killed in mid-write, seen while it went on.
    assert int(told) >= 20
    assert live > len(seen) / 2 > 25
