"""Appending and reading, on both databases, with real transactions."""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import threading
import time
import uuid

import psycopg
import pytest
from django.db import DatabaseError, connection, transaction

from templates_app import codec, projections, store, store_writers
from templates_app import events as vocabulary
from templates_app.codec import PayloadInvalid
from templates_app.errors import EventConflict, EventIdReused
from templates_app.events import Meta, SandboxDestroyed
from templates_app.models import Mention
from tests.databases import waiting_for_a_lock

META = Meta(actor="alice", source="cli", request_id="r1", node="n1")


def destroyed(sandbox="s1", template="web", dataset="zroot/s1"):
    return SandboxDestroyed(sandbox=sandbox, template=template, dataset=dataset)


def refused(template="web"):
    """Changes no row of a read model, so that its append is a transaction of its own."""
    return vocabulary.SandboxRefused(
        template=template,
        generation=1,
        code="template_unsigned",
        tree_digest="sha256:" + "a" * 64,
        statement_digest="sha256:" + "b" * 64,
        manifest_digest=None,
        checks=(),
    )


def test_it_works(any_database):
    before = datetime.datetime.now(datetime.UTC)
    [one] = store.append(destroyed(), meta=META)
    assert (one.position, one.version, one.stream) == (1, 1, "sandbox:s1")
    assert (one.type, one.schema) == ("sandbox-destroyed", 1)
    assert (one.event, one.meta) == (destroyed(), META)
    assert abs(one.recorded_at - before) < datetime.timedelta(minutes=1)
    assert one.recorded_at.tzinfo is datetime.UTC
    assert list(store.read()) == [one]
    assert store.read_stream("sandbox:s1") == [one]
    assert store.about("template", "web") == [one] == store.about("sandbox", "s1")
    assert store.size() == 1
    assert store.stream_version("sandbox:s1") == 1


def test_it_numbers_positions_over_all_and_versions_within_a_stream(any_database):
    batch = [destroyed("a"), destroyed("b"), destroyed("a")]
    assert [(r.position, r.stream, r.version) for r in store.append(batch, meta=META)] == [
        (1, "sandbox:a", 1),
        (2, "sandbox:b", 1),
        (3, "sandbox:a", 2),
    ]
    [fourth] = store.append(destroyed("b"), meta=META)
    assert (fourth.position, fourth.version) == (4, 2)
    assert [r.position for r in store.read()] == [1, 2, 3, 4]


def test_an_append_of_nothing_changes_nothing(any_database):
    assert store.append([], meta=META) == []
    assert store.size() == 0


GROW = (
    "INSERT INTO templates_app_event (event_id, stream, type, schema, data, meta)"
    " SELECT gen_random_uuid(), 'sandbox:s1', 'sandbox-destroyed', 1, %s, '{}'"
    " FROM generate_series(1, %s)"
)


def _in_vain(what, error, match, **arguments):
    with pytest.raises(error, match=match):
        what(**arguments)


@pytest.mark.parametrize("size", [0, 20])
@pytest.mark.parametrize(
    "way",
    [
        lambda: store.append(destroyed(), meta=META),
        lambda: _in_vain(
            store.append,
            EventConflict,
            None,
            events=destroyed(),
            meta=META,
            expected={"sandbox:a": 7},
        ),
        lambda: _forge(),
        lambda: _in_vain(_forge, DatabaseError, "append-only", position=1000, version=1000),
    ],
    ids=["append", "append in vain", "row with its position", "one in vain"],
)
def test_what_is_read_for_an_event_does_not_grow_with_log_or_stream(
    postgres_url, swap_database, size, way
):
    """Whatever this session planned for it when the table was small."""
    data = codec.text(destroyed())
    with swap_database(postgres_url), psycopg.connect(postgres_url, autocommit=True) as other:
        # What PostgreSQL knows nothing of it takes for ten pages.
        other.execute("VACUUM templates_app_event")
        other.execute(GROW, [data, size])
        for _ in range(8):  # the first five times each has a plan of its own
            way()
        other.execute(GROW, [data, 1100])
        with transaction.atomic():
            size, version, before = store.size(), store.stream_version("sandbox:s1"), rows_read()
            store.append(destroyed(), meta=META)
            # The last of its stream; the last of the log.
            assert rows_read() - before == 2
            before = rows_read()
            _forge(position=size + 2, version=version + 2)
            assert rows_read() - before == 1
            before = rows_read()
            store.append([destroyed(), destroyed(), destroyed()], meta=META)
            assert rows_read() - before == 2 + 3


def test_an_append_reads_two_events_though_most_streams_are_short(postgres_url, swap_database):
    """PostgreSQL then expects one event in this long one too, which any plan could read."""
    many = GROW.replace("'sandbox:s1'", "'sandbox:x' || generate_series")
    data = codec.text(destroyed())
    with swap_database(postgres_url), psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute(many, [data, 3000])
        other.execute(GROW, [data, 1500])
        other.execute("ANALYZE templates_app_event")
        for _ in range(8):
            store.append(destroyed(), meta=META)
        with transaction.atomic():
            before = rows_read()
            store.append(destroyed(), meta=META)
            assert rows_read() - before == 2


def test_given_ids_are_looked_up_without_reading_the_log(postgres_url, swap_database):
    with swap_database(postgres_url):
        given = [uuid.uuid4() for _ in range(60)]
        [ours] = store.append(destroyed(), meta=META)
        for one in given:
            store.append(destroyed(), meta=META, event_ids=[one])
        for known in (given[30], ours.event_id):
            with transaction.atomic():
                before = rows_read()
                store.append(destroyed(), meta=META, event_ids=[known])
                # The last of the log, the one with this id, once more to return it; and to see
                # that an id of version 8 is known.
                assert rows_read() - before == 3 + (known == ours.event_id)
            with connection.cursor() as cursor:
                cursor.execute("SET enable_seqscan = off")  # so small a table is read as a whole
                where, parameters = store_writers.by_id(known)
                query = f"SELECT * FROM templates_app_event WHERE {where}"  # noqa: S608
                cursor.execute(f"EXPLAIN {query}", parameters)
                plan = str(cursor.fetchall())
                cursor.execute("RESET enable_seqscan")
            assert (
                "coppice_event_id" if known == given[30] else "templates_app_event_pkey"
            ) in plan


def rows_read():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_xact_user_tables"
            " WHERE relname = 'templates_app_event'"
        )
        return cursor.fetchone()[0]


def test_whatever_text_a_batch_has_is_told_back(any_database):
    """PostgreSQL is sent a batch as lines."""
    odd = ["a\nb", "a\\nb", 'a"b,{}', "\r\n\t\x01", "ü\u2028\x85\U0001f332", ""]
    events = [destroyed(dataset=text) for text in odd]
    assert [one.event for one in store.append(events, meta=META)] == events
    assert [one.event for one in store.read()] == events
    for (_, data, leaf), line in zip(store.leaves(), store.export(), strict=True):
        assert hashlib.sha256(b"\0" + data).hexdigest() == leaf == json.loads(line)["leafHash"]


# --- expected versions -------------------------------------------------------------------------


def test_it_appends_where_the_expected_versions_are_the_actual_ones(any_database):
    store.append(destroyed("a"), meta=META, expected={"sandbox:a": 0})
    store.append(destroyed("a"), meta=META, expected={"sandbox:a": 1, "sandbox:other": 0})
    assert store.stream_version("sandbox:a") == 2


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_it_refuses_another_version_than_the_expected_one(any_database, expected):
    store.append([destroyed("a"), destroyed("a")], meta=META)
    with pytest.raises(EventConflict) as caught:
        store.append(destroyed("a"), meta=META, expected={"sandbox:a": expected})
    assert caught.value.extra == {"stream": "sandbox:a", "expected": expected, "actual": 2}
    assert store.size() == 2


def test_one_stream_that_moved_refuses_the_whole_append(any_database):
    store.append(destroyed("b"), meta=META)
    with pytest.raises(EventConflict):
        store.append(
            [destroyed("a"), destroyed("b")],
            meta=META,
            expected={"sandbox:a": 0, "sandbox:b": 0},
        )
    assert store.stream_version("sandbox:a") == 0
    assert not store.about("sandbox", "a")


def test_a_conflict_leaves_the_callers_transaction_usable(any_database):
    with transaction.atomic():
        store.append(destroyed("a"), meta=META)
        with pytest.raises(EventConflict):
            store.append(destroyed("a"), meta=META, expected={"sandbox:a": 0})
        store.append(destroyed("b"), meta=META)
    assert [r.stream for r in store.read()] == ["sandbox:a", "sandbox:b"]


def test_a_conflict_leaves_nothing_behind(any_database):
    store.append(refused(), meta=META)
    before = Mention.objects.count()
    for around in (contextlib.nullcontext(), transaction.atomic()):
        with around, pytest.raises(EventConflict):
            store.append(refused(), meta=META, expected={"launches:web": 0})
    assert (store.size(), Mention.objects.count()) == (1, before)
    assert store.append(refused(), meta=META, expected={"launches:web": 1})[0].position == 2


def test_who_waited_for_the_lock_is_told_the_version_that_he_waited_for(
    postgres_url, swap_database
):
    """The statement's own view of the log is from before it waited."""
    caught = []

    def expecting_none():
        try:
            store.append(refused(), meta=META, expected={"launches:web": 0})
        except EventConflict as error:
            caught.append(error.extra)
        connection.close()

    with swap_database(postgres_url):
        waits = threading.Thread(target=expecting_none)
        with transaction.atomic():
            store.lock()
            waits.start()
            while not waiting_for_a_lock():
                time.sleep(0.01)
            store.append([refused(), refused()], meta=META)
        waits.join()
        assert caught == [{"stream": "launches:web", "expected": 0, "actual": 2}]
        assert store.size() == 2


def test_a_stream_that_comes_to_the_expected_version_while_it_is_asked_is_no_conflict(
    postgres_url, swap_database, monkeypatch
):
    meanwhile = """WITH other AS (
      INSERT INTO templates_app_event (event_id, stream, type, schema, data, meta)
      VALUES (gen_random_uuid(), %s, 'sandbox-destroyed', 1, '{}', '{}') RETURNING version)
    SELECT version FROM other"""
    with swap_database(postgres_url):
        monkeypatch.setattr(store_writers, "_VERSION", meanwhile)
        [one] = store.append(refused(), meta=META, expected={"launches:web": 1})
        assert (one.position, one.version) == (2, 2)
        with pytest.raises(EventConflict) as caught:
            store.append(refused(), meta=META, expected={"launches:web": 7})
        assert caught.value.extra["actual"] == 3


# --- the same event twice ----------------------------------------------------------------------


#: Given by callers; the store itself gave such of version 7 on PostgreSQL once.
GIVEN = [uuid.UUID("3f2a9c01-0000-4000-8000-0123456789ab")] + [
    uuid.UUID("0198a7b2-1c3d-7e4f-8a5b-0123456789ab")
]


@pytest.mark.parametrize("event_id", GIVEN, ids=["version 4", "version 7"])
def test_the_same_event_again_returns_the_old_one(any_database, event_id):
    [first] = store.append(destroyed(), meta=META, event_ids=[event_id])
    assert first.event_id == event_id
    retried = dataclasses.replace(META, request_id="r2")
    again = store.append(
        destroyed(), meta=retried, event_ids=[event_id], expected={"sandbox:s1": 0}
    )
    assert again == [first]
    assert store.find(event_id) == first
    assert store.size() == 1
    assert Mention.objects.count() == 1


@pytest.mark.parametrize(
    "other", [destroyed(dataset="zroot/other"), destroyed(sandbox="s2")], ids=["data", "stream"]
)
def test_the_same_id_with_other_content_is_refused(any_database, other):
    event_id = uuid.uuid4()
    store.append(destroyed(), meta=META, event_ids=[event_id])
    with pytest.raises(EventIdReused) as caught:
        store.append([destroyed("new"), other], meta=META, event_ids=[uuid.uuid4(), event_id])
    assert caught.value.extra == {"eventId": str(event_id), "position": 1}
    assert store.size() == 1


def test_a_batch_with_an_old_event_appends_the_new_ones_only(any_database):
    ids = [uuid.uuid4() for _ in range(3)]
    [old] = store.append(destroyed("b"), meta=META, event_ids=ids[1:2])
    batch = [destroyed("a"), destroyed("b"), destroyed("b")]
    recorded = store.append(batch, meta=META, event_ids=ids)
    assert [(r.position, r.stream, r.version, r.event_id) for r in recorded] == [
        (2, "sandbox:a", 1, ids[0]),
        (1, "sandbox:b", 1, ids[1]),
        (3, "sandbox:b", 2, ids[2]),
    ]
    assert recorded[1] == old
    assert list(store.read()) == [recorded[1], recorded[0], recorded[2]]


def test_ids_must_be_one_for_each_event(any_database):
    one = uuid.uuid4()
    for ids in ([one], [one, one]):
        with pytest.raises(ValueError, match="one id of its own"):
            store.append([destroyed("a"), destroyed("b")], meta=META, event_ids=ids)
    assert store.size() == 0


def test_an_event_is_found_by_its_id_whoever_gave_it(any_database):
    given = uuid.uuid4()
    store.append(destroyed("a"), meta=META)
    [theirs] = store.append(destroyed("b"), meta=META, event_ids=[given])
    [ours] = store.append(destroyed("c"), meta=META)
    assert (store.find(given), store.find(ours.event_id)) == (theirs, ours)
    assert store.position_of(ours.event_id) == 3
    other = uuid.UUID(int=ours.event_id.int ^ 1)
    assert store.find(other) is store.find(uuid.uuid4()) is store.position_of(other) is None
    assert ours.event_id.variant == uuid.RFC_4122
    # It begins with its position and so needs no index.
    assert (ours.event_id.version, ours.event_id.int >> 80) == (8, 3)


def test_each_event_of_a_batch_has_an_id_that_begins_with_its_position(any_database):
    store.append(destroyed("a"), meta=META)
    batch = store.append([destroyed("b"), destroyed("c"), destroyed("b")], meta=META)
    assert [one.event_id.int >> 80 for one in batch] == [2, 3, 4]
    assert {(one.event_id.version, one.event_id.variant) for one in batch} == {(8, uuid.RFC_4122)}
    assert len({one.event_id.int & (1 << 62) - 1 for one in batch}) == 3
    assert list(store.read(after=1)) == batch == [store.find(one.event_id) for one in batch]


def test_an_id_that_the_store_gave_makes_a_repeated_call_harmless_and_is_taken_for_no_other(
    any_database,
):
    [one] = store.append(destroyed(), meta=META)
    assert store.append(destroyed(), meta=META, event_ids=[one.event_id]) == [one]
    with pytest.raises(EventIdReused) as caught:
        store.append(destroyed("other"), meta=META, event_ids=[one.event_id])
    assert caught.value.extra == {"eventId": str(one.event_id), "position": 1}
    for variant in "80":  # what is no variant of the RFC's would have no version for Python
        made_up = uuid.UUID(f"00000000-0002-8000-{variant}000-000000000000")
        with pytest.raises(ValueError, match="only the store"):
            store.append(destroyed(), meta=META, event_ids=[made_up])
    assert store.size() == 1


# --- one transaction ---------------------------------------------------------------------------


class ProjectionBroke(Exception):
    pass


def test_a_projection_that_raises_leaves_nothing(any_database, monkeypatch):
    def break_after_writing(recorded):
        Mention.objects.create(kind="template", key="half-done", position=1)
        raise ProjectionBroke

    store.append(destroyed("a"), meta=META)
    monkeypatch.setattr(projections, "fold", break_after_writing)
    with pytest.raises(ProjectionBroke):
        store.append(destroyed("b"), meta=META)
    monkeypatch.undo()
    assert store.size() == 1
    assert [r.stream for r in store.read()] == ["sandbox:a"]
    assert not Mention.objects.filter(key__in=["half-done", "b"]).exists()
    [next_one] = store.append(destroyed("c"), meta=META)
    assert next_one.position == 2


def test_a_projection_that_raised_cannot_be_swallowed_inside_a_transaction(
    any_database, monkeypatch
):
    def broken(recorded):
        raise ProjectionBroke

    monkeypatch.setattr(projections, "fold", broken)
    with pytest.raises(transaction.TransactionManagementError), transaction.atomic():
        with pytest.raises(ProjectionBroke):
            store.append(destroyed("a"), meta=META)
        store.size()
    assert store.size() == 0


def test_positions_have_no_gap_after_rollbacks(any_database):
    class Undone(Exception):
        pass

    for number in range(6):
        try:
            with transaction.atomic():
                store.append([destroyed(f"s{number}"), destroyed("all")], meta=META)
                if number % 2:
                    raise Undone
        except Undone:
            pass
    assert [(r.position, r.stream, r.version) for r in store.read()] == [
        (1, "sandbox:s0", 1),
        (2, "sandbox:all", 1),
        (3, "sandbox:s2", 1),
        (4, "sandbox:all", 2),
        (5, "sandbox:s4", 1),
        (6, "sandbox:all", 3),
    ]


# --- reading -----------------------------------------------------------------------------------


def test_it_reads_on_from_a_position_in_chunks(any_database, monkeypatch):
    monkeypatch.setattr(store, "_READ_AT_ONCE", 4)
    store.append([destroyed(f"s{n}") for n in range(1, 12)], meta=META)
    assert [r.position for r in store.read(after=3)] == [4, 5, 6, 7, 8, 9, 10, 11]
    assert [r.position for r in store.read(after=3, limit=6)] == [4, 5, 6, 7, 8, 9]
    assert [r.position for r in store.read(limit=0)] == []
    assert [r.position for r in store.read(after=11)] == []


def test_a_reader_underway_sees_what_is_appended_meanwhile(any_database, monkeypatch):
    monkeypatch.setattr(store, "_READ_AT_ONCE", 2)
    store.append([destroyed("a"), destroyed("b")], meta=META)
    reader = store.read()
    assert next(reader).position == 1
    store.append(destroyed("c"), meta=META)
    assert [r.position for r in reader] == [2, 3]


def at_noon(day):
    return datetime.datetime(2026, 1, day, 12, tzinfo=datetime.UTC)


def test_the_first_event_since_a_moment_is_found_by_halving(any_database):
    assert store.first_since(at_noon(1)) == 1
    for day in (2, 4, 4, 6, 8):
        _forge(recorded_at=f"2026-01-{day:02} 12:00:00")
    found = {day: store.first_since(at_noon(day)) for day in range(1, 10)}
    assert found == {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 5, 8: 5, 9: 6}
    _forge(recorded_at="2026-01-05 12:00:00")  # the clock was put back
    assert store.first_since(at_noon(9)) == 7
    assert store.first_since(at_noon(4)) == 2


def test_who_holds_up_all_appends_can_append(postgres_url, swap_database):
    """In whatever order locks are taken: an append that waits must not be in the holder's way."""
    with swap_database(postgres_url):
        waits = threading.Thread(target=_append_elsewhere)
        with transaction.atomic():
            store.lock()
            waits.start()
            while not waiting_for_a_lock():
                time.sleep(0.01)
            store.append(destroyed("holder"), meta=META)
        waits.join()
        assert [one.stream for one in store.read()] == ["sandbox:holder", "sandbox:waits"]


def _append_elsewhere():
    store.append(destroyed("waits"), meta=META)
    connection.close()


def test_it_reads_events_of_some_types(any_database):
    failed = vocabulary.ImportFailed(
        template="web",
        import_id="i",
        reference="oci:x/y",
        stage="pull",
        code="pull_failed",
        reason="tls",
        detail="d",
        digest=None,
        undone=(),
        leftovers=(),
    )
    store.append([destroyed("a"), failed, destroyed("b")], meta=META)
    assert [r.position for r in store.read(types=["import-failed"])] == [2]
    assert [r.position for r in store.read(types=["sandbox-destroyed"], limit=1, after=1)] == [3]
    assert list(store.read(types=[])) == []


def test_the_last_event_of_some_types(any_database):
    rare = ("signature-withdrawn", "exported")
    assert store.last_of(rare) == 0
    exported = vocabulary.Exported(what="events", events=1, first=1, last=1, question="")
    store.append([destroyed("a"), exported, destroyed("b")], meta=META)
    assert (store.last_of(rare), store.last_of(("key-revoked",))) == (2, 0)


def test_the_last_event_of_some_types_is_found_without_reading_the_log(sqlite_url, swap_database):
    with swap_database(sqlite_url):
        store.append([destroyed(f"s{number}") for number in range(3000)], meta=META)
        steps = []
        connection.connection.set_progress_handler(lambda: steps.append(1), 100)
        assert store.last_of(("key-revoked", "signature-withdrawn")) == 0
        connection.connection.set_progress_handler(None, 100)
        assert len(steps) < 10  # hundreds of steps of SQLite's machine; each event takes several


def test_it_reads_a_stream_from_a_version_on(any_database):
    store.append([destroyed("a"), destroyed("b"), destroyed("a"), destroyed("a")], meta=META)
    assert [r.version for r in store.read_stream("sandbox:a", after_version=1)] == [2, 3]
    assert store.read_stream("sandbox:nobody") == []


def test_it_finds_the_events_about_a_thing(any_database):
    store.append([destroyed("a", "web"), destroyed("b", "db"), destroyed("c", "web")], meta=META)
    assert [r.position for r in store.about("template", "web")] == [1, 3]
    assert [r.position for r in store.about("template", "web", newest_first=True)] == [3, 1]
    assert [r.position for r in store.about("template", "web", after=1)] == [3]
    assert [r.position for r in store.about("template", "web", limit=1)] == [1]
    assert store.about("sandbox", "web") == []


# --- payloads ----------------------------------------------------------------------------------


def _forge(**columns):
    """Append a row behind the store's back, as an older or newer program could have written it."""
    row = {
        "position": columns.get("position") or store.size() + 1,
        "event_id": uuid.uuid4().hex,
        "stream": "sandbox:s1",
        "version": columns.get("version") or store.stream_version("sandbox:s1") + 1,
        "type": "sandbox-destroyed",
        "schema": 1,
        "data": codec.text(destroyed()),
        "meta": codec.text(META),
        "recorded_at": "2026-01-02 03:04:05.000006",
        "leaf_hash": "0" * 64,
        **columns,
    }
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO templates_app_event ({', '.join(row)})"  # noqa: S608
            f" VALUES ({', '.join(['%s'] * len(row))})",
            list(row.values()),
        )


def test_an_older_schema_is_read_through_its_upcasters(any_database, monkeypatch):
    old = {"sandbox": "s1", "from": "web"}

    def first_to_second(data):
        return {"sandbox": data["sandbox"], "template": data["from"]}

    def second_to_third(data):
        return {**data, "dataset": "unknown"}

    monkeypatch.setattr(SandboxDestroyed, "schema", 3)
    monkeypatch.setitem(vocabulary.UPCASTERS, ("sandbox-destroyed", 1), first_to_second)
    monkeypatch.setitem(vocabulary.UPCASTERS, ("sandbox-destroyed", 2), second_to_third)
    _forge(data=json.dumps(old))
    [one] = store.read()
    assert one.schema == 1
    assert one.event == destroyed(dataset="unknown")
    assert store.append(destroyed("s2"), meta=META)[0].schema == 3


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"type": "sandbox-beamed"}, "unknown event type"),
        ({"schema": 2}, "newer than this program knows"),
        ({"data": '{"sandbox":"s1"}'}, "missing keys"),
        ({"data": '{"sandbox":'}, "Expecting value"),
        ({"meta": "{}"}, "missing keys"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_position(any_database, columns, complaint):
    store.append(destroyed(), meta=META)
    _forge(**columns)
    with pytest.raises(PayloadInvalid, match=f"event at position 2: .*{complaint}"):
        list(store.read())


@pytest.mark.parametrize(
    "event",
    [
        destroyed(dataset="\ud800"),
        destroyed(sandbox='a"b'),
        destroyed(sandbox="ü"),
        destroyed(sandbox=""),
        destroyed(sandbox="x" * 69),
        destroyed(template="\0"),
        destroyed(template="x" * 101),
    ],
    ids=["surrogate", "quote", "umlaut", "empty", "long", "key with NUL", "long key"],
)
def test_what_cannot_be_written_is_refused(any_database, event):
    with pytest.raises(PayloadInvalid):
        store.append(event, meta=META)
    assert store.size() == 0
