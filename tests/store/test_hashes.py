"""Any batch comes back as it went in, and its leaf hashes are those of trust's definition."""

import datetime
import hashlib
import json
import uuid

import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from templates_app import codec, lookup, store, store_writers
from templates_app.events import (
    Adopted,
    Check,
    Finding,
    ImportFailed,
    Meta,
    Reloaded,
    SandboxDestroyed,
    SandboxRefused,
)
from templates_app.findings import KINDS

# Any text that is Unicode; NUL, quotes, backslashes and the like, which databases trip over, often.
texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["", "\0", "\\", '"', "{}", '\\"', "'; --", "%s", "NULL", "\x7f\x1f\n\r\t\b\f", "😀é\u2028"]
)
names = st.sampled_from(["web", "db", "a-1", "x"])
numbers = st.integers(-(2**53) + 1, 2**53 - 1)
digests = texts.map(lambda t: "sha256:" + hashlib.sha256(t.encode()).hexdigest())


def tuples(items):
    return st.lists(items, max_size=3).map(tuple)


checks = st.builds(
    Check,
    name=texts,
    passed=st.booleans(),
    reason=texts,
    code=st.none() | texts,
    next_step=st.none() | texts,
)
events = (
    st.builds(
        SandboxRefused,
        template=names,
        generation=numbers,
        code=texts,
        tree_digest=digests,
        statement_digest=digests,
        manifest_digest=st.none() | digests,
        checks=tuples(checks),
    )
    | st.builds(
        ImportFailed,
        template=names,
        import_id=st.uuids().map(str),
        reference=texts,
        stage=texts,
        code=texts,
        reason=st.none() | texts,
        detail=texts,
        digest=st.none() | digests,
        undone=tuples(texts),
        leftovers=tuples(texts),
    )
    | st.builds(SandboxDestroyed, sandbox=names, template=names, dataset=texts)
    | st.builds(
        Reloaded,
        node=names,
        pool=texts,
        added=st.just(()),  # what follows from an adopted one is the projections' business
        changed=st.just(()),
        missing=tuples(names),
        returned=tuples(names),
        findings=tuples(
            st.builds(Finding, code=st.sampled_from(list(KINDS)), subject=texts, detail=texts)
        ),
    )
)
metas = st.builds(Meta, actor=texts, source=texts, request_id=texts, node=texts)


def leaf_hash(line):
    """From an exported line alone, by other code than the store's (trust.md, section 4)."""
    fields = json.loads(line)
    told, _ = fields.pop("leafHash"), fields.pop("eventId")
    return told, hashlib.sha256(b"\0" + rfc8785.dumps(fields)).hexdigest()


@settings(
    max_examples=60,
    deadline=None,  # a database under load
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # one growing log is the point
)
@given(batch=st.lists(events, min_size=1, max_size=5), meta=metas, ids=st.booleans())
def test_any_batch_round_trips(any_database, batch, meta, ids):
    before, versions = store.size(), {}
    for event in batch:
        versions.setdefault(event.stream(), store.stream_version(event.stream()))
    event_ids = [uuid.uuid4() for _ in batch] if ids else None
    recorded = store.append(batch, meta=meta, expected=versions, event_ids=event_ids)

    assert [one.event for one in recorded] == batch
    assert [one.position for one in recorded] == list(range(before + 1, before + len(batch) + 1))
    for one in recorded:
        versions[one.stream] += 1
        assert one.version == versions[one.stream]
    assert list(store.read(after=before)) == recorded
    for one, line in zip(recorded, store.export(after=before), strict=True):
        told, computed = leaf_hash(line)
        assert told == computed == one.leaf_hash
        assert json.loads(line)["recordedAt"] == one.recorded_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        for kind, key in one.event.mentions():
            assert one in store.about(kind, key, after=before)
            assert lookup.events([kind], [key]).filter(position=one.position).exists()


@given(
    st.recursive(
        st.none() | st.booleans() | numbers | texts,
        lambda inner: (
            st.lists(inner, max_size=4).map(tuple)
            | st.dictionaries(
                st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1), inner
            )
        ),
    )
)
def test_text_is_rfc_8785_for_all_that_events_may_hold(value):
    assert codec.text(value).encode() == rfc8785.dumps(value)


@given(events)
def test_the_text_of_an_event_is_that_of_its_json(event):
    assert codec.text(event).encode() == rfc8785.dumps(event.to_json())


def test_a_whole_second_is_written_with_its_microseconds():
    at = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert store_writers.moment(at) == "2026-01-02T03:04:05.000000Z"


def test_adopted_templates_in_an_event_round_trip(any_database):
    one = Adopted(
        template="web",
        dataset="zroot/web-template",
        snapshot="zroot/web-template@base",
        snapshot_guid="1",
        size_bytes=2**53 - 1,
        entries=1,
        tree_digest="sha256:" + "a" * 64,
        statement='{"a":"\\u0000"}',
        statement_digest="sha256:" + "b" * 64,
    )
    event = Reloaded(
        node="n1", pool="p", added=(one,), changed=(), missing=(), returned=(), findings=()
    )
    meta = Meta(actor="a", source="cli", request_id="r", node="n1")
    [recorded] = store.append(event, meta=meta)
    assert list(store.read()) == [recorded]
    [line] = store.export()
    assert len(set(leaf_hash(line))) == 1
