"""OCI layouts and archives of them, for tests: as they should be, and as they should not."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deploy.images import Document, canonical, sha256
from tests.pools import sh

REF_NAME = "org.opencontainers.image.ref.name"


def write(
    place: Path, images: Mapping[str, Document], *, members: Mapping[str, Any] | None = None
) -> Path:
    """A layout with these images by name; ``""`` is one without. ``members`` of its index."""
    entries = []
    for name, document in images.items():
        for data in _blobs(document):
            path = place / "blobs" / "sha256" / sha256(data).removeprefix("sha256:")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        entry = document.descriptor()
        if name:
            entry["annotations"] = {**entry.get("annotations", {}), REF_NAME: name}
        entries.append(entry)
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    index = {"schemaVersion": 2, "manifests": entries, **(members or {})}
    (place / "index.json").write_bytes(canonical(index))
    return place


def _blobs(document: Document) -> Iterator[bytes]:
    yield document.data
    yield from document.blobs
    for child in document.children:
        yield from _blobs(child)


def blob(place: Path, digest: str) -> Path:
    return place / "blobs" / "sha256" / digest.removeprefix("sha256:")


def archive(place: Path, file: Path) -> Path:
    """All of a layout as a tar file, as `tar -C PLACE -cf FILE .` makes it."""
    with tarfile.open(file, "w") as made:
        made.add(place, arcname=".")
    return file


def copy(source: str, target: str) -> None:
    """skopeo, as an operator would."""
    sh("skopeo", "--insecure-policy", "copy", "--quiet", source, target)


def saved(place: Path, name: str, file: Path, *refs: str) -> Path:
    """What `docker save` writes, by containers/image."""
    more = [word for ref in refs[1:] for word in ("--additional-tag", ref)]
    target = f"docker-archive:{file}:{refs[0]}" if refs else f"docker-archive:{file}"
    sh("skopeo", "--insecure-policy", "copy", "--quiet", *more, f"oci:{place}:{name}", target)
    return file


def manifest_json(file: Path) -> Any:
    with tarfile.open(file) as made:
        member = made.extractfile("manifest.json")
        assert member is not None
        return json.load(member)
