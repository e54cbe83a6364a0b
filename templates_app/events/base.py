"""What every event is, and how the log has it."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from templates_app.codec import Json, decode, encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """Who did it and how it came in. ``actor`` is text, so that history outlives the account."""

    actor: str
    source: str  # api, cli, admin, command, task, recovery, server
    request_id: str
    node: str

    def to_json(self) -> dict[str, Json]:
        return encode(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Self:
        meta: Self = decode(cls, data)
        return meta


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An event as the log has it. ``position`` counts from 1 without gaps, in commit order."""

    position: int
    event_id: uuid.UUID
    stream: str
    version: int  # within the stream, from 1
    type: str
    schema: int  # as stored; ``event`` is already of the present one
    event: DomainEvent
    meta: Meta
    recorded_at: datetime.datetime  # UTC, microseconds
    leaf_hash: str  # 64 hex digits, RFC 6962 leaf hash of the canonical JSON of the stored fields


class DomainEvent:
    """Base of all events. ``type`` and ``schema`` are what the log stores beside the payload."""

    __slots__ = ()
    type: ClassVar[str]
    schema: ClassVar[int] = 1
    #: Most of a log are these, so no index leads to them by type: each append would pay for it, and
    #: whoever wants the newest ones finds them wherever it looks.
    frequent: ClassVar[bool] = False

    def stream(self) -> str:
        """The stream that the event belongs to, ``kind:key``."""
        raise NotImplementedError

    def mentions(self) -> set[tuple[str, str]]:
        """(kind, key) of what the event is about: what histories and provenance look up.

        Launches, of which there are many, have their statement alone for all digests that it binds.
        """
        raise NotImplementedError

    def indexed(self) -> list[tuple[str, str]]:
        """What the index of mentions has of it: not what its stream says, and no frequent type."""
        kind, _, key = self.stream().partition(":")
        found = self.mentions() - {(kind, key)}
        if kind == "launches":
            found.discard(("template", key))
        if not self.frequent:
            found.add(("type", self.type))
        return sorted(found)

    def sentence(self) -> str:
        raise NotImplementedError

    def to_json(self) -> dict[str, Json]:
        return encode(self)


def streams_about(kind: str, key: str) -> tuple[str, ...]:
    """Streams all of whose events are about the thing: their names say so."""
    own = f"{kind}:{key}"
    return (own, f"launches:{key}") if kind == "template" else (own,)
