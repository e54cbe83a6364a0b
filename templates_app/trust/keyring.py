"""A key as it is known here: what it may vouch for, from when to when, whether it is revoked."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from templates_app.names import NameGlob
from templates_app.trust.signify import PublicKey

EVERY = (NameGlob("*"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    reason: str  # superseded, compromised
    since: int  # the first position whose signatures do not count


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """``refuses`` and its kin answer why not, in words; an empty text where there is no reason."""

    label: str
    public_key: PublicKey
    trusted: bool  # by an event, or by a file in the directory of trusted keys
    not_before: datetime.datetime | None = None
    not_after: datetime.datetime | None = None
    scope: tuple[NameGlob, ...] = EVERY
    revocation: Revocation | None = None

    @property
    def named(self) -> str:
        return f"{self.label} ({self.public_key.key_id})"

    def revoked_for(self, position: int) -> str:
        """Of a signature that the log has at ``position``."""
        revoked = self.revocation
        if revoked is None or position < revoked.since:
            return ""
        return (
            f"{self.named} is revoked ({revoked.reason}) for what was signed at position"
            f" {revoked.since} or later; this was signed at {position}"
        )

    def outside_dates(self, now: datetime.datetime) -> str:
        if self.not_before is not None and now < self.not_before:
            return f"{self.named} is not to be trusted before {stamp(self.not_before)}"
        if self.not_after is not None and now >= self.not_after:
            return f"{self.named} was to be trusted until {stamp(self.not_after)}"
        return ""

    def outside_scope(self, template: str) -> str:
        if any(glob.matches(template) for glob in self.scope):
            return ""
        return f"{self.named} is trusted for {', '.join(map(str, self.scope))} only"


def stamp(moment: datetime.datetime) -> str:
    """As events have it: UTC, to the second."""
    return moment.astimezone(datetime.UTC).isoformat(timespec="seconds")[:19] + "Z"
