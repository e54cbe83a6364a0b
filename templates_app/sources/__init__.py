"""Where file trees come from: ``scheme:rest`` to a source.

``base``       the port: Source, Resolved, Progress, Receipt
``oci``        images in registries
``local``      images in files of this host: layouts and archives
``resolution`` from what a reference names to the one image that is meant
``documents``  indexes, manifests, configs, read strictly; the choice by platform
``hosts``      which registry hosts the server may speak to
``credentials`` what registries are shown, and which authorities count
``programs``   buildah with a configuration and a storage of its own
``complaints`` what such a program says on stderr, as an error of ours
``buildah``    the engine that brings an image's files into a directory
``leftovers``  what a dead import left in container storage and among the processes
``plant``      /etc/resolv.conf, without following anything that the image put in the way
``verdict``    whether an image's programs fit the platform, from ELF headers
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from templates_app.errors import MalformedReference, SchemeNotImplemented

if TYPE_CHECKING:
    from templates_app.sources.base import Source, SourceContext

__all__ = ["LOCAL", "RESERVED", "SCHEMES", "parse"]

# Imported when asked for is what the native engine's processes need nothing of: they import this
# package too, anew for each image, and the image waits for that.


def _oci(text: str, context: SourceContext) -> Source:
    from templates_app.sources.oci import OciSource

    return OciSource.parse(text, context)


def _local(scheme: str, text: str, context: SourceContext) -> Source:
    from templates_app.sources.local import LocalSource

    return LocalSource(scheme, text, context)


#: scheme -> what makes a source of the text behind it.
SCHEMES: dict[str, Callable[[str, SourceContext], Source]] = {
    "oci": _oci,
    "oci-archive": partial(_local, "oci-archive"),
    "oci-layout": partial(_local, "oci-layout"),
    "docker-archive": partial(_local, "docker-archive"),
}

#: Those whose references name files of this host.
LOCAL = frozenset(SCHEMES) - {"oci"}

#: Schemes that have a meaning and no code yet: each with the sentence that a caller gets.
RESERVED = {
    "dockerfile": "Building from a Dockerfile is planned, not built: build the image elsewhere,"
    " push it to a registry, and import it with oci:.",
    "git": "Importing from a git repository will follow dockerfile:; until then build the image"
    " elsewhere and import it with oci:.",
    "zfs-send": "Receiving a ZFS stream is not built: run `zfs receive` into"
    " PARENT/NAME-template yourself, make @base, and reload.",
}


def parse(text: str, context: SourceContext) -> Source:
    """The source that ``scheme:rest`` names, cut at the first colon.

    Raises MalformedReference, also for a reference without a scheme (``quay.io/x/y``: callers of
    the API say which kind of thing they name), and SchemeNotImplemented for a reserved scheme.
    """
    from templates_app.names import quote

    scheme, colon, rest = text.partition(":")
    if make := SCHEMES.get(scheme if colon else ""):
        return make(rest, context)
    if colon and scheme in RESERVED:
        raise SchemeNotImplemented(RESERVED[scheme], extra={"scheme": scheme})
    known = ", ".join(f"{name}:" for name in SCHEMES)
    if not colon or "/" in scheme or rest[:1].isdigit():
        # quay.io/x/y, quay.io/x/y:1, localhost:5000/x: what people write who mean oci:.
        raise MalformedReference(
            f"{quote(text)} has no scheme; {known} is expected in front of it."
        )
    raise MalformedReference(f"{quote(scheme)} is not a known scheme; known are: {known}")
