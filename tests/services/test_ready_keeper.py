"""The thread that makes clones ready, on the pool where it does."""

from __future__ import annotations

import time

import pytest

from templates_app.errors import OutOfSpace
from templates_app.models import Sandbox
from templates_app.services import launches, ready, reload
from tests.pools import sh
from tests.services.conftest import WHO, hand_make, import_it
from tests.services.test_ready import current, launch, sandboxes

pytestmark = pytest.mark.parametrize(
    ("pool", "database_url"), [("zfs", "sqlite"), ("zfs", "postgresql")], indirect=True
)


def until(come_true, seconds: float = 30.0) -> None:
    over = time.monotonic() + seconds
    while not come_true():
        assert time.monotonic() < over, "it does not come true"
        time.sleep(0.02)


@pytest.fixture
def kept(driver, settings):
    """A keeper of its own, which has nothing left at the end."""
    settings.COPPICE_READY_SECONDS = 60
    yield
    settings.COPPICE_READY_SECONDS = 0
    until(lambda: not ready._keeper._wanted)
    ready.clear(driver, lambda _: True)
    until(lambda: ready.noted() == {})  # the keeper may be at it
    ready._after_fork()


def test_after_a_launch_the_next_clone_is_made(driver, kept):
    import_it()
    first = launch()
    until(lambda: not ready._keeper._wanted)
    (waiting,) = ready.noted()
    assert launch() == waiting != first


def test_not_while_it_is_switched_off_nor_of_what_was_made_by_hand(driver, settings, kept):
    hand_make(driver, "web")
    reload.reload(context=WHO)
    by_hand = launch()
    assert ready._keeper._wanted == {} and ready.noted() == {}
    launches.destroy_sandbox(sandbox_id=by_hand, context=WHO)
    import_it(force=True)
    settings.COPPICE_READY_SECONDS = 0
    launch()
    assert ready._keeper._wanted == {} and ready.noted() == {}


def test_a_launch_waits_for_the_one_that_is_being_made(driver, kept, monkeypatch):
    import_it()
    looks = []
    really = type(driver).cloned
    monkeypatch.setattr(
        type(driver), "cloned", lambda *given: looks.append(given) or really(*given)
    )
    ready.ask(driver, current())
    sandbox = launch()
    until(lambda: not ready._keeper._wanted)
    assert Sandbox.objects.get().id == sandbox
    assert looks == []  # it was seen when it was made, after the launch had begun
    assert len(ready.noted()) == 1  # the next one


def test_one_that_nobody_asks_for_goes_after_a_while(driver, kept, settings):
    import_it()
    settings.COPPICE_READY_SECONDS = 1
    ready.ask(driver, current())
    until(lambda: ready.noted() and not ready._keeper._wanted)
    assert len(sandboxes(driver)) == 1
    until(lambda: ready._keeper._thread is None)
    assert ready.noted() == {} and sandboxes(driver) == set()


def test_the_keeper_goes_on_after_one_that_could_not_be_made(driver, kept, monkeypatch):
    import_it()
    with monkeypatch.context() as full:

        def no_room(*_, **__):
            raise OutOfSpace("The pool is full.")

        full.setattr(type(driver), "clone", no_room)
        ready.ask(driver, current())
        until(lambda: not ready._keeper._wanted)
    assert ready.noted() == {}
    ready.ask(driver, current())
    until(lambda: ready.noted() != {})


def test_one_that_is_no_more_mounted_is_not_launched(driver):
    import_it()
    made = ready.make(driver, current())
    sh("zfs", "unmount", made.clone.name)
    fresh = launch()
    assert fresh != made.sandbox_id
    assert sandboxes(driver) == {f"sandbox-{fresh}"} and ready.noted() == {}
