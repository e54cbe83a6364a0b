"""What ``docker save`` writes: which images are in it, and a manifest for the one that is meant.

``manifest.json`` lists images, each with its config, its layers and its names. There is no manifest
in it that has a digest, so one is made: byte by byte that of containers/image, so that
``skopeo inspect --raw docker-archive:FILE | sha256sum`` says the same as our record.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from templates_app.errors import NotAnImage, PullFailed
from templates_app.names import Digest
from templates_app.sources import documents
from templates_app.sources.documents import Json, Manifest
from templates_app.sources.native.archives import Found
from templates_app.sources.native.layout import shown_names

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
#: What containers/image writes for these layers, though they are not compressed.
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
#: What they are, and what the engine reads them by.
_PLAIN_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


@dataclass(frozen=True, slots=True)
class Image:
    """One image of the list; its parts are names of files in the archive."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...]


def images(found: Found) -> list[Image]:
    """All images of the archive. NotAnImage where its list is not one."""
    if b"manifest.json" not in found.lists:
        raise NotAnImage("The archive has no manifest.json: `docker save` did not make it.")
    listed = documents.json_value(found.lists[b"manifest.json"], "manifest.json")
    if not isinstance(listed, list):
        raise NotAnImage("The archive's manifest.json is not a list.")
    return [_image(one) for one in listed]


def _image(said: Json) -> Image:
    if not isinstance(said, dict) or not isinstance(said.get("Config"), str):
        raise NotAnImage("The archive's manifest.json has an image without a config.")
    return Image(said["Config"], _texts(said.get("Layers")), _texts(said.get("RepoTags")))


def _texts(said: Json) -> tuple[str, ...]:
    found = [] if said is None else said
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise NotAnImage("The archive's manifest.json has a list that is not one of names.")
    return tuple(found)


def choose(offered: Sequence[Image], name: str) -> Image:
    """The image of that name, or the only one. PullFailed (not_found), NotAnImage."""
    names = [tag for one in offered for tag in one.tags]
    if not name:
        if len(offered) != 1:
            raise NotAnImage(
                f"There are {len(offered)} images: {shown_names(names)}.",
                hint="Say which, after a colon: PATH:NAME.",
            )
        return offered[0]
    for one in offered:
        if _familiar(name) in map(_familiar, one.tags):
            return one
    raise PullFailed(
        f"There is no such image among those that are there: {shown_names(names)}.",
        reason="not_found",
    )


def _familiar(name: str) -> str:
    """Docker writes ``alpine:3`` for what others call ``docker.io/library/alpine:3``."""
    short = name.removeprefix("docker.io/").removeprefix("library/")
    return short if ":" in short.rpartition("/")[2] else f"{short}:latest"


def manifest(image: Image, found: Found) -> tuple[Manifest, bytes]:
    """The manifest that is made of an image's parts, and its bytes."""
    document = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _describe(_CONFIG, *found.file(image.config)),
        "layers": [_describe(_LAYER, *found.file(name)) for name in image.layers],
    }
    data = json.dumps(document, separators=(",", ":")).encode()
    made = documents.read(data)
    if not isinstance(made, Manifest):
        raise TypeError("a manifest was made")
    layers = tuple(replace(one, media_type=_PLAIN_LAYER) for one in made.layers)
    return replace(made, layers=layers), data


def _describe(media_type: str, digest: Digest, size: int) -> dict[str, Json]:
    return {"mediaType": media_type, "size": size, "digest": digest.text}
