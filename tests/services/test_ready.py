"""Clones that are ready before they are asked for."""

from __future__ import annotations

import os
import threading
import time

import pytest
from django.db import DatabaseError, transaction

from templates_app import lifecycle, store
from templates_app.errors import (
    GateRefused,
    OutOfSpace,
    PoolBusy,
    PoolUnavailable,
    SandboxExists,
    TemplateInUse,
)
from templates_app.models import Generation, Sandbox
from templates_app.services import (
    common,
    destroy,
    generations,
    intents,
    launches,
    ready,
    recovery,
    reload,
    strangers,
    sweep,
)
from tests.pools import sh, stubbornly
from tests.services.conftest import (
    WHO,
    each_once,
    forging,
    import_it,
    no_room_for_clones,
    standing,
    types,
)

pytestmark = each_once


def current(name: str = "web") -> lifecycle.GenerationState:
    return lifecycle.current(common.state_of(name))


def make(driver, name: str = "web") -> ready.Ready:
    made = ready.make(driver, current(name))
    assert made is not None
    return made


def launch(name: str | None = None) -> str:
    recorded = launches.create_sandbox(template="web", name=name, context=WHO)
    return str(recorded.event.sandbox)


def sandboxes(driver) -> set[str]:
    return {name for name in standing(driver) if name.startswith("sandbox-")}


def called(*made: ready.Ready | str) -> set[str]:
    """Names of their datasets."""
    return {f"sandbox-{one if isinstance(one, str) else one.note.sandbox_id}" for one in made}


def written_long_ago(note: ready.Note) -> None:
    then = time.time() - 3600
    os.utime(note.path, (then, then))


# --- launches ------------------------------------------------------------------------------------


def test_a_launch_takes_the_clone_that_is_ready(driver, monkeypatch):
    import_it()
    made = make(driver)
    assert sandboxes(driver) == called(made)
    assert not Sandbox.objects.exists()

    def another(*_, **__):
        raise AssertionError("a clone was made")

    monkeypatch.setattr(type(driver), "clone", another)
    assert launch() == made.note.sandbox_id
    assert (made.clone.path / "etc/motd").read_text() == "one"
    assert ready.notes() == [] and intents.noted() == {}
    assert recovery.recover(context=WHO) == []
    assert sandboxes(driver) == called(made)


def test_one_with_a_name_of_its_own_does_not(driver):
    import_it()
    made = make(driver)
    assert launch("mine") == "mine"
    assert ready.notes() == [made.note]


def test_and_cannot_have_the_id_of_one_that_waits(driver):
    """Else the sandbox would be taken for what waits, and removed when its time is up."""
    import_it()
    made = make(driver)
    driver.destroy(f"sandbox-{made.note.sandbox_id}")
    with pytest.raises(SandboxExists):
        launch(made.note.sandbox_id)
    assert sandboxes(driver) == set() and intents.noted() == {}


def test_nor_does_one_of_another_generation(driver):
    import_it()
    made = make(driver)
    import_it(force=True)
    assert launch() != made.note.sandbox_id
    assert Sandbox.objects.get().generation == 2
    assert ready.notes() == [made.note]


def test_one_that_somebody_removed_is_not_launched(driver):
    import_it()
    made = make(driver)
    driver.destroy(f"sandbox-{made.note.sandbox_id}")
    fresh = launch()
    assert fresh != made.note.sandbox_id and sandboxes(driver) == called(fresh)
    # A zfs(8) whose maker was killed may be at work on it still: then the clone is yet to come.
    assert ready.notes() == [made.note]
    written_long_ago(made.note)
    launch()
    assert ready.notes() == []


def test_what_somebody_made_under_its_name_stays(driver):
    import_it()
    import_it("other")
    made = make(driver)
    name = f"sandbox-{made.note.sandbox_id}"
    driver.destroy(name)
    driver.clone(common.relative(driver, current("other").dataset), name)
    assert launch() != made.note.sandbox_id
    assert recovery.recover(context=WHO) == [] and ready.notes() == []
    assert name in sandboxes(driver)


def test_the_gate_judges_what_it_is_a_clone_of_now(driver, settings):
    """Its snapshot was made anew by hand: for one clone under the gate, as for any other."""
    import_it()
    made = make(driver)
    generation = current()
    if driver.kind == "dir":
        with forging(driver, generation.dataset) as files:
            (files / "etc/motd").write_text("forged")
    else:  # it cannot be destroyed while it has a clone: only put in another place
        sh("zfs", "unmount", made.clone.name)
        stubbornly("zfs", "rename", generation.dataset, f"{generation.dataset}-real")
        sh("zfs", "mount", made.clone.name)
        sh("zfs", "create", generation.dataset)
        sh("zfs", "snapshot", generation.origin)
    decided = launches.create_sandbox(template="web", name=None, context=WHO)
    assert "statement_stale" in decided.event.failed_checks
    settings.COPPICE_REQUIRE_SIGNED_TEMPLATES = "on"
    with pytest.raises(GateRefused):
        launch()
    assert types()[-1] == "sandbox-refused"


def test_one_that_is_being_made_is_left_to_its_maker(driver):
    import_it()
    made = make(driver)
    with intents.alone(made.note.sandbox_id):
        fresh = launch()
        assert not ready.give_back(driver, made.note, sure=True)
    assert fresh != made.note.sandbox_id
    assert launch() == made.note.sandbox_id


def test_two_launches_never_have_the_same_one(driver, monkeypatch):
    """The second comes to it when the first has launched it, and is over."""
    import_it()
    made = make(driver)
    really, first = ready.notes, []

    def and_then_another_comes():
        found = really()
        if not first:
            first.append("")
            first[0] = launch()
        return found

    monkeypatch.setattr(ready, "notes", and_then_another_comes)
    second = launch()
    assert first == [made.note.sandbox_id] and second != made.note.sandbox_id
    assert sandboxes(driver) == called(made, second)


def test_where_the_pool_cannot_be_asked_a_launch_says_so_at_once(driver, monkeypatch):
    import_it()
    made = make(driver)

    def away(*_, **__):
        raise PoolUnavailable("The pool does not answer.")

    with monkeypatch.context() as gone:
        gone.setattr(type(driver), "cloned", away)
        with pytest.raises(PoolUnavailable):
            launch()
    assert launch() == made.note.sandbox_id


@pytest.mark.parametrize("name", ["odd", "x@y", "000000000001.0", "0" * 12 + "." + "G" * 16])
def test_what_is_no_note_is_in_nobodys_way(driver, name):
    import_it()
    made = make(driver)
    (made.note.path.parent / name).mkdir()
    assert ready.notes() == [made.note]
    assert launch() == made.note.sandbox_id


def test_a_note_that_says_nothing_sensible_is_forgotten(driver):
    import_it()
    mark = make(driver).note.mark
    ready.Note("0" * 12, mark).write("\0\0\0")
    ready.Note("1" * 12, mark).path.write_bytes(b"\xff\xfe")
    ready.Note("2" * 12, mark).write("elsewhere/coppice/web-g1-00000000@base")
    assert len(recovery.recover(context=WHO)) == 1
    assert ready.notes() == [] and sandboxes(driver) == set()


# --- it is in nobody's way -----------------------------------------------------------------------


@pytest.mark.parametrize("retire", [False, True])
def test_it_keeps_no_template_from_being_destroyed(driver, retire):
    import_it()
    import_it(force=True)
    make(driver)
    generations.rollback(name="web", to=1, context=WHO)
    make(driver)
    assert destroy.preview(name="web", retire=retire).kept == []
    assert [row.clones for row in generations.generations(name="web")] == [[], []]
    destroy.destroy(name="web", retire=retire, context=WHO)
    assert standing(driver) == [] and ready.notes() == []


def test_nor_while_it_is_being_made(driver):
    """By another process, which holds it: a destroy waits for that."""
    import_it()
    made = make(driver)
    holds, over = threading.Event(), threading.Event()

    def another() -> None:
        with intents.alone(made.note.sandbox_id):
            holds.set()
            over.wait(10)

    thread = threading.Thread(target=another)
    thread.start()
    holds.wait(10)
    threading.Timer(0.3, over.set).start()
    destroy.destroy(name="web", context=WHO)
    thread.join()
    assert standing(driver) == [] and ready.notes() == []


def test_none_is_made_of_what_is_gone_by_the_log(driver):
    import_it()
    generation = current()
    destroy.destroy(name="web", context=WHO)
    assert ready.make(driver, generation) is None
    assert standing(driver) == [] and ready.notes() == []


def test_a_sandbox_still_does(driver):
    import_it()
    make(driver)
    sandbox = launch()
    make(driver)
    with pytest.raises(TemplateInUse) as refused:
        destroy.destroy(name="web", context=WHO)
    assert refused.value.extra["clones"] == [driver.full_name(f"sandbox-{sandbox}")]
    assert len(ready.notes()) == 1


def test_a_sweep_gives_back_what_is_not_current(driver, settings):
    settings.COPPICE_RETAIN_GENERATIONS = 0
    import_it()
    make(driver)
    import_it(force=True)
    made = make(driver)
    dry = sweep.sweep(context=WHO, dry_run=True)
    assert [one.generation for one in dry.gone] == [1] and len(ready.notes()) == 2
    swept = sweep.sweep(context=WHO)
    assert [one.generation for one in swept.gone] == [1] and swept.in_use == []
    assert ready.notes() == [made.note]
    assert not Generation.objects.filter(number=1, destroyed_position__isnull=True).exists()
    assert sandboxes(driver) == called(made)


def test_recovery_gives_all_back(driver):
    import_it()
    (name,) = called(make(driver))
    assert recovery.recover(context=WHO, dry_run=True) == [
        f"would remove {name}, which waited for a launch"
    ]
    assert recovery.recover(context=WHO) == [f"removed {name}, which waited for a launch"]
    assert recovery.recover(context=WHO) == []
    assert sandboxes(driver) == set()


def test_of_one_whose_maker_died_first_nothing_is_left(driver):
    import_it()
    ready.Note("000000000001", "0" * 16).write(current().origin)
    ready.Note("000000000002", "0" * 16).write("")  # it was not even written
    assert recovery.recover(context=WHO, dry_run=True) == []
    assert len(ready.notes()) == 2
    assert recovery.recover(context=WHO) == [] and ready.notes() == []


def test_what_a_launch_took_that_died_is_taken_back_as_its_clone(driver):
    import_it()
    made = make(driver)
    intents.note(made.note.sandbox_id, current().origin)
    (name,) = called(made)
    assert recovery.recover(context=WHO, dry_run=True) == [
        f"would remove {name}, a clone that no event knows"
    ]
    assert recovery.recover(context=WHO) == [f"removed {name}, a clone that no event knows"]
    assert ready.notes() == [] and sandboxes(driver) == set()


def test_a_launch_that_died_when_it_noted_that_has_not_taken_it(driver):
    import_it()
    made = make(driver)
    intents.note(made.note.sandbox_id, "")
    (name,) = called(made)
    assert recovery.recover(context=WHO) == [f"removed {name}, which waited for a launch"]
    assert ready.notes() == [] and intents.noted() == {} and sandboxes(driver) == set()


def test_one_that_cannot_be_removed_is_said_by_recovery_and_left_to_it(driver, monkeypatch):
    import_it()
    made = make(driver)
    (name,) = called(made)
    with monkeypatch.context() as busy:

        def refuse(*_):
            raise PoolBusy("Its files are in use.")

        busy.setattr(type(driver), "destroy", refuse)
        ready.clear(driver, lambda _: True)
        assert recovery.recover(context=WHO) == [
            f"could not give back {name}: Its files are in use."
        ]
    assert ready.notes() == [made.note]
    assert recovery.recover(context=WHO) != [] and ready.notes() == []


def test_a_destroy_is_done_although_the_log_cannot_be_asked_about_what_waits(driver, monkeypatch):
    import_it()
    make(driver)

    def lost():
        raise DatabaseError("The connection broke.")

    with monkeypatch.context() as broken:
        broken.setattr(store, "settled", lost)
        destroy.destroy(name="web", context=WHO)
    assert types()[-1] == "destroyed"
    recovery.recover(context=WHO)
    assert standing(driver) == [] and ready.notes() == []


# --- a sandbox is never taken for one ------------------------------------------------------------


@pytest.mark.parametrize(
    "takes_away",
    [
        lambda driver, note: recovery.recover(context=WHO),
        lambda driver, note: ready.clear(driver, lambda _: True),
        lambda driver, note: ready.expire(driver, note),
        lambda driver, note: launch(),
    ],
    ids=["recovery", "clear", "expire", "launch"],
)
@pytest.mark.parametrize("mounted", [True, False])
def test_a_sandbox_whose_note_came_back_stays(driver, takes_away, mounted):
    """With the power, or with a backup of the state directory."""
    import_it()
    made = make(driver)
    assert launch() == made.note.sandbox_id
    if not mounted and driver.kind == "zfs":
        sh("zfs", "unmount", made.clone.name)
    made.note.write(current().origin)
    takes_away(driver, made.note)
    assert ready.notes() == [] and called(made) <= sandboxes(driver)
    assert Sandbox.objects.filter(pk=made.note.sandbox_id, destroyed_at=None).exists()


def test_one_that_was_launched_does_not_expire(driver):
    import_it()
    made = make(driver)
    assert launch() == made.note.sandbox_id
    ready.expire(driver, made.note)
    assert sandboxes(driver) == called(made)


def test_nor_is_one_given_back_whose_launch_is_being_committed(driver, monkeypatch):
    """Its process died when it had told the database to commit."""
    import_it()
    made = make(driver)
    order = []
    monkeypatch.setattr(store, "settled", lambda: order.append("waited"))
    really = ready.sql.rows
    monkeypatch.setattr(ready.sql, "rows", lambda *given: order.append("asked") or really(*given))
    ready.expire(driver, made.note)
    assert order == ["waited", "asked"]


# --- reload --------------------------------------------------------------------------------------


def test_a_reload_does_not_take_it_for_a_stranger(driver, monkeypatch):
    import_it()
    made = make(driver)
    assert reload.reload(context=WHO).event.findings == ()
    really = type(driver).all_clones

    def and_then_it_goes(driver):
        """After the pool was looked at, before the notes are read again."""
        found = really(driver)
        ready.clear(driver, lambda _: True)
        return found

    monkeypatch.setattr(type(driver), "all_clones", and_then_it_goes)
    assert reload.reload(context=WHO).event.findings == ()
    assert ready.notes() == [] and called(made).isdisjoint(standing(driver))


def test_nor_one_that_is_launched_while_the_notes_are_read(driver, monkeypatch):
    import_it()
    made = make(driver)
    really = intents.noted

    def and_then_it_is_launched():
        found = really()
        if ready.notes():
            intents.note(made.note.sandbox_id, current().origin)
            made.note.forget()
        return found

    monkeypatch.setattr(intents, "noted", and_then_it_is_launched)
    assert strangers.noted() == called(made)


# --- making --------------------------------------------------------------------------------------


def test_where_it_cannot_be_made_nothing_is_left(driver, monkeypatch):
    import_it()
    with no_room_for_clones(driver, monkeypatch), pytest.raises(OutOfSpace):
        make(driver)
    assert ready.notes() == [] and sandboxes(driver) == set()
    with monkeypatch.context() as full:

        def no_flush(*_):
            raise OSError(28, "No space left on device")

        full.setattr(os, "fsync", no_flush)
        with pytest.raises(OSError, match="No space"):
            make(driver)
    assert ready.notes() == [] and sandboxes(driver) == set()


def test_a_transaction_of_the_callers_is_no_hindrance(driver):
    import_it()
    made = make(driver)
    with transaction.atomic():
        assert ready.give_back(driver, made.note, sure=True)
    assert sandboxes(driver) == set()
