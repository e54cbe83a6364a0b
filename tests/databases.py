"""Fixtures that run a test on SQLite and on PostgreSQL, each time on a fresh, migrated database.

The log cannot be flushed (that is the point of it), so a test gets a database of its own instead
of a transaction that is rolled back: copied from a template that is migrated once a session.

``any_database``  in-process, on both: Django's default connection leads to a fresh database.
``database_url``  on both: the URL of a fresh database, for tests that start processes.
``sqlite_url``, ``postgres_url``, ``cluster``: the same, of one kind.
``swap_database`` ``with swap_database(url):`` is what ``any_database`` does, by hand.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection, connections

from coppice_site.settings import database
from tests.postgres import Cluster

KINDS = ("sqlite", "postgresql")
_numbers = itertools.count(1)


@contextmanager
def default_database(url: str) -> Iterator[None]:
    """Django's default connection, of all threads that begin after this, leads to ``url``."""
    old_settings, old_connection = connections.settings["default"], connections["default"]
    connections.settings["default"] = connections.configure_settings({"default": database(url)})[
        "default"
    ]
    del connections["default"]
    ContentType.objects.clear_cache()
    try:
        yield
    finally:
        connections["default"].close()
        connections.settings["default"] = old_settings
        connections["default"] = old_connection
        ContentType.objects.clear_cache()


def _migrate(url: str) -> None:
    with default_database(url):
        # The checks have a test of their own; here they would load every view for each session.
        call_command("migrate", verbosity=0, skip_checks=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server for this test process. Fails where PostgreSQL is not installed."""
    with Cluster() as running:
        yield running


@pytest.fixture(scope="session")
def postgres_template(cluster: Cluster, django_db_blocker) -> str:
    name = "coppice_template"
    with django_db_blocker.unblock():
        _migrate(cluster.create(name))
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory, django_db_blocker) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    with django_db_blocker.unblock():
        _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def postgres_url(cluster: Cluster, postgres_template: str) -> Iterator[str]:
    name = f"coppice_{os.getpid()}_{next(_numbers)}"
    yield cluster.create(name, postgres_template)
    cluster.drop(name)


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    path = tmp_path / "coppice.sqlite3"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest) -> str:
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    return str(request.getfixturevalue(fixture))


@pytest.fixture
def any_database(database_url: str, django_db_blocker) -> Iterator[str]:
    """The test runs against a fresh database, with real transactions. The value is its URL."""
    with django_db_blocker.unblock(), default_database(database_url):
        yield database_url


@pytest.fixture
def swap_database(django_db_blocker) -> Iterator[Callable[[str], AbstractContextManager[None]]]:
    """:func:`default_database`, for a test that is for one kind of database, or needs several."""
    with django_db_blocker.unblock():
        yield default_database


def waiting_for_a_lock() -> int:
    """How many do, on PostgreSQL."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return int(cursor.fetchone()[0])
