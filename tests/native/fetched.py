"""The native engine on layers that a test holds in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isal import igzip

from templates_app.events import Digests
from templates_app.names import Digest, Platform
from templates_app.sources.base import (
    Layer,
    Progress,
    Receipt,
    Resolved,
    SourceContext,
    States,
)
from templates_app.sources.documents import chain_ids
from templates_app.sources.native import engine
from templates_app.sources.native.limits import Limits

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
PLAIN = "application/vnd.oci.image.layer.v1.tar"
A = "sha256:" + "a" * 64


def sha256(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


@dataclass
class Held:
    """Blobs by digest; ``asked`` for which ones a download was begun."""

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    asked: list[tuple[Digest, int]] = field(default_factory=list)
    closed: bool = False

    def add(self, data: bytes) -> Digest:
        digest = sha256(data)
        self.blobs[digest] = data
        return digest

    def blob(self, digest: Digest, size: int, *, offset: int = 0) -> Iterator[bytes]:
        self.asked.append((digest, offset))
        data = self.blobs[digest]
        for at in range(offset, len(data), 65536):
            yield data[at : at + 65536]

    def close(self) -> None:
        self.closed = True


def context(state: Path, step_seconds: int = 60, **limits: int) -> SourceContext:
    state.mkdir(exist_ok=True)
    return SourceContext(
        platform=Platform("linux", "amd64"),
        allowed=(),
        insecure=(),
        auth_file=None,
        step_seconds=step_seconds,
        state_dir=state,
        limit_image_bytes=2**40,
        engine="native",
        limits=Limits(seconds=step_seconds, **limits),
    )


def image(held: Held, archives: Sequence[bytes], *, gzip: bool = True) -> Resolved:
    """An image of these layers, which are put among ``held``."""
    layers = []
    for archive in archives:
        blob = igzip.compress(archive) if gzip else archive
        layers.append(
            Layer(
                digest=held.add(blob),
                size=len(blob),
                media_type=GZIP if gzip else PLAIN,
                diff_id=sha256(archive),
            )
        )
    return Resolved(
        canonical="localhost/a:1",
        floating=True,
        digests=Digests(index=None, manifest=A, config=A),
        platform=Platform("linux", "amd64"),
        config={},
        layers=tuple(layers),
        chain_ids=chain_ids(layers),
    )


def fetch(
    held: Held,
    resolved: Resolved,
    into: Path,
    where: SourceContext,
    *,
    report: Any = None,
    states: States | None = None,
    import_id: str = "0000abcd",
) -> Receipt:
    seen: list[Progress] = []
    return engine.fetch(held, where, resolved, into, report or seen.append, import_id, states)
