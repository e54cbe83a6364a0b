"""What happens to a template: imports, signatures, generations that come and go, reload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from templates_app.events.base import DomainEvent
from templates_app.names import human_size
from templates_app.payload import (
    Adopted,
    Deviation,
    Digests,
    Finding,
    Fixed,
    TreeChange,
    Verdict,
)


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
class SignatureWithdrawn(DomainEvent):
    """A signature does not count any more, nor if it is handed in again."""

    type: ClassVar[str] = "signature-withdrawn"

    template: str
    generation: int
    statement_digest: str
    tree_digest: str
    manifest_digest: str | None
    key_id: str
    key_label: str
    public_key: str
    signed_position: int  # of the event that brought it
    note: str
    templates: tuple[str, ...]  # whose current generation is not signed any more: it, or none
    sandboxes: tuple[str, ...]  # live ones of generations that are not signed any more

    def stream(self) -> str:
        return f"template:{self.template}"

    def mentions(self) -> set[tuple[str, str]]:
        found = {("template", self.template), ("key", self.key_id)}
        digests = [self.statement_digest, self.tree_digest, self.manifest_digest]
        return found | {("digest", d) for d in digests if d}

    def sentence(self) -> str:
        what = f"{self.template} generation {self.generation}"
        return f"Withdrew the signature of {what} by key {self.key_label}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroyed(DomainEvent):
    """A name has no template any more. Generations that are ``kept`` stay for what is cloned from
    them, until nothing is."""

    type: ClassVar[str] = "destroyed"
    schema: ClassVar[int] = 2

    template: str
    generation: int  # the one that was current
    datasets: tuple[str, ...]  # that go
    manifest_digest: str | None
    kept: tuple[int, ...] = ()  # numbers, also of those that an earlier one had kept

    def stream(self) -> str:
        return f"template:{self.template}"

    def mentions(self) -> set[tuple[str, str]]:
        found = {("template", self.template)}
        return found | ({("digest", self.manifest_digest)} if self.manifest_digest else set())

    def sentence(self) -> str:
        gone = f"Destroyed {self.template} with {len(self.datasets)} dataset(s)"
        kept = ", ".join(map(str, self.kept))
        return f"{gone}; generation(s) {kept} stay for their clones" if self.kept else gone


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
class Drifted(DomainEvent):
    """The tag that a generation was imported from means something else than at the last look."""

    type: ClassVar[str] = "drifted"

    template: str
    generation: int
    reference: str  # canonical
    state: str  # current (it is back), moved, gone
    before: str  # the same, until now
    imported_digest: str  # what the tag named at the import: an index or a manifest
    found_digest: str | None  # what it names now, by the registry's word; None where it is gone

    def stream(self) -> str:
        return f"template:{self.template}"

    def mentions(self) -> set[tuple[str, str]]:
        digests = (self.imported_digest, self.found_digest)
        return {("template", self.template)} | {("digest", d) for d in digests if d}

    def sentence(self) -> str:
        what = {
            "moved": f"moved to {self.found_digest}",
            "gone": "is gone",
        }.get(self.state, f"names {self.imported_digest} again")
        return f"The tag of {self.template} generation {self.generation}, {self.reference}, {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded(DomainEvent):
    """Pool and log were compared; this is the difference, and what was done about it."""

    type: ClassVar[str] = "reloaded"
    schema: ClassVar[int] = 2

    node: str
    pool: str
    added: tuple[Adopted, ...]
    changed: tuple[Adopted, ...]  # adopted ones whose snapshot was made anew by hand
    missing: tuple[str, ...]
    returned: tuple[str, ...]  # had been missing, are there again
    findings: tuple[Finding, ...]
    fixed: tuple[Fixed, ...] = ()  # what had been findings
    verified: bool = False  # whether files were looked into, too

    def stream(self) -> str:
        return f"pool:{self.node}"

    def mentions(self) -> set[tuple[str, str]]:
        names = [a.template for a in (*self.added, *self.changed)]
        names += [one.template for one in self.findings if one.template]
        names += [one.template for one in self.fixed if one.template]
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
            (len(self.findings), "finding" if len(self.findings) == 1 else "findings"),
            (len(self.fixed), "fixed"),
        ]
        shown = ", ".join(f"{n} {word}" for n, word in counts if n)
        return f"Reloaded {self.pool}: {shown or 'nothing changed'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified(DomainEvent):
    """A generation's files were read again, and compared with the tree manifest of its import."""

    type: ClassVar[str] = "verified"

    template: str
    generation: int
    dataset: str
    result: str  # matches, differs, unreadable
    detail: str  # why, where they do not match
    tree_digest: str  # as recorded
    found_digest: str | None  # of the files as they are; None where there is none
    snapshot_guid: str | None  # of the @base that was read
    excepted: tuple[str, ...]  # what the import could not bring over, and was passed over here
    entries: int  # that were looked at
    size_bytes: int  # contents of files that were read
    added: int
    removed: int
    changed: int
    grave: int  # of all these
    differences: tuple[TreeChange, ...]  # the first of them, the grave ones before the others
    statement_digest: str
    manifest_digest: str | None
    milliseconds: int

    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with the files, or with reading them."""
        codes = {"differs": "tree_changed", "unreadable": "not_verified"}
        return tuple(
            Finding(
                code=code,
                subject=self.dataset,
                detail=self.detail,
                template=self.template,
                generation=self.generation,
            )
            for result, code in codes.items()
            if result == self.result
        )

    def stream(self) -> str:
        # Of its own: a look into the files must not stand in the way of an import that runs.
        return f"verifications:{self.template}"

    def mentions(self) -> set[tuple[str, str]]:
        digests = (self.tree_digest, self.found_digest, self.statement_digest, self.manifest_digest)
        return {("template", self.template)} | {("digest", d) for d in digests if d}

    def sentence(self) -> str:
        what = f"{self.template} generation {self.generation}"
        if self.result == "matches":
            but = f", all but {' and '.join(self.excepted)}" if self.excepted else ""
            return f"Verified {what}: {self.entries} entries are as they were recorded{but}"
        if self.result == "differs":
            return f"Verified {what}: its files differ. {self.detail}"
        return f"Could not verify {what}: {self.detail}"
