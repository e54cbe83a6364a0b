"""Two servers on one PostgreSQL: one import of a name at a time, whichever of them is silent."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.db import connection, connections

from templates_app import store
from templates_app.datasets import from_pool
from templates_app.datasets.base import OURS
from templates_app.errors import ImportInProgress
from templates_app.models import Lease
from templates_app.names import Platform
from templates_app.services import common, recovery
from templates_app.sources.base import Progress
from tests.faults.process import Running, orphans_are_ours
from tests.faults.steps import Act, general
from tests.faults.world import World, who


@dataclass
class Node:
    """A server's settings: its name, its state directory, its pool."""

    name: str
    world: World
    settings: object

    @contextmanager
    def here(self) -> Iterator[World]:
        """This process, or one that is forked meanwhile, is that server."""
        self.settings.COPPICE_NODE = self.name
        self.settings.COPPICE_STATE_DIR = self.world.state
        self.settings.COPPICE_POOL = self.world.driver.pool
        yield self.world

    def generations(self) -> list[str]:
        found = [one.relative for one in self.world.driver.find_all()]
        return [name for name in found if name.startswith(f"{OURS}/")]


@pytest.fixture
def nodes(postgres_url: str, swap_database, settings, tmp_path: Path) -> Iterator[list[Node]]:
    settings.COPPICE_ENGINE = "native"
    settings.COPPICE_PLATFORM = Platform.parse("linux/amd64")
    settings.COPPICE_DNS_NAMESERVER = ""
    settings.COPPICE_REQUIRE_SIGNED_TEMPLATES = "off"
    settings.COPPICE_TRUSTED_KEYS = None
    settings.COPPICE_LEASE_SECONDS = 2
    settings.COPPICE_READY_SECONDS = 0
    settings.COPPICE_IMPORT_ROOTS = (tmp_path,)
    made = []
    for name in ("one", "two"):
        place = tmp_path / name
        for part in ("pool", "state", "shelf"):
            (place / part).mkdir(parents=True)
        driver = from_pool(f"dir:{place / 'pool'}", step_seconds=60, state_dir=place / "state")
        made.append(Node(name, World(driver, place / "state", place / "shelf"), settings))
    with swap_database(postgres_url), orphans_are_ours():
        yield made
        connections.close_all()


def stops_before(step: str, *, number: int = 1) -> Act:
    """The process stands still, heartbeat and all, before the step; and then goes on."""
    seen = 0

    def act(_number: int, what: str) -> None:
        nonlocal seen
        seen += general(what).startswith(step)
        if seen == number and general(what).startswith(step):
            seen += 1
            os.kill(os.getpid(), signal.SIGSTOP)

    return act


def events() -> list[tuple[str, str, str]]:
    return [(one.type, getattr(one.event, "import_id", ""), one.meta.node) for one in store.read()]


@pytest.mark.parametrize("step", ["before the engine", "rename pool/coppice", "WITH event AS"])
def test_a_silent_holder_is_replaced_and_can_write_nothing_when_it_wakes_up(
    nodes: list[Node], step: str
):
    one, two = nodes
    with one.here() as world:
        world.image()
        silent = Running(lambda: world.import_image("web"), stops_before(step))
    assert silent.stopped()
    held = Lease.objects.get(pk="web")
    with two.here() as world:
        with pytest.raises(ImportInProgress):
            world.import_it("web")
        time.sleep(2.2)
        world.import_it("web")
    os.kill(silent.pid, signal.SIGCONT)
    end = silent.end()
    assert end.error == "interrupted", end.error
    told = events()
    assert told[0] == ("import-failed", held.import_id, "two")
    assert [kind for kind, _, _ in told] == ["import-failed", "imported"]
    failed = next(iter(store.read())).event
    assert (failed.code, failed.reference) == ("interrupted", held.reference)
    assert "one" in failed.detail
    assert one.generations() == [], "what the late one made is still there"
    assert len(two.generations()) == 1
    assert not Lease.objects.exists()
    for node in nodes:
        with node.here() as world:
            assert [s for s in world.recover() if "alias" not in s] == []


def test_a_holder_that_was_replaced_and_then_died_is_undone_by_its_own_server(nodes: list[Node]):
    one, two = nodes
    with one.here() as world:
        world.image()
        silent = Running(lambda: world.import_image("web"), stops_before("rename pool/coppice"))
    assert silent.stopped()
    time.sleep(2.2)
    with two.here() as world:
        world.import_it("web")
    os.kill(silent.pid, signal.SIGKILL)
    assert silent.end().killed
    (left,) = one.generations()
    with one.here():
        assert f"would undo: dataset {left}, of an import that has no lease any more" in (
            recovery.recover(context=who(), dry_run=True)
        )
        assert f"undone: dataset {left}, of an import that has no lease any more" in (
            recovery.recover(context=who())
        )
    assert one.generations() == []
    assert not list((one.world.state / "leases").iterdir())
    assert [kind for kind, _, _ in events()] == ["import-failed", "imported"]


def test_a_holder_that_is_only_slow_keeps_its_lease(nodes: list[Node]):
    """Nothing is reported for longer than a lease lasts, but its heart beats."""
    one, two = nodes
    with one.here() as world:
        world.image()

        def waits(progress: Progress) -> None:
            if progress.stage == "digest":
                time.sleep(3)

        slow = Running(lambda: world.import_image("web", on_progress=waits))
    time.sleep(2.7)
    with two.here() as world, pytest.raises(ImportInProgress):
        world.import_it("web")
    assert slow.end().error is None
    assert [kind for kind, _, _ in events()] == ["imported"]


def test_two_that_take_over_at_once_make_one_event(nodes: list[Node]):
    one, two = nodes
    with one.here() as world:
        world.image()
        silent = Running(lambda: world.import_image("web"), stops_before("before the engine"))
    assert silent.stopped()
    time.sleep(2.2)
    with two.here():

        def recover() -> None:
            recovery.recover(context=who())
            connection.close()

        both = [threading.Thread(target=recover) for _ in range(4)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
    os.kill(silent.pid, signal.SIGKILL)
    assert silent.end().killed
    assert [kind for kind, _, _ in events()] == ["import-failed"]
    assert common.state_of("web").current is None
