"""What a registry holds about an image: seen, kept, held against keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from templates_app.events.base import DomainEvent
from templates_app.payload import Attached


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceAttached(DomainEvent):
    """A registry was asked what it holds about a generation's image; this is not what it was."""

    type: ClassVar[str] = "evidence-attached"

    template: str
    generation: int
    reference: str  # canonical
    manifest_digest: str
    items: tuple[Attached, ...]
    missing: tuple[str, ...]  # sentences: what could not be asked or read

    def stream(self) -> str:
        return f"template:{self.template}"

    def mentions(self) -> set[tuple[str, str]]:
        digests = {self.manifest_digest} | {one.digest for one in self.items}
        digests |= {one.subject for one in self.items}
        return {("template", self.template)} | {("digest", d) for d in digests}

    def sentence(self) -> str:
        kinds = [one.kind for one in self.items]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
        verified = sum(1 for one in self.items if one.verified_by)
        held = f"; {verified} verified" if verified else ""
        return (
            f"The registry of {self.template} generation {self.generation} holds about its image:"
            f" {counts or 'nothing'}{held}"
        )
