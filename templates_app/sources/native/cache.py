"""The blob cache: layers, manifests and configs by their digest, over all images of this server.

``<state>/blobs/<algorithm>/<hex>`` is a whole blob, mode 0400; ``<hex>.part`` beside it is one on
its way (:mod:`incoming`), kept when a download breaks, so that the next import goes on from there.

A name appears by rename(2), and only after size and digest were checked. Nothing is flushed to the
disk: every import would wait for it, and all that a power cut can cost is a download. What it
spoils is found: a size is compared at each opening, a document is hashed at each reading, and a
layer whose contents turn out wrong is hashed again (:meth:`BlobCache.rotten`) and fetched anew.

Locks are flock(2) on the files themselves, so nothing is left of them after a kill: exclusive on
``.part`` by who downloads, shared on a blob by who uses it. Eviction takes what nobody has locked.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, Self

from templates_app.errors import (
    CoppiceError,
    MalformedDigest,
    OutOfSpace,
    StorageReadOnly,
    Unavailable,
)
from templates_app.names import Digest
from templates_app.sources.base import SourceContext
from templates_app.sources.documents import MAX_DOCUMENT

logger = logging.getLogger("coppice.blobs")

PART = ".part"
READ = 1024 * 1024  # bytes read at once when a blob is hashed

_SMALL = 64 * 1024  # bytes

#: Days that an unfinished download is kept for: who tries again does so sooner.
_PARTIAL_DAYS = 7

_READ_ONLY = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW

#: Bytes of a blob from an offset on, as they come; it may end with any error of the tree.
Download = Callable[[int], Iterator[bytes]]


class Blobs(Protocol):
    """Where blobs come from: a registry, or an image file of this host."""

    def blob(self, digest: Digest, size: int, *, offset: int = 0) -> Iterator[bytes]:
        """The blob's bytes from ``offset`` on. PullFailed and what else may go wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One file of the cache."""

    digest: Digest
    size_bytes: int
    used_ns: int  # last use, nanoseconds since the epoch
    partial: bool
    path: Path


@dataclass(frozen=True, slots=True)
class BlobCache:
    """The cache below ``home``; making one touches nothing."""

    home: Path
    limit_bytes: int  # of all files; above it, what was used least recently goes
    patience: float  # seconds to wait for another who downloads the same blob

    @classmethod
    def of(cls, context: SourceContext) -> Self:
        return cls(context.state_dir / "blobs", context.limit_cache_bytes, context.step_seconds)

    def path(self, digest: Digest) -> Path:
        return self.home / digest.text.partition(":")[0] / hexadecimal(digest)

    @property
    def nameless(self) -> Path:
        """Where blobs are whose digest is known only at their end."""
        return self.home / "new"

    def open(self, digest: Digest, size: int | None = None) -> BinaryIO | None:
        """The blob, if it is whole and here; in use, and so not evicted, until it is closed.

        ``size`` is what its descriptor says: a file of another one was cut off by a crash.
        """
        with storage_errors():
            try:
                file = os.fdopen(os.open(self.path(digest), _READ_ONLY), "rb")
            except FileNotFoundError:
                return None
            fcntl.flock(file, fcntl.LOCK_SH)  # who evicts holds it for a moment only
            found = os.fstat(file.fileno())
            if found.st_nlink and size in (None, found.st_size):
                os.utime(file.fileno())
                return file
            file.close()
        if found.st_nlink:
            self.drop(digest, f"it has {found.st_size} bytes, not {size}")
        return None

    def document(self, digest: Digest) -> bytes | None:
        """A manifest or config that was kept, hashed again."""
        if (file := self.open(digest)) is None:
            return None
        with file, storage_errors():
            data = file.read(MAX_DOCUMENT + 1)
        if len(data) <= MAX_DOCUMENT and hasher(digest, data).hexdigest() == hexadecimal(digest):
            return data
        self.drop(digest, "it is not what its name says")
        return None

    def rotten(self, digest: Digest) -> bool:
        """Hash a blob that gave something wrong. True: it was bad, and is gone; fetch it again."""
        if (file := self.open(digest)) is None:
            return True
        found = hasher(digest)
        with file, storage_errors():
            while data := file.read(READ):
                found.update(data)
        if found.hexdigest() == hexadecimal(digest):
            return False
        self.drop(digest, "it is not what its name says")
        return True

    def drop(self, digest: Digest, why: str) -> None:
        logger.warning("removed %s from the blob cache: %s", digest, why)
        with storage_errors():
            self.path(digest).unlink(missing_ok=True)

    # --- space -----------------------------------------------------------------------------------

    def listing(self) -> list[Kept]:
        """All files, least recently used first."""
        found = []
        for path in self.home.glob("*/*"):
            try:
                state = path.lstat()
            except FileNotFoundError:
                continue  # evicted, or renamed, just now
            try:
                digest = Digest.parse(f"{path.parent.name}:{path.name.removesuffix(PART)}")
            except MalformedDigest:
                continue  # not ours
            found.append(
                Kept(
                    digest=digest,
                    size_bytes=state.st_size,
                    used_ns=state.st_mtime_ns,
                    partial=path.name.endswith(PART),
                    path=path,
                )
            )
        return sorted(found, key=lambda one: one.used_ns)

    def trim(self) -> list[Kept]:
        """Evict until the limit is kept; called at an import's end, for its blobs are free then."""
        return self.evict(down_to=self.limit_bytes)

    def sweep(self) -> list[Kept]:
        """Remove what dead imports left half, and nobody went on with for a week."""
        before = time.time_ns() - _PARTIAL_DAYS * 24 * 3600 * 10**9
        old = [one for one in self.listing() if one.partial and one.used_ns < before]
        for path in self.nameless.glob("*"):
            _remove(path, dry_run=False)  # of no use to anybody but who wrote it
        return [one for one in old if _remove(one.path, dry_run=False)]

    def evict(self, *, down_to: int, dry_run: bool = False) -> list[Kept]:
        """Remove files that nobody uses, least recently used first, until ``down_to`` bytes remain.

        Returns those that went, or would.
        """
        listed = self.listing()
        total = sum(one.size_bytes for one in listed)
        gone = []
        for one in listed:
            if total <= down_to:
                break
            if _remove(one.path, dry_run):
                gone.append(one)
                total -= one.size_bytes
        return gone

    def make_room(self, needed: int) -> None:
        """Evict so that ``needed`` more bytes keep the limit and fit. OutOfSpace if they do not.

        A small blob is not worth a look at all others: the next large one, and the end of the
        import (:meth:`trim`), make up for it.
        """
        if needed < _SMALL:
            return
        total = sum(one.size_bytes for one in self.listing())
        with storage_errors():
            short = needed - self._free()
        excess = max(total + needed - self.limit_bytes, short)
        if excess > 0:
            freed = sum(one.size_bytes for one in self.evict(down_to=max(0, total - excess)))
            if short > freed:
                raise no_space()

    def _free(self) -> int:
        found = os.statvfs(self.home)
        return found.f_bavail * found.f_frsize


def _remove(path: Path, dry_run: bool) -> bool:
    """Whether nobody used it, and it is gone (or would be)."""
    with storage_errors():
        try:
            descriptor = os.open(path, _READ_ONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # While it was opened, another may have renamed or replaced it.
            if not is_still(descriptor, path):
                return False
            if not dry_run:
                path.unlink()
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            os.close(descriptor)


def hasher(digest: Digest, data: bytes = b"") -> hashlib._Hash:
    return hashlib.new(digest.text.partition(":")[0], data)


def hexadecimal(digest: Digest) -> str:
    return digest.text.partition(":")[2]


def is_still(descriptor: int, path: Path) -> bool:
    """Whether the path names the open file."""
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def no_space() -> CoppiceError:
    return OutOfSpace(
        "There is no space left for the image's layers in the state directory.",
        hint="Free space there, for example with: manage.py prune_cache --all",
    )


@contextmanager
def storage_errors() -> Iterator[None]:
    """What the state directory's file system says, as an error of ours."""
    try:
        yield
    except OSError as failed:
        private = f"blob cache: {failed}"
        if failed.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space() from failed
        if failed.errno == errno.EROFS:
            raise StorageReadOnly(
                "The state directory's file system is read-only.", private=private
            ) from failed
        reason = os.strerror(failed.errno) if failed.errno else type(failed).__name__
        raise Unavailable(f"The blob cache cannot be used: {reason}.", private=private) from failed
