"""What happens to keys: trusted, revoked. Which of them count is folded from these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from templates_app.events.base import DomainEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTrusted(DomainEvent):
    """A key's signatures count from now on; or, of one that is trusted, within other limits."""

    type: ClassVar[str] = "key-trusted"

    key_id: str  # the keynum, 16 hex digits: a hint for people, never a proof
    label: str
    public_key: str  # base64 of the 42-byte signify structure: what decides
    owner: str
    purpose: str  # templates; the log's key is another one
    not_before: str | None  # UTC, 2026-01-02T03:04:05Z
    not_after: str | None
    scope: tuple[str, ...]  # patterns of template names
    predecessor: str | None  # public key of the one that announced it
    announcement: str | None  # the predecessor's .sig file over trust/succession.py's text

    def stream(self) -> str:
        return f"key:{self.key_id}"

    def mentions(self) -> set[tuple[str, str]]:
        return {("key", self.key_id)}

    def sentence(self) -> str:
        until = f" until {self.not_after}" if self.not_after else ""
        how = ", announced by its predecessor" if self.predecessor else ""
        return f"Trusted key {self.label} of {self.owner} for {', '.join(self.scope)}{until}{how}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRevoked(DomainEvent):
    """Signatures of this key that were recorded at ``since`` or later do not count."""

    type: ClassVar[str] = "key-revoked"

    key_id: str
    label: str
    public_key: str
    reason: str  # superseded, compromised
    since: int | None  # position; None: this event's own
    note: str
    templates: tuple[str, ...]  # whose current generation is not signed any more
    sandboxes: tuple[str, ...]  # live ones of generations that are not signed any more

    def stream(self) -> str:
        return f"key:{self.key_id}"

    def mentions(self) -> set[tuple[str, str]]:
        return {("key", self.key_id)}

    def sentence(self) -> str:
        since = "" if self.since is None else f" since position {self.since}"
        hit = f"{len(self.templates)} template(s), {len(self.sandboxes)} sandbox(es) concerned"
        return f"Revoked key {self.label}: {self.reason}{since}; {hit}"
