"""What happens to a sandbox: launched, refused, destroyed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from templates_app.events.base import DomainEvent
from templates_app.payload import Check


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxCreated(DomainEvent):
    type: ClassVar[str] = "sandbox-created"
    frequent: ClassVar[bool] = True

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
    frequent: ClassVar[bool] = True

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
    frequent: ClassVar[bool] = True

    sandbox: str
    template: str
    dataset: str

    def stream(self) -> str:
        return f"sandbox:{self.sandbox}"

    def mentions(self) -> set[tuple[str, str]]:
        return {("template", self.template), ("sandbox", self.sandbox)}

    def sentence(self) -> str:
        return f"Destroyed sandbox {self.sandbox} of {self.template}"
