"""The vocabulary: everything that can happen to a template, as frozen dataclasses.

An event's ``type`` string never changes. A changed payload gets a new ``schema`` number and an
upcaster from the old one, so that what was written years ago is still read. Payloads are JSON that
a person can read: strings, integers below 2^53, booleans, null, and lists and objects of these;
keys are ASCII and camelCase. Each event says itself in one human sentence.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from templates_app.codec import Json, PayloadInvalid, decode, encode
from templates_app.names import human_size
from templates_app.payload import Adopted as Adopted
from templates_app.payload import Check as Check
from templates_app.payload import Deviation as Deviation
from templates_app.payload import Digests as Digests
from templates_app.payload import Finding as Finding
from templates_app.payload import Verdict as Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """Who did it and how it came in. ``actor`` is text, so that history outlives the account."""

    actor: str
    source: str  # api, cli, admin, command, task, recovery
    request_id: str
    node: str

    def to_json(self) -> dict[str, Json]:
        return encode(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Self:
        meta: Self = decode(cls, data)
        return meta


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An event as the log has it. ``position`` counts from 1 without gaps, in commit order."""

    position: int
    event_id: uuid.UUID
    stream: str
    version: int  # within the stream, from 1
    type: str
    schema: int  # as stored; ``event`` is already of the present one
    event: DomainEvent
    meta: Meta
    recorded_at: datetime.datetime  # UTC, microseconds
    leaf_hash: str  # 64 hex digits, RFC 6962 leaf hash of the canonical JSON of the stored fields


class DomainEvent:
    """Base of all events. ``type`` and ``schema`` are what the log stores beside the payload."""

    __slots__ = ()
    type: ClassVar[str]
    schema: ClassVar[int] = 1

    def stream(self) -> str:
        """The stream that the event belongs to, ``kind:key``."""
        raise NotImplementedError

    def mentions(self) -> set[tuple[str, str]]:
        """(kind, key) of what the event is about: what histories and provenance look up.

        Launches, of which there are many, have their statement alone for all digests that it binds.
        """
        raise NotImplementedError

    def sentence(self) -> str:
        raise NotImplementedError

    def to_json(self) -> dict[str, Json]:
        return encode(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported(DomainEvent):
    """An import was finished: its generation exists, is sealed, and is current from now on."""

    type: ClassVar[str] = "imported"
    schema: ClassVar[int] = 2

    template: str
    generation: int
    import_id: str
    reference: str  # canonical
    reference_given: str
    scheme: str
    floating: bool
    digests: Digests
    platform: str
    engine: str
    pool: str
    dataset: str
    origin: str  # the generation's own snapshot
    snapshot_guid: str  # a 64-bit number, as text
    alias: str
    snapshot: str  # the alias's snapshot: what the API calls `snapshot`
    size_bytes: int
    entries: int
    tree_digest: str
    statement: str  # the exact canonical text
    statement_digest: str
    deviations: tuple[Deviation, ...]
    verdict: Verdict
    findings: tuple[str, ...]
    forced: bool
    milliseconds: dict[str, int]  # per stage
    fetched_bytes: int | None  # of layers as transferred; None where the engine could not say
    cached_bytes: int | None  # of layers that were here already
    written_bytes: int | None  # contents of regular files
    moved_aside: str | None = None  # where the hand-made dataset of this name (generation 0) is now

    def stream(self) -> str:
        return f"template:{self.template}"

    def mentions(self) -> set[tuple[str, str]]:
        digests = {("digest", d) for d in [*self.digests.all(), self.tree_digest]}
        digests.add(("digest", self.statement_digest))
        return {("template", self.template), ("import", self.import_id), *digests}

    def sentence(self) -> str:
        return (
            f"Imported {self.template} generation {self.generation} from {self.reference}"
            f" ({human_size(self.size_bytes)}, {self.entries} entries)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportFailed(DomainEvent):
    """An import ended without a generation. What it had made was undone, save ``leftovers``."""

    type: ClassVar[str] = "import-failed"

    template: str
    import_id: str
    reference: str
    stage: str
    code: str
    reason: str | None
    detail: str
    digest: str | None
    undone: tuple[str, ...]
    leftovers: tuple[str, ...]

    def stream(self) -> str:
        return f"template:{self.template}"

    def mentions(self) -> set[tuple[str, str]]:
        found = {("template", self.template)}
        # Refused before it had an id: a reference that is none.
        found |= {("import", self.import_id)} if self.import_id else set()
        return found | ({("digest", self.digest)} if self.digest else set())

    def sentence(self) -> str:
        why = self.reason or self.code
        return f"Import of {self.template} from {self.reference} failed at {self.stage}: {why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed(DomainEvent):
    """A trusted key's signature over a statement was accepted."""

    type: ClassVar[str] = "signed"

    template: str
    generation: int
    statement_digest: str
    tree_digest: str
    manifest_digest: str | None
    key_id: str  # the keynum, 16 hex digits: a hint for people, never a proof
    key_label: str
    public_key: str  # base64 of the 42-byte signify structure: what decides
    signature: str  # the whole .sig file

    def stream(self) -> str:
        return f"template:{self.template}"

    def mentions(self) -> set[tuple[str, str]]:
        found = {("template", self.template), ("key", self.key_id)}
        digests = [self.statement_digest, self.tree_digest, self.manifest_digest]
        return found | {("digest", d) for d in digests if d}

    def sentence(self) -> str:
        return f"Signed {self.template} generation {self.generation} with key {self.key_label}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroyed(DomainEvent):
    type: ClassVar[str] = "destroyed"

    template: str
    generation: int  # the one that was current
    datasets: tuple[str, ...]
    manifest_digest: str | None

    def stream(self) -> str:
        return f"template:{self.template}"

    def mentions(self) -> set[tuple[str, str]]:
        found = {("template", self.template)}
        return found | ({("digest", self.manifest_digest)} if self.manifest_digest else set())

    def sentence(self) -> str:
        return f"Destroyed {self.template} with {len(self.datasets)} dataset(s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack(DomainEvent):
    """Another generation that is still there was made current."""

    type: ClassVar[str] = "rolled-back"

    template: str
    generation: int  # current from now on
    before: int  # that was current
    tree_digest: str
    statement_digest: str
    manifest_digest: str

    def stream(self) -> str:
        return f"template:{self.template}"

    def mentions(self) -> set[tuple[str, str]]:
        digests = (self.tree_digest, self.statement_digest, self.manifest_digest)
        return {("template", self.template)} | {("digest", d) for d in digests}

    def sentence(self) -> str:
        return f"Rolled {self.template} back from generation {self.before} to {self.generation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired(DomainEvent):
    """A generation that was not current, and that nothing was cloned from, was removed."""

    type: ClassVar[str] = "retired"

    template: str
    generation: int
    dataset: str
    tree_digest: str
    statement_digest: str
    manifest_digest: str

    def stream(self) -> str:
        return f"template:{self.template}"

    def mentions(self) -> set[tuple[str, str]]:
        digests = (self.tree_digest, self.statement_digest, self.manifest_digest)
        return {("template", self.template)} | {("digest", d) for d in digests}

    def sentence(self) -> str:
        return f"Retired {self.template} generation {self.generation}: nothing was cloned from it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded(DomainEvent):
    """Pool and log were compared; this is the difference."""

    type: ClassVar[str] = "reloaded"

    node: str
    pool: str
    added: tuple[Adopted, ...]
    changed: tuple[Adopted, ...]  # adopted ones whose snapshot was made anew by hand
    missing: tuple[str, ...]
    returned: tuple[str, ...]  # had been missing, are there again
    findings: tuple[Finding, ...]

    def stream(self) -> str:
        return f"pool:{self.node}"

    def mentions(self) -> set[tuple[str, str]]:
        names = [a.template for a in (*self.added, *self.changed)]
        digests = {a.tree_digest for a in (*self.added, *self.changed)}
        digests |= {a.statement_digest for a in (*self.added, *self.changed)}
        return {("template", n) for n in (*names, *self.missing, *self.returned)} | {
            ("digest", d) for d in digests
        }

    def sentence(self) -> str:
        counts = [
            (len(self.added), "added"),
            (len(self.changed), "changed"),
            (len(self.missing), "missing"),
            (len(self.returned), "returned"),
            (len(self.findings), "findings"),
        ]
        shown = ", ".join(f"{n} {word}" for n, word in counts if n)
        return f"Reloaded {self.pool}: {shown or 'nothing changed'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxCreated(DomainEvent):
    type: ClassVar[str] = "sandbox-created"

    sandbox: str
    template: str
    generation: int
    dataset: str
    origin: str
    tree_digest: str
    statement_digest: str
    manifest_digest: str | None
    gate: str  # the mode it was launched under: on, warn, off
    signed: bool
    key_id: str | None
    failed_checks: tuple[str, ...]  # codes; only where the gate is off or warns

    def stream(self) -> str:
        return f"sandbox:{self.sandbox}"

    def mentions(self) -> set[tuple[str, str]]:
        found = {("template", self.template), ("sandbox", self.sandbox)}
        return found | {("digest", self.statement_digest)}

    def sentence(self) -> str:
        how = "signed" if self.signed else "unsigned"
        what = f"{how} {self.template} generation {self.generation}"
        return f"Launched sandbox {self.sandbox} from {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRefused(DomainEvent):
    type: ClassVar[str] = "sandbox-refused"

    template: str
    generation: int
    code: str
    tree_digest: str
    statement_digest: str
    manifest_digest: str | None
    checks: tuple[Check, ...]

    def stream(self) -> str:
        return f"launches:{self.template}"

    def mentions(self) -> set[tuple[str, str]]:
        return {("template", self.template), ("digest", self.statement_digest)}

    def sentence(self) -> str:
        return f"Refused to launch {self.template} generation {self.generation}: {self.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxDestroyed(DomainEvent):
    type: ClassVar[str] = "sandbox-destroyed"

    sandbox: str
    template: str
    dataset: str

    def stream(self) -> str:
        return f"sandbox:{self.sandbox}"

    def mentions(self) -> set[tuple[str, str]]:
        return {("template", self.template), ("sandbox", self.sandbox)}

    def sentence(self) -> str:
        return f"Destroyed sandbox {self.sandbox} of {self.template}"


EVENTS: dict[str, type[DomainEvent]] = {
    cls.type: cls
    for cls in (
        Imported,
        ImportFailed,
        Signed,
        Destroyed,
        RolledBack,
        Retired,
        Reloaded,
        SandboxCreated,
        SandboxRefused,
        SandboxDestroyed,
    )
}

Upcaster = Callable[[dict[str, Json]], dict[str, Json]]

#: (type, schema) -> function that makes schema + 1 of it. Each takes and returns plain JSON.
UPCASTERS: dict[tuple[str, int], Upcaster] = {
    # What was moved was not recorded.
    ("imported", 1): lambda data: {
        **data, "fetchedBytes": None, "cachedBytes": None, "writtenBytes": None
    },
}  # fmt: skip


def from_json(type_: str, schema: int, data: Mapping[str, Json]) -> DomainEvent:
    """Read a stored payload, through the upcasters where it is of an older schema.

    Raises :class:`PayloadInvalid` for an unknown type, a newer schema or a payload that does not
    fit: a reader must never guess what an event meant.
    """
    cls = EVENTS.get(type_)
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
