"""What payloads of events are made of, where it is more than text and numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A place where the dataset differs from the image on purpose."""

    path: str
    reason: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """index: what the tag pointed at, if that was an index; manifest: what was unpacked."""

    index: str | None
    manifest: str
    config: str

    def all(self) -> list[str]:
        return [d for d in (self.index, self.manifest, self.config) if d]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the image's programs fit the platform, judged from headers without running them."""

    result: str  # native, foreign, mixed, none
    abis: tuple[str, ...]  # e.g. ("freebsd/amd64",), from ELF headers
    config_platform: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A hand-made ``<name>-template@base`` that reload found: it becomes generation 0."""

    template: str
    dataset: str
    snapshot: str
    snapshot_guid: str
    size_bytes: int
    entries: int
    tree_digest: str
    statement: str
    statement_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that an operator should see: ``templates_app/findings.py`` has the codes.

    ``subject`` is the full name of a dataset, or a file. ``template`` and ``generation`` say what
    of the log it touches, where it touches something.
    """

    code: str
    subject: str
    detail: str
    template: str | None = None
    generation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """A finding that is none any more: ``done`` says what was done about it."""

    code: str
    subject: str
    done: str
    template: str | None = None
    generation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """What of an entry differs; None where that side has no such thing."""

    name: str  # type, mode, uid, gid, size, sha256, link, flags, hardlink, "xattr NAME"
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeChange:
    """One path in which two trees differ, spelled as their manifests spell it."""

    path: str
    change: str  # added, removed, changed
    grave: tuple[str, ...]  # of trust/compare.py's GRAVE: why it matters most
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """What a registry holds about an image. That it is there says nothing of what it says."""

    kind: str  # signature, attestation, sbom, other: by its media types
    media_type: str  # what it says that it is
    digest: str  # of its manifest
    subject: str  # the image's digest under which it was found
    through: str  # referrers, tag
    size_bytes: int  # of its manifest and blobs
    kept: tuple[str, ...]  # digests of those of them that are kept here
    verified_by: tuple[str, ...]  # labels of cosign keys whose signature holds over the subject
    detail: str  # why it is not kept, or a signature does not hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of the gate: what it looked at, what it found, what to do."""

    name: str
    passed: bool
    reason: str
    code: str | None = None  # of the refusal, where it failed
    next_step: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A variable of the environment, or a file of a directory that one names; never a secret."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingChange:
    name: str
    before: str | None  # None: it was not there
    after: str | None  # None: it is not there any more
