"""Logins to the auditors' house are in the log; of failed ones not so many as somebody tries."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from templates_app import store
from templates_app.events import LoggedIn, LoginFailed
from templates_app.services import access
from tests.house import auditor


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_unrecorded", 0)


def knock(name: str, password: str) -> Any:
    """At the login, from an address of somebody."""
    form = {"username": name, "password": password}
    return Client().post("/admin/login/?next=/admin/", form, REMOTE_ADDR="192.0.2.7")


def told() -> list[Any]:
    return [one.event for one in store.read() if one.stream == "logins:admin"]


def audrey() -> None:
    User.objects.create_user("audrey", password="correct-horse", is_staff=True)


def test_who_logs_in_is_in_the_log_before_the_first_page(any_database: str):
    audrey()
    assert knock("audrey", "correct-horse").status_code == 302
    assert told() == [LoggedIn(user="audrey", address="192.0.2.7")]
    (recorded,) = store.read()
    assert (recorded.meta.actor, recorded.meta.source) == ("audrey", "admin")
    assert recorded.meta.request_id


def test_a_failed_login_names_accounts_that_there_are_and_nothing_else(sqlite: str):
    """People type their password where the name belongs, and the log is for ever."""
    audrey()
    User.objects.create_user("stranger", password="correct-horse", is_staff=False)
    assert knock("audrey", "wrong").status_code == 200
    assert knock("correct-horse", "").status_code == 200
    assert knock("correct-horse", "x").status_code == 200
    assert knock("stranger", "correct-horse").status_code == 200  # no staff: not let in here
    assert told() == [
        LoginFailed(user="audrey", address="192.0.2.7", unrecorded=0),
        LoginFailed(user=None, address="192.0.2.7", unrecorded=0),
        LoginFailed(user="stranger", address="192.0.2.7", unrecorded=0),
    ]
    assert all("correct-horse" not in line for line in store.export())


def test_an_attacker_cannot_fill_the_log(sqlite: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(access, "LIMITS", ((3, datetime.timedelta(minutes=1)),))
    for _ in range(8):
        knock("root", "guess")
    assert [one.unrecorded for one in told()] == [0, 0, 0]
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=2)
    monkeypatch.setattr(access.timezone, "now", lambda: later)
    knock("root", "guess")
    assert [one.unrecorded for one in told()] == [0, 0, 0, 5]


def test_an_export_from_the_house_is_in_the_log_and_a_look_is_not(told_on_both: Any):
    client, before = auditor(), store.size()
    assert client.head("/admin/templates_app/event/export/").status_code == 200
    assert store.size() == before
    answer = client.get("/admin/templates_app/event/export/?type=imported")
    lines = b"".join(answer.streaming_content).splitlines()
    last = store.at(before + 1)
    assert (last.type, last.meta.actor, last.meta.source) == ("exported", "audrey", "admin")
    assert (last.event.events, last.event.question) == (len(lines), "type=imported")
