"""A registry, spoken to in the distribution protocol: what others may ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from templates_app.names import Digest


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest, an index or a config, its bytes hashed."""

    data: bytes
    media_type: str  # as the registry said, without parameters; empty where it said none
    digest: Digest


class Asked(Protocol):
    """One repository of a registry. Threads may share it; close it when done.

    All raise PullFailed with its reason, RegistryNotAllowed, Unavailable (credentials or
    authorities that cannot be read).
    """

    def head(self, tag: str) -> Digest | None:
        """What the tag names now, as the registry says; None where it does not say (D3)."""

    def manifest(self, what: Digest | str) -> Document:
        """By digest or tag, 4 MiB at the most. By digest: the bytes have that digest."""

    def blob(self, digest: Digest, size: int, *, offset: int = 0) -> Iterator[bytes]:
        """The blob's bytes from ``offset`` on, as transferred; connections that break are resumed.

        Never a byte beyond ``size``; all of them, or PullFailed. Whoever reads hashes them: one
        who finds another digest drops what it has and asks from 0.
        """

    def close(self) -> None:
        """Connections are closed, also those that other threads read from: they fail at once."""
