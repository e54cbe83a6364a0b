"""Images in registries: what a reference means right now, and whether we take it.

A registry is asked once what a reference means; everything after goes by digest, and every document
is hashed here, not believed (distribution-spec, "Pulling manifests"). How it is spoken to is a
detail of :mod:`native.registry`, which engine brings the files over one of :mod:`buildah`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from templates_app.errors import CoppiceError, NotAnImage
from templates_app.names import Digest, Reference
from templates_app.sources import buildah, complaints, documents, hosts
from templates_app.sources.base import Receipt, Report, Resolved, SourceContext, States
from templates_app.sources.documents import Descriptor, Index, Manifest
from templates_app.sources.native import engine
from templates_app.sources.native.cache import BlobCache
from templates_app.sources.native.incoming import keep
from templates_app.sources.native.registry import Registry
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
        with Registry(self.reference, self.context) as registry:
            asked = _Asked(self.reference, registry, BlobCache.of(self.context))
            digest, document, data = asked.top()
            return Resolution(self.context, asked).run(
                digest,
                document,
                data,
                canonical=self.reference.canonical,
                floating=self.reference.floating,
            )

    def standing(self, known: Digest, *, seconds: float) -> Digest | None:
        """What the tag names now, asked without pulling; see :meth:`Registry.standing`."""
        with Registry(self.reference, self.context) as registry:
            return registry.standing(self.reference.tag or "latest", known, seconds=seconds)

    def fetch(
        self,
        resolved: Resolved,
        into: Path,
        report: Report,
        import_id: str,
        states: States | None = None,
    ) -> Receipt:
        if self.context.engine == "native":
            registry = Registry(self.reference, self.context)
            return engine.fetch(registry, self.context, resolved, into, report, import_id, states)
        # buildah connects by itself, so here its host is judged as far as it can be.
        hosts.vet(self.reference, allowed=self.context.allowed, insecure=self.context.insecure)
        return buildah.fetch(
            Programs(self.context), self.reference, resolved, into, report, import_id
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """The registry, as a resolution asks it; what was asked for before is in the cache."""

    reference: Reference
    registry: Registry
    cache: BlobCache

    def top(self) -> tuple[Digest, Index | Manifest, bytes]:
        """What the reference itself names. With tag and digest, the digest decides."""
        pinned = self.reference.digest
        what: Digest | str = pinned or self.reference.tag or "latest"
        # One HEAD, whatever is in the cache: the registry says what a tag means, and who may have
        # it. One that counts what is pulled does not count it (D3).
        digest = self.registry.head(what)
        if pinned and digest not in (None, pinned):
            raise self.corrupt(f"asked for {pinned}, got {digest}")
        if digest and (data := self.cache.document(digest)):
            return digest, documents.read(data), data
        found = self.registry.manifest(digest or what)
        document = documents.read(found.data, found.media_type)
        keep(self.cache, found.data)
        return found.digest, document, found.data

    def manifest(self, entry: Descriptor) -> bytes:
        if data := self.cache.document(entry.digest):
            return data
        found = self.registry.manifest(entry.digest)
        if found.media_type not in ("", entry.media_type):
            raise NotAnImage("The registry calls a manifest otherwise than the image's index does.")
        keep(self.cache, found.data)
        return found.data

    def config(self, entry: Descriptor) -> bytes:
        data = self.cache.document(entry.digest)
        if data is None:
            data = self.registry.document(entry.digest, entry.size)
            keep(self.cache, data)
        return data

    def corrupt(self, private: str) -> CoppiceError:
        return complaints.pull_failed(self.reference, "corrupt", private)
