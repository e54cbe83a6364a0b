"""Clones that are ready before they are asked for."""

from __future__ import annotations

import pytest

from templates_app import lifecycle
from templates_app.errors import OutOfSpace, PoolBusy, TemplateInUse
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
    sweep,
)
from tests.services.conftest import WHO, each_once, import_it, standing

pytestmark = each_once


def current(name: str = "web") -> lifecycle.GenerationState:
    return lifecycle.current(common.state_of(name))


def launch(name: str | None = None) -> str:
    recorded = launches.create_sandbox(template="web", name=name, context=WHO)
    return str(recorded.event.sandbox)


def sandboxes(driver) -> set[str]:
    return {name for name in standing(driver) if name.startswith("sandbox-")}


def test_a_launch_takes_the_clone_that_is_ready(driver, monkeypatch):
    import_it()
    made = ready.make(driver, current())
    assert sandboxes(driver) == {f"sandbox-{made.sandbox_id}"}
    assert not Sandbox.objects.exists()

    def another(*_, **__):
        raise AssertionError("a clone was made")

    monkeypatch.setattr(type(driver), "clone", another)
    assert launch() == made.sandbox_id
    assert (made.clone.path / "etc/motd").read_text() == "one"
    assert ready.noted() == {} and intents.noted() == {}
    assert recovery.recover(context=WHO) == []
    assert sandboxes(driver) == {f"sandbox-{made.sandbox_id}"}


def test_one_with_a_name_of_its_own_does_not(driver):
    import_it()
    made = ready.make(driver, current())
    assert launch("mine") == "mine"
    assert list(ready.noted()) == [made.sandbox_id]


def test_nor_does_one_of_another_generation(driver):
    import_it()
    made = ready.make(driver, current())
    import_it(force=True)
    assert launch() != made.sandbox_id
    assert Sandbox.objects.get().generation == 2
    assert list(ready.noted()) == [made.sandbox_id]


def test_one_that_somebody_removed_is_not_launched(driver):
    import_it()
    made = ready.make(driver, current())
    driver.destroy(f"sandbox-{made.sandbox_id}")
    fresh = launch()
    assert fresh != made.sandbox_id
    assert sandboxes(driver) == {f"sandbox-{fresh}"} and ready.noted() == {}


def test_what_somebody_made_under_its_name_stays(driver):
    import_it()
    import_it("other")
    made = ready.make(driver, current())
    driver.destroy(f"sandbox-{made.sandbox_id}")
    driver.clone(common.relative(driver, current("other").dataset), f"sandbox-{made.sandbox_id}")
    assert launch() != made.sandbox_id
    assert ready.noted() == {}
    assert f"sandbox-{made.sandbox_id}" in sandboxes(driver)


def test_one_that_is_being_made_is_left_to_its_maker(driver):
    import_it()
    made = ready.make(driver, current())
    with intents.alone(made.sandbox_id):
        fresh = launch()
        assert not ready.give_back(driver, made.sandbox_id, made.origin)
    assert fresh != made.sandbox_id
    assert launch() == made.sandbox_id


def test_two_launches_never_have_the_same_one(driver, monkeypatch):
    """The second waits for its turn with the id, and finds that it was launched meanwhile."""
    import_it()
    made = ready.make(driver, current())
    really, first = ready.noted, []

    def and_then_another_comes():
        found = really()
        if not first:
            first.append("")
            first[0] = launch()
        return found

    monkeypatch.setattr(ready, "noted", and_then_another_comes)
    second = launch()
    assert first == [made.sandbox_id] and second != made.sandbox_id
    assert sandboxes(driver) == {f"sandbox-{made.sandbox_id}", f"sandbox-{second}"}


@pytest.mark.parametrize("retire", [False, True])
def test_it_keeps_no_template_from_being_destroyed(driver, retire):
    import_it()
    import_it(force=True)
    ready.make(driver, current())
    generations.rollback(name="web", to=1, context=WHO)
    ready.make(driver, current())
    assert destroy.preview(name="web", retire=retire).kept == []
    assert [row.clones for row in generations.generations(name="web")] == [[], []]
    destroy.destroy(name="web", retire=retire, context=WHO)
    assert standing(driver) == [] and ready.noted() == {}


def test_a_sandbox_still_does(driver):
    import_it()
    ready.make(driver, current())
    sandbox = launch()
    ready.make(driver, current())
    with pytest.raises(TemplateInUse) as refused:
        destroy.destroy(name="web", context=WHO)
    assert refused.value.extra["clones"] == [driver.full_name(f"sandbox-{sandbox}")]
    assert len(ready.noted()) == 1


def test_a_sweep_gives_back_what_is_not_current(driver, settings):
    settings.COPPICE_RETAIN_GENERATIONS = 0
    import_it()
    ready.make(driver, current())
    import_it(force=True)
    made = ready.make(driver, current())
    dry = sweep.sweep(context=WHO, dry_run=True)
    assert [one.generation for one in dry.gone] == [1] and len(ready.noted()) == 2
    swept = sweep.sweep(context=WHO)
    assert [one.generation for one in swept.gone] == [1] and swept.in_use == []
    assert list(ready.noted()) == [made.sandbox_id]
    assert not Generation.objects.filter(number=1, destroyed_position__isnull=True).exists()
    assert sandboxes(driver) == {f"sandbox-{made.sandbox_id}"}


def test_recovery_gives_all_back(driver):
    import_it()
    made = ready.make(driver, current())
    name = f"sandbox-{made.sandbox_id}"
    assert recovery.recover(context=WHO, dry_run=True) == [
        f"would remove {name}, which waited for a launch"
    ]
    assert recovery.recover(context=WHO) == [f"removed {name}, which waited for a launch"]
    assert recovery.recover(context=WHO) == []
    assert sandboxes(driver) == set()


def test_of_one_whose_maker_died_first_nothing_is_left(driver):
    import_it()
    ready._note("000000000001", current().origin)
    ready._note("000000000002", "")  # not even written
    assert recovery.recover(context=WHO, dry_run=True) == []
    assert len(ready.noted()) == 2
    assert recovery.recover(context=WHO) == [] and ready.noted() == {}


def test_what_a_launch_took_that_died_is_taken_back_as_its_clone(driver):
    import_it()
    made = ready.make(driver, current())
    intents.note(made.sandbox_id, made.origin)
    says = f"remove sandbox-{made.sandbox_id}, a clone that no event knows"
    assert recovery.recover(context=WHO, dry_run=True) == [f"would {says}"]
    assert recovery.recover(context=WHO) == [f"{says.replace('remove', 'removed', 1)}"]
    assert ready.noted() == {} and sandboxes(driver) == set()


def test_one_that_cannot_be_removed_is_said_by_recovery_and_left_to_it(driver, monkeypatch):
    import_it()
    made = ready.make(driver, current())
    with monkeypatch.context() as busy:

        def refuse(*_):
            raise PoolBusy("Its files are in use.")

        busy.setattr(type(driver), "destroy", refuse)
        ready.clear(driver, lambda _: True)
        assert recovery.recover(context=WHO) == [
            f"could not give back sandbox-{made.sandbox_id}: Its files are in use."
        ]
    assert list(ready.noted()) == [made.sandbox_id]
    assert recovery.recover(context=WHO) != [] and ready.noted() == {}


def test_a_sandbox_whose_note_came_back_with_the_power_stays(driver):
    import_it()
    made = ready.make(driver, current())
    assert launch() == made.sandbox_id
    ready._note(made.sandbox_id, made.origin)
    assert recovery.recover(context=WHO) == []
    assert ready.noted() == {} and sandboxes(driver) == {f"sandbox-{made.sandbox_id}"}


def test_a_reload_does_not_take_it_for_a_stranger(driver, monkeypatch):
    import_it()
    made = ready.make(driver, current())
    assert reload.reload(context=WHO).event.findings == ()
    really = type(driver).all_clones

    def and_then_it_goes(driver):
        """After the pool was looked at, before the notes are read again."""
        found = really(driver)
        ready.clear(driver, lambda _: True)
        return found

    monkeypatch.setattr(type(driver), "all_clones", and_then_it_goes)
    assert reload.reload(context=WHO).event.findings == ()
    assert ready.noted() == {} and made.sandbox_id not in str(standing(driver))


def test_where_it_cannot_be_made_nothing_is_left(driver, monkeypatch):
    import_it()
    with monkeypatch.context() as full:

        def no_room(*_, **__):
            raise OutOfSpace("The pool is full.")

        full.setattr(type(driver), "clone", no_room)
        with pytest.raises(OutOfSpace):
            ready.make(driver, current())
    assert ready.noted() == {} and sandboxes(driver) == set()


def test_none_is_made_where_clones_are_full_copies(driver, settings):
    settings.COPPICE_READY_SECONDS = 60
    import_it()
    asked = []
    ready._keeper.ask = lambda *given: asked.append(given)
    try:
        launch()
    finally:
        del ready._keeper.ask
    assert bool(asked) == (driver.kind == "zfs")
