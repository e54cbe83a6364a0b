"""An upgrade keeps the log byte for byte, and every answer that was given before."""

import dataclasses
import uuid
from dataclasses import dataclass
from typing import ClassVar

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection

from templates_app import projections, store, triggers
from templates_app.errors import EventIdReused
from templates_app.events import Adopted, DomainEvent
from templates_app.models import Binding, Finding, Mention
from templates_app.services import readmodels
from tests import house


def by_hand(word):
    return Adopted(
        template="db",
        dataset="zroot/jails/db-template",
        snapshot="zroot/jails/db-template@base",
        snapshot_guid="1",
        size_bytes=1024,
        entries=1,
        tree_digest=house.digest(f"tree {word}"),
        statement="{}",
        statement_digest=house.digest(f"statement {word}"),
    )


def refused_by_hand(adopted):
    return dataclasses.replace(
        house.refused(house.imported("db")),
        tree_digest=adopted.tree_digest,
        statement_digest=adopted.statement_digest,
        manifest_digest=None,
    )


def test_mentions_of_launches_become_bindings(any_database):
    """Until 0006, a launch was indexed by each digest that its statement binds."""
    web, first, second = house.imported("web"), by_hand("first"), by_hand("second")
    launches = [house.launched("web-1", web), house.refused(web), refused_by_hand(first)]
    for events in (
        web,
        house.reloaded(added=(first,)),
        launches,
        house.reloaded(changed=(second,)),
    ):
        store.append(events, meta=house.meta())
    told, lines = list(store.read()), list(store.export())
    mentions = list(Mention.objects.order_by("pk").values_list())

    call_command("migrate", "templates_app", "0006", verbosity=0, skip_checks=True)
    old = [
        Mention(kind="digest", key=digest, position=one.position)
        for one in told
        if one.event in launches
        for digest in (one.event.tree_digest, one.event.manifest_digest)
        if digest
    ]
    Mention.objects.bulk_create(old)
    call_command("migrate", verbosity=0, skip_checks=True)

    assert list(store.export()) == lines
    assert list(Mention.objects.order_by("pk").values_list()) == mentions
    assert Binding.objects.count() == 4
    assert readmodels.check() == (len(told), [])
    for mention in old:
        assert mention.position in [one.position for one in store.about("digest", mention.key)]


@dataclass(frozen=True, slots=True, kw_only=True)
class OldFinding:
    code: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OldReloaded(DomainEvent):
    """``reloaded`` of schema 1. No fold knows it, so it leaves no row, as it did then."""

    type: ClassVar[str] = "reloaded"
    findings: tuple[OldFinding, ...]
    node: str = "jail1"
    pool: str = "zfs:zroot/jails"
    added: tuple[Adopted, ...] = ()
    changed: tuple[Adopted, ...] = ()
    missing: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()

    def stream(self) -> str:
        return f"pool:{self.node}"

    def mentions(self) -> set[tuple[str, str]]:
        return set()


def test_what_reloads_had_found_becomes_rows(any_database):
    """Until 0009, findings were in the events alone, and touched no template."""
    odd = OldFinding(code="orphan_dataset", subject="zroot/x", detail="First.")
    stale = OldFinding(code="alias_stale", subject="web", detail="First.")
    later = dataclasses.replace(odd, detail="Later.")
    call_command("migrate", "templates_app", "0008", verbosity=0, skip_checks=True)
    for found in ((odd, stale), (later,), (), (stale, odd, odd)):
        store.append([OldReloaded(findings=found)], meta=house.meta())
    call_command("migrate", verbosity=0, skip_checks=True)
    assert {
        (row.pk, row.detail, row.seen_position, row.cleared_position)
        for row in Finding.objects.all()
    } == {
        ("1-1", "Later.", 2, 3),
        ("1-2", "First.", 1, 2),
        ("4-1", "First.", 4, None),
        ("4-2", "First.", 4, None),
    }
    assert readmodels.check() == (4, [])


def test_what_a_sweep_had_removed_is_called_retired(any_database):
    """Until 0014, a generation that went alone looked like one that went with its template."""
    store.append([house.imported("web"), house.imported("web", 2)], meta=house.meta())
    store.append([house.retired("web", 1)], meta=house.meta())
    before = projections.rows()
    call_command("migrate", "templates_app", "0013", verbosity=0, skip_checks=True)
    call_command("migrate", verbosity=0, skip_checks=True)
    assert projections.rows() == before
    assert readmodels.check() == (3, [])


def test_types_but_those_of_launches_become_mentions(any_database):
    """Until 0016, an index of the events led to types."""
    events = [
        house.imported("web"),
        house.launched("a", house.imported("web")),
        house.imported("db"),
    ]
    store.append(events, meta=house.meta())
    types = Mention.objects.filter(kind="type").values_list("key", "position")
    assert sorted(types.all()) == [("imported", 1), ("imported", 3)]
    call_command("migrate", "templates_app", "0015", verbosity=0, skip_checks=True)
    assert not types.all()
    call_command("migrate", verbosity=0, skip_checks=True)
    assert sorted(types.all()) == [("imported", 1), ("imported", 3)]
    assert readmodels.check() == (3, [])


OLD = uuid.UUID("0198a7b2-1c3d-7e4f-8a5b-0123456789ab")  # of version 7, as the store gave them


def constraints(kind):
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, triggers.EVENT)
    return {name: one["columns"] for name, one in found.items() if one[kind]}


def unique_ids():
    return [name for name, of in constraints("unique").items() if of == ["event_id"]]


def test_ids_of_version_7_stay_what_they_were(any_database):
    """Until 0018, those that the store gave on PostgreSQL began with the time."""
    event = house.launched("a", house.imported("web"))
    store.append(event, meta=house.meta(), event_ids=[OLD])
    store.append([house.launched("b", house.imported("web"))], meta=house.meta())
    told, lines = list(store.read()), list(store.export())

    call_command("migrate", "templates_app", "0017", verbosity=0, skip_checks=True)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:  # what 0017 did not have, or had
            cursor.execute("DROP INDEX coppice_event_id")
            cursor.execute("CREATE FUNCTION coppice_place() RETURNS void LANGUAGE sql AS ''")
        assert len(unique_ids()) == 1
        assert sorted(constraints("check").values()) == [["schema"], ["version"]]
        with pytest.raises(IntegrityError, match="event_id"), connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO templates_app_event (event_id, stream, type, schema, data, meta)"
                " VALUES (%s, 'x', 'x', 1, '{}', '{}')",
                [OLD],
            )
    call_command("migrate", verbosity=0, skip_checks=True)

    assert (triggers.missing(connection), list(store.export())) == ([], lines)
    assert unique_ids() == ["coppice_event_id"]
    if connection.vendor == "postgresql":
        assert not constraints("check")
        with connection.cursor() as cursor:
            cursor.execute("SELECT proname FROM pg_proc WHERE proname = 'coppice_place'")
            assert cursor.fetchall() == []
    assert [store.find(one.event_id) for one in told] == told
    assert store.append(event, meta=house.meta(), event_ids=[OLD]) == told[:1]
    with pytest.raises(EventIdReused):
        store.append(house.retired("web", 1), meta=house.meta(), event_ids=[OLD])
    [new] = store.append(house.refused(house.imported("web")), meta=house.meta())
    assert new.position == new.event_id.int >> 80 == 3
