"""An OCI image layout: a directory with ``oci-layout``, ``index.json`` and ``blobs`` (I8).

``index.json`` is a list of what the layout offers, each entry with a name of its own or without
(``org.opencontainers.image.ref.name``, valid nowhere else: I7).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from templates_app.errors import CoppiceError, NotAnImage, PullFailed, TreeRefused
from templates_app.names import Digest, quote
from templates_app.sources import documents
from templates_app.sources.documents import MAX_DOCUMENT, Descriptor, Index
from templates_app.sources.native.beneath import open_beneath
from templates_app.sources.native.cache import READ

_VERSION = "1.0.0"
_BELOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_SHOWN = 20  # names of images in one message


class Layout:
    """A layout directory beneath one of ``roots``: opened when something is read of it."""

    def __init__(self, path: PurePosixPath, roots: Sequence[Path]) -> None:
        self._path = path
        self._roots = roots

    def contents(self) -> Index:
        """What the layout offers. NotAnImage, TreeRefused, PullFailed, SourceNotAllowed."""
        top = self._open()
        try:
            check_version(_read_all(_member(top, "oci-layout")))
            return read_index(_read_all(_member(top, "index.json")))
        finally:
            os.close(top)

    def manifest(self, entry: Descriptor) -> bytes:
        return self._document(entry)

    def config(self, entry: Descriptor) -> bytes:
        return self._document(entry)

    def corrupt(self, private: str) -> CoppiceError:
        return PullFailed(
            "A document of the layout is not what its digest says.",
            reason="corrupt",
            private=private,
        )

    def check(self, digest: Digest, size: int) -> None:
        """The blob is there, a file, and of that size."""
        os.close(self._blob(digest, size))

    def close(self) -> None:
        """Nothing stays open between two calls."""

    def blob(self, digest: Digest, size: int, *, offset: int = 0) -> Iterator[bytes]:
        with os.fdopen(self._blob(digest, size), "rb") as file:
            file.seek(offset)
            while data := file.read(READ):
                yield data

    def _document(self, entry: Descriptor) -> bytes:
        return _read_all(self._blob(entry.digest, entry.size))

    def _blob(self, digest: Digest, size: int) -> int:
        top = self._open()
        try:
            algorithm, _, hexadecimal = digest.text.partition(":")
            file = _member(top, "blobs", algorithm, hexadecimal)
        finally:
            os.close(top)
        if (there := os.fstat(file).st_size) != size:
            os.close(file)
            raise PullFailed(
                f"{digest} has {there} bytes in the layout, {size} were promised.",
                reason="corrupt",
            )
        return file

    def _open(self) -> int:
        return open_beneath(self._path, self._roots, directory=True)


def check_version(data: bytes) -> None:
    """``oci-layout``: an unknown version could mean anything."""
    said = documents.json_object(data, "oci-layout file").get("imageLayoutVersion")
    if said != _VERSION:
        raise NotAnImage(f"The layout's version is {quote(str(said))}; {_VERSION} is read.")


def read_index(data: bytes) -> Index:
    found = documents.read(data)
    if not isinstance(found, Index):
        raise NotAnImage("The layout's index.json is not an index.")
    return found


def choose(offered: Index, name: str, digest: Digest | None) -> Index:
    """The entries that are meant: those of that digest, or of that name, or all there are.

    Several may be left only if they can be one image for several platforms. PullFailed (not_found)
    where none is, NotAnImage where it is not clear which.
    """
    entries = offered.candidates()
    names = list(dict.fromkeys(one.ref_name for one in entries))
    if digest is not None:
        entries = [one for one in entries if one.digest_text == digest.text]
    elif name:
        entries = [one for one in entries if one.ref_name == name]
    elif len(names) > 1:
        raise NotAnImage(
            f"There are several images: {shown_names(names)}.",
            hint="Say which, after a colon: PATH:NAME.",
        )
    if not entries:
        raise PullFailed(
            f"There is no such image among those that are there: {shown_names(names)}.",
            reason="not_found",
        )
    return Index(tuple(entries))


def shown_names(names: Sequence[str]) -> str:
    shown = [quote(one) if one else "(without a name)" for one in names[:_SHOWN]]
    return ", ".join(shown) + (" …" if len(names) > _SHOWN else "") or "none"


def _member(top: int, *names: str) -> int:
    """A regular file of the layout. A symlink might lead out of it, so it is refused (I8)."""
    at = os.dup(top)
    for number, name in enumerate(names, start=1):
        try:
            # What is no regular file and no directory is not opened: a fifo would wait.
            found = os.stat(name, dir_fd=at, follow_symlinks=False)
            wanted = stat.S_ISREG if number == len(names) else stat.S_ISDIR
            if not wanted(found.st_mode):
                raise not_a_file("/".join(names))
            below = os.open(name, _BELOW | os.O_NONBLOCK, dir_fd=at)
        except FileNotFoundError:
            raise PullFailed(
                f"The layout does not have {'/'.join(names)}.", reason="not_found"
            ) from None
        except OSError as error:
            raise PullFailed(
                f"{'/'.join(names)} of the layout cannot be read.",
                reason="denied",
                private=str(error),
            ) from error
        finally:
            os.close(at)
        at = below
    if not stat.S_ISREG(os.fstat(at).st_mode):  # changed between the two
        os.close(at)
        raise not_a_file("/".join(names))
    return at


def not_a_file(name: str) -> CoppiceError:
    return TreeRefused(
        f"{name} is not a regular file, or leads over a symlink.",
        extra={"path": name, "rule": "blob-not-a-file"},
    )


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(MAX_DOCUMENT + 1)
    if len(data) > MAX_DOCUMENT:
        raise NotAnImage(f"A document of the layout is larger than {MAX_DOCUMENT} bytes.")
    return data
