"""Whatever ends a use case, and wherever: pool and log agree afterwards, or after recovery."""

from __future__ import annotations

import os
import traceback

import pytest
from django.db import connection, connections

from templates_app import lifecycle, store
from templates_app.errors import (
    CoppiceError,
    DatabaseUnavailable,
    OutOfSpace,
    PoolBusy,
    PoolUnavailable,
    SandboxBusy,
    SandboxExists,
    SandboxNotFound,
    TemplateInUse,
)
from templates_app.events import ImportFailed, SandboxCreated
from templates_app.models import Generation, Lease, Sandbox, Template
from templates_app.services import destroy, imports, intents, launches, recovery, reload, removal
from tests.pools import sh
from tests.services.conftest import (
    WHO,
    each_once,
    import_it,
    no_room_for_clones,
    standing,
    types,
)

pytestmark = each_once


def appended_and(then: BaseException, kind: type):
    """store.append, after which ``then`` is raised although the events are in the log."""
    really = store.append

    def append(events, **rest):
        recorded = really(events, **rest)
        if isinstance(recorded[0].event, kind):
            raise then
        return recorded

    return append


def committed_and(then: BaseException):
    """An import's commit, after which ``then`` is raised although the event is in the log."""
    really = imports._commit

    def commit(*args):
        really(*args)
        raise then

    return commit


def test_an_import_whose_commit_was_not_confirmed_is_done_all_the_same(driver, monkeypatch):
    lost = DatabaseUnavailable("The connection broke.")
    monkeypatch.setattr(imports, "_commit", committed_and(lost))
    recorded = import_it()
    assert recorded.event.generation == 1
    assert types() == ["imported"]
    assert driver.snapshot("web-template") is not None
    assert not Lease.objects.exists()


def test_an_interrupt_just_after_the_commit_takes_nothing_away(driver, monkeypatch):
    monkeypatch.setattr(imports, "_commit", committed_and(SystemExit(1)))
    with pytest.raises(SystemExit):
        import_it()
    assert types() == ["imported"]
    generation = Template.objects.get(pk="web").current
    assert any(found.name == generation.dataset for found in driver.find_all())
    monkeypatch.undo()
    assert recovery.recover(context=WHO) == [f"pointed the alias of web at {generation.origin}"]


def test_where_the_log_cannot_be_asked_nothing_is_undone_and_recovery_decides(driver, monkeypatch):
    lost = DatabaseUnavailable("The connection broke.")

    def unanswered(*_args, **_rest):
        raise DatabaseUnavailable("It is still broken.")

    with monkeypatch.context() as broken:
        broken.setattr(imports, "_commit", committed_and(lost))
        broken.setattr(imports.store, "about", _only_templates(store.about, unanswered))
        with pytest.raises(DatabaseUnavailable):
            import_it()
    assert types() == ["imported"]
    assert Lease.objects.count() == 1
    done = recovery.recover(context=WHO)
    assert done[0].startswith("ended the dead import")
    assert types() == ["imported"]
    assert not Lease.objects.exists()
    assert launches.create_sandbox(template="web", name="one", context=WHO)


def _only_templates(really, otherwise):
    def about(kind, key, **rest):
        return (really if kind == "template" else otherwise)(kind, key, **rest)

    return about


def test_a_moment_without_the_database_does_not_cost_an_import(driver, shelf):
    """Its progress cannot be recorded, which is no reason to end it."""

    def away() -> None:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE templates_app_lease RENAME TO elsewhere")

    def back(_progress) -> None:
        with connection.cursor() as cursor:
            if "elsewhere" in connection.introspection.table_names():
                cursor.execute("ALTER TABLE elsewhere RENAME TO templates_app_lease")

    shelf.during = away
    recorded = import_it(on_progress=back)
    assert recorded.event.generation == 1
    assert types() == ["imported"]


def test_what_a_failed_import_could_not_undo_recovery_does(driver, shelf, monkeypatch):
    def full() -> None:
        raise OutOfSpace("The pool is full.")

    def refuse(*_):
        raise PoolBusy("Not now.")

    with monkeypatch.context() as busy, pytest.raises(OutOfSpace):
        busy.setattr(type(driver), "destroy", refuse)
        busy.setattr(shelf, "during", full)
        import_it()
    (left,) = [name for name in standing(driver) if name.startswith("coppice/web-g1-")]
    import_it()  # its name is free all the same
    assert recovery.recover(context=WHO) == [
        f"undone: dataset {left}, of an import that has no lease any more"
    ]
    assert left not in standing(driver)
    assert types() == ["import-failed", "imported"]
    assert recovery.recover(context=WHO) == []


def in_a_process_that_dies(work) -> None:
    connections.close_all()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - said, and found by the assertion below
            traceback.print_exc()
            os._exit(1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9, "it did not come to where it was to die"


@pytest.mark.parametrize("lost", [DatabaseUnavailable("It was away."), ValueError("odd text")])
def test_a_failure_that_could_not_be_recorded_is_recorded_by_who_comes_next(
    driver, monkeypatch, shelf, lost
):
    def fail() -> None:
        raise OutOfSpace("The pool is full.")

    shelf.during = fail
    really = store.append

    def refuse_failures(events, **rest):
        if isinstance(events[0], ImportFailed):
            raise lost
        return really(events, **rest)

    with monkeypatch.context() as away:
        away.setattr(store, "append", refuse_failures)
        with pytest.raises(OutOfSpace):  # what it failed for, not that this could not be recorded
            import_it()
    assert types() == [] and Lease.objects.count() == 1
    shelf.during = lambda: None
    import_it()
    assert types() == ["import-failed", "imported"] and not Lease.objects.exists()
    assert recovery.recover(context=WHO) == []


def test_a_launch_whose_process_died_before_its_event_is_taken_back(driver, monkeypatch):
    import_it()

    def launch() -> None:
        monkeypatch.setattr(launches, "_record", lambda *_: os._exit(9))
        launches.create_sandbox(template="web", name="lost", context=WHO)

    in_a_process_that_dies(launch)
    assert "sandbox-lost" in standing(driver)
    assert recovery.recover(context=WHO, dry_run=True) == [
        "would remove sandbox-lost, a clone that no event knows"
    ]
    assert recovery.recover(context=WHO) == ["removed sandbox-lost, a clone that no event knows"]
    assert "sandbox-lost" not in standing(driver)
    assert recovery.recover(context=WHO) == []
    launches.create_sandbox(template="web", name="lost", context=WHO)
    assert recovery.recover(context=WHO) == []
    assert "sandbox-lost" in standing(driver)


def test_another_try_of_a_launch_that_died_leaves_its_clone_to_recovery(driver):
    import_it()
    driver.clone(_generation(driver), "sandbox-lost")
    intents.note("lost", Generation.objects.get().origin)
    with pytest.raises(SandboxExists):
        launches.create_sandbox(template="web", name="lost", context=WHO)
    assert recovery.recover(context=WHO) == ["removed sandbox-lost, a clone that no event knows"]
    launches.create_sandbox(template="web", name="lost", context=WHO)


def test_a_launch_that_made_no_clone_leaves_no_note_of_one(driver, monkeypatch):
    """Else a clone that somebody makes by hand under its name would be taken for its own."""
    import_it()
    with no_room_for_clones(driver, monkeypatch), pytest.raises(OutOfSpace):
        launches.create_sandbox(template="web", name="one", context=WHO)
    assert intents.noted() == {}
    driver.clone(_generation(driver), "sandbox-one")
    assert recovery.recover(context=WHO) == []
    assert "sandbox-one" in standing(driver)


def test_an_end_that_did_not_begin_is_not_finished_later(driver, monkeypatch):
    import_it()
    launches.create_sandbox(template="web", name="one", context=WHO)
    with monkeypatch.context() as away:

        def gone(*_):
            raise PoolUnavailable("The pool is away.")

        away.setattr(type(driver), "check", gone)
        with pytest.raises(PoolUnavailable):
            launches.destroy_sandbox(sandbox_id="one", context=WHO)
    assert intents.ending() == {}
    # Nor that of an earlier sandbox of the same name.
    intents.note_end("one", store.stream_version("sandbox:one") - 1)
    assert recovery.recover(context=WHO) == []
    assert intents.ending() == {} and "sandbox-one" in standing(driver)
    intents.note_end("one", store.stream_version("sandbox:one"))
    assert recovery.recover(context=WHO) == ["finished the end of sandbox one"]


def test_an_alias_follows_the_log_of_the_moment_and_not_of_the_look(driver, monkeypatch):
    import_it()
    first = Generation.objects.get()
    alias = driver.full_name("web-template")
    driver.destroy("web-template")
    really = lifecycle.launchable

    def while_another_imports(state):
        monkeypatch.setattr(lifecycle, "launchable", really)
        import_it(force=True)
        return really(state)

    monkeypatch.setattr(recovery.lifecycle, "launchable", while_another_imports)
    recovery.recover(context=WHO)
    (found,) = (one for one in driver.find_all() if one.name == alias)
    assert found.origin == Generation.objects.get(number=2).origin != first.origin


def test_a_commit_that_is_still_under_way_is_waited_for(driver, monkeypatch):
    """The answer to COMMIT is lost, and the server is at it still: the log is asked after it."""
    import_it()
    waited = []
    monkeypatch.setattr(store, "settled", lambda: waited.append(store.size()))
    monkeypatch.setattr(imports, "_commit", lost_connection)
    with pytest.raises(DatabaseUnavailable):
        import_it(force=True)
    assert waited == [1]
    monkeypatch.setattr(launches, "_record", lost_connection)
    with pytest.raises(DatabaseUnavailable):
        launches.create_sandbox(template="web", name="one", context=WHO)
    assert len(waited) == 2


def lost_connection(*_, **__):
    raise DatabaseUnavailable("The connection broke.")


def test_a_launch_that_is_in_the_log_is_never_taken_back(driver, monkeypatch):
    import_it()
    lost = DatabaseUnavailable("The connection broke.")
    with monkeypatch.context() as broken:
        broken.setattr(store, "append", appended_and(lost, SandboxCreated))
        with pytest.raises(DatabaseUnavailable):
            launches.create_sandbox(template="web", name="one", context=WHO)
    # Within a transaction the append's own failure took it back: neither row nor clone.
    assert Sandbox.objects.exists() == ("sandbox-one" in standing(driver))
    assert intents.noted() == {}


def test_what_somebody_else_made_under_the_sandboxs_name_stays(driver):
    import_it()
    driver.clone(_generation(driver), "sandbox-mine")
    with pytest.raises(SandboxExists):
        launches.create_sandbox(template="web", name="mine", context=WHO)
    assert recovery.recover(context=WHO) == []
    # A launch that died before its clone was made: what stands there now is not its clone.
    intents.note("mine", "another@base")
    assert recovery.recover(context=WHO) == []
    assert intents.noted() == {}
    assert "sandbox-mine" in standing(driver)
    (finding,) = reload.reload(context=WHO).event.findings
    assert finding.code == "orphan_sandbox"


def _generation(driver) -> str:
    return next(name for name in standing(driver) if name.startswith("coppice/"))


def test_a_sandbox_is_launched_or_destroyed_by_one_at_a_time(driver, monkeypatch):
    import_it()
    launches.create_sandbox(template="web", name="one", context=WHO)
    monkeypatch.setattr(intents, "PATIENCE", 0.1)
    with intents.alone("one"):
        with pytest.raises(SandboxBusy):
            launches.destroy_sandbox(sandbox_id="one", context=WHO)
        with pytest.raises(SandboxBusy):
            launches.create_sandbox(template="web", name="one", context=WHO)
    launches.destroy_sandbox(sandbox_id="one", context=WHO)
    with pytest.raises(SandboxNotFound):
        launches.destroy_sandbox(sandbox_id="one", context=WHO)


def test_a_launch_between_the_look_and_the_event_keeps_the_template(driver, monkeypatch):
    import_it()
    really = removal.clones

    def and_then_somebody_launches(*args):
        found = really(*args)
        launches.create_sandbox(template="web", name="late", context=WHO)
        return found

    monkeypatch.setattr(removal, "clones", and_then_somebody_launches)
    with pytest.raises(TemplateInUse):
        destroy.destroy(name="web", context=WHO)
    assert types() == ["imported", "sandbox-created"]
    assert "web-template" in standing(driver)


def test_what_recovery_cannot_do_keeps_it_from_nothing_else(driver, monkeypatch, shelf):
    def die() -> None:
        os._exit(9)

    shelf.during = die
    for name in ("first", "second"):
        in_a_process_that_dies(lambda name=name: import_it(name))
    really = recovery.leftovers.clean

    def stubborn(context, import_id):
        if Lease.objects.get(import_id=import_id).template_name == "first":
            raise OSError(16, "Device or resource busy")
        return really(context, import_id)

    monkeypatch.setattr(recovery.leftovers, "clean", stubborn)
    done = recovery.recover(context=WHO)
    assert any(one.startswith("could not end the import") for one in done)
    assert any(one.startswith("ended the dead import") for one in done)
    assert list(Lease.objects.values_list("template_name", flat=True)) == ["first"]
    assert [one.event.template for one in store.read()] == ["second"]


def test_a_dead_import_does_not_keep_a_template_from_being_destroyed(driver, shelf):
    import_it()

    def die() -> None:
        os._exit(9)

    shelf.during = die
    in_a_process_that_dies(lambda: import_it(force=True))
    assert Lease.objects.count() == 1
    destroy.destroy(name="web", context=WHO)
    assert types() == ["imported", "import-failed", "destroyed"]
    assert standing(driver) == []
    assert not Lease.objects.exists()


def test_a_database_of_another_pool_is_said_to_be_one(driver, settings, tmp_path):
    import_it()
    other = tmp_path / "other"
    other.mkdir()
    settings.COPPICE_POOL = f"dir:{other}"
    with pytest.raises(CoppiceError) as caught:
        launches.gate_decision(name="web")
    assert caught.value.code == "pool_unavailable"
    assert "another pool" in caught.value.detail
    assert any(one.startswith("could not point") for one in recovery.recover(context=WHO))


def test_a_clone_of_an_alias_by_hand_ends_with_its_template(driver):
    if driver.kind != "zfs":
        return  # an alias of a directory pool leads to the generation: nothing is cloned from it
    import_it()
    alias = driver.full_name("web-template")
    sh("zfs", "clone", "-o", "canmount=off", f"{alias}@base", driver.full_name("by-hand"))
    import_it(force=True)
    assert "coppice/web-template-aside-1" in standing(driver)
    with pytest.raises(TemplateInUse):
        destroy.destroy(name="web", context=WHO)
    driver.destroy("by-hand")
    destroy.destroy(name="web", context=WHO)
    assert standing(driver) == []
