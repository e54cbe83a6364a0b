"""A template's state folded from its events, and the rules of what may follow."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from templates_app import lifecycle
from templates_app.errors import (
    GenerationCurrent,
    GenerationNotFound,
    TemplateExists,
    TemplateMissing,
    TemplateNotFound,
)
from templates_app.events import (
    Adopted,
    Destroyed,
    Digests,
    DomainEvent,
    Imported,
    Reloaded,
    Retired,
    RolledBack,
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
        fetched_bytes=None,
        cached_bytes=None,
        written_bytes=None,
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


def rolled_back(to: int, before: int) -> RolledBack:
    return RolledBack(
        template="web",
        generation=to,
        before=before,
        tree_digest=DIGEST,
        statement_digest=DIGEST,
        manifest_digest=DIGEST,
    )


def retired(number: int) -> Retired:
    return Retired(
        template="web",
        generation=number,
        dataset="",
        tree_digest=DIGEST,
        statement_digest=DIGEST,
        manifest_digest=DIGEST,
    )


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


def test_a_rollback_goes_one_back_or_to_the_one_that_is_named():
    three = state(imported(1), imported(2), imported(3))
    assert lifecycle.rollback_target(three, None).number == 2
    assert lifecycle.rollback_target(three, 1).number == 1
    back = lifecycle.evolve(three, rolled_back(1, 3))
    assert lifecycle.current(back).number == 1
    assert lifecycle.rollback_target(back, 3).number == 3
    assert lifecycle.next_generation(back, force=True) == 4


@pytest.mark.parametrize(
    ("events", "to", "error"),
    [
        ((), None, TemplateNotFound),
        ((imported(1), destroyed()), 1, TemplateNotFound),
        ((imported(1),), None, GenerationNotFound),
        ((imported(1), imported(2)), 3, GenerationNotFound),
        ((imported(1), imported(2)), 2, GenerationCurrent),
        ((imported(1), destroyed(), imported(2)), None, GenerationNotFound),
        ((reloaded(added=(adopted(),)), imported(1)), None, GenerationNotFound),
        ((reloaded(added=(adopted(),)), imported(1)), 0, GenerationNotFound),
    ],
)
def test_there_is_nothing_to_go_back_to(events, to, error):
    with pytest.raises(error):
        lifecycle.rollback_target(state(*events), to)


@pytest.mark.parametrize(
    ("events", "retain", "go"),
    [
        ((), 0, []),
        ((imported(1),), 0, []),
        ((imported(1), imported(2), imported(3)), 0, [1, 2]),
        ((imported(1), imported(2), imported(3)), 1, [1]),
        ((imported(1), imported(2), imported(3)), 2, []),
        ((imported(1), imported(2), imported(3)), 9, []),
        ((imported(1), imported(2), imported(3), rolled_back(1, 3)), 1, [2]),
        ((imported(1), imported(2), imported(3), retired(1)), 0, [2]),
        ((imported(1), imported(2), reloaded(missing=("web",))), 0, []),
        ((imported(1), imported(2), destroyed()), 0, []),
        ((reloaded(added=(adopted(),)), imported(1), imported(2)), 0, [1]),
    ],
)
def test_what_may_be_swept(events, retain, go):
    assert [g.number for g in lifecycle.sweepable(state(*events), retain=retain)] == go


class Life(RuleBasedStateMachine):
    """Any order of what may happen to a name, against the simplest account of it that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.state = lifecycle.TemplateState(name="web")
        self.log: list[DomainEvent] = []
        self.given_out: list[int] = []  # numbers of imports, in order
        self.alive: set[int] = set()
        self.kept: set[int] = set()  # of these, for their clones alone
        self.current: int | None = None
        self.gone = False  # from the pool, as the last reload saw it

    def happen(self, event: DomainEvent) -> None:
        self.state = lifecycle.evolve(self.state, event)
        self.log.append(event)

    @rule(force=st.booleans())
    def an_import(self, force: bool) -> None:
        if self.current is not None and not force:
            with pytest.raises(TemplateExists):
                lifecycle.next_generation(self.state, force=False)
            return
        number = lifecycle.next_generation(self.state, force=force)
        moved = "zroot/jails/coppice/web-g0-aside" if 0 in self.alive else None
        self.happen(imported(number, moved_aside=moved))
        self.given_out.append(number)
        self.alive.add(number)
        self.current, self.gone = number, False

    @precondition(lambda self: self.current is None)
    @rule(guid=st.sampled_from("123"))
    def a_hand_made_one_is_found(self, guid: str) -> None:
        self.happen(reloaded(added=(adopted(guid),)))
        self.alive, self.current, self.gone = {0} | self.kept, 0, False

    @precondition(lambda self: self.current == 0)
    @rule(guid=st.sampled_from("456"))
    def the_hand_made_one_is_made_anew(self, guid: str) -> None:
        self.happen(reloaded(changed=(adopted(guid),)))
        self.gone = False
        assert lifecycle.current(self.state).snapshot_guid == guid

    @precondition(lambda self: self.current)
    @rule()
    def it_is_rolled_back(self) -> None:
        earlier = [n for n in self.alive - self.kept if 0 < n < self.current]
        if not earlier:
            with pytest.raises(GenerationNotFound):
                lifecycle.rollback_target(self.state, None)
            return
        assert lifecycle.rollback_target(self.state, None).number == max(earlier)
        self.happen(rolled_back(max(earlier), self.current))
        self.current, self.gone = max(earlier), False

    @rule()
    def the_oldest_is_swept(self) -> None:
        go = lifecycle.sweepable(self.state, retain=0)
        safe = self.current is not None and not self.gone
        own = self.alive - self.kept - {0, self.current} if safe else set()
        assert sorted(g.number for g in go) == sorted(self.kept | own)
        if go:
            self.happen(retired(go[0].number))
            self.alive.remove(go[0].number)
            self.kept.discard(go[0].number)

    @precondition(lambda self: self.current is not None)
    @rule()
    def its_dataset_vanishes(self) -> None:
        self.happen(reloaded(missing=("web",)))
        self.gone = True

    @precondition(lambda self: self.gone)
    @rule()
    def it_returns(self) -> None:
        self.happen(reloaded(returned=("web",)))
        self.gone = False

    @precondition(lambda self: self.current is not None)
    @rule(used=st.sets(st.integers(1, 5)))
    def it_is_destroyed(self, used: set[int]) -> None:
        self.kept |= self.alive & used
        self.happen(dataclasses.replace(destroyed(), kept=tuple(sorted(self.kept))))
        self.alive, self.current, self.gone = set(self.kept), None, False

    @rule()
    def something_happens_to_another(self) -> None:
        for event in (
            imported(99, name="db"),
            dataclasses.replace(destroyed(), template="db"),
            reloaded(missing=("db",)),
        ):
            self.happen(event)

    @invariant()
    def a_number_is_given_out_once_and_they_only_grow(self) -> None:
        assert self.given_out == sorted(set(self.given_out))
        assert self.state.highest == max(self.given_out, default=0)

    @invariant()
    def it_is_what_its_events_say(self) -> None:
        assert set(self.state.generations) == self.alive
        assert self.state.exists is (self.current is not None)
        assert self.state == state(*self.log)
        if self.current is None:
            for rule_ in (lifecycle.current, lifecycle.launchable):
                with pytest.raises(TemplateNotFound):
                    rule_(self.state)
            return
        assert lifecycle.current(self.state).number == self.current
        assert self.state.generations[self.current] is self.state.current
        if self.gone:
            with pytest.raises(TemplateMissing):
                lifecycle.launchable(self.state)
        else:
            assert lifecycle.launchable(self.state).number == self.current

    @invariant()
    def a_hand_made_one_that_was_moved_is_known_where_it_is_now(self) -> None:
        if 0 in self.alive and self.current != 0:
            assert self.state.generations[0].origin == "zroot/jails/coppice/web-g0-aside@base"


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_what_is_destroyed_and_made_by_hand_and_imported_again_goes_on_counting():
    again = state(imported(1), imported(2), destroyed(), reloaded(added=(adopted(),)))
    assert again.current is not None and again.current.number == 0
    assert lifecycle.next_generation(again, force=True) == 3


def test_what_is_kept_for_its_clones_takes_no_place_of_what_is_retained():
    gone = dataclasses.replace(destroyed(), kept=(1, 2))
    again = state(imported(1), imported(2), gone, imported(3), imported(4), imported(5))
    assert [g.number for g in lifecycle.sweepable(again, retain=1)] == [1, 2, 3]
    assert [g.number for g in lifecycle.sweepable(again, retain=3)] == [1, 2]
    with pytest.raises(GenerationNotFound):
        lifecycle.rollback_target(again, 2)
