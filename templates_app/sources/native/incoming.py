"""One blob on its way into the cache, which others may read while it comes.

:meth:`Incoming.run` brings it, in the thread that calls it; :meth:`Incoming.stream` is a file that
waits for bytes that are not there yet, so that a layer is decompressed while it is downloaded. Its
end of file comes only after the verdict: whoever has read to the end has read what was promised,
and until then may not let anything that came of it be used.

What an earlier run left in ``.part`` is hashed and the rest is asked for. Nobody reads such a blob
before the verdict: where the old bytes prove wrong (a power cut) it begins again from the front.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from templates_app.errors import CoppiceError, ImportTimeout, OutOfSpace, PullFailed
from templates_app.names import Digest
from templates_app.sources.documents import sha256
from templates_app.sources.native.cache import (
    PART,
    READ,
    BlobCache,
    Download,
    hasher,
    hexadecimal,
    is_still,
    storage_errors,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW

#: Seconds between two looks at a blob that another process downloads.
STEP = 0.05


class Cancelled(Exception):
    """The import that wanted the blob has ended; its readers see this too."""


class Incoming:
    """A blob of ``size`` bytes that ``download`` brings, unless it is here already.

    ``on_bytes`` gets the number of its bytes that are here, now and then. ``fetched`` of its bytes
    were downloaded now, ``cached`` were here. :meth:`close` it when the import ends.
    """

    def __init__(
        self,
        cache: BlobCache,
        digest: Digest,
        size: int,
        download: Download,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.digest = digest
        self.size = size
        self.fetched = 0
        self.cached = 0
        self._cache = cache
        self._download = download
        self._on_bytes = on_bytes
        self._file: BinaryIO | io.FileIO | None = None
        self._readable = 0
        self._done = False
        self._error: BaseException | None = None
        self._cancelled = threading.Event()
        self._changed = threading.Condition()

    # --- bringing --------------------------------------------------------------------------------

    def run(self) -> None:
        """Bring the blob, check it, put it into its place. What goes wrong, readers get too.

        PullFailed (corrupt) for other bytes than promised, OutOfSpace, ImportTimeout where somebody
        else downloads the same blob without end, and whatever the download raises.
        """
        try:
            if not self._found():
                self._bring()
        except BaseException as error:
            self._fail(error)
            raise

    def cancel(self) -> None:
        """Readers wake up, :meth:`run` ends soon; what has come stays for the next import."""
        self._cancelled.set()
        self._fail(Cancelled())

    def close(self) -> None:
        """The blob is not in use any more by this one. Streams must have been read before."""
        if self._file is not None:
            self._file.close()

    def _found(self) -> bool:
        file = self._cache.open(self.digest, self.size)
        if file is None:
            return False
        self._file = file
        self.cached = self.size
        self._on_bytes(self.size)
        self._publish(self.size, done=True)
        return True

    def _bring(self) -> None:
        path = self._cache.path(self.digest)
        part = path.with_name(path.name + PART)
        with storage_errors():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._claim(part)
        if self._found():
            # Somebody brought it while we waited for our turn: what we hold is a new, empty file.
            with file, storage_errors():
                part.unlink(missing_ok=True)
            return
        self._file = file
        try:
            self._fill(file)
        except BaseException as error:
            with storage_errors():
                if _is_useless(file, error):
                    part.unlink(missing_ok=True)
            raise
        with storage_errors():
            os.fchmod(file.fileno(), 0o400)
            part.rename(path)
            fcntl.flock(file, fcntl.LOCK_SH)  # from now on in use, like any other
        self._publish(self.size, done=True)

    def _claim(self, part: Path) -> io.FileIO:
        """``.part``, locked: one at a time, over all threads and processes of this host."""
        until = time.monotonic() + self._cache.patience
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        while True:
            with storage_errors():
                file = io.FileIO(os.open(part, flags, 0o600), "r+")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._on_bytes(min(os.fstat(file.fileno()).st_size, self.size))
            else:
                # Who held it may have renamed or removed it between our two calls.
                if is_still(file.fileno(), part):
                    return file
            file.close()
            self._check_cancelled()
            if time.monotonic() > until:
                raise ImportTimeout("Another import that downloads the same layer takes too long.")
            self._cancelled.wait(STEP)

    def _fill(self, file: io.FileIO) -> None:
        found = hasher(self.digest)
        there = self._rehash(file, found)
        self._cache.make_room(self.size - there)
        self._append(file, there, found, readable=not there)
        right = found.hexdigest() == hexadecimal(self.digest)
        if there and not right:
            # The old bytes or the new ones are wrong. Nobody has read them yet.
            with storage_errors():
                file.truncate(0)
            self.cached = 0
            found = hasher(self.digest)
            self._append(file, 0, found, readable=True)
            right = found.hexdigest() == hexadecimal(self.digest)
        if not right:
            raise self._corrupt("its bytes are others")

    def _rehash(self, file: io.FileIO, found: hashlib._Hash) -> int:
        """Hash what an earlier run left; how much that is."""
        with storage_errors():
            if os.fstat(file.fileno()).st_size > self.size:
                file.truncate(0)
            while data := file.read(READ):
                self._check_cancelled()
                found.update(data)
                self.cached += len(data)
        return self.cached

    def _append(
        self, file: io.FileIO, position: int, found: hashlib._Hash, *, readable: bool
    ) -> None:
        if position == self.size:
            return
        with storage_errors():
            file.seek(position)
        chunks = self._download(position)
        try:
            for chunk in chunks:
                self._check_cancelled()
                position += len(chunk)
                if position > self.size:
                    raise self._corrupt(f"there is more than {self.size} bytes of it")
                found.update(chunk)
                with storage_errors():
                    _write(file, chunk)
                self.fetched += len(chunk)
                self._on_bytes(position)
                if readable:
                    self._publish(position)
        finally:
            if isinstance(chunks, Generator):
                chunks.close()  # its connection too, now and not when the traceback goes
        if position < self.size:
            raise self._corrupt(f"{position} bytes came, {self.size} were promised")

    def _corrupt(self, how: str) -> CoppiceError:
        return PullFailed(f"{self.digest} is not what was promised: {how}.", reason="corrupt")

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled

    def _publish(self, readable: int, *, done: bool = False) -> None:
        with self._changed:
            self._readable = readable
            self._done = done
            self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if not self._done:
                self._error = self._error or error
            self._changed.notify_all()

    # --- reading ---------------------------------------------------------------------------------

    def wait(self, position: int) -> int:
        """How far one can read: more than ``position``, or all, verified. Raises what run() did."""
        with self._changed:
            while not self._done and self._error is None and self._readable <= position:
                self._changed.wait()
            if self._error is not None:
                raise self._error
            return self._readable

    def verdict(self, seconds: float) -> BaseException | None:
        """What :meth:`run` raised, if it ends within that time and did."""
        with self._changed:
            self._changed.wait_for(lambda: self._done or self._error is not None, seconds)
            return self._error

    def stream(self) -> io.RawIOBase:
        """The blob from its front, as it comes. Its end comes after the verdict."""
        return _Stream(self)

    def whole(self) -> BinaryIO:
        """The blob after :meth:`run`; in use until it is closed, however often others evict."""
        file = os.fdopen(os.dup(self._opened()), "rb")
        file.seek(0)
        return file

    def read_at(self, buffer: memoryview, position: int) -> int:
        return os.preadv(self._opened(), [buffer], position)

    def _opened(self) -> int:
        if self._file is None:
            raise ValueError("nothing has come yet")
        return self._file.fileno()


class _Stream(io.RawIOBase):
    def __init__(self, incoming: Incoming) -> None:
        super().__init__()
        self._incoming = incoming
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        with memoryview(buffer).cast("B") as view:
            end = self._incoming.wait(self._position)
            with view[: end - self._position] as wanted, storage_errors():
                got = self._incoming.read_at(wanted, self._position)
        self._position += got
        return got


def _is_useless(file: io.FileIO, error: BaseException) -> bool:
    """Whether nothing can be resumed of what an error ended.

    What a broken connection left can be. Wrong bytes are of no use, and where the disk is full,
    what came is in the way of everything else.
    """
    wrong = isinstance(error, CoppiceError) and error.extra.get("reason") == "corrupt"
    return wrong or isinstance(error, OutOfSpace) or not os.fstat(file.fileno()).st_size


def fetch(
    cache: BlobCache,
    digest: Digest,
    size: int,
    download: Download,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> BinaryIO:
    """The whole blob, verified; downloaded in this thread if it is not here. As Incoming.run()."""
    incoming = Incoming(cache, digest, size, download, on_bytes)
    try:
        incoming.run()
        return incoming.whole()
    finally:
        incoming.close()


def take(cache: BlobCache, size: int, parts: Iterable[bytes]) -> Digest:
    """Put ``size`` bytes into the cache under the digest that they turn out to have."""
    with storage_errors():
        cache.nameless.mkdir(mode=0o700, parents=True, exist_ok=True)
    cache.make_room(size)
    found = hashlib.sha256()
    path, file = _nameless(cache)
    try:
        for part in parts:
            found.update(part)
            with storage_errors():
                _write(file, part)
        digest = Digest(f"sha256:{found.hexdigest()}")
        with storage_errors():
            os.fchmod(file.fileno(), 0o400)
            cache.path(digest).parent.mkdir(mode=0o700, exist_ok=True)
            # Not in the place of one that is there: somebody may be using it.
            with contextlib.suppress(FileExistsError):
                cache.path(digest).hardlink_to(path)
    finally:
        with storage_errors():
            path.unlink(missing_ok=True)
        file.close()
    return digest


def _nameless(cache: BlobCache) -> tuple[Path, io.FileIO]:
    """A new file, locked until it has its name: recovery removes what nobody holds."""
    while True:
        path = cache.nameless / secrets.token_hex(16)
        with storage_errors():
            file = io.FileIO(os.open(path, _NEW, 0o600), "w")
            fcntl.flock(file, fcntl.LOCK_EX)
            if is_still(file.fileno(), path):  # else it was removed before it was locked
                return path, file
        file.close()


def keep(cache: BlobCache, data: bytes) -> Digest:
    """Put a small document into the cache."""
    digest = sha256(data)
    fetch(cache, digest, len(data), lambda offset: iter((data[offset:],))).close()
    return digest


def _write(file: io.FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
