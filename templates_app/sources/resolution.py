"""From what a reference names to the one image that is meant, with every check on the way.

The same for registries and for image files: only who is asked for a document differs. Every
document is hashed here, not believed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from templates_app.errors import CoppiceError, NotAnImage, TreeRefused
from templates_app.events import Digests
from templates_app.names import Digest, Platform, human_size
from templates_app.sources import documents
from templates_app.sources.base import Resolved, SourceContext
from templates_app.sources.documents import Descriptor, Index, Manifest

#: Documents that one resolve asks for: an index may name thousands of others.
_MAX_ASKED = 16


class Holder(Protocol):
    """Who has an image's documents. What is returned need not be what was asked for."""

    def manifest(self, entry: Descriptor) -> bytes:
        """The manifest or index that an index names."""

    def config(self, entry: Descriptor) -> bytes:
        """The config that a manifest names."""

    def corrupt(self, private: str) -> CoppiceError:
        """The error for a document that has not the promised size and digest."""


@dataclass(slots=True)
class Resolution:
    """One resolving, for the platform that the settings say."""

    context: SourceContext
    holder: Holder
    _count: int = 1  # the first document has been asked for already
    _offered: list[Platform] = field(default_factory=list)
    _read: list[bytes] = field(default_factory=list)  # that led to the image, the innermost first

    def run(
        self,
        digest: Digest | None,
        document: Index | Manifest,
        data: bytes,
        *,
        canonical: str,
        floating: bool,
    ) -> Resolved:
        """What ``document`` means; ``digest`` is that of its ``data``.

        None, and no data, for a list that is no document.
        Raises NotAnImage, PlatformIncompatible, TreeRefused, and what ``holder`` does.
        """
        wanted = self.context.platform
        if isinstance(document, Index):
            found = self._choose(document, depth=1)
            if found is None:
                raise documents.incompatible(wanted, self._offered)
            index, (chosen, manifest) = digest, found
        elif digest is None:
            raise ValueError("a manifest has a digest")
        else:
            index, chosen, manifest = None, digest, document
        config, config_data = self._config(manifest)
        platform = documents.config_platform(config)
        if not documents.fits(platform, wanted):
            raise documents.incompatible(wanted, [platform])
        self._check_size(manifest)
        layers = documents.layers(manifest, config)
        return Resolved(
            canonical=canonical,
            floating=floating,
            digests=Digests(
                index=str(index) if index else None,
                manifest=str(chosen),
                config=str(manifest.config.digest),
            ),
            platform=platform,
            config=config,
            layers=layers,
            chain_ids=documents.chain_ids(layers) if self.context.engine == "native" else (),
            documents=tuple(filter(None, (data, *reversed(self._read), config_data))),
        )

    def _choose(self, index: Index, depth: int) -> tuple[Digest, Manifest] | None:
        """The first manifest, in the index's order, that is for the platform."""
        if depth > documents.MAX_DEPTH:
            raise NotAnImage(f"The image's indexes are nested deeper than {documents.MAX_DEPTH}.")
        self._offered += [one.platform for one in index.candidates() if one.platform]
        for entry in index.matching(self.context.platform):
            document, data = self.child(entry)
            if isinstance(document, Manifest):
                self._read.append(data)
                return entry.digest, document
            if found := self._choose(document, depth + 1):
                self._read.append(data)
                return found
        return None

    def child(self, entry: Descriptor) -> tuple[Index | Manifest, bytes]:
        """The document that an index names, of the kind that the index says; and its bytes."""
        if entry.size > documents.MAX_DOCUMENT:
            raise NotAnImage(f"The image has a manifest of {human_size(entry.size)}.")
        self._count += 1
        if self._count > _MAX_ASKED:
            raise NotAnImage(f"The image has more than {_MAX_ASKED} indexes within each other.")
        data = self.holder.manifest(entry)
        self._verify(data, entry)
        document = documents.read(data, entry.media_type)
        if isinstance(document, Index) != (entry.media_type in documents.INDEXES):
            raise NotAnImage("The image's index names a document of another kind than it says.")
        return document, data

    def _config(self, manifest: Manifest) -> tuple[dict[str, documents.Json], bytes]:
        if manifest.config.size > documents.MAX_DOCUMENT:
            raise NotAnImage(f"The image's config has {human_size(manifest.config.size)}.")
        data = self.holder.config(manifest.config)
        self._verify(data, manifest.config)
        return documents.read_config(data, manifest), data

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

    def _verify(self, data: bytes, promised: Descriptor) -> None:
        # Size first, then digest (descriptor.md).
        if len(data) != promised.size or documents.sha256(data) != promised.digest:
            raise self.holder.corrupt(f"{promised.digest} of {promised.size} bytes was promised")
