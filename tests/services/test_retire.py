"""A name is given away while sandboxes of it live; what is used stays, and goes after them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from templates_app import store
from templates_app.datasets.base import DatasetDriver
from templates_app.errors import GenerationNotFound, PoolBusy, TemplateInUse, TemplateNotFound
from templates_app.models import Generation, Template
from templates_app.services import (
    common,
    destroy,
    generations,
    launches,
    readmodels,
    recovery,
    reload,
    sweep,
)
from tests.pools import sh, stubbornly
from tests.services.conftest import WHO, hand_make, import_it, standing, types


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """What lies on a pool has nothing to do with the kind of database."""
    return sqlite_url


@pytest.fixture
def two(driver: DatasetDriver, shelf, settings) -> DatasetDriver:
    """Generations 1 and 2 of web, with a sandbox on each; 2 is current."""
    settings.COPPICE_RETAIN_GENERATIONS = 0
    import_it()
    launch("on-one")
    shelf.files["etc/motd"] = "two"
    import_it(force=True)
    launch("on-two")
    return driver


def launch(name: str) -> None:
    launches.create_sandbox(template="web", name=name, context=WHO)


def end(name: str) -> None:
    launches.destroy_sandbox(sandbox_id=name, context=WHO)


def reads(driver: DatasetDriver, relative: str) -> str:
    place = driver.full_name(relative)
    if driver.kind == "zfs":
        place = sh("zfs", "get", "-Hp", "-o", "value", "mountpoint", place).strip()
    return (Path(place) / "etc/motd").read_text()


def clone_by_hand(driver: DatasetDriver, relative: str, name: str) -> Callable[[], None]:
    """What an operator or a gateway clones without Coppice; and its end."""
    if driver.kind == "dir":  # where a clone is a copy; the driver's own note says of what
        driver.clone(relative, name)
        return lambda: driver.destroy(name)
    full = driver.full_name(name)
    stubbornly("zfs", "clone", f"{driver.full_name(relative)}@base", full)
    return lambda: stubbornly("zfs", "destroy", full)


def there(driver: DatasetDriver) -> set[str]:
    """web-g1, web-g2, …, web-template, sandboxes: without the imports' ids."""
    found = set()
    for relative in standing(driver):
        name = relative.removeprefix("coppice/")
        found.add(name.rpartition("-")[0] if name.startswith("web-g") else name)
    return found


def swept() -> list[int]:
    return [one.generation for one in sweep.sweep(context=WHO).gone]


def at(number: int) -> str:
    """A generation's relative name."""
    return common.relative(common.driver(), Generation.objects.get(pk=f"web@{number}").dataset)


# --- rollback, then sweep ------------------------------------------------------------------------


def test_after_a_rollback_a_sweep_leaves_exactly_what_is_still_used(
    two: DatasetDriver, shelf, settings
):
    shelf.files["etc/motd"] = "three"
    import_it(force=True)
    shelf.files["etc/motd"] = "four"
    import_it(force=True)
    generations.rollback(name="web", to=1, context=WHO)
    launch("on-one-again")
    of_alias = clone_by_hand(two, "web-template", "of-the-alias")  # of generation 1
    of_three = clone_by_hand(two, at(3), "of-three")

    would = sweep.sweep(context=WHO, dry_run=True)
    assert [one.generation for one in would.gone] == [4]
    used = {one.generation: one.clones for one in would.in_use}
    assert used == {
        2: (two.full_name("sandbox-on-two"),),
        3: (two.full_name("of-three"),),
    }
    assert swept() == [4]
    clones = {"sandbox-on-one", "sandbox-on-one-again", "sandbox-on-two", "of-the-alias"}
    assert there(two) == {"web-g1", "web-g2", "web-g3", "web-template", "of-three", *clones}
    for name, text in (("on-one", "one"), ("on-one-again", "one"), ("on-two", "two")):
        assert reads(two, f"sandbox-{name}") == text
    assert reads(two, "of-the-alias") == "one" and reads(two, "of-three") == "three"

    # The other generation is current again: what was cloned from the alias by hand keeps its own.
    generations.rollback(name="web", to=2, context=WHO)
    of_three()
    assert swept() == [3]
    end("on-one")
    end("on-one-again")
    assert swept() == []
    assert "web-g1" in there(two) and reads(two, "of-the-alias") == "one"
    of_alias()
    assert swept() == [1]
    assert there(two) == {"web-g2", "web-template", "sandbox-on-two"}
    assert reads(two, "sandbox-on-two") == "two"
    assert types().count("retired") == 3
    assert recovery.recover(context=WHO) == []
    assert reload.reload(context=WHO, verify=True).event.findings == ()
    assert readmodels.check()[1] == []


# --- retire --------------------------------------------------------------------------------------


def test_without_retire_the_clones_are_named_and_nothing_goes(two: DatasetDriver):
    before = standing(two)
    for act in (
        lambda: destroy.destroy(name="web", context=WHO),
        lambda: destroy.preview(name="web"),
    ):
        with pytest.raises(TemplateInUse) as refused:
            act()
        clones = [two.full_name(f"sandbox-on-{one}") for one in ("one", "two")]
        assert refused.value.extra["clones"] == clones
        assert "coppice tpl destroy web --retire" in refused.value.next_step
    assert standing(two) == before and Template.objects.filter(pk="web").exists()


def test_a_retired_name_is_free_and_what_is_used_stays_until_it_is_not(two: DatasetDriver, shelf):
    shelf.files["etc/motd"] = "three"
    import_it(force=True)
    plan = destroy.preview(name="web", retire=True)
    assert [(one.generation, one.clones) for one in plan.kept] == [
        (1, [two.full_name("sandbox-on-one")]),
        (2, [two.full_name("sandbox-on-two")]),
    ]
    assert plan.datasets == [two.full_name("web-template"), two.full_name(at(3))]
    event = destroy.destroy(name="web", retire=True, context=WHO).event
    assert (event.kept, event.datasets) == ((1, 2), tuple(plan.datasets))
    assert event.sentence().endswith("generation(s) 1, 2 stay for their clones")
    assert there(two) == {"web-g1", "web-g2", "sandbox-on-one", "sandbox-on-two"}
    assert reads(two, "sandbox-on-one") == "one" and reads(two, "sandbox-on-two") == "two"
    with pytest.raises(TemplateNotFound):
        launch("late")
    rows = generations.generations(name="web")
    assert [(row.generation.number, row.kept, row.current) for row in rows] == [
        (2, True, False),
        (1, True, False),
    ]
    assert recovery.recover(context=WHO) == []
    assert reload.reload(context=WHO, fix=True, verify=True).event.findings == ()

    # A new import takes the name at once; its numbers go on, and what is kept is none of its own.
    shelf.files["etc/motd"] = "four"
    assert import_it().event.generation == 4
    launch("on-four")
    with pytest.raises(GenerationNotFound):
        generations.rollback(name="web", to=2, context=WHO)
    assert swept() == []
    end("on-two")
    assert swept() == [2]
    # Its end leaves the one that an earlier end has kept.
    end("on-four")
    assert destroy.destroy(name="web", context=WHO).event.kept == (1,)
    assert there(two) == {"web-g1", "sandbox-on-one"}
    end("on-one")
    assert swept() == [1]
    assert there(two) == set()
    with pytest.raises(TemplateNotFound):
        generations.generations(name="web")
    assert Generation.objects.filter(retired=True).count() == 2
    assert recovery.recover(context=WHO) == []
    assert readmodels.check()[1] == []


def test_what_the_alias_was_cloned_from_by_hand_is_put_aside(two: DatasetDriver, shelf):
    end("on-two")
    done = clone_by_hand(two, "web-template", "of-the-alias")
    destroy.destroy(name="web", retire=True, context=WHO)
    left = there(two) - {"web-g1", "web-g2", "sandbox-on-one", "of-the-alias"}
    if two.kind == "dir":
        assert left == set()  # its clones are copies
    elif left == {"web-template"}:
        # A ZFS that cannot rename below a mounted clone, or not at once: that is a finding, and is
        # tried again.
        event = reload.reload(context=WHO, fix=True).event
        fixed, found = ([one.code for one in some] for some in (event.fixed, event.findings))
        assert (fixed, found) in (
            (["alias_stale"], ["alias_has_clones"]),
            ([], ["alias_stale"]),
        )
    else:
        assert left == {"web-template-aside-1"}
    assert reads(two, "of-the-alias") == "two"
    done()
    recovery.recover(context=WHO)
    assert swept() == [2]
    assert there(two) == {"web-g1", "sandbox-on-one"}


def test_a_retire_that_died_after_its_event_is_finished(two: DatasetDriver, monkeypatch):
    with monkeypatch.context() as dying:

        def refuse(*_: object, **__: object) -> None:
            raise PoolBusy("Not now.")

        end("on-one")
        dying.setattr(type(two), "destroy", refuse)
        dying.setattr(type(two), "unpoint", refuse)
        destroy.destroy(name="web", retire=True, context=WHO)
    assert there(two) == {"web-g1", "web-g2", "web-template", "sandbox-on-two"}
    assert len(recovery.recover(context=WHO, dry_run=True)) == 2
    recovery.recover(context=WHO)
    assert there(two) == {"web-g2", "sandbox-on-two"}
    assert recovery.recover(context=WHO) == []


def test_a_launch_that_comes_between_the_look_and_the_event_is_not_lost(
    two: DatasetDriver, monkeypatch
):
    end("on-two")
    really, once = store.append, []

    def append(events, **rest):
        if events[0].type == "destroyed" and not once:
            once.append(events)
            launch("late")
        return really(events, **rest)

    monkeypatch.setattr(store, "append", append)
    with pytest.raises(TemplateInUse):
        destroy.destroy(name="web", retire=True, context=WHO)
    assert "destroyed" not in types()
    assert destroy.destroy(name="web", retire=True, context=WHO).event.kept == (1, 2)
    assert reads(two, "sandbox-late") == "two"


def test_a_hand_made_template_in_its_place_keeps_its_name_while_it_is_used(driver: DatasetDriver):
    hand_make(driver, "web")
    reload.reload(context=WHO)
    launch("one")
    with pytest.raises(TemplateInUse, match="was made by hand"):
        destroy.destroy(name="web", retire=True, context=WHO)
    end("one")
    assert destroy.destroy(name="web", retire=True, context=WHO).event.kept == ()
    assert standing(driver) == []
