"""What a launch asks of the database: counted, for time is another on each machine."""

from __future__ import annotations

from django.db import connection

from tests.callers import Api, post


def test_a_launch_asks_the_database_few_questions(api: Api):
    api.adopt("web")
    api.trust()
    assert api.sign("web").status_code == 201
    gateway = api.as_("gateway")
    body = {"template": "web"}
    assert post(gateway, "/sandboxes", body).status_code == 201
    asked: list[str] = []
    connection.connection.set_trace_callback(asked.append)
    assert post(gateway, "/sandboxes", body).status_code == 201
    connection.connection.set_trace_callback(None)
    # Those of triggers are told as comments, and one with many rows many times.
    words = dict.fromkeys(" ".join(one.split()[:4]) for one in asked if not one.startswith("--"))
    told = list(words)
    before, after = told[: told.index("BEGIN IMMEDIATE")], told[told.index("BEGIN IMMEDIATE") :]
    # The token with what its owner may do, template, last revocation, signatures, keys, findings.
    assert len(before) <= 6, before
    # BEGIN, the event's place, event, mentions, row, generation, the last revocation, COMMIT.
    assert len(after) <= 8, after
