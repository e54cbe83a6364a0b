"""An upgrade keeps the log byte for byte, and every answer that was given before."""

import dataclasses

from django.core.management import call_command

from templates_app import store
from templates_app.events import Adopted, Reloaded
from templates_app.models import Binding, Mention
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


def reloaded(**changes):
    nothing = {"added": (), "changed": (), "missing": (), "returned": (), "findings": ()}
    return Reloaded(node="jail1", pool="zfs:zroot/jails", **{**nothing, **changes})


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
    for events in (web, reloaded(added=(first,)), launches, reloaded(changed=(second,))):
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
