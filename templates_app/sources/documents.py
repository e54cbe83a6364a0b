"""Indexes, manifests and image configs: strictly read, before anything is believed of them.

The rules are the image-spec's (image-index.md, manifest.md, config.md, descriptor.md) and what was
learned since: a document that could be read as two things (CVE-2021-41190), or whose keys stand
twice, is refused; what is unknown is skipped where the specification says so.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from templates_app.errors import (
    MalformedDigest,
    MalformedReference,
    NotAnImage,
    PlatformIncompatible,
    TreeRefused,
)
from templates_app.names import Digest, Platform, quote
from templates_app.sources.base import Layer

Json = Any

MAX_DOCUMENT = 4 * 1024 * 1024  # bytes; distribution-spec "Pushing manifests", and what c/image has
MAX_DEPTH = 3  # indexes within indexes
#: Layers of one image: each is a descriptor of the server while it is imported, and a state on the
#: pool. Docker stops at 127.
MAX_LAYERS = 256

INDEXES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
MANIFESTS = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    }
)
CONFIGS = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)
LAYERS = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    }
)
_ANY_DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]{1,256}")

_REF_NAME = "org.opencontainers.image.ref.name"

#: Variants of an architecture that run what lower ones run; "" is the first number.
_LEVELS = {"amd64": 1, "arm64": 8, "arm": 7}


def sha256(data: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What a document says of another one, or of a blob (descriptor.md)."""

    media_type: str
    digest_text: str
    size: int
    platform: Platform | None = None
    has_platform: bool = False  # also when it is one that we cannot read
    features: bool = False  # it asks for os.features
    attestation: bool = False  # BuildKit's, about an image beside it
    urls: bool = False
    ref_name: str = ""  # what a layout's index.json calls it (I7: valid nowhere else)

    @property
    def digest(self) -> Digest:
        """NotAnImage where it is of another algorithm than sha256."""
        try:
            return Digest.parse(self.digest_text)
        except MalformedDigest:
            raise NotAnImage(
                f"The image names {quote(self.digest_text)}: only sha256 digests are read."
            ) from None


@dataclass(frozen=True, slots=True)
class Index:
    entries: tuple[Descriptor, ...]

    def candidates(self) -> list[Descriptor]:
        """What may be an image: kinds that we do not know and attestations are skipped."""
        return [
            one
            for one in self.entries
            if one.media_type in INDEXES | MANIFESTS and not one.attestation
        ]

    def matching(self, wanted: Platform) -> Iterator[Descriptor]:
        """What may lead to ``wanted``, in the index's order: the first match wins."""
        found = self.candidates()
        for one in found:
            if one.features:
                continue  # os.features that we do not know must be there, so it is not for us
            if not one.has_platform:
                # Nothing said: an index may contain anything; a manifest only if it is the only
                # one, and then its config decides.
                if one.media_type in INDEXES or len(found) == 1:
                    yield one
            elif one.platform is not None and fits(one.platform, wanted):
                yield one


@dataclass(frozen=True, slots=True)
class Manifest:
    config: Descriptor
    layers: tuple[Descriptor, ...]


def fits(offered: Platform, wanted: Platform) -> bool:
    """Whether what is for ``offered`` runs on ``wanted``.

    System and architecture are equal. A variant is fine if it is the same or a lower level of the
    same architecture; without one the lowest that is usual is meant (arm64 is v8).
    """
    if (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
        return False
    if offered.variant == wanted.variant:
        return True
    have, need = _level(wanted), _level(offered)
    return have is not None and need is not None and need <= have


def _level(platform: Platform) -> int | None:
    least = _LEVELS.get(platform.architecture)
    if least is None:
        return None
    if not platform.variant:
        return least
    number = re.fullmatch(r"v([0-9])", platform.variant)
    return int(number[1]) if number else None


# --- reading -------------------------------------------------------------------------------------


def read(data: bytes, said: str = "") -> Index | Manifest:
    """An index or a manifest of schema 2. NotAnImage for anything else.

    ``said`` is the media type that whoever sent it gave: it must be the document's own, or where
    that has none, of its kind (I1).
    """
    document = json_object(data, "manifest")
    if document.get("schemaVersion") != 2:
        raise NotAnImage("The manifest is not of schema version 2: it is too old to be read.")
    is_index = "manifests" in document
    if is_index and ("layers" in document or "config" in document):
        raise NotAnImage("The document claims to be an index and a manifest at once.")
    kind = document.get("mediaType")
    known = INDEXES if is_index else MANIFESTS
    if kind is not None and (not isinstance(kind, str) or kind not in known):
        raise NotAnImage(f"The document's media type {quote(str(kind))} is not an image's.")
    if said and (said != kind if kind is not None else said not in known):
        raise NotAnImage(f"The document is called {quote(said)}, which it is not.")
    if is_index:
        return Index(tuple(_descriptor(one) for one in _array(document, "manifests")))
    if "config" not in document or "layers" not in document:
        raise NotAnImage("The document is neither an index nor a manifest.")
    return _manifest(document)


def _manifest(document: dict[str, Json]) -> Manifest:
    config = _descriptor(document["config"])
    if config.media_type not in CONFIGS:
        raise NotAnImage(f"Its config is {quote(config.media_type)}: an artifact, not an image.")
    described = _array(document, "layers")
    if len(described) > MAX_LAYERS:
        raise TreeRefused(
            f"The image has {len(described)} layers, more than {MAX_LAYERS}.",
            hint="Build it anew with fewer, for example: buildah commit --squash.",
            extra={"rule": "layers", "layers": len(described), "limit": MAX_LAYERS},
        )
    layers = tuple(_descriptor(one) for one in described)
    for layer in layers:
        if layer.media_type not in LAYERS:
            raise NotAnImage(f"It has a layer of the unknown kind {quote(layer.media_type)}.")
        if layer.urls:
            # Programs would fetch them from wherever the manifest says, inside our network too.
            raise TreeRefused(
                "The image has layers that are to be fetched from other places than the registry.",
                hint="Push the image again with all its layers in the registry.",
                extra={"rule": "layer-urls"},
            )
    for one in (config, *layers):
        one.digest  # noqa: B018 - raises for an algorithm that cannot be checked
    return Manifest(config, layers)


def read_config(data: bytes, manifest: Manifest) -> dict[str, Json]:
    """The image config that ``manifest`` names; its layers are the manifest's."""
    config = json_object(data, "image config")
    rootfs = config.get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
        raise NotAnImage("The image config has no file system of layers.")
    ids = rootfs.get("diff_ids")
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise NotAnImage("The image config does not name its layers.")
    if len(ids) != len(manifest.layers):
        raise NotAnImage(
            f"The image config names {len(ids)} layers, the manifest {len(manifest.layers)}."
        )
    for one in ids:
        try:
            Digest.parse(one)
        except MalformedDigest:
            raise NotAnImage(f"The image config names a layer {quote(one)}.") from None
    return config


def layers(manifest: Manifest, config: dict[str, Json]) -> tuple[Layer, ...]:
    """The layers of an image whose config :func:`read_config` has read, base first."""
    ids = config["rootfs"]["diff_ids"]
    return tuple(
        Layer(one.digest, one.size, one.media_type, Digest.parse(diff_id))
        for one, diff_id in zip(manifest.layers, ids, strict=True)
    )


def chain_ids(layers: Sequence[Layer]) -> tuple[str, ...]:
    """The ChainID after each layer, base first (image-spec, config.md "Layer ChainID")."""
    chain: list[Digest] = []
    for one in layers:
        both = f"{chain[-1]} {one.diff_id}" if chain else ""
        chain.append(sha256(both.encode("ascii")) if chain else one.diff_id)
    return tuple(str(one) for one in chain)


def config_platform(config: dict[str, Json]) -> Platform:
    """What the image says it is for. NotAnImage where it does not."""
    found = _platform(config)
    if found is None:
        raise NotAnImage("The image config does not say which system it is for.")
    return found


def incompatible(wanted: Platform, offered: list[Platform]) -> PlatformIncompatible:
    names = list(dict.fromkeys(str(one) for one in offered))[:50]
    return PlatformIncompatible(
        f"The image has nothing for {wanted}; it offers {', '.join(names) or 'nothing'}.",
        extra={"wanted": str(wanted), "offered": names},
    )


# --- the parts -----------------------------------------------------------------------------------


def json_object(data: bytes, what: str) -> dict[str, Json]:
    found = json_value(data, what)
    if not isinstance(found, dict):
        raise NotAnImage(f"The {what} is not a JSON object.")
    return found


def json_value(data: bytes, what: str) -> Json:
    """JSON that every reader understands alike (I2). NotAnImage, with ``what`` it should be."""
    if len(data) > MAX_DOCUMENT:
        raise NotAnImage(f"The {what} is larger than {MAX_DOCUMENT} bytes.")
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        # ValueError: not UTF-8, not JSON, a key that stands twice, NaN, an endless number.
        raise NotAnImage(f"The {what} is not JSON that has one meaning.") from None


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    # RFC 7493 section 2.3. Readers differ in which of two equal keys they take.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(text: str) -> Json:
    raise ValueError(f"{text} is not JSON")


def _array(document: dict[str, Json], key: str) -> list[Json]:
    found = document[key]
    if not isinstance(found, list):
        raise NotAnImage(f"The document's {key} are not a list.")
    return found


def _descriptor(data: Json) -> Descriptor:
    if not isinstance(data, dict):
        raise NotAnImage("The document has a descriptor that is not an object.")
    digest, size, media_type = data.get("digest"), data.get("size"), data.get("mediaType")
    if not isinstance(digest, str) or not _ANY_DIGEST.fullmatch(digest):
        raise NotAnImage("The document has a descriptor without a well-formed digest.")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
        raise NotAnImage("The document has a descriptor without a size.")
    if not isinstance(media_type, str):
        raise NotAnImage("The document has a descriptor without a media type.")
    said = data.get("platform")
    platform = _platform(said) if isinstance(said, dict) else None
    annotations = data.get("annotations")
    notes = annotations if isinstance(annotations, dict) else {}
    return Descriptor(
        media_type=media_type,
        digest_text=digest,
        size=size,
        platform=platform,
        has_platform=said is not None,
        features=isinstance(said, dict) and bool(said.get("os.features")),
        attestation="vnd.docker.reference.type" in notes
        or (platform is not None and str(platform) == "unknown/unknown"),
        urls=bool(data.get("urls")),
        ref_name=name if isinstance(name := notes.get(_REF_NAME), str) else "",
    )


def _platform(said: dict[str, Json]) -> Platform | None:
    parts = [said.get("os"), said.get("architecture"), said.get("variant") or None]
    words = [part for part in parts if isinstance(part, str) and "/" not in part]
    if len(words) != sum(part is not None for part in parts) or len(words) < 2:
        return None
    try:
        return Platform.parse("/".join(words))
    except MalformedReference:
        return None
