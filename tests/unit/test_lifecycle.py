"""A template's state folded from its events, and the rules of what may follow."""

from __future__ import annotations

import dataclasses

import pytest

from templates_app import lifecycle
from templates_app.errors import TemplateExists, TemplateMissing, TemplateNotFound
from templates_app.events import (
    Adopted,
    Destroyed,
    Digests,
    DomainEvent,
    Imported,
    Reloaded,
    Verdict,
)

DIGEST = "sha256:" + "a" * 64


def imported(number: int = 1, name: str = "web", **changes: object) -> Imported:
    event = Imported(
        template=name,
        generation=number,
        import_id=f"{number:08x}",
        reference="oci:quay.io/x/web:1",
        reference_given="quay.io/x/web:1",
        scheme="oci",
        floating=True,
        digests=Digests(index=None, manifest=DIGEST, config=DIGEST),
        platform="linux/amd64",
        engine="buildah",
        pool="zfs:zroot/jails",
        dataset=f"zroot/jails/coppice/{name}-g{number}-{number:08x}",
        origin=f"zroot/jails/coppice/{name}-g{number}-{number:08x}@base",
        snapshot_guid=str(2**64 - number),
        alias=f"zroot/jails/{name}-template",
        snapshot=f"zroot/jails/{name}-template@base",
        size_bytes=1,
        entries=1,
        tree_digest=DIGEST,
        statement="{}",
        statement_digest=DIGEST,
        deviations=(),
        verdict=Verdict(result="none", abis=(), config_platform="linux/amd64", reason=""),
        findings=(),
        forced=False,
        milliseconds={},
    )
    return dataclasses.replace(event, **changes)


def adopted(guid: str = "7") -> Adopted:
    return Adopted(
        template="web",
        dataset="zroot/jails/web-template",
        snapshot="zroot/jails/web-template@base",
        snapshot_guid=guid,
        size_bytes=1,
        entries=1,
        tree_digest=DIGEST,
        statement="{}",
        statement_digest=DIGEST,
    )


def reloaded(**parts: tuple) -> Reloaded:
    empty: dict = {"added": (), "changed": (), "missing": (), "returned": (), "findings": ()}
    return Reloaded(node="n", pool="zfs:zroot/jails", **{**empty, **parts})


def destroyed() -> Destroyed:
    return Destroyed(template="web", generation=1, datasets=(), manifest_digest=DIGEST)


def state(*events: DomainEvent) -> lifecycle.TemplateState:
    return lifecycle.fold("web", events)


def test_it_gives_the_first_import_generation_one():
    assert lifecycle.next_generation(state(), force=False) == 1


def test_it_refuses_a_second_import_and_says_which_digest_and_how_to_force():
    with pytest.raises(TemplateExists) as refused:
        lifecycle.next_generation(state(imported()), force=False)
    assert refused.value.extra["digest"] == DIGEST
    assert "--force" in refused.value.next_step


def test_force_makes_the_next_generation_and_keeps_the_old_one():
    assert lifecycle.next_generation(state(imported()), force=True) == 2
    after = state(imported(1), imported(2))
    assert after.current is not None and after.current.number == 2
    assert sorted(after.generations) == [1, 2]


def test_a_number_is_never_given_out_twice_even_after_destroy():
    gone = state(imported(1), imported(2), destroyed())
    assert not gone.exists and gone.generations == {}
    assert lifecycle.next_generation(gone, force=False) == 3


def test_events_of_other_templates_change_nothing():
    assert state(imported(name="db")) == state()


def test_an_adopted_dataset_is_generation_zero():
    hand_made = state(reloaded(added=(adopted(),)))
    assert lifecycle.current(hand_made).number == 0
    assert lifecycle.current(hand_made).adopted
    assert lifecycle.next_generation(hand_made, force=True) == 1


def test_an_import_over_an_adopted_one_says_where_that_one_is_now():
    moved = "zroot/jails/coppice/web-g0-00000001"
    after = state(reloaded(added=(adopted(),)), imported(1, moved_aside=moved))
    assert after.generations[0].dataset == moved
    assert after.generations[0].origin == f"{moved}@base"


def test_a_missing_template_is_not_launched_until_it_returns():
    missing = state(imported(), reloaded(missing=("web",)))
    with pytest.raises(TemplateMissing):
        lifecycle.launchable(missing)
    returned = lifecycle.evolve(missing, reloaded(returned=("web",)))
    assert lifecycle.launchable(returned).number == 1


def test_an_import_ends_missing():
    assert not state(imported(), reloaded(missing=("web",)), imported(2)).missing


def test_what_is_not_there_is_not_found():
    with pytest.raises(TemplateNotFound):
        lifecycle.current(state(imported(), destroyed()))
