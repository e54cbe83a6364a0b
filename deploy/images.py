"""Container images made of Python values, and pushed to a registry: for the demo, tests and bench.

Byte for byte the same on every run: entries in the order given, fixed times, gzip without a name
or time. Nothing is unpacked, so no root is needed and every owner, device node and xattr can be
said.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

MTIME = 1_700_000_000  # of every entry that does not say another: seconds since 1970


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One tar entry. ``path`` is as it will stand in the tar (``usr/bin/env``, ``./``)."""

    path: str
    type: bytes = tarfile.REGTYPE
    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    target: str = ""  # of a symlink or a hard link
    device: tuple[int, int] = (0, 0)  # major, minor
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    mtime: int = MTIME

    def member(self) -> tarfile.TarInfo:
        info = tarfile.TarInfo(self.path)
        info.type, info.mode, info.mtime = self.type, self.mode, self.mtime
        info.uid, info.gid, info.linkname = self.uid, self.gid, self.target
        info.devmajor, info.devminor = self.device
        info.size = len(self.content) if self.type == tarfile.REGTYPE else 0
        # PAX values are text; surrogateescape is how tarfile takes other bytes through it.
        info.pax_headers = {
            f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")
            for name, value in self.xattrs.items()
        }
        return info


def directory(path: str, mode: int = 0o755, **rest: Any) -> Entry:
    return Entry(path=path, type=tarfile.DIRTYPE, mode=mode, **rest)


def file(path: str, content: bytes | str = b"", mode: int = 0o644, **rest: Any) -> Entry:
    data = content.encode() if isinstance(content, str) else content
    return Entry(path=path, content=data, mode=mode, **rest)


def symlink(path: str, target: str, **rest: Any) -> Entry:
    return Entry(path=path, type=tarfile.SYMTYPE, target=target, mode=0o777, **rest)


def hardlink(path: str, target: str, **rest: Any) -> Entry:
    return Entry(path=path, type=tarfile.LNKTYPE, target=target, **rest)


def device(path: str, major: int, minor: int, mode: int = 0o666, **rest: Any) -> Entry:
    return Entry(path=path, type=tarfile.CHRTYPE, device=(major, minor), mode=mode, **rest)


def fifo(path: str, mode: int = 0o644, **rest: Any) -> Entry:
    return Entry(path=path, type=tarfile.FIFOTYPE, mode=mode, **rest)


def whiteout(path: str) -> Entry:
    """Hides ``path`` of the layers below (image-spec, layer.md)."""
    parent, slash, name = path.rpartition("/")
    return file(f"{parent}{slash}.wh.{name}")


def opaque(path: str) -> Entry:
    """Hides everything that the layers below have in the directory ``path``."""
    return file(f"{path}/.wh..wh..opq")


@dataclass(frozen=True, slots=True)
class Layer:
    blob: bytes  # as transferred
    diff_id: str  # of the tar
    media_type: str = OCI_LAYER

    @property
    def digest(self) -> str:
        return sha256(self.blob)


def tar(entries: Iterable[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer,
        mode="w",
        format=tarfile.PAX_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        for entry in entries:
            archive.addfile(entry.member(), io.BytesIO(entry.content))
    return buffer.getvalue()


def layer(entries: Iterable[Entry], *, media_type: str = OCI_LAYER, level: int = 6) -> Layer:
    return layer_of(tar(entries), media_type=media_type, level=level)


def layer_of(plain: bytes, *, media_type: str = OCI_LAYER, level: int = 6) -> Layer:
    """A layer whose tar is given; compressed where the media type says gzip."""
    gzipped = media_type.endswith("gzip")
    blob = gzip.compress(plain, level, mtime=0) if gzipped else plain
    return Layer(blob, sha256(plain), media_type)


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index, with the blobs and documents that it names."""

    data: bytes
    media_type: str
    blobs: tuple[bytes, ...] = ()
    children: tuple[Document, ...] = ()
    platform: Mapping[str, Any] | None = None  # what an index says of it
    annotations: Mapping[str, str] | None = None

    @property
    def digest(self) -> str:
        return sha256(self.data)

    def parsed(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.data)
        return document

    def descriptor(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": len(self.data),
        }
        if self.platform is not None:
            found["platform"] = dict(self.platform)
        if self.annotations is not None:
            found["annotations"] = dict(self.annotations)
        return found


def describe(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}


def image(
    layers: Sequence[Layer],
    *,
    platform: str = "linux/amd64",
    os_version: str = "",
    docker: bool = False,
    config: Mapping[str, Any] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> Document:
    """An image for one platform; ``config`` and ``manifest`` add or replace top-level members."""
    os, architecture, *variant = platform.split("/")
    settings: dict[str, Any] = {
        "os": os,
        "architecture": architecture,
        "config": {"Cmd": ["/bin/sh"]},
        "created": "2024-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]},
        "history": [{"created": "2024-01-01T00:00:00Z"} for _ in layers],
    }
    said: dict[str, Any] = {"os": os, "architecture": architecture}
    if variant:
        settings["variant"] = said["variant"] = variant[0]
    if os_version:
        settings["os.version"] = said["os.version"] = os_version
    config_blob = canonical({**settings, **(config or {})})
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": describe(config_blob, DOCKER_CONFIG if docker else OCI_CONFIG),
        "layers": [
            describe(one.blob, DOCKER_LAYER if docker else one.media_type) for one in layers
        ],
        **(manifest or {}),
    }
    blobs = (config_blob, *(one.blob for one in layers))
    return Document(canonical(document), media_type, blobs=blobs, platform=said)


def index(
    children: Sequence[Document],
    *,
    docker: bool = False,
    members: Mapping[str, Any] | None = None,
) -> Document:
    media_type = DOCKER_LIST if docker else OCI_INDEX
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [child.descriptor() for child in children],
        **(members or {}),
    }
    return Document(canonical(document), media_type, children=tuple(children))


def attestation(of: Document) -> Document:
    """What BuildKit puts beside an image in an index: for no platform, and no image."""
    statement = canonical({"_type": "https://in-toto.io/Statement/v0.1", "subject": []})
    config = canonical(
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [sha256(statement)]},
        }
    )
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": describe(config, OCI_CONFIG),
        "layers": [describe(statement, "application/vnd.in-toto+json")],
    }
    return Document(
        canonical(document),
        OCI_MANIFEST,
        blobs=(config, statement),
        platform={"os": "unknown", "architecture": "unknown"},
        annotations={
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": of.digest,
        },
    )


def push(
    registry: str,
    repository: str,
    tag: str,
    document: Document,
    *,
    auth: tuple[str, str] | None = None,
) -> str:
    """Push a document and all below it to ``http://registry``; returns its digest.

    The distribution-spec's "Pushing blobs" (one POST, one PUT) and "Pushing manifests".
    """
    with httpx.Client(
        base_url=f"http://{registry}", auth=auth, timeout=60, trust_env=False
    ) as client:
        return _push(client, repository, tag, document)


def _push(client: httpx.Client, repository: str, tag: str, document: Document) -> str:
    for child in document.children:
        _push(client, repository, child.digest, child)
    for blob in document.blobs:
        _push_blob(client, repository, blob)
    client.put(
        f"/v2/{repository}/manifests/{tag}",
        content=document.data,
        headers={"Content-Type": document.media_type},
    ).raise_for_status()
    return document.digest


def _push_blob(client: httpx.Client, repository: str, blob: bytes) -> None:
    digest = sha256(blob)
    if client.head(f"/v2/{repository}/blobs/{digest}").status_code == httpx.codes.OK:
        return
    begun = client.post(f"/v2/{repository}/blobs/uploads/").raise_for_status()
    client.put(
        begun.headers["Location"],
        params={**httpx.URL(begun.headers["Location"]).params, "digest": digest},
        content=blob,
        headers={"Content-Type": "application/octet-stream"},
    ).raise_for_status()
