"""What container storage has on disk of an image: read only, and only what no program tells.

containers/storage keeps ``<driver>-images/images.json`` and ``<driver>-layers/layers.json``, which
it replaces with rename(2), so a reader sees a whole one; and ``<layer>.tar-split.gz``, the layer's
tar without its files' contents, one JSON object a line (vbatts/tar-split). These formats are the
storage's own and old; where one is not as expected, the answer is None, never a guess.
"""

from __future__ import annotations

import base64
import gzip
import json
import tarfile
import zlib
from pathlib import Path
from typing import Any

#: How an entry for the root itself is named in a tar (layer.md has no rule for it).
_ROOT_NAMES = frozenset({".", "./", "/"})


def layers(storage: Path, image_id: str) -> list[str] | None:
    """The sha256 of each layer's tar as it was unpacked, base first; None if not recorded."""
    chain = _chain(storage, image_id)
    if chain is None:
        return None
    digests = [record.get("diff-digest") for record in chain]
    known = [one for one in digests if isinstance(one, str)]
    return known if len(known) == len(digests) else None


def root_entry(storage: Path, image_id: str) -> tarfile.TarInfo | None:
    """What the topmost layer that has an entry for the root directory says of it."""
    for record in reversed(_chain(storage, image_id) or []):
        for path in storage.glob(f"*-layers/{record['id']}.tar-split.gz"):
            if found := _root_of(path):
                return found
    return None


def _root_of(path: Path) -> tarfile.TarInfo | None:
    header = b""
    try:
        with gzip.open(path) as lines:
            for line in lines:
                # Cheap tests first: a layer has two lines for each of its entries.
                if line.startswith(b'{"type":2'):
                    header = line
                elif b'"name":"."' in line or b'"name":"./"' in line or b'"name":"/"' in line:
                    raw = base64.b64decode(json.loads(header)["payload"])[-tarfile.BLOCKSIZE :]
                    found = tarfile.TarInfo.frombuf(raw, "utf-8", "surrogateescape")
                    return found if found.isdir() and found.name in _ROOT_NAMES else None
    except (OSError, EOFError, zlib.error, ValueError, KeyError, tarfile.HeaderError):
        return None
    return None


def _chain(storage: Path, image_id: str) -> list[dict[str, Any]] | None:
    """The records of an image's layers, base first."""
    image = _records(storage, "*-images/images.json").get(image_id)
    if image is None:
        return None
    records = _records(storage, "*-layers/*layers.json")
    chain: list[dict[str, Any]] = []
    above = image.get("layer")
    while above:
        record = records.get(above)
        if record is None or len(chain) > len(records):
            return None
        chain.insert(0, record)
        above = record.get("parent")
    return chain


def _records(storage: Path, pattern: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path in storage.glob(pattern):
        try:
            read = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            continue
        if isinstance(read, list):
            found |= {one["id"]: one for one in read if isinstance(one, dict) and "id" in one}
    return found
