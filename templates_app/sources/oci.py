"""Images in registries: what a reference means right now, and whether we take it.

A tag is asked for once; everything after goes by digest, and every document is hashed here, not
believed (distribution-spec, "Pulling manifests"). Which program asks, and which engine then brings
the files over, are details of :mod:`programs` and :mod:`buildah`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from templates_app.errors import CoppiceError
from templates_app.names import Digest, Reference
from templates_app.sources import buildah, complaints, documents, hosts
from templates_app.sources.base import Receipt, Report, Resolved, SourceContext, States
from templates_app.sources.documents import Descriptor
from templates_app.sources.programs import Programs
from templates_app.sources.resolution import Resolution


@dataclass(frozen=True, slots=True)
class OciSource:
    """One parsed reference to an image in a registry."""

    reference: Reference
    context: SourceContext
    scheme: str = "oci"

    @classmethod
    def parse(cls, text: str, context: SourceContext) -> Self:
        return cls(Reference.parse(text), context)

    @property
    def given(self) -> str:
        return self.reference.given

    @property
    def canonical(self) -> str:
        return self.reference.canonical

    def resolve(self) -> Resolved:
        self._vet()
        asked = _Asked(self.reference, Programs(self.context))
        resolution = Resolution(self.context, asked)
        data = asked.top()
        digest, pinned = documents.sha256(data), self.reference.digest
        if pinned and digest != pinned:
            raise asked.corrupt(f"asked for {pinned}, got {digest}")
        return resolution.run(
            digest,
            documents.read(data),
            canonical=self.reference.canonical,
            floating=self.reference.floating,
        )

    def fetch(
        self,
        resolved: Resolved,
        into: Path,
        report: Report,
        import_id: str,
        states: States | None = None,
    ) -> Receipt:
        self._vet()  # again: minutes may lie between the two, and names change their addresses
        return buildah.fetch(
            Programs(self.context), self.reference, resolved, into, report, import_id
        )

    def _vet(self) -> None:
        hosts.vet(self.reference, allowed=self.context.allowed, insecure=self.context.insecure)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The registry, as a resolution asks it."""

    reference: Reference
    programs: Programs

    def top(self) -> bytes:
        """What the reference itself names. With tag and digest, the digest decides."""
        pinned = self.reference.digest
        return self.programs.ask_manifest(
            self.reference, f"@{pinned}" if pinned else f":{self.reference.tag}"
        )

    def manifest(self, entry: Descriptor) -> bytes:
        return self.programs.ask_manifest(self.reference, f"@{entry.digest}")

    def config(self, manifest: Digest, entry: Descriptor) -> bytes:
        return self.programs.ask_config(self.reference, manifest)

    def corrupt(self, private: str) -> CoppiceError:
        return complaints.pull_failed(self.reference, "corrupt", private)
