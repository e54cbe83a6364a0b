"""What trust costs: ``python -m bench.trust``.

append    events per second of single appends by one writer, with the leaf hash and without it (in
          SQLite's writer, in PostgreSQL's function); the ratio of time, of alternating rounds
self      with the leaf hash against itself: the machine's noise
verify    ``verify_log``: events per second in one process, over a log of EVENTS launches refused
gate      the decision on a launch from the log as it is, with what lies on the pool taken as
          recorded (as a launch does, which looks after the clone): milliseconds, with TEMPLATES
          signed templates, KEYS keys that events trust, and as many in the directory
directory the same where the directory alone trusts the signing key: each of its files is looked at,
          though not read again; no goal

Goals: with the leaf hash at most 1.10 times the time; 50,000 events/s; 2 ms. The table goes to
stdout, the figures to var/bench/trust.json. Ends with 1 where a goal is missed. RUNS=N takes as
many rounds, and leaves the file as it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import django
from django.conf import settings

RUNS = int(os.environ.get("RUNS", "15"))
SECONDS = 0.2  # of a round of appends, for each side
EVENTS = 40_000
TEMPLATES = 1_000
KEYS = 100
DECISIONS = 300
APPEND_GOAL, VERIFY_GOAL, GATE_GOAL = 1.10, 50_000, 2.0
ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "var" / "bench" / "trust.json"


def ready(place: Path) -> None:
    """Django, with a state directory of our own."""
    os.environ["COPPICE_STATE_DIR"] = str(place / "state")
    os.environ["COPPICE_POOL"] = f"dir:{place / 'pool'}"
    os.environ["COPPICE_REQUIRE_SIGNED_TEMPLATES"] = "on"
    os.environ["COPPICE_TRUSTED_KEYS"] = str(place / "keys")
    os.environ["DJANGO_SETTINGS_MODULE"] = "coppice_site.settings"
    for made in ("pool", "keys"):
        (place / made).mkdir(mode=0o700)
    django.setup()


# --- appends --------------------------------------------------------------------------------------


@contextlib.contextmanager
def without_leaf_hash(vendor: str) -> Iterator[None]:
    """Appends write 64 zeros where the leaf hash belongs, and compute none."""
    from django.db import connection

    from templates_app import store_writers as writers
    from templates_app import triggers

    if vendor == "sqlite":
        with mock.patch.object(writers, "leaf_hash", lambda *_: "0" * 64):
            yield
    else:
        text = (ROOT / "templates_app" / "insert.sql").read_text()
        start = text.index("NEW.leaf_hash := pg_catalog.encode(")
        bare = text[:start] + "NEW.leaf_hash := repeat('0', 64)" + text[text.index(";\n", start) :]
        with connection.cursor() as cursor:
            cursor.execute(bare)
        try:
            yield
        finally:
            triggers.install(connection)


def append_for(seconds: float, first: int) -> float:
    """Single appends for so long; microseconds of each, at the median."""
    from bench._store_sides import refused
    from templates_app import store
    from templates_app.events import Meta

    meta = Meta(actor="gateway", source="api", request_id="0" * 32, node="bench")
    events = [refused(f"web-{number % 50}", number) for number in range(first, first + 2000)]
    took, until = [], time.perf_counter() + seconds
    for event in events:
        begun = time.perf_counter()
        if begun > until:
            break
        store.append(event, meta=meta)
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1e6


def appends(vendor: str) -> dict[str, Any]:
    sides: dict[str, list[float]] = {"with": [], "without": [], "again": []}
    for turn in range(RUNS + 1):
        names = ["with", "without", "again"]
        for name in names[turn % 3 :] + names[: turn % 3]:
            with without_leaf_hash(vendor) if name == "without" else contextlib.nullcontext():
                took = append_for(SECONDS, turn * 2000)
            if turn:  # the first round warms up
                sides[name].append(took)
    ratios = [a / b for a, b in zip(sides["with"], sides["without"], strict=True)]
    noise = [a / b for a, b in zip(sides["again"], sides["with"], strict=True)]
    return {
        "withUs": round(statistics.median(sides["with"]), 1),
        "withoutUs": round(statistics.median(sides["without"]), 1),
        **_spread("ratio", ratios),
        **_spread("self", noise),
    }


def _spread(name: str, ratios: list[float]) -> dict[str, Any]:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {name: round(middle, 3), f"{name}Half": [round(low, 3), round(high, 3)]}


# --- the log, verified ----------------------------------------------------------------------------


def verified() -> dict[str, Any]:
    """Of a log that has only what an append wrote with its leaf hash."""
    from bench._store_sides import refused
    from templates_app import store
    from templates_app.events import Meta
    from templates_app.services import ledger

    meta = Meta(actor="gateway", source="api", request_id="0" * 32, node="bench")
    size = store.size()
    while size < EVENTS:
        store.append([refused(f"web-{n % 50}", n) for n in range(size, size + 200)], meta=meta)
        size += 200
    ledger.write_checkpoint()
    took = []
    for _ in range(5):
        begun = time.perf_counter()
        found = ledger.verify()
        took.append(found.size / (time.perf_counter() - begun))
    return {
        "events": size,
        "perSecond": round(statistics.median(took)),
        "range": [round(min(took)), round(max(took))],
    }


# --- decisions ------------------------------------------------------------------------------------


def populate(place: Path) -> None:
    """Templates and their signatures, keys of events and of the directory, as events tell them."""
    from templates_app import store
    from templates_app.events import KeyTrusted, Signed
    from templates_app.trust import signify
    from tests.house import imported, meta

    made = [signify.SecretKey.load(signify.generate(f"key {n}").secret) for n in range(2 * KEYS)]
    by_events, by_files = made[:KEYS], made[KEYS:]
    for number, key in enumerate(by_files):
        (place / "keys" / f"file-{number}.pub").write_bytes(key.public_key.to_bytes())
    store.append(
        [
            KeyTrusted(
                key_id=key.public_key.key_id,
                label=f"key-{number}",
                public_key=key.public_key.text,
                owner="Alice",
                purpose="templates",
                not_before=None,
                not_after="2999-01-01T00:00:00Z",
                scope=("none-*", f"t{number}-*", "t-*"),
                predecessor=None,
                announcement=None,
            )
            for number, key in enumerate(by_events)
        ],
        meta=meta(),
    )
    for start in range(0, TEMPLATES, 100):
        events: list[Any] = []
        for number in range(start, start + 100):
            event = imported(f"t-{number}", root="/pool")
            # Every tenth by a key of the directory alone.
            key = (by_files if number % 10 == 0 else by_events)[number % KEYS]
            signed = Signed(
                template=event.template,
                generation=1,
                statement_digest=event.statement_digest,
                tree_digest=event.tree_digest,
                manifest_digest=event.digests.manifest,
                key_id=key.public_key.key_id,
                key_label="key",
                public_key=key.public_key.text,
                signature=key.sign(event.statement.encode()),
            )
            events += [event, signed]
        store.append(events, meta=meta())


def decision(number: int) -> float:
    """Milliseconds of one, from the template's name to the answer."""
    from templates_app import lifecycle
    from templates_app.datasets.base import Snapshot
    from templates_app.services import common, launches

    begun = time.perf_counter()
    name = f"t-{number}"
    generation = lifecycle.current(common.state_of(name))
    there = Snapshot(name=generation.origin, guid=generation.snapshot_guid, size_bytes=0)
    answer = launches.decide(name, generation, there)
    took = (time.perf_counter() - begun) * 1e3
    if not answer.allowed:
        raise SystemExit(f"{name} was refused: {answer.to_json()}")
    return took


def decisions() -> dict[str, Any]:
    time.sleep(2.5)  # of a file that was just written its change time is not believed
    row: dict[str, Any] = {"templates": TEMPLATES, "keys": KEYS}
    for name, numbers in {
        "gate": [n for n in range(TEMPLATES) if n % 10],
        "directory": [n for n in range(TEMPLATES) if n % 10 == 0],
    }.items():
        for number in numbers[:20]:
            decision(number)
        took = [decision(numbers[n * 7 % len(numbers)]) for n in range(DECISIONS)]
        low, middle, high = statistics.quantiles(took, n=4)
        row[name] = {"ms": round(middle, 3), "half": [round(low, 3), round(high, 3)]}
    return row


# --- all of it ------------------------------------------------------------------------------------


def measure(vendor: str, url: str, place: Path) -> dict[str, Any]:
    from django.core.management import call_command

    from tests.databases import default_database

    def fresh(name: str) -> str:
        return url.format(name=name)

    row: dict[str, Any] = {"database": vendor}
    with default_database(fresh("log")):
        call_command("migrate", verbosity=0, skip_checks=True)
        settings.COPPICE_STATE_DIR = place / f"{vendor}-log"
        settings.COPPICE_STATE_DIR.mkdir()
        row["verify"] = verified()
        row["append"] = appends(vendor)
    with default_database(fresh("gate")):
        call_command("migrate", verbosity=0, skip_checks=True)
        populate(place)
        row["decide"] = decisions()
    return row


def missed(row: dict[str, Any]) -> list[str]:
    found = {
        "append": row["append"]["ratio"] <= APPEND_GOAL,
        "verify": row["verify"]["perSecond"] >= VERIFY_GOAL,
        "gate": row["decide"]["gate"]["ms"] < GATE_GOAL,
    }
    return [name for name, met in found.items() if not met]


def show(row: dict[str, Any]) -> None:
    append, verify, decide = row["append"], row["verify"], row["decide"]
    low, high = append["ratioHalf"]
    print(
        f"{row['database']:11}"
        f"{append['withUs']:8.1f} {append['withoutUs']:8.1f}"
        f"  {append['ratio']:.3f} [{low:.3f}-{high:.3f}]  {append['self']:.3f}"
        f"  {verify['perSecond']:>9,}/s"
        f"  {decide['gate']['ms']:.3f} ms  {decide['directory']['ms']:.3f} ms"
        f"   {'MISSED: ' + ', '.join(missed(row)) if missed(row) else 'met'}",
        flush=True,
    )


def main() -> int:
    place = Path(tempfile.mkdtemp(prefix="coppice-bench-"))
    ready(place)
    from tests.postgres import Cluster

    rows = []
    print("database    with us  without  ratio [middle half]     self  verify        gate"
          "      directory")  # fmt: skip
    try:
        (place / "sqlite").mkdir()
        with Cluster() as cluster:
            for name in ("log", "gate"):
                cluster.create(name)
            for vendor, url in (
                ("sqlite", f"sqlite:///{place}/sqlite/{{name}}.sqlite3"),
                ("postgresql", cluster.url("{name}")),
            ):
                for old in (place / "keys").iterdir():
                    old.unlink()
                rows.append(measure(vendor, url, place))
                show(rows[-1])
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if "RUNS" not in os.environ:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"Medians of {RUNS} rounds; {os.cpu_count()} cores, {platform.platform()},"
          f" Python {platform.python_version()}.")  # fmt: skip
    return 1 if any(map(missed, rows)) else 0


if __name__ == "__main__":
    sys.exit(main())
