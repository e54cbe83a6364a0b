"""Generations beside each other: rolled back, launched from, removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from templates_app import store
from templates_app.errors import EventConflict, GateRefused, PoolBusy
from templates_app.models import Template
from templates_app.services import common, generations, launches, pool, readmodels, recovery
from tests.services.conftest import WHO, import_it, types


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
    assert pool.reload(context=WHO).event.findings == ()
