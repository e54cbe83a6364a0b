"""Who came to look, and what was taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from templates_app.events.base import DomainEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn(DomainEvent):
    """Somebody logged in to the auditors' house."""

    type: ClassVar[str] = "logged-in"

    user: str
    address: str  # as the server saw it: of a proxy, where one stands between

    def stream(self) -> str:
        return "logins:admin"

    def mentions(self) -> set[tuple[str, str]]:
        return set()

    def sentence(self) -> str:
        return f"Login of {self.user} from {self.address or 'an unknown address'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginFailed(DomainEvent):
    """A login to the auditors' house failed; of many at once not each has an event."""

    type: ClassVar[str] = "login-failed"

    user: str | None  # None where there is no such account: what was typed may be a password
    address: str
    unrecorded: int  # failed before this one without an event, as this process knows

    def stream(self) -> str:
        return "logins:admin"

    def mentions(self) -> set[tuple[str, str]]:
        return set()

    def sentence(self) -> str:
        who = self.user or "an unknown account"
        more = f", after {self.unrecorded} that were not recorded" if self.unrecorded else ""
        return f"Login of {who} from {self.address or 'an unknown address'} failed{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported(DomainEvent):
    """Part of the log was written out for somebody."""

    type: ClassVar[str] = "exported"

    what: str  # events, evidence
    events: int
    first: int  # positions of the first and the last event
    last: int
    question: str  # filters and search that they were chosen by; empty for all in between

    def stream(self) -> str:
        return f"exports:{self.what}"

    def mentions(self) -> set[tuple[str, str]]:
        return set()

    def sentence(self) -> str:
        chosen = f", chosen by {self.question}" if self.question else ""
        span = f"from {self.first} to {self.last}"
        return f"Exported {self.what}: {self.events} event(s) {span}{chosen}"
