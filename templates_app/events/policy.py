"""What the server is set to, as the auditor finds it years later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from templates_app.events.base import DomainEvent
from templates_app.payload import Setting, SettingChange

_NAMED = 3  # changes that the sentence names


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChanged(DomainEvent):
    """A server found its settings, or its directory of trusted keys, to be others than recorded."""

    type: ClassVar[str] = "policy-changed"

    node: str
    changes: tuple[SettingChange, ...]
    settings: tuple[Setting, ...]  # all of them, as they are now

    def stream(self) -> str:
        return f"policy:{self.node}"

    def mentions(self) -> set[tuple[str, str]]:
        return set()

    def sentence(self) -> str:
        named = "; ".join(
            f"{one.name} from {one.before or 'nothing'!r} to {one.after or 'nothing'!r}"
            if one.before is not None and one.after is not None
            else f"{one.name} is {'new' if one.before is None else 'gone'}"
            for one in self.changes[:_NAMED]
        )
        more = len(self.changes) - _NAMED
        return f"Settings of {self.node} changed: {named}" + (f"; {more} more" if more > 0 else "")
