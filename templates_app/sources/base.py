"""The port to where file trees come from: what a source promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from templates_app.events import Deviation, Digests
from templates_app.names import Digest, Platform
from templates_app.sources.native.limits import Limits

#: Left out of every import: device nodes, which the jail's kernel provides, and a mounted /proc.
#: The leading slash anchors: an unanchored pattern also drops usr/include/dev/* and its like.
LEFT_OUT = ("/dev/*", "/proc/*")


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer as the manifest and the config name it."""

    digest: Digest  # of the bytes as transferred
    size: int  # bytes as transferred
    media_type: str  # one of documents.LAYERS: says how it is compressed
    diff_id: Digest  # of the tar in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a reference means right now. Nothing but manifests and the config was fetched."""

    canonical: str
    floating: bool
    digests: Digests
    platform: Platform  # as the image's config says it
    config: dict[str, Any]  # the image config, parsed
    layers: tuple[Layer, ...]  # base first
    #: ChainIDs (image-spec config.md), base layer first; empty where the engine knows no layers.
    chain_ids: tuple[str, ...] = ()
    #: The bytes that were resolved: indexes from the outermost one in, the manifest, the config.
    documents: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step of a long work. ``total`` is None while it is not known.

    Where ``layer`` is given, ``done`` and ``total`` are of that one layer, base first from 0, and
    ``layers`` says how many there are. The first one told of is the lowest that anything is to be
    done for; those below it were kept.
    """

    stage: str
    done: int = 0
    total: int | None = None
    unit: str = "bytes"
    layer: int | None = None
    layers: int | None = None


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceContext:
    """What a source needs to know of the settings."""

    platform: Platform  # what to choose of a multi-platform image
    allowed: tuple[str, ...]  # registry hosts (host or host:port) that may be on private addresses
    insecure: tuple[str, ...]  # the same, and spoken to without TLS
    auth_file: Path | None  # containers-auth.json(5)
    step_seconds: int  # the longest that one program may run
    state_dir: Path
    limit_image_bytes: int  # sum of the layers as transferred
    limit_cache_bytes: int = 20 * 2**30  # of blobs that are kept for the next import
    engine: str = "native"  # or buildah
    limits: Limits = Limits()
    import_roots: tuple[Path, ...] = ()  # directories that image files may be read from
    mirrors: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (registry host, its mirrors' hosts)
    ca_file: Path | None = None  # certificate authorities besides the system's, PEM


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a fetch did. ``findings`` are sentences, ``left_out`` paths not brought over.

    ``manifest`` is that of the tree as it was written (:mod:`templates_app.trust.tree`'s format),
    if the engine makes it on the way; without one the tree is to be scanned. ``deviations`` are
    what of the image could not be brought to the disk, and stands in the manifest all the same.
    """

    engine: str
    milliseconds: dict[str, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    manifest: bytes | None = None
    deviations: tuple[Deviation, ...] = ()
    entries: int = 0  # below the root
    # None where the engine cannot say.
    fetched_bytes: int | None = None  # of layers, as transferred
    cached_bytes: int | None = None  # of layers that were in the blob cache
    written_bytes: int | None = None  # contents of regular files


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerState:
    """A tree as it is after one of the image's layers, and what has been noticed up to there."""

    number: int  # of layers in it
    manifest: bytes  # as Receipt.manifest
    entries: int
    content_bytes: int  # of regular files in all its layers, also of those that are gone since
    left_out: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    deviations: tuple[Deviation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """Where a fetch begins, and whom it tells of each layer.

    ``done`` is what the place holds already: the receipt is about it too. ``keep`` is called after
    each further layer, when all of it is verified, written and settled, and nothing of the next
    one is; what it raises ends the fetch.
    """

    done: LayerState | None
    keep: Callable[[LayerState], None]


class Source(Protocol):
    """One parsed reference."""

    @property
    def scheme(self) -> str: ...

    @property
    def given(self) -> str:
        """As the caller wrote it, without the scheme."""

    @property
    def canonical(self) -> str: ...

    def resolve(self) -> Resolved:
        """Ask what the reference means. PullFailed, NotAnImage, PlatformIncompatible."""

    def fetch(
        self,
        resolved: Resolved,
        into: Path,
        report: Report,
        import_id: str,
        states: States | None = None,
    ) -> Receipt:
        """Fill the directory ``into`` with the image's root file system.

        It is empty, or holds what ``states.done`` says. ``states`` is given only where
        ``resolved.chain_ids`` are, and layers are left to be applied.
        Leaves nothing of its own behind, on any way out. ``import_id`` marks what it starts and
        makes (processes, containers), so that recovery finds them after a crash.
        """
