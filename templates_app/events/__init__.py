"""The vocabulary: everything that can happen to a template, as frozen dataclasses.

An event's ``type`` string never changes. A changed payload gets a new ``schema`` number and an
upcaster from the old one, so that what was written years ago is still read. Payloads are JSON that
a person can read: strings, integers below 2^53, booleans, null, and lists and objects of these;
keys are ASCII and camelCase. Each event says itself in one human sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from templates_app.codec import Json, PayloadInvalid, decode, reader
from templates_app.events.access import Exported as Exported
from templates_app.events.access import LoggedIn as LoggedIn
from templates_app.events.access import LoginFailed as LoginFailed
from templates_app.events.attached import EvidenceAttached as EvidenceAttached
from templates_app.events.base import DomainEvent as DomainEvent
from templates_app.events.base import Meta as Meta
from templates_app.events.base import Recorded as Recorded
from templates_app.events.base import streams_about as streams_about
from templates_app.events.keys import KeyRevoked as KeyRevoked
from templates_app.events.keys import KeyTrusted as KeyTrusted
from templates_app.events.policy import PolicyChanged as PolicyChanged
from templates_app.events.sandboxes import SandboxCreated as SandboxCreated
from templates_app.events.sandboxes import SandboxDestroyed as SandboxDestroyed
from templates_app.events.sandboxes import SandboxRefused as SandboxRefused
from templates_app.events.templates import Destroyed as Destroyed
from templates_app.events.templates import Drifted as Drifted
from templates_app.events.templates import Imported as Imported
from templates_app.events.templates import ImportFailed as ImportFailed
from templates_app.events.templates import Reloaded as Reloaded
from templates_app.events.templates import Retired as Retired
from templates_app.events.templates import RolledBack as RolledBack
from templates_app.events.templates import SignatureWithdrawn as SignatureWithdrawn
from templates_app.events.templates import Signed as Signed
from templates_app.events.templates import Verified as Verified
from templates_app.payload import Adopted as Adopted
from templates_app.payload import Attached as Attached
from templates_app.payload import Check as Check
from templates_app.payload import Deviation as Deviation
from templates_app.payload import Digests as Digests
from templates_app.payload import FieldChange as FieldChange
from templates_app.payload import Finding as Finding
from templates_app.payload import Fixed as Fixed
from templates_app.payload import Setting as Setting
from templates_app.payload import SettingChange as SettingChange
from templates_app.payload import TreeChange as TreeChange
from templates_app.payload import Verdict as Verdict

EVENTS: dict[str, type[DomainEvent]] = {
    cls.type: cls
    for cls in (
        Imported,
        ImportFailed,
        Signed,
        SignatureWithdrawn,
        Destroyed,
        RolledBack,
        Retired,
        Reloaded,
        Verified,
        Drifted,
        EvidenceAttached,
        SandboxCreated,
        SandboxRefused,
        SandboxDestroyed,
        KeyTrusted,
        KeyRevoked,
        PolicyChanged,
        LoggedIn,
        LoginFailed,
        Exported,
    )
}

Upcaster = Callable[[dict[str, Json]], dict[str, Json]]

#: (type, schema) -> function that makes schema + 1 of it. Each takes and returns plain JSON.
UPCASTERS: dict[tuple[str, int], Upcaster] = {
    # What was moved was not recorded.
    ("imported", 1): lambda data: {
        **data, "fetchedBytes": None, "cachedBytes": None, "writtenBytes": None
    },
    # It was refused while anything was cloned from the template.
    ("destroyed", 1): lambda data: {**data, "kept": []},
    # Findings did not say which generation they touch, nothing was fixed, no file looked into.
    ("reloaded", 1): lambda data: {
        **data,
        "findings": [{**one, "template": None, "generation": None} for one in data["findings"]],
        "fixed": [],
        "verified": False,
    },
}  # fmt: skip


def from_json(type_: str, schema: int, data: Mapping[str, Json]) -> DomainEvent:
    """Read a stored payload, through the upcasters where it is of an older schema.

    Raises :class:`PayloadInvalid` for an unknown type, a newer schema or a payload that does not
    fit: a reader must never guess what an event meant.
    """
    cls = EVENTS.get(type_)
    if cls is not None and schema == cls.schema:  # nearly all
        found: DomainEvent = reader(cls)(data)
        return found
    if cls is None:
        raise PayloadInvalid(f"unknown event type {type_!r}")
    if schema > cls.schema:
        raise PayloadInvalid(f"{type_} schema {schema} is newer than this program knows")
    present = data
    for version in range(schema, cls.schema):
        upcaster = UPCASTERS.get((type_, version))
        if upcaster is None:
            raise PayloadInvalid(f"{type_} schema {version} has no upcaster")
        present = upcaster(dict(present))
    event: DomainEvent = decode(cls, present)
    return event
