"""What a decision is, and what it is made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from templates_app.codec import camel
from templates_app.errors import GATE_CODES
from templates_app.events import Check
from templates_app.names import NameGlob


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSignature:
    key_id: str
    key_label: str
    public_key: str  # base64 of signify's 42 bytes
    signature: str  # the .sig file
    position: int  # of its event
    signed_by: str  # who handed it in
    withdrawn: int | None = None  # position of the event that withdrew it


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the gate asks for, and what it does where that is not there."""

    mode: str  # on, warn, off
    signatures: int = 1  # by so many keys at the least
    two_persons: bool = False  # a signature by the account that imported does not count
    exempt: tuple[NameGlob, ...] = ()  # templates of these names: warn, where the mode is on

    def exempts(self, template: str) -> str | None:
        """The pattern that spares the template from a gate that is on."""
        if self.mode != "on":
            return None
        return next((glob.text for glob in self.exempt if glob.matches(template)), None)

    def mode_for(self, template: str) -> str:
        return self.mode if self.exempts(template) is None else "warn"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFinding:
    """A finding that touches the generation and that nothing has cleared yet."""

    code: str
    subject: str
    detail: str
    position: int  # of the event that found it


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    template: str
    generation: int
    mode: str  # on, warn, off
    exempt: str | None  # the pattern by which it is warn for this template, and not on
    allowed: bool
    signed: bool  # all checks of trust hold, whatever the mode
    key_id: str | None  # of the key whose signature counted
    key_label: str | None
    statement_digest: str
    tree_digest: str
    checks: tuple[Check, ...]

    @property
    def code(self) -> str | None:
        """The first failed check's code: what a refusal is called."""
        return next((check.code for check in self.checks if not check.passed), None)

    @property
    def failed_codes(self) -> tuple[str, ...]:
        return tuple(check.code for check in self.checks if not check.passed and check.code)

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            camel(name): getattr(self, name) for name in self.__slots__ if name != "checks"
        }
        shown["code"] = self.code
        shown["checks"] = [
            {camel(name): getattr(check, name) for name in check.__slots__} for check in self.checks
        ]
        return shown


def failed(name: str, code: str, reason: str, next_step: str) -> Check:
    """A check that does not hold; ``code`` is one of GATE_CODES."""
    if code not in GATE_CODES:
        raise ValueError(f"{code} is not a code of the gate")
    return Check(name=name, passed=False, reason=reason, code=code, next_step=next_step)
