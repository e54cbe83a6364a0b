"""Images in files of this host, beneath COPPICE_IMPORT_ROOTS: layouts and archives.

``oci-layout:`` and ``oci-archive:`` take ``/PATH[:NAME][@sha256:DIGEST]``, ``docker-archive:``
takes ``/PATH[:NAME[:TAG]]``. What such a reference means is kept in a form that names no directory
of this host: the file's own name, the image's name in it, the digest. So the same file gives the
same statement on every host of a fleet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Self

from templates_app.errors import (
    MalformedDigest,
    MalformedReference,
    PullFailed,
    SchemeNotImplemented,
)
from templates_app.names import Digest, quote
from templates_app.sources.base import Receipt, Report, Resolved, SourceContext, States
from templates_app.sources.documents import Index, sha256
from templates_app.sources.native import docker_archive, engine
from templates_app.sources.native.archives import Archive, layout_index
from templates_app.sources.native.beneath import allowed_root
from templates_app.sources.native.layout import Layout, choose
from templates_app.sources.resolution import Resolution

#: image-spec, annotations.md: the grammar of org.opencontainers.image.ref.name, without its "@".
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:+/-]{0,253}[A-Za-z0-9])?")
_FORM = re.compile(r"(?P<path>/[^:@]+)(?::(?P<name>[^@]*))?(?:@(?P<digest>.*))?")


@dataclass(frozen=True, slots=True)
class LocalReference:
    """A file or directory of this host, and what of it is meant."""

    given: str
    path: PurePosixPath
    name: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, scheme: str, text: str) -> Self:
        """MalformedReference. The path is absolute, without ``.`` and ``..``, ``:`` and ``@``."""
        form = f"{scheme}:/PATH[:NAME]" + ("" if scheme == "docker-archive" else "[@sha256:DIGEST]")
        hint = f"Write {form}; the path is one of the server's host, and absolute."

        def wrong(why: str) -> MalformedReference:
            return MalformedReference(f"{quote(text)} is not a reference: {why}.", hint=hint)

        if len(text) > 512:
            raise wrong("it is longer than 512 characters")
        if any(not "!" <= char <= "~" for char in text):
            raise wrong("it has whitespace, control or non-ASCII characters")
        if (found := _FORM.fullmatch(text)) is None:
            raise wrong("it does not begin with an absolute path")
        parts = found["path"].removesuffix("/").split("/")[1:]
        if any(part in ("", ".", "..") for part in parts):
            raise wrong("the path has empty components, '.' or '..'")
        if found["name"] is not None and not _NAME.fullmatch(found["name"]):
            raise wrong("the image's name is malformed")
        if found["digest"] is not None and scheme == "docker-archive":
            raise wrong("a docker archive has no digests to name")
        try:
            digest = None if found["digest"] is None else Digest.parse(found["digest"])
        except MalformedDigest as error:
            raise wrong(error.detail.rstrip(".")) from None
        return cls(text, PurePosixPath("/", *parts), found["name"] or "", digest)

    def canonical(self, digest: str) -> str:
        """What it meant, without the directories of this host."""
        return f"{self.path.name}{f':{self.name}' if self.name else ''}@{digest}"


class LocalSource:
    """One parsed reference to an image in a file."""

    def __init__(self, scheme: str, text: str, context: SourceContext) -> None:
        self.scheme = scheme
        self.reference = LocalReference.parse(scheme, text)
        self.context = context
        allowed_root(self.reference.path, context.import_roots)
        if context.engine != "native":
            raise SchemeNotImplemented(
                f"The {context.engine} engine does not read image files.",
                hint="Set COPPICE_ENGINE=native, or push the image to a registry with skopeo.",
                extra={"scheme": scheme},
            )
        self._image = self._open()

    @property
    def given(self) -> str:
        return self.reference.given

    @property
    def canonical(self) -> str:
        """Before it is resolved: as given. A lease or a failure is this host's own affair."""
        return self.reference.given

    def resolve(self) -> Resolved:
        if isinstance(self._image, Layout):
            resolved = self._listed(self._image, self._image.contents())
        elif self.scheme == "oci-archive":
            resolved = self._listed(self._image, layout_index(self._image.read()))
        else:
            resolved = self._saved(self._image)
        for layer in resolved.layers:
            self._image.check(layer.digest, layer.size)
        return resolved

    def fetch(
        self,
        resolved: Resolved,
        into: Path,
        report: Report,
        import_id: str,
        states: States | None = None,
    ) -> Receipt:
        return engine.fetch(self._image, self.context, resolved, into, report, import_id, states)

    def _open(self) -> Layout | Archive:
        if self.scheme == "oci-layout":
            return Layout(self.reference.path, self.context.import_roots)
        by_digest = self.scheme == "oci-archive"
        return Archive(self.reference.path, self.context, by_digest=by_digest)

    def _listed(self, image: Layout | Archive, offered: Index) -> Resolved:
        """An image of an OCI layout."""
        entries = choose(offered, self.reference.name, self.reference.digest)
        resolution = Resolution(self.context, image)
        floating = self.reference.digest is None
        if len(entries.entries) == 1:
            (entry,) = entries.entries
            document, data = resolution.child(entry)
            canonical = self.reference.canonical(entry.digest.text)
            return resolution.run(
                entry.digest, document, data, canonical=canonical, floating=floating
            )
        # One image for several platforms, without an index of its own.
        resolved = resolution.run(None, entries, b"", canonical="", floating=floating)
        return replace(resolved, canonical=self.reference.canonical(resolved.digests.manifest))

    def _saved(self, image: Archive) -> Resolved:
        """An image of ``docker save``."""
        found = image.read()
        chosen = docker_archive.choose(docker_archive.images(found), self.reference.name)
        manifest, data = docker_archive.manifest(chosen, found)
        digest = sha256(data)
        resolved = Resolution(self.context, image).run(
            digest, manifest, data, canonical=self.reference.canonical(digest.text), floating=True
        )
        for layer in resolved.layers:
            if layer.digest != layer.diff_id:
                raise PullFailed(
                    f"A layer of the archive has {layer.digest}, the config says {layer.diff_id}.",
                    reason="corrupt",
                )
        return resolved
