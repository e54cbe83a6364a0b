"""Texts kept by their sha256: manifests of trees, what is noted about them, documents of images.

The sha256 of a manifest is the tree digest, so whoever has the digest can tell whether a text is
the right one; here that is done each time, and what a disk made of a text is never passed on. The
files are ``<hex>.zst``, which zstdcat(1) reads. A text that many trees have has one file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import zstandard

from templates_app.errors import OutOfSpace, StorageReadOnly
from templates_app.names import Digest

_LEVEL = 1  # 9 MB in 15 ms; half of a manifest are digests, which no level makes much smaller
_LARGEST = 2 * 1024**3  # bytes of one text: a damaged length must not take all memory
_SUFFIX, _PART = ".zst", ".part"
_OLD = 3600.0  # seconds after which nobody writes to a part any more


class Damaged(Exception):
    """A file is not the text that its name says; callers say what that means for them."""


class Texts:
    """One directory of them, mode 0700, made when the first is put. For many processes at once."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def put(self, text: bytes) -> str:
        """Keep ``text``, durably; ``sha256:<hex>`` of it. OutOfSpace, StorageReadOnly."""
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        path = self._path(digest)
        with _full():
            self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(Damaged):  # then it is written anew
                if self.get(digest) is not None:
                    os.utime(path)
                    return digest
            part = self.place / f"{secrets.token_hex(8)}{_PART}"
            try:
                with part.open("xb") as file:
                    file.write(zstandard.compress(text, _LEVEL))
                    file.flush()
                    # Else a power failure leaves an empty file under the right name.
                    os.fsync(file.fileno())
                part.rename(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        return digest

    def get(self, digest: str) -> bytes | None:
        """The text, None where it is not kept; Damaged where what is kept is not it."""
        try:
            packed = self._path(digest).read_bytes()
        except FileNotFoundError:
            return None
        try:
            if zstandard.frame_content_size(packed) > _LARGEST:
                raise Damaged(digest)
            text = zstandard.decompress(packed)
        except zstandard.ZstdError as error:
            raise Damaged(digest) from error
        if f"sha256:{hashlib.sha256(text).hexdigest()}" != digest:
            raise Damaged(digest)
        return text

    def has(self, digest: str) -> bool:
        """Whether there is a file for it; what is in it is not looked at."""
        return self._path(digest).exists()

    def touch(self, digest: str) -> None:
        """Note that it was used just now."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._path(digest))

    def used(self, digest: str) -> float:
        """When it was put or touched last, in seconds of the epoch; 0 where it is not kept."""
        try:
            return self._path(digest).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def forget(self, digest: str) -> None:
        self._path(digest).unlink(missing_ok=True)

    def digests(self) -> set[str]:
        names = (path.name for path in self._files(_SUFFIX))
        return {f"sha256:{name.removesuffix(_SUFFIX)}" for name in names}

    def sweep(self) -> None:
        """Remove what writers that were killed have left."""
        for part in self._files(_PART):
            with contextlib.suppress(FileNotFoundError):
                if part.stat().st_mtime < time.time() - _OLD:
                    part.unlink()

    def _files(self, suffix: str) -> list[Path]:
        return sorted(self.place.glob(f"*{suffix}"))

    def _path(self, digest: str) -> Path:
        return self.place / f"{Digest.parse(digest).hex}{_SUFFIX}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The texts that events name by digest alone: an event's reader needs them years later."""

    manifests: Texts  # of trees: under the tree digest
    documents: Texts  # of images: indexes, manifests and configs, as the registry gave them

    @classmethod
    def of(cls, state_dir: Path) -> Self:
        return cls(
            manifests=Texts(state_dir / "manifests"), documents=Texts(state_dir / "documents")
        )


@contextlib.contextmanager
def _full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace("The state directory has no space left.", private=str(error)) from None
        if error.errno == errno.EROFS:
            raise StorageReadOnly("The state directory is read-only.") from None
        raise
