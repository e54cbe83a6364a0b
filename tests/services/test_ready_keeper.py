"""The thread that makes clones ready, on the pool where it does."""

from __future__ import annotations

import os
import threading
import time

import pytest
from django.db.backends.base.base import BaseDatabaseWrapper

from templates_app.errors import OutOfSpace
from templates_app.models import Sandbox
from templates_app.services import launches, ready, ready_keeper, reload
from tests.pools import sh
from tests.services.conftest import WHO, hand_make, import_it, standing
from tests.services.test_ready import called, current, launch, make, sandboxes

pytestmark = pytest.mark.parametrize(
    ("pool", "database_url"), [("zfs", "sqlite"), ("zfs", "postgresql")], indirect=True
)


def until(come_true, seconds: float = 30.0) -> None:
    over = time.monotonic() + seconds
    while not come_true():
        assert time.monotonic() < over, "it does not come true"
        time.sleep(0.02)


def is_idle() -> bool:
    keeper = ready_keeper.keeper
    return not keeper._wanted and keeper._making is None


@pytest.fixture
def kept(driver, settings):
    """A keeper of its own, which has nothing left at the end."""
    ready_keeper._after_fork()
    settings.COPPICE_READY_SECONDS = 60
    yield ready_keeper.keeper
    settings.COPPICE_READY_SECONDS = 0
    until(is_idle)
    ready.clear(driver, lambda _: True)
    until(lambda: ready.notes() == [])  # the keeper may be at it
    ready_keeper._after_fork()


@pytest.fixture
def slow(driver, monkeypatch):
    """Clones are made when ``slow`` is set, from the second one on."""
    goes, begun = threading.Event(), threading.Event()
    really = type(driver).clone

    def clone(*given, **more):
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            goes.wait(10)
        return really(*given, **more)

    monkeypatch.setattr(type(driver), "clone", clone)
    goes.begun = begun
    yield goes
    goes.set()


def test_after_a_launch_the_next_clone_is_made(driver, kept):
    import_it()
    first = launch()
    until(is_idle)
    (waiting,) = ready.ids()
    assert sandboxes(driver) == called(first, waiting)
    assert launch() == waiting != first


def test_one_for_each_generation(driver, kept):
    import_it()
    for _ in range(3):
        kept.ask(driver, current())
        until(is_idle)
    assert len(ready.ids()) == 1


def test_not_while_it_is_switched_off_nor_of_what_was_made_by_hand(driver, settings, kept):
    hand_make(driver, "web")
    reload.reload(context=WHO)
    by_hand = launch()
    assert is_idle() and ready.ids() == []
    launches.destroy_sandbox(sandbox_id=by_hand, context=WHO)
    import_it(force=True)
    settings.COPPICE_READY_SECONDS = 0
    launch()
    assert is_idle() and ready.ids() == []


def test_nor_where_clones_are_full_copies(driver, kept):
    import_it()
    driver.layers = None
    kept.ask(driver, current())
    assert is_idle() and ready.ids() == []


def test_a_launch_waits_for_the_one_that_is_being_made(driver, kept, slow, monkeypatch):
    import_it()
    looks = []
    really = type(driver).cloned
    monkeypatch.setattr(
        type(driver), "cloned", lambda *given: looks.append(given) or really(*given)
    )
    kept.ask(driver, current())
    slow.begun.wait(10)
    (coming,) = ready.ids()
    threading.Timer(0.2, slow.set).start()
    assert launch() == coming
    assert looks == []  # it was seen when it was made


def test_one_launch_at_a_time(driver, kept, slow):
    import_it()
    kept.ask(driver, current())
    slow.begun.wait(10)
    kept._awaited = True  # by another launch
    (coming,) = ready.ids()
    assert launch() != coming
    kept._awaited = False
    slow.set()
    until(is_idle)


def test_and_does_not_take_what_was_made_before(driver, kept, slow, monkeypatch):
    """That has to be looked at: here it is gone, and another one is made that does not come."""
    import_it()
    slow.set()
    kept.ask(driver, current())
    until(is_idle)
    (gone,) = ready.notes()
    driver.destroy(f"sandbox-{gone.sandbox_id}")
    monkeypatch.setattr(ready, "is_one_of", lambda _: False)
    slow.clear()
    slow.begun.clear()
    kept.ask(driver, current())
    slow.begun.wait(10)
    monkeypatch.setattr(ready_keeper, "PATIENCE", 0.2)
    fresh = launch()
    gone.forget()
    assert fresh != gone.sandbox_id and f"sandbox-{fresh}" in standing(driver)


def test_one_that_nobody_asks_for_goes_after_a_while(driver, kept, settings):
    import_it()
    settings.COPPICE_READY_SECONDS = 1
    kept.ask(driver, current())
    until(lambda: ready.ids() and is_idle())
    assert len(sandboxes(driver)) == 1
    until(lambda: kept._thread is None)
    assert ready.ids() == [] and sandboxes(driver) == set()


def test_but_not_if_it_was_launched(driver, kept, settings):
    import_it()
    settings.COPPICE_READY_SECONDS = 1
    kept.ask(driver, current())
    until(lambda: ready.ids() and is_idle())
    settings.COPPICE_READY_SECONDS = 0
    sandbox = launch()
    until(lambda: kept._thread is None)
    assert sandboxes(driver) == called(sandbox)


@pytest.mark.parametrize(
    "broken",
    [
        lambda driver: (type(driver), "clone"),
        lambda driver: (BaseDatabaseWrapper, "close_if_unusable_or_obsolete"),
    ],
    ids=["pool", "database"],
)
@pytest.mark.parametrize("error", [OutOfSpace("The pool is full."), RuntimeError("can't start")])
def test_the_keeper_goes_on_after_whatever_went_wrong(driver, kept, monkeypatch, error, broken):
    import_it()
    with monkeypatch.context() as full:

        def fail(*_, **__):
            raise error

        full.setattr(*broken(driver), fail)
        kept.ask(driver, current())
        until(is_idle)
    assert ready.ids() == []
    kept.ask(driver, current())
    until(lambda: ready.ids() != [])


def test_without_a_thread_a_launch_goes_on_all_the_same(driver, kept, monkeypatch):
    import_it()

    def no_more(*_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", no_more)
        assert launch()
    assert is_idle() and ready.ids() == []
    launch()
    until(lambda: ready.ids() != [])


def test_a_forked_process_has_a_keeper_of_its_own(driver, kept):
    import_it()
    kept.ask(driver, current())
    until(lambda: ready.ids() and is_idle())
    assert kept._thread is not None
    child = os.fork()
    if child == 0:
        other = ready_keeper.keeper
        os._exit(0 if other is not kept and other._thread is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_at_the_end_what_is_being_made_is_waited_for_and_nothing_is_left(driver, kept, slow):
    import_it()
    sandbox = launch()
    slow.begun.wait(10)
    threading.Timer(0.2, slow.set).start()
    kept.close()
    assert ready.ids() == [] and sandboxes(driver) == called(sandbox)
    launch()
    assert is_idle() and ready.ids() == []
    until(lambda: kept._thread is None)


def test_one_that_is_not_mounted_any_more_is_not_launched(driver):
    import_it()
    made = make(driver)
    sh("zfs", "unmount", made.clone.name)
    fresh = launch()
    assert fresh != made.note.sandbox_id
    assert sandboxes(driver) == called(fresh) and ready.ids() == []
    assert Sandbox.objects.count() == 1
