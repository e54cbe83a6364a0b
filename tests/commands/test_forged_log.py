"""Who owns the database drops the triggers and rewrites it: each way is told, to the operator by
``manage.py verify_log`` and to an auditor by ``coppice log verify`` against the running server.

On both databases. The forger knows the product and uses its own functions; in the last rows of the
table he has the server too: its state directory, the log's key, its settings. What he has not got
is what was kept elsewhere: the directory that the operator names in COPPICE_CHECKPOINT_DIR, and the
notes that the auditor took.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import connection
from django.test import override_settings

from templates_app import store, triggers
from templates_app.events import Meta, SandboxDestroyed
from templates_app.services import ledger
from templates_app.trust import log
from tests import cli
from tests.commands.conftest import Outcome, Shop
from tests.databases import KINDS, default_database
from tests.servers import Installation, Server

META = Meta(actor="alice", source="cli", request_id="r1", node="n1")
TABLES = ("event", "mention")


class World:
    """A server with a log of ten events and two checkpoints; two states of it to go back to."""

    def __init__(self, place: Path, url: str) -> None:
        self.place, self.state, self.far = place, place / "state", place / "far"
        self.far.mkdir()
        pool = f"dir:{place / 'pool'}"
        self.server = Server(Installation(self.state, pool=pool, database_url=url))
        self.server.start()
        self.token = self.server.installation.token("auditor")
        with self.settings():
            for size, name in ((5, "earlier"), (10, "later")):
                for number in range(store.size(), size):
                    event = SandboxDestroyed(sandbox=f"s{number}", template="web", dataset="z/s")
                    store.append(event, meta=META)
                ledger.write_checkpoint()
                self._keep(name)
        shutil.copy(self.state / "log/log.pub", place / "log.pub")

    def settings(self) -> override_settings:
        return override_settings(
            COPPICE_STATE_DIR=self.state, COPPICE_CHECKPOINT_DIR=self.far, COPPICE_NODE="test"
        )

    def _keep(self, name: str) -> None:
        """A backup of the database and the state directory; and the auditor takes a note away."""
        for table in TABLES:
            run(f"CREATE TABLE {name}_{table} AS SELECT * FROM templates_app_{table}")  # noqa: S608
        shutil.copytree(self.state / "log", self.place / name)
        newest = sorted(self.far.glob("*.note"))[-1]
        shutil.copy(newest, self.place / f"{name}.note")

    def put_back(self, name: str) -> None:
        triggers.remove(connection)
        for table in TABLES:
            run(f"DELETE FROM templates_app_{table}")  # noqa: S608
            run(f"INSERT INTO templates_app_{table} SELECT * FROM {name}_{table}")  # noqa: S608
        shutil.rmtree(self.state / "log")
        shutil.copytree(self.place / name, self.state / "log")

    def verify_log(self) -> Outcome:
        with self.settings():
            return Shop(self.place).run("verify_log")

    def log_verify(self) -> Outcome:
        kept = [f"--since={self.place / name}.note" for name in ("earlier", "later")]
        words = ("log", "verify", f"--key={self.place / 'log.pub'}", *kept)
        done = cli.run(self.server.url, *words, COPPICE_TOKEN=self.token)
        return Outcome(done.exit_code, done.stdout, done.stderr)


def run(statement: str, *parameters: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


@pytest.fixture(scope="module", params=KINDS)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, django_db_blocker
) -> Iterator[World]:
    place = tmp_path_factory.mktemp("forged")
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("sqlite_template"), place / "db.sqlite3")
        url = f"sqlite:///{place / 'db.sqlite3'}"
    else:
        template = request.getfixturevalue("postgres_template")
        url = request.getfixturevalue("cluster").create("coppice_forged", template)
    with django_db_blocker.unblock(), default_database(url):
        made = World(place, url)
        yield made
        made.server.stop()
    if request.param == "postgresql":
        request.getfixturevalue("cluster").drop("coppice_forged")


@pytest.fixture
def whole(world: World) -> Iterator[World]:
    """The log as it was signed, without its triggers."""
    triggers.remove(connection)
    yield world
    world.put_back("later")
    triggers.install(connection)


# --- what a forger does ---------------------------------------------------------------------------


def edit_a_payload(_: World) -> None:
    run("UPDATE templates_app_event SET data = replace(data, 'web', 'wab') WHERE position = 7")


def delete_a_row(_: World) -> None:
    run("DELETE FROM templates_app_event WHERE position = 7")


def swap_two_rows(_: World) -> None:
    for old, new in ((7, 99), (8, 7), (99, 8)):
        run("UPDATE templates_app_event SET position = %s WHERE position = %s", new, old)


def cut_the_tail_off(_: World) -> None:
    for table in TABLES:
        run(f"DELETE FROM templates_app_{table} WHERE position > 8")  # noqa: S608


def hash_the_tail_anew(_: World) -> None:
    """Other events from 7 on, each with the leaf hash that it has."""
    run("UPDATE templates_app_event SET data = replace(data, 'web', 'wab') WHERE position >= 7")
    for position, data, _recorded in list(store.leaves(after=6)):
        run(
            "UPDATE templates_app_event SET leaf_hash = %s WHERE position = %s",
            log.leaf_hash(data).hex(),
            position,
        )


def hash_and_sign_the_tail_anew(world: World) -> None:
    """With the log's key, over what the server had signed itself."""
    hash_the_tail_anew(world)
    for path in (world.state / "log/checkpoints").glob("checkpoint-*10*"):
        path.unlink()
    with world.settings(), override_settings(COPPICE_CHECKPOINT_DIR=None):
        ledger.write_checkpoint()


def put_an_old_backup_back(world: World) -> None:
    world.put_back("earlier")


#: What he does; what verify_log says of it; what log verify does.
FORGERIES: dict[str, tuple[Callable[[World], None], str, str]] = {
    "an edited payload": (
        edit_a_payload,
        "The event at position 7 is not the one that was recorded",
        "The event at position 7 is not the one that was recorded",
    ),
    "a deleted row": (
        delete_a_row,
        "Position 8 stands where position 7 belongs",
        "What is served for position 7 is not its event",
    ),
    "two swapped rows": (
        swap_two_rows,
        "The event at position 7 is not the one that was recorded",
        "The event at position 7 is not the one that was recorded",
    ),
    "a tail that was cut off": (
        cut_the_tail_off,
        "The log ends at position 8, and had 10 events when checkpoint-000000000010.note",
        "The log ends at position 8",
    ),
    "a tail that was hashed anew": (
        hash_the_tail_anew,
        "signed for: an event of the positions 6 to 10 was changed, and its leaf hash with it",
        "later.note was signed for: an event of the positions 6 to 10 is another one",
    ),
    "a tail that was hashed and signed anew": (
        hash_and_sign_the_tail_anew,
        "signed for: an event of the positions 6 to 10 was changed, and its leaf hash with it",
        "later.note was signed for: an event of the positions 6 to 10 is another one",
    ),
    "an old backup": (
        put_an_old_backup_back,
        "The log ends at position 5, and had 10 events when checkpoint-000000000010.note",
        "later.note was signed; the server's newest checkpoint ends at position 5",
    ),
}
COMMANDS = {"verify_log": World.verify_log, "log verify": World.log_verify}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_log_that_nobody_touched_verifies(command: str, whole: World):
    done = COMMANDS[command](whole)
    assert done.status == 0, done.err
    assert done.out.startswith("10\t")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("forgery", FORGERIES)
def test_it_names_the_position_of(forgery: str, command: str, whole: World):
    forge, by_the_operator, by_the_auditor = FORGERIES[forgery]
    forge(whole)
    done = COMMANDS[command](whole)
    assert done.out == ""
    if command == "verify_log":
        assert done.status == 4
        assert "log_inconsistent" in done.err and by_the_operator in done.err
    else:
        assert done.status == 1
        assert "log_differs" in done.err and by_the_auditor in done.err
