"""Which writes of an import's lease wait for the disk."""

from __future__ import annotations

from django.db import connection

from templates_app.services import leases
from templates_app.sources.base import Progress
from tests.services.conftest import WHO


def waits() -> bool:
    """Whether the connection waits for the disk at a commit."""
    on_sqlite = connection.vendor == "sqlite"
    question = "PRAGMA synchronous" if on_sqlite else "SHOW synchronous_commit"
    (answer,) = connection.connection.execute(question).fetchone()
    return answer in (2, "on")


def test_where_it_writes_is_on_the_disk_before_it_does_and_nothing_else_is_waited_for(
    any_database, settings, tmp_path
):
    """The next commit is the event's: that one waits, whatever was written before."""
    settings.COPPICE_STATE_DIR = tmp_path
    settings.COPPICE_NODE = "test"
    told = []

    def watch(execute, sql, params, many, context):
        if (verb := sql.partition(" ")[0]) in ("INSERT", "UPDATE", "DELETE"):
            told.append((verb, waits()))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(watch):
        with leases.acquire(name="web", reference="made:web", context=WHO) as held:
            held.place(generation=1, dataset="coppice/web-g1-0000000a")
            held.report(Progress(stage="seal", unit="steps"))
            assert waits()
        assert waits()
    connection.close()
    assert told == [("INSERT", False), ("UPDATE", True), ("UPDATE", False), ("DELETE", False)]
