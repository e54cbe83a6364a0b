"""The port to where file trees come from: what a source promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from templates_app.events import Digests
from templates_app.names import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a reference means right now. Nothing but manifests and the config was fetched."""

    canonical: str
    floating: bool
    digests: Digests
    platform: Platform  # as the image's config says it
    config: dict[str, Any]  # the image config, parsed
    layer_sizes: tuple[int, ...]  # bytes as transferred (compressed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step of a long work. ``total`` is None while it is not known."""

    stage: str
    done: int = 0
    total: int | None = None
    unit: str = "bytes"


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a fetch did. ``findings`` are sentences, ``left_out`` paths not brought over."""

    engine: str
    milliseconds: dict[str, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


class Source(Protocol):
    """One parsed reference."""

    scheme: str
    given: str  # as the caller wrote it, without the scheme
    canonical: str

    def resolve(self) -> Resolved:
        """Ask what the reference means. PullFailed, NotAnImage, PlatformIncompatible."""

    def fetch(self, resolved: Resolved, into: Path, report: Report, import_id: str) -> Receipt:
        """Fill the empty directory ``into`` with the image's root file system.

        Leaves nothing of its own behind, on any way out. ``import_id`` marks what it starts and
        makes (processes, containers), so that recovery finds them after a crash.
        """
