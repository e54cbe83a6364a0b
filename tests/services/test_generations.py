"""Generations beside each other: rolled back, launched from, removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from templates_app import store
from templates_app.errors import EventConflict, GateRefused, PoolBusy
from templates_app.models import Template
from templates_app.services import (
    common,
    generations,
    launches,
    readmodels,
    recovery,
    reload,
    sweep,
)
from tests.services.conftest import WHO, each_once, import_it, standing, types

pytestmark = each_once


@pytest.fixture
def two(driver, shelf):
    """Generation 1 says one, generation 2 says two."""
    import_it()
    shelf.files["etc/motd"] = "two"
    import_it(force=True)
    return driver


def launch(name: str) -> str:
    """What a new sandbox reads."""
    launches.create_sandbox(template="web", name=name, context=WHO)
    return motd(f"sandbox-{name}")


def motd(relative: str) -> str:
    driver = common.driver()
    found = next(one for one in driver.find_all() if one.relative == relative)
    if driver.kind == "dir":
        return (Path(found.name) / "etc/motd").read_text()
    from tests.pools import sh

    place = Path(sh("zfs", "get", "-Hp", "-o", "value", "mountpoint", found.name).strip())
    return (place / "etc/motd").read_text()


def alias_reads(driver) -> str:
    with driver.reading("web-template") as path:
        return (path / "etc/motd").read_text()


def test_a_rollback_gives_launches_and_the_alias_the_older_tree(two):
    assert launch("new") == "two"
    recorded = generations.rollback(name="web", context=WHO)
    assert (recorded.event.generation, recorded.event.before) == (1, 2)
    assert launch("old") == "one"
    assert alias_reads(two) == "one"
    assert motd("sandbox-new") == "two"
    rows = generations.generations(name="web")
    assert [(row.generation.number, row.current, row.clones) for row in rows] == [
        (2, False, [two.full_name("sandbox-new")]),
        (1, True, [two.full_name("sandbox-old")]),
    ]
    generations.rollback(name="web", to=2, context=WHO)
    assert launch("newer") == "two"
    assert readmodels.check()[1] == []


def test_a_rollback_follows_the_gate(two, settings):
    settings.COPPICE_REQUIRE_SIGNED_TEMPLATES = "on"
    with pytest.raises(GateRefused) as refused:
        generations.rollback(name="web", context=WHO)
    assert refused.value.gate_code == "template_unsigned"
    assert refused.value.extra["decision"]["generation"] == 1
    assert Template.objects.get().current.number == 2
    assert types() == ["imported", "imported"]


def test_a_generation_that_is_not_on_the_pool_is_not_gone_back_to(two):
    first = generations.generations(name="web")[-1].generation
    two.destroy(common.relative(two, first.dataset))
    with pytest.raises(GateRefused) as refused:
        generations.rollback(name="web", context=WHO)
    assert refused.value.gate_code == "template_missing"


def test_where_somebody_was_faster_a_rollback_is_decided_anew(two, monkeypatch):
    really, calls = store.append, []

    def append(events, **rest):
        calls.append(events)
        if len(calls) == 1:
            raise EventConflict("Somebody was faster.")
        return really(events, **rest)

    monkeypatch.setattr(store, "append", append)
    assert generations.rollback(name="web", context=WHO).event.generation == 1
    assert len(calls) == 2


def test_an_alias_that_cannot_be_moved_is_moved_by_recovery(two, monkeypatch):
    with monkeypatch.context() as busy:

        def refuse(*_):
            raise PoolBusy("Not now.")

        busy.setattr(type(two), "point", refuse)
        generations.rollback(name="web", context=WHO)
    origin = Template.objects.get().current.origin
    assert alias_reads(two) == "two"
    assert recovery.recover(context=WHO) == [f"pointed the alias of web at {origin}"]
    assert alias_reads(two) == "one"


def test_whoever_moves_the_alias_last_asks_the_log_last(two, monkeypatch):
    """A rollback that comes while an import is just moving the alias is not forgotten."""
    really, once = type(two).point, []

    def point(self, alias, relative):
        if not once:
            once.append(relative)
            generations.rollback(name="web", to=1, context=WHO)
        really(self, alias, relative)

    monkeypatch.setattr(type(two), "point", point)
    generations.point_alias(two, "web")
    assert alias_reads(two) == "one"
    assert reload.reload(context=WHO).event.findings == ()


# --- sweeping ------------------------------------------------------------------------------------


@pytest.fixture
def three(two, shelf, settings):
    """Generations 1 to 3, of which none is retained."""
    settings.COPPICE_RETAIN_GENERATIONS = 0
    shelf.files["etc/motd"] = "three"
    import_it(force=True)
    return two


def ours(driver) -> list[str]:
    """Numbers of the generations whose datasets are on the pool."""
    return [name.split("-")[1] for name in standing(driver) if name.startswith("coppice/web-g")]


def swept(**more) -> list[int]:
    return [one.generation for one in sweep.sweep(context=WHO, **more).gone]


def test_a_sweep_leaves_exactly_what_is_used(three):
    generations.rollback(name="web", to=1, context=WHO)
    launch("on-one")
    generations.rollback(name="web", to=3, context=WHO)
    launch("on-three")
    assert swept(dry_run=True) == [2]
    assert ours(three) == ["g1", "g2", "g3"]
    result = sweep.sweep(context=WHO)
    assert [one.generation for one in result.gone] == [2]
    (stays,) = result.in_use
    assert (stays.generation, stays.clones) == (1, (three.full_name("sandbox-on-one"),))
    assert ours(three) == ["g1", "g3"]
    assert types()[-1] == "retired"
    assert motd("sandbox-on-one") == "one" and motd("sandbox-on-three") == "three"
    launches.destroy_sandbox(sandbox_id="on-one", context=WHO)
    assert swept() == [1]
    assert ours(three) == ["g3"]
    assert readmodels.check()[1] == []
    assert recovery.recover(context=WHO) == []
    assert reload.reload(context=WHO).event.findings == ()


def test_so_many_are_retained(three, settings):
    settings.COPPICE_RETAIN_GENERATIONS = 1
    assert swept() == [1]
    assert swept() == []
    assert generations.rollback(name="web", context=WHO).event.generation == 2


def test_a_sweep_that_died_after_its_event_is_finished(three, monkeypatch):
    class Died(Exception):
        pass

    def die(*_):
        raise Died

    for finish in (lambda: recovery.recover(context=WHO), lambda: sweep.sweep(context=WHO)):
        with monkeypatch.context() as dying, pytest.raises(Died):
            dying.setattr(type(three), "destroy", die)
            sweep.sweep(context=WHO)
        left = ours(three)
        finish()
        assert len(ours(three)) < len(left)
    assert ours(three) == ["g3"]
    assert types().count("retired") == 2


def test_what_becomes_current_while_it_is_swept_stays(three, monkeypatch):
    """Between the look at the pool and the event."""
    generations.rollback(name="web", to=1, context=WHO)
    really, calls = store.append, []

    def append(events, **rest):
        if events[0].type == "retired" and not calls:
            calls.append(events)
            generations.rollback(name="web", to=2, context=WHO)
        return really(events, **rest)

    monkeypatch.setattr(store, "append", append)
    assert swept() == [3]  # generation 2 became current: decided on what had changed since
    assert ours(three) == ["g1", "g2"]


def test_a_launch_whose_generation_is_swept_gets_the_new_one(two, shelf, settings, monkeypatch):
    settings.COPPICE_RETAIN_GENERATIONS = 0
    really, once = launches.decide, []

    def decide(*args):
        if not once:
            once.append(args)
            shelf.files["etc/motd"] = "three"
            import_it(force=True)
            assert swept() == [1, 2]
        return really(*args)

    monkeypatch.setattr(launches, "decide", decide)
    assert launch("late") == "three"
    assert "sandbox-refused" not in types()
    assert recovery.recover(context=WHO) == []


def test_the_alias_that_was_left_behind_is_moved_before_its_generation_goes(three, monkeypatch):
    with monkeypatch.context() as busy:

        def refuse(*_):
            raise PoolBusy("Not now.")

        busy.setattr(type(three), "point", refuse)
        generations.rollback(name="web", to=2, context=WHO)
    assert swept() == [1, 3]
    assert alias_reads(three) == "two"
