"""What the store's bench measures, each writer in a process of its own: bench/store.py starts it.

``python -m bench._store_sides SIDE CASE URL NAME`` makes ready and says ``ready``; for each number
of seconds on stdin it prepares calls, says ``set``, waits for a line, does the case for that long
and says ``{"events": …, "seconds": …}``, the time that the calls themselves took. ``coppice`` calls
``templates_app.store``; ``peer`` calls what the eventsourcing library makes of its environment,
``function`` the same with the library's database function switched on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any
from urllib.parse import urlsplit

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import StoredEvent
from eventsourcing.projection import ApplicationSubscription
from eventsourcing.utils import get_topic

from templates_app.events import (
    Check,
    DomainEvent,
    Meta,
    SandboxCreated,
    SandboxDestroyed,
    SandboxRefused,
)

BATCH = 100
REPLAYED = 10_000  # events in the log that is replayed
AT_ONCE = 1000  # rows per query of a replay, on both sides

#: Each item is one call, made ready outside the measured time; it returns how many events it moved.
Calls = Iterator[Callable[[], int]]


# --- the events: the same for both ---------------------------------------------------------------


def digest(word: str) -> str:
    return "sha256:" + hashlib.sha256(word.encode()).hexdigest()


def refused(template: str, number: int) -> SandboxRefused:
    """A refused launch with all that the gate looked at. It changes no row of a read model."""
    return SandboxRefused(
        template=template,
        generation=3,
        code="template_unsigned",
        tree_digest=digest(f"tree {number % 50}"),
        statement_digest=digest(f"statement {number % 50}"),
        manifest_digest=digest(f"manifest {number % 50}"),
        checks=(
            Check(name="dataset_present", passed=True, reason="The snapshot is on the pool."),
            Check(name="statement_current", passed=True, reason="It names the snapshot's guid."),
            Check(
                name="signed",
                passed=False,
                reason="No signature over generation 3's statement is in the log.",
                code="template_unsigned",
                next_step=f"Sign it: coppice tpl sign {template}",
            ),
        ),
    )


def created(template: str, number: int) -> SandboxCreated:
    """A launch. Its sandbox's row is written in the same transaction."""
    sandbox = f"{template}-{number:08d}"
    return SandboxCreated(
        sandbox=sandbox,
        template=template,
        generation=3,
        dataset=f"zroot/jails/sandbox-{sandbox}",
        origin=f"zroot/jails/coppice/{template}-g3-3f2a9c01@base",
        tree_digest=digest(f"tree {number % 50}"),
        statement_digest=digest(f"statement {number % 50}"),
        manifest_digest=digest(f"manifest {number % 50}"),
        gate="on",
        signed=True,
        key_id="0123456789abcdef",
        failed_checks=(),
    )


def mixed(number: int) -> DomainEvent:
    """The log that is replayed: launches, their ends, and some refusals."""
    template = f"template-{number % 20}"
    if number % 5 == 0:
        return refused(template, number)
    launch = created(template, number)
    if number % 5 < 3:
        return launch
    return SandboxDestroyed(sandbox=launch.sandbox, template=template, dataset=launch.dataset)


# --- ours ----------------------------------------------------------------------------------------


def coppice(case: str, url: str, name: str) -> Calls:
    os.environ["DATABASE_URL"] = url
    os.environ["DJANGO_SETTINGS_MODULE"] = "coppice_site.settings"
    import django

    django.setup()
    from django.db import connection, transaction

    from templates_app import store

    with connection.cursor() as cursor:
        require_durable(cursor, sqlite=connection.vendor == "sqlite")

    def meta() -> Meta:
        return Meta(actor="gateway-1", source="api", request_id=uuid.uuid4().hex, node="jail1")

    if case in ("replay", "rows"):
        with transaction.atomic():
            for number in range(REPLAYED):
                store.append(mixed(number), meta=meta())
        while True:
            yield lambda: sum(1 for _ in store.read())
    version = 0
    for numbers in batches(case):
        events = [(created if case == "folding" else refused)(name, number) for number in numbers]
        # Both sides write against the version they know: the peer's by its table's primary key.
        expected = {events[0].stream(): 0 if case == "folding" else version}
        told = meta()
        yield lambda events=events, told=told, expected=expected: len(
            store.append(events, meta=told, expected=expected)
        )
        version += len(events)


# --- the peer ------------------------------------------------------------------------------------


class Launches(Aggregate):
    """Our events as the library would have them; what is nested in them as plain JSON."""

    class SandboxRefused(Aggregate.Event):
        template: str
        generation: int
        code: str
        tree_digest: str
        statement_digest: str
        manifest_digest: str
        checks: list[Any]

    class SandboxCreated(Aggregate.Event):
        sandbox: str
        template: str
        generation: int
        dataset: str
        origin: str
        tree_digest: str
        statement_digest: str
        manifest_digest: str
        gate: str
        signed: bool
        key_id: str
        failed_checks: list[str]

    class SandboxDestroyed(Aggregate.Event):
        sandbox: str
        template: str
        dataset: str

    def tell(self, event: DomainEvent) -> None:
        facts = dataclasses.asdict(event)  # type: ignore[call-overload]
        self.trigger_event(getattr(Launches, type(event).__name__), **facts)


def peer(case: str, url: str, name: str, *, function: bool = False) -> Calls:
    parts = urlsplit(url)
    sqlite = parts.scheme == "sqlite"
    app: Application[uuid.UUID] = Application(
        {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": parts.path}
        if sqlite
        else {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": parts.path.removeprefix("/"),
            "POSTGRES_HOST": parts.hostname or "",
            "POSTGRES_PORT": str(parts.port),
            "POSTGRES_USER": parts.username or "",
            "POSTGRES_PASSWORD": "none",
            "POSTGRES_ENABLE_DB_FUNCTIONS": "y" if function else "n",
        }
    )
    with app.factory.datastore.transaction(commit=False) as cursor:  # type: ignore[attr-defined]
        require_durable(cursor, sqlite=sqlite)
    if case in ("replay", "rows"):
        aggregates = [Launches() for _ in range(20)]
        for number in range(REPLAYED):
            aggregates[number % 20].tell(mixed(number))
            if number % 100 == 99:  # all at once can stand still for ever in libpq's pipeline
                app.save(*aggregates)
        while True:
            yield lambda: (selected if case == "rows" or sqlite else subscribed)(app)
    aggregate = Launches()
    app.save(aggregate)
    make = created if case == "folding" else refused
    for numbers in batches(case):
        if sqlite:  # Application.save
            for number in numbers:
                aggregate.tell(make(name, number))
            yield lambda: len(app.save(aggregate))
        else:  # the recorder, with rows made ready; what is in them are the bytes of our payload
            rows = [row(aggregate.id, number + 2, make(name, number)) for number in numbers]
            yield lambda rows=rows: len(app.recorder.insert_events(rows) or ())


def row(aggregate: uuid.UUID, version: int, event: DomainEvent) -> StoredEvent:
    topic = get_topic(getattr(Launches, type(event).__name__))
    state = json.dumps(event.to_json(), separators=(",", ":")).encode()
    return StoredEvent(aggregate, version, topic, state)


def subscribed(app: Application[uuid.UUID]) -> int:
    """All events in the order of the log, as objects: how the library feeds a projection."""
    last = app.recorder.max_notification_id()
    with ApplicationSubscription(app, gt=0) as subscription:
        for found, (_, tracking) in enumerate(subscription, 1):
            if tracking.notification_id == last:
                return found
    raise RuntimeError("the subscription ended")


def selected(app: Application[uuid.UUID]) -> int:
    """The same by hand, in as few steps as the library's parts allow."""
    start, found = 1, 0
    while rows := app.recorder.select_notifications(start, AT_ONCE):
        found += sum(1 for one in rows if app.mapper.to_domain_event(one) is not None)
        start = rows[-1].id + 1
    return found


# --- both ----------------------------------------------------------------------------------------


def batches(case: str) -> Iterator[range]:
    size = BATCH if case == "batch" else 1
    return (range(first, first + size) for first in count(0, size))


def require_durable(cursor: Any, *, sqlite: bool) -> None:
    """This connection waits for the disk at each commit, as Coppice does in production."""
    wanted = (
        {"PRAGMA journal_mode": "wal", "PRAGMA synchronous": 2}
        if sqlite
        else {"SHOW fsync": "on", "SHOW synchronous_commit": "on", "SHOW full_page_writes": "on"}
    )
    for question, answer in wanted.items():
        cursor.execute(question)
        found = cursor.fetchone()
        found = next(iter(found.values())) if isinstance(found, dict) else found[0]
        if found != answer:
            raise SystemExit(f"{question}: {found}, not {answer}")


def main(side: str, case: str, url: str, name: str) -> None:
    calls = (
        coppice(case, url, name)
        if side == "coppice"
        else peer(case, url, name, function=side == "function")
    )
    # Statements prepared, caches warm, and the first thousand events in the log: on PostgreSQL they
    # cost ours twice as much as any other (insert.sql).
    for _ in range(2 if case in ("replay", "rows") else 10 if case == "batch" else 1010):
        next(calls)()
    # On SQLite there is one writer, and what the peer's calls leave to the next (an aggregate's
    # pending events) cannot be made beforehand: there each call of either side is made just before.
    apart = case in ("single", "folding") and not url.startswith("sqlite")
    print("ready", flush=True)
    events = 100
    for line in sys.stdin:
        # Else making the next event would take the processor from another writer's append.
        ready = deque(islice(calls, int(events * 1.5) + 50 if apart else 0))
        print("set", flush=True)
        sys.stdin.readline()
        until = time.perf_counter() + float(line)
        events, seconds = 0, 0.0
        while time.perf_counter() < until:
            call = ready.popleft() if ready else next(calls)
            begun = time.perf_counter()
            events += call()
            seconds += time.perf_counter() - begun
        while ready:  # in turn: each knows the version that the one before it leaves
            ready.popleft()()
        print(json.dumps({"events": events, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
