"""What a registry holds about a generation's image: signatures, attestations, lists of contents.

Found by the referrers API, or by the tag that stands for it where a registry has none
(distribution-spec, "Listing Referrers"), and by the tags that cosign uses. Small ones are kept with
the image's documents. Presence is no validity: a cosign signature counts as verified only by a
configured key, over a payload that names this very image; all else is only listed.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings
from django.db import Error

from templates_app import lifecycle, sources, store
from templates_app.codec import MAX_INTEGER
from templates_app.errors import CoppiceError, MalformedDigest, PullFailed
from templates_app.events import Attached, EvidenceAttached, Meta, Recorded
from templates_app.models import Generation
from templates_app.names import Digest, TemplateName
from templates_app.projections import generation_key
from templates_app.services import archive, common
from templates_app.sources.native.registry import Registry
from templates_app.sources.oci import OciSource
from templates_app.trust import cosign

logger = logging.getLogger("coppice.attached")

#: What one look may cost: things, bytes of one that is kept, bytes of all, seconds of a question,
#: seconds of all.
ITEMS, ITEM_BYTES, ALL_BYTES, ASK_SECONDS, SECONDS = 50, 2**20, 8 * 2**20, 10, 30.0
_TAGS = (".sig", ".att", ".sbom")  # cosign's, behind the digest
_KINDS = (
    ("signature", ("cosign.simplesigning", "cosign.artifact.sig", "notary.signature")),
    ("sbom", ("spdx", "cyclonedx", "syft", "sbom")),
    ("attestation", ("in-toto", "dsse", "attestation", "sigstore.bundle")),
)


def fetch(*, name: str, context: Meta) -> tuple[Attached, ...]:
    """Ask the registry about the current generation's image; an event if it holds other than last.

    Empty for a template that is from no registry. MalformedName, TemplateNotFound, Unavailable for
    keys that cannot be used; what of the registry cannot be had, is said in the event.
    """
    template = TemplateName.parse(name)
    number = lifecycle.current(common.state_of(template.text)).number
    row = Generation.objects.get(pk=generation_key(template.text, number))
    if row.scheme != "oci":
        return ()
    place = settings.COPPICE_COSIGN_KEYS
    look = _Look(keys=cosign.read_keys(place) if place else [])
    context_of = replace(common.source_context(), step_seconds=ASK_SECONDS)
    source = sources.parse(row.reference, context_of)
    if not isinstance(source, OciSource):
        raise TypeError(f"{row.reference} is in no registry")
    subjects = list(filter(None, (row.manifest_digest, row.index_digest)))
    try:
        with Registry(source.reference, context_of) as registry:
            look.at(registry, subjects)
    except CoppiceError as error:
        look.miss(error)
    event = EvidenceAttached(
        template=template.text,
        generation=number,
        reference=row.reference,
        manifest_digest=row.manifest_digest,
        items=tuple(look.items),
        missing=tuple(look.missing),
    )
    last = _last(template.text, number)
    if last is None or last.event != event:
        store.append([event], meta=context)
    return event.items


def fetch_quietly(*, name: str, context: Meta) -> None:
    """After an import, which is done whatever becomes of this."""
    try:
        fetch(name=name, context=context)
    except (CoppiceError, Error, OSError, ValueError) as error:
        logger.warning("what the registry holds about %s was not fetched: %s", name, error)


def of(name: str, number: int) -> tuple[Attached, ...]:
    """What the last look at a generation's registry found; their texts are in the archive."""
    last = _last(name, number)
    return last.event.items if last and isinstance(last.event, EvidenceAttached) else ()


def _last(name: str, number: int) -> Recorded | None:
    found = store.about("template", name, types=(EvidenceAttached.type,), newest_first=True)
    return next((one for one in found if getattr(one.event, "generation", None) == number), None)


@dataclass(slots=True, kw_only=True)
class _Look:
    """One look at one repository, within its bounds."""

    keys: list[cosign.Key]
    items: list[Attached] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    until: float = field(default_factory=lambda: time.monotonic() + SECONDS)
    bytes_left: int = ALL_BYTES

    def at(self, registry: Registry, subjects: list[str]) -> None:
        seen: set[str] = set()
        for subject in subjects:
            for through, digest, data in self._found(registry, Digest.parse(subject)):
                if digest.text in seen:
                    continue
                seen.add(digest.text)
                if len(self.items) >= ITEMS or self._late():
                    break
                try:
                    text = registry.manifest(digest).data if data is None else data
                    self.items.append(
                        self._item(registry, subject, through, digest, text, subjects)
                    )
                except CoppiceError as error:
                    self.miss(error)
            if len(self.items) >= ITEMS or self._late():
                self.missing.append("There may be more than was looked at.")
                return

    def _late(self) -> bool:
        return time.monotonic() > self.until

    def miss(self, error: CoppiceError) -> None:
        logger.info("attached evidence: %s", error.detail, extra={"private": error.private})
        self.missing.append(error.detail)

    def _found(self, registry: Registry, of: Digest) -> Iterator[tuple[str, Digest, bytes | None]]:
        """(how it was found, digest, its manifest where that is known already)."""
        pages = registry.referrers(of)
        for page in pages or ():
            yield from (("referrers", one, None) for one in _listed(page))
            if self._late():
                return
        tag = of.text.replace(":", "-")
        for suffix in (*(() if pages is not None else ("",)), *_TAGS):
            if self._late():
                return
            try:
                found = registry.manifest(f"{tag}{suffix}")
            except PullFailed as error:
                if error.extra.get("reason") != "not_found":
                    raise
                continue
            if suffix:
                yield "tag", found.digest, found.data
            else:
                yield from (("tag", one, None) for one in _listed(found.data))

    def _item(
        self,
        registry: Registry,
        subject: str,
        through: str,
        digest: Digest,
        text: bytes,
        subjects: list[str],
    ) -> Attached:
        manifest = _object(text)
        blobs = [one for one in _many(manifest, "layers") if _blob(one)]
        named = [manifest.get("artifactType"), *(one.get("mediaType") for one in blobs)]
        media_type = next((one for one in named if isinstance(one, str) and one), "")[:255]
        kept: list[str] = []
        verified: list[str] = []
        details: list[str] = []
        if self._fits(len(text), details):
            kept.append(self._keep(text))
        for blob in blobs[:ITEMS]:
            if self._late():
                details.append("There was no time for all parts.")
                break
            size = int(blob["size"])
            if not self._fits(size, details):
                continue
            data = registry.document(Digest.parse(blob["digest"]), size)
            kept.append(self._keep(data))
            if blob.get("mediaType") == cosign.PAYLOAD:
                signature = (blob.get("annotations") or {}).get(cosign.ANNOTATION, "")
                by, why = cosign.check(self.keys, data, str(signature), subjects)
                verified += by
                details += [why] if why else []
        return Attached(
            kind=_kind(media_type, text),
            media_type=media_type if media_type.isascii() and media_type.isprintable() else "",
            digest=digest.text,
            subject=subject,
            through=through,
            # As it says of itself: of many parts that may be more than an event can hold.
            size_bytes=min(len(text) + sum(int(one["size"]) for one in blobs), MAX_INTEGER),
            kept=tuple(kept),
            verified_by=tuple(sorted(set(verified))),
            detail=" ".join(dict.fromkeys(details))[:500],
        )

    def _fits(self, size: int, details: list[str]) -> bool:
        if size > min(ITEM_BYTES, self.bytes_left):
            details.append(f"A part of {size} bytes is too large to be kept.")
            return False
        return True

    def _keep(self, text: bytes) -> str:
        self.bytes_left -= len(text)
        return archive.archive().documents.put(text)


def _kind(media_type: str, manifest: bytes) -> str:
    """By what it says of itself: first the artifact's type, then any type that it mentions."""
    for text in (media_type.lower(), manifest.decode("utf-8", "replace").lower()):
        for kind, words in _KINDS:
            if any(word in text for word in words):
                return kind
    return "other"


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _many(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = document.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _blob(descriptor: dict[str, Any]) -> bool:
    size = descriptor.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**40:
        return False
    annotations = descriptor.get("annotations")
    return _digest(descriptor) is not None and isinstance(annotations, dict | None)


def _digest(descriptor: dict[str, Any]) -> Digest | None:
    try:
        return Digest.parse(str(descriptor.get("digest", "")))
    except MalformedDigest:
        return None


def _listed(index: bytes) -> list[Digest]:
    """What an index of referrers names; nothing where it is none."""
    return list(filter(None, (_digest(one) for one in _many(_object(index), "manifests"))))
