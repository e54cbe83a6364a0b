"""The vocabulary of the log: what was written once is read for ever."""

from __future__ import annotations

import dataclasses
import json
import re
import string
import types
import typing

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from templates_app import events
from templates_app.codec import PayloadInvalid, camel
from templates_app.events import EVENTS, UPCASTERS, DomainEvent, Meta, Signed, from_json

#: Never change a line: these strings are in logs. A new event is a new line.
TYPES = {
    "imported": "Imported",
    "import-failed": "ImportFailed",
    "signed": "Signed",
    "destroyed": "Destroyed",
    "rolled-back": "RolledBack",
    "retired": "Retired",
    "reloaded": "Reloaded",
    "verified": "Verified",
    "drifted": "Drifted",
    "evidence-attached": "EvidenceAttached",
    "sandbox-created": "SandboxCreated",
    "sandbox-refused": "SandboxRefused",
    "sandbox-destroyed": "SandboxDestroyed",
    "key-trusted": "KeyTrusted",
    "key-revoked": "KeyRevoked",
    "signature-withdrawn": "SignatureWithdrawn",
    "policy-changed": "PolicyChanged",
    "logged-in": "LoggedIn",
    "login-failed": "LoginFailed",
    "exported": "Exported",
}

#: Never change a set: such payloads are in logs. Another payload is a new schema, with an upcaster
#: that makes it of the old one, and a line here for the new one. (type, schema) -> keys.
PAYLOADS = {
    ("imported", 1): "template generation importId reference referenceGiven scheme floating digests"
    " platform engine pool dataset origin snapshotGuid alias snapshot sizeBytes entries treeDigest"
    " statement statementDigest deviations verdict findings forced milliseconds movedAside",
    ("imported", 2): "template generation importId reference referenceGiven scheme floating digests"
    " platform engine pool dataset origin snapshotGuid alias snapshot sizeBytes entries treeDigest"
    " statement statementDigest deviations verdict findings forced milliseconds fetchedBytes"
    " cachedBytes writtenBytes movedAside",
    ("import-failed", 1): "template importId reference stage code reason detail digest undone"
    " leftovers",
    ("signed", 1): "template generation statementDigest treeDigest manifestDigest keyId keyLabel"
    " publicKey signature",
    ("destroyed", 1): "template generation datasets manifestDigest",
    ("destroyed", 2): "template generation datasets manifestDigest kept",
    ("rolled-back", 1): "template generation before treeDigest statementDigest manifestDigest",
    ("retired", 1): "template generation dataset treeDigest statementDigest manifestDigest",
    ("reloaded", 1): "node pool added changed missing returned findings",
    ("reloaded", 2): "node pool added changed missing returned findings fixed verified",
    ("verified", 1): "template generation dataset result detail treeDigest foundDigest snapshotGuid"
    " excepted entries sizeBytes added removed changed grave differences statementDigest"
    " manifestDigest milliseconds",
    ("evidence-attached", 1): "template generation reference manifestDigest items missing",
    ("drifted", 1): "template generation reference state before importedDigest foundDigest",
    ("sandbox-created", 1): "sandbox template generation dataset origin treeDigest statementDigest"
    " manifestDigest gate signed keyId failedChecks",
    ("sandbox-refused", 1): "template generation code treeDigest statementDigest manifestDigest"
    " checks",
    ("sandbox-destroyed", 1): "sandbox template dataset",
    ("key-trusted", 1): "keyId label publicKey owner purpose notBefore notAfter scope predecessor"
    " announcement",
    (
        "signature-withdrawn",
        1,
    ): "template generation statementDigest treeDigest manifestDigest keyId"
    " keyLabel publicKey signedPosition note templates sandboxes",
    ("policy-changed", 1): "node changes settings",
    ("logged-in", 1): "user address",
    ("login-failed", 1): "user address unrecorded",
    ("exported", 1): "what events first last question",
    ("key-revoked", 1): "keyId label publicKey reason since note templates sandboxes",
}

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_KEYS = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=12)


def values(hint: typing.Any) -> st.SearchStrategy[typing.Any]:
    """Anything that a field of this type may hold."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (one,) = [arg for arg in inner if arg is not type(None)]
        return st.none() | values(one)
    if origin is tuple:
        return st.lists(values(inner[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(_KEYS, values(inner[1]), max_size=3)
    if dataclasses.is_dataclass(hint):
        return instances(hint)
    return {
        str: _TEXT,
        bool: st.booleans(),
        int: st.integers(-(2**53) + 1, 2**53 - 1),
    }[hint]


def instances(cls: type) -> st.SearchStrategy[typing.Any]:
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{f.name: values(hints[f.name]) for f in dataclasses.fields(cls)})


ANY_EVENT = st.one_of([instances(cls) for cls in EVENTS.values()])


def test_type_strings_are_those_that_logs_hold():
    assert {type_: cls.__name__ for type_, cls in EVENTS.items()} == TYPES
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", type_) for type_ in EVENTS)


def test_payloads_are_those_that_logs_hold():
    for type_, cls in EVENTS.items():
        keys = {camel(f.name) for f in dataclasses.fields(cls)}
        assert keys == set(PAYLOADS[type_, cls.schema].split()), type_
        for older in range(1, cls.schema):
            assert (type_, older) in UPCASTERS, f"{type_} {older} can no longer be read"


def test_every_event_of_the_module_is_in_the_vocabulary():
    written = {
        one
        for one in vars(events).values()
        if isinstance(one, type) and issubclass(one, DomainEvent) and one is not DomainEvent
    }
    assert written == set(EVENTS.values())


@given(ANY_EVENT)
@settings(max_examples=300, deadline=None)
def test_every_event_is_read_as_it_was_written(event: DomainEvent):
    stored = rfc8785.dumps(event.to_json())  # what the log keeps
    assert from_json(event.type, event.schema, json.loads(stored)) == event


@given(ANY_EVENT)
@settings(max_examples=200, deadline=None)
def test_every_key_is_ascii_in_camel_case_and_every_value_plain(event: DomainEvent):
    def look(value: typing.Any, of_a_field: bool = True) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                assert key.isascii() and key.isprintable()
                assert not of_a_field or re.fullmatch(r"[a-z][a-zA-Z0-9]*", key)
                look(inner, of_a_field and key != "milliseconds")
        elif isinstance(value, list):
            for inner in value:
                look(inner, of_a_field)
        else:
            assert value is None or type(value) in (str, int, bool)

    look(event.to_json())


@given(ANY_EVENT)
@settings(max_examples=200, deadline=None)
def test_every_event_has_a_stream_mentions_and_a_sentence(event: DomainEvent):
    kind, colon, _ = event.stream().partition(":")
    kinds = {"template", "launches", "verifications", "pool", "sandbox", "key"}
    kinds |= {"policy", "logins", "exports"}
    assert colon and kind in kinds
    sentence = event.sentence()
    assert sentence[0].isupper()
    for kind, key in event.mentions():
        assert kind in ("template", "digest", "import", "key", "sandbox")
        assert isinstance(key, str)


D = "sha256:" + "a" * 64
SAMPLES: dict[str, tuple[dict[str, typing.Any], str, set[tuple[str, str]]]] = {
    "imported": (
        {
            "template": "web",
            "generation": 2,
            "importId": "0a0b",
            "reference": "oci:quay.io/x/web:1",
            "referenceGiven": "quay.io/x/web:1",
            "scheme": "oci",
            "floating": True,
            "digests": {"index": None, "manifest": "sha256:m", "config": "sha256:c"},
            "platform": "freebsd/amd64",
            "engine": "buildah",
            "pool": "zfs:z",
            "dataset": "z/coppice/web-g2",
            "origin": "z/coppice/web-g2@base",
            "snapshotGuid": "18446744073709551615",
            "alias": "z/web-template",
            "snapshot": "z/web-template@base",
            "sizeBytes": 164822016,
            "entries": 812,
            "treeDigest": "sha256:t",
            "statement": "{}",
            "statementDigest": "sha256:s",
            "deviations": [{"path": "/etc/resolv.conf", "reason": "planted", "sha256": None}],
            "verdict": {
                "result": "native",
                "abis": ["freebsd/amd64"],
                "configPlatform": "freebsd/amd64",
                "reason": "",
            },
            "findings": [],
            "forced": True,
            "milliseconds": {"pull": 5},
        },
        "Imported web generation 2 from oci:quay.io/x/web:1 (157.2M, 812 entries)",
        {("template", "web"), ("import", "0a0b")}
        | {("digest", f"sha256:{letter}") for letter in "mcts"},
    ),
    "import-failed": (
        {
            "template": "web",
            "importId": "",
            "reference": "'oci:x'",
            "stage": "parse",
            "code": "malformed_reference",
            "reason": None,
            "detail": "It is none.",
            "digest": None,
            "undone": [],
            "leftovers": [],
        },
        "Import of web from 'oci:x' failed at parse: malformed_reference",
        {("template", "web")},
    ),
    "signed": (
        {
            "template": "web",
            "generation": 2,
            "statementDigest": "sha256:s",
            "treeDigest": "sha256:t",
            "manifestDigest": None,
            "keyId": "0011223344556677",
            "keyLabel": "release",
            "publicKey": "RWQ…",
            "signature": "untrusted comment: x\n…\n",
        },
        "Signed web generation 2 with key release",
        {("template", "web"), ("key", "0011223344556677")}
        | {("digest", "sha256:s"), ("digest", "sha256:t")},
    ),
    "destroyed": (
        {"template": "web", "generation": 2, "datasets": ["a", "b"], "manifestDigest": "sha256:m"},
        "Destroyed web with 2 dataset(s)",
        {("template", "web"), ("digest", "sha256:m")},
    ),
    "rolled-back": (
        {
            "template": "web",
            "generation": 1,
            "before": 2,
            "treeDigest": "sha256:t",
            "statementDigest": "sha256:s",
            "manifestDigest": "sha256:m",
        },
        "Rolled web back from generation 2 to 1",
        {("template", "web")} | {("digest", f"sha256:{kind}") for kind in "tsm"},
    ),
    "evidence-attached": (
        {
            "template": "web",
            "generation": 1,
            "reference": "oci:quay.io/x/web:1",
            "manifestDigest": "sha256:m",
            "items": [
                {
                    "kind": "signature",
                    "mediaType": "application/x",
                    "digest": "sha256:s",
                    "subject": "sha256:m",
                    "through": "tag",
                    "sizeBytes": 1,
                    "kept": ["sha256:s"],
                    "verifiedBy": ["release"],
                    "detail": "",
                }
            ],
            "missing": [],
        },
        "The registry of web generation 1 holds about its image: 1 signature; 1 verified",
        {("template", "web"), ("digest", "sha256:m"), ("digest", "sha256:s")},
    ),
    "drifted": (
        {
            "template": "web",
            "generation": 1,
            "reference": "oci:quay.io/x/web:1",
            "state": "moved",
            "before": "current",
            "importedDigest": "sha256:i",
            "foundDigest": "sha256:f",
        },
        "The tag of web generation 1, oci:quay.io/x/web:1, moved to sha256:f",
        {("template", "web"), ("digest", "sha256:i"), ("digest", "sha256:f")},
    ),
    "retired": (
        {
            "template": "web",
            "generation": 1,
            "dataset": "z/coppice/web-g1-00000001",
            "treeDigest": "sha256:t",
            "statementDigest": "sha256:s",
            "manifestDigest": "sha256:m",
        },
        "Retired web generation 1: nothing was cloned from it",
        {("template", "web")} | {("digest", f"sha256:{kind}") for kind in "tsm"},
    ),
    "reloaded": (
        {
            "node": "n",
            "pool": "zfs:z",
            "added": [],
            "changed": [],
            "missing": ["web"],
            "returned": ["db", "mail"],
            "findings": [],
        },
        "Reloaded zfs:z: 1 missing, 2 returned",
        {("template", "web"), ("template", "db"), ("template", "mail")},
    ),
    "verified": (
        {
            "template": "web",
            "generation": 2,
            "dataset": "z/coppice/web-g2-00000001",
            "result": "differs",
            "detail": "1 added.",
            "treeDigest": "sha256:t",
            "foundDigest": "sha256:f",
            "snapshotGuid": "12",
            "excepted": ["owners"],
            "entries": 3,
            "sizeBytes": 12,
            "added": 1,
            "removed": 0,
            "changed": 0,
            "grave": 1,
            "differences": [
                {
                    "path": "./bin/su",
                    "change": "added",
                    "grave": ["set-id"],
                    "fields": [{"name": "mode", "before": None, "after": "4755"}],
                }
            ],
            "statementDigest": "sha256:s",
            "manifestDigest": None,
            "milliseconds": 7,
        },
        "Verified web generation 2: its files differ. 1 added.",
        {("template", "web")} | {("digest", f"sha256:{kind}") for kind in "tfs"},
    ),
    "sandbox-created": (
        {
            "sandbox": "one",
            "template": "web",
            "generation": 2,
            "dataset": "z/sandbox-one",
            "origin": "z/coppice/web-g2@base",
            "treeDigest": "sha256:t",
            "statementDigest": "sha256:s",
            "manifestDigest": "sha256:m",
            "gate": "off",
            "signed": False,
            "keyId": None,
            "failedChecks": ["template_unsigned"],
        },
        "Launched sandbox one from unsigned web generation 2",
        {("template", "web"), ("sandbox", "one"), ("digest", "sha256:s")},
    ),
    "sandbox-refused": (
        {
            "template": "web",
            "generation": 2,
            "code": "template_unsigned",
            "treeDigest": "sha256:t",
            "statementDigest": "sha256:s",
            "manifestDigest": None,
            "checks": [
                {
                    "name": "signed",
                    "passed": False,
                    "reason": "No.",
                    "code": "template_unsigned",
                    "nextStep": "Sign it.",
                }
            ],
        },
        "Refused to launch web generation 2: template_unsigned",
        {("template", "web"), ("digest", "sha256:s")},
    ),
    "sandbox-destroyed": (
        {"sandbox": "one", "template": "web", "dataset": "z/sandbox-one"},
        "Destroyed sandbox one of web",
        {("template", "web"), ("sandbox", "one")},
    ),
    "policy-changed": (
        {
            "node": "jail1",
            "changes": [
                {"name": "A", "before": "on", "after": "off"},
                {"name": "B", "before": None, "after": "1"},
                {"name": "C", "before": "1", "after": None},
                {"name": "D", "before": "1", "after": ""},
            ],
            "settings": [{"name": "A", "value": "off"}],
        },
        "Settings of jail1 changed: A from 'on' to 'off'; B is new; C is gone; 1 more",
        set(),
    ),
    "logged-in": (
        {"user": "audrey", "address": "192.0.2.7"},
        "Login of audrey from 192.0.2.7",
        set(),
    ),
    "login-failed": (
        {"user": None, "address": "", "unrecorded": 12},
        "Login of an unknown account from an unknown address failed,"
        " after 12 that were not recorded",
        set(),
    ),
    "exported": (
        {"what": "events", "events": 3, "first": 2, "last": 9, "question": "type=signed"},
        "Exported events: 3 event(s) from 2 to 9, chosen by type=signed",
        set(),
    ),
    "signature-withdrawn": (
        {
            "template": "web",
            "generation": 2,
            "statementDigest": "sha256:s",
            "treeDigest": "sha256:t",
            "manifestDigest": None,
            "keyId": "0123456789abcdef",
            "keyLabel": "release",
            "publicKey": "RWQ",
            "signedPosition": 7,
            "note": "",
            "templates": ["web"],
            "sandboxes": [],
        },
        "Withdrew the signature of web generation 2 by key release",
        {("template", "web"), ("key", "0123456789abcdef")}
        | {("digest", "sha256:s"), ("digest", "sha256:t")},
    ),
    "key-trusted": (
        {
            "keyId": "0123456789abcdef",
            "label": "release",
            "publicKey": "RWQ",
            "owner": "Alice",
            "purpose": "templates",
            "notBefore": None,
            "notAfter": "2027-01-01T00:00:00Z",
            "scope": ["prod-*", "web"],
            "predecessor": "RWP",
            "announcement": "untrusted comment: x",
        },
        "Trusted key release of Alice for prod-*, web until 2027-01-01T00:00:00Z,"
        " announced by its predecessor",
        {("key", "0123456789abcdef")},
    ),
    "key-revoked": (
        {
            "keyId": "0123456789abcdef",
            "label": "release",
            "publicKey": "RWQ",
            "reason": "compromised",
            "since": 47,
            "note": "stolen",
            "templates": ["web"],
            "sandboxes": ["one", "two"],
        },
        "Revoked key release: compromised since position 47;"
        " 1 template(s), 2 sandbox(es) concerned",
        {("key", "0123456789abcdef")},
    ),
}


@pytest.mark.parametrize("type_", TYPES)
def test_a_payload_of_the_first_schema_is_still_read(type_: str):
    """Written out as it lies in logs: to be read for ever, through upcasters if need be."""
    data, sentence, mentions = SAMPLES[type_]
    event = from_json(type_, 1, data)
    assert event.sentence() == sentence
    assert event.mentions() == mentions


def test_of_imports_before_figures_were_recorded_it_is_not_known_what_they_moved():
    data, _, _ = SAMPLES["imported"]
    event = from_json("imported", 1, data).to_json()
    figures = {"fetchedBytes": None, "cachedBytes": None, "writtenBytes": None}
    assert event == {**data, **figures, "movedAside": None}


def test_a_reload_without_a_difference_says_so():
    empty = {key: [] for key in ("added", "changed", "missing", "returned", "findings")}
    event = from_json("reloaded", 1, {"node": "n", "pool": "zfs:z", **empty})
    assert event.sentence() == "Reloaded zfs:z: nothing changed"
    assert event.mentions() == set()


# --- what cannot be read, and upcasters ----------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "schema", "data", "why"),
    [
        ("no-such-type", 1, {}, "unknown event type"),
        ("Destroyed", 1, {}, "unknown event type"),
        ("sandbox-destroyed", 2, SAMPLES["sandbox-destroyed"][0], "newer"),
        ("sandbox-destroyed", 0, SAMPLES["sandbox-destroyed"][0], "no upcaster"),
        ("sandbox-destroyed", -1, SAMPLES["sandbox-destroyed"][0], "no upcaster"),
        ("sandbox-destroyed", 1, {}, "missing keys"),
        ("sandbox-destroyed", 1, {**SAMPLES["sandbox-destroyed"][0], "more": 1}, "unknown keys"),
        ("sandbox-destroyed", 1, {**SAMPLES["sandbox-destroyed"][0], "sandbox": 7}, "expected str"),
    ],
)
def test_a_reader_never_guesses(type_: str, schema: int, data: dict, why: str):
    with pytest.raises(PayloadInvalid, match=why):
        from_json(type_, schema, data)


def test_upcasters_are_applied_one_after_the_other(monkeypatch):
    """As if `signed` had begun without the key's label, and then without the public key."""
    now, _, _ = SAMPLES["signed"]
    first = {k: v for k, v in now.items() if k not in ("keyLabel", "publicKey")}
    monkeypatch.setattr(Signed, "schema", 3)
    monkeypatch.setitem(UPCASTERS, ("signed", 1), lambda data: {**data, "keyLabel": "release"})
    monkeypatch.setitem(UPCASTERS, ("signed", 2), lambda data: {**data, "publicKey": "RWQ…"})
    before = dict(first)
    assert from_json("signed", 1, first).to_json() == now
    assert first == before  # what was stored is not touched
    second = {**first, "keyLabel": "given"}
    assert from_json("signed", 2, second).to_json() == {**now, "keyLabel": "given"}
    assert from_json("signed", 3, now).to_json() == now
    with pytest.raises(PayloadInvalid, match="newer"):
        from_json("signed", 4, now)
    monkeypatch.delitem(UPCASTERS, ("signed", 2))
    with pytest.raises(PayloadInvalid, match="schema 2 has no upcaster"):
        from_json("signed", 1, first)


@given(instances(Meta))
@settings(deadline=None)
def test_who_did_it_is_read_as_it_was_written(meta: Meta):
    assert Meta.from_json(json.loads(rfc8785.dumps(meta.to_json()))) == meta
    assert set(meta.to_json()) == {"actor", "source", "requestId", "node"}


def test_events_cannot_be_changed():
    event = from_json("sandbox-destroyed", 1, SAMPLES["sandbox-destroyed"][0])
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.sandbox = "two"  # type: ignore[attr-defined]
