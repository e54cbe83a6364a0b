"""Images in registries: what a reference means right now, and whether we take it.

A tag is asked for once; everything after goes by digest, and every document is hashed here, not
believed (distribution-spec, "Pulling manifests"). Which program asks, and which engine then brings
the files over, are details of :mod:`programs` and :mod:`buildah`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from templates_app.errors import CoppiceError, NotAnImage, TreeRefused
from templates_app.events import Digests
from templates_app.names import Digest, Platform, Reference, human_size
from templates_app.sources import buildah, complaints, documents, hosts
from templates_app.sources.base import Receipt, Report, Resolved, SourceContext, States
from templates_app.sources.documents import Descriptor, Index, Manifest
from templates_app.sources.programs import Programs

#: Documents that one resolve asks for: an index may name thousands of others.
_MAX_ASKED = 16


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
        return _Resolution(self.reference, self.context, Programs(self.context)).run()

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


@dataclass(slots=True)
class _Resolution:
    reference: Reference
    context: SourceContext
    programs: Programs
    asked: int = 0
    offered: list[Platform] = field(default_factory=list)

    def run(self) -> Resolved:
        wanted = self.context.platform
        top, document = self._top()
        if isinstance(document, Index):
            found = self._choose(document, depth=1)
            if found is None:
                raise documents.incompatible(wanted, self.offered)
            index, (digest, manifest) = top, found
        else:
            index, digest, manifest = None, top, document
        config = self._config(digest, manifest)
        platform = documents.config_platform(config)
        if not documents.fits(platform, wanted):
            raise documents.incompatible(wanted, [platform])
        self._check_size(manifest)
        return Resolved(
            canonical=self.reference.canonical,
            floating=self.reference.floating,
            digests=Digests(
                index=str(index) if index else None,
                manifest=str(digest),
                config=str(manifest.config.digest),
            ),
            platform=platform,
            config=config,
            layers=documents.layers(manifest, config),
        )

    def _top(self) -> tuple[Digest, Index | Manifest]:
        """What the reference itself names. With tag and digest, the digest decides."""
        pinned = self.reference.digest
        what = f"@{pinned}" if pinned else f":{self.reference.tag}"
        data = self._ask(what)
        digest = documents.sha256(data)
        if pinned and digest != pinned:
            raise self._corrupt(f"asked for {pinned}, got {digest}")
        return digest, documents.read(data)

    def _choose(self, index: Index, depth: int) -> tuple[Digest, Manifest] | None:
        """The first manifest, in the index's order, that is for the platform."""
        if depth > documents.MAX_DEPTH:
            raise NotAnImage(f"The image's indexes are nested deeper than {documents.MAX_DEPTH}.")
        self.offered += [one.platform for one in index.candidates() if one.platform]
        for entry in index.matching(self.context.platform):
            document = self._child(entry)
            if isinstance(document, Manifest):
                return entry.digest, document
            if found := self._choose(document, depth + 1):
                return found
        return None

    def _child(self, entry: Descriptor) -> Index | Manifest:
        if entry.size > documents.MAX_DOCUMENT:
            raise NotAnImage(f"The image has a manifest of {human_size(entry.size)}.")
        data = self._ask(f"@{entry.digest}")
        self._verify(data, entry)
        document = documents.read(data)
        if isinstance(document, Index) != (entry.media_type in documents.INDEXES):
            raise NotAnImage("The image's index names a document of another kind than it says.")
        return document

    def _config(self, digest: Digest, manifest: Manifest) -> dict[str, documents.Json]:
        if manifest.config.size > documents.MAX_DOCUMENT:
            raise NotAnImage(f"The image's config has {human_size(manifest.config.size)}.")
        data = self.programs.ask_config(self.reference, digest)
        self._verify(data, manifest.config)
        return documents.read_config(data, manifest)

    def _check_size(self, manifest: Manifest) -> None:
        total = sum(layer.size for layer in manifest.layers)
        limit = self.context.limit_image_bytes
        if total > limit:
            raise TreeRefused(
                f"The image's layers have {human_size(total)}, more than the {human_size(limit)}"
                " that are allowed.",
                hint="Raise COPPICE_LIMIT_IMAGE_BYTES if this image is meant to be imported.",
                extra={"rule": "image-size", "bytes": total, "limit": limit},
            )

    def _ask(self, what: str) -> bytes:
        self.asked += 1
        if self.asked > _MAX_ASKED:
            raise NotAnImage(f"The image has more than {_MAX_ASKED} indexes within each other.")
        return self.programs.ask_manifest(self.reference, what)

    def _verify(self, data: bytes, promised: Descriptor) -> None:
        # Size first, then digest (descriptor.md).
        if len(data) != promised.size or documents.sha256(data) != promised.digest:
            raise self._corrupt(f"{promised.digest} of {promised.size} bytes was promised")

    def _corrupt(self, private: str) -> CoppiceError:
        return complaints.pull_failed(self.reference, "corrupt", private)
