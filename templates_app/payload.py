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
    """Something that an operator should see. ``subject`` is a template's name or a dataset."""

    code: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of the gate: what it looked at, what it found, what to do."""

    name: str
    passed: bool
    reason: str
    code: str | None = None  # of the refusal, where it failed
    next_step: str | None = None
