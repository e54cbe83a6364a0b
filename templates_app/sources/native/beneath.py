"""Files beneath import roots, opened name by name: no symlink is followed, none leads out.

Whoever may import names paths of the server's host. Without this rule that is a way to read what
only the server can read; and who may write beneath a root could lead it elsewhere with a symlink,
also between two looks. So the kernel never resolves a path of ours: each component is opened below
the one before it, and what was opened is then asked what it is.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from templates_app.errors import CoppiceError, PullFailed, SourceNotAllowed

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Without O_NONBLOCK the opening of a fifo would wait for its writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def allowed_root(path: PurePosixPath, roots: Sequence[Path]) -> Path:
    """The root that ``path`` is beneath, by its name alone. SourceNotAllowed; touches nothing."""
    for root in sorted(roots, key=lambda one: len(one.parts), reverse=True):
        if path.is_relative_to(root) and path != PurePosixPath(root):
            return root
    raise SourceNotAllowed("The path is not beneath an import root.")


def open_beneath(path: PurePosixPath, roots: Sequence[Path], *, directory: bool) -> int:
    """A descriptor of the regular file, or of the directory, for reading.

    SourceNotAllowed where it is not beneath a root, leads over a symlink or is something else;
    PullFailed where it is not there (not_found) or may not be read (denied).
    """
    root = allowed_root(path, roots)
    *parents, name = path.relative_to(root).parts
    with _Walk(root) as walk:
        for one in parents:
            walk.enter(one)
        return walk.open_last(name, directory=directory)


class _Walk:
    """The directory where one is; closed at the end."""

    def __init__(self, root: Path) -> None:
        try:
            # The root itself is the operator's word: it may be a symlink.
            self._at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _not_opened(error) from error

    def __enter__(self) -> _Walk:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._at)

    def enter(self, name: str) -> None:
        try:
            below = os.open(name, _DIRECTORY, dir_fd=self._at)
        except OSError as error:
            raise _not_opened(error) from error
        os.close(self._at)
        self._at = below

    def open_last(self, name: str, *, directory: bool) -> int:
        try:
            found = os.open(name, _DIRECTORY if directory else _FILE, dir_fd=self._at)
        except OSError as error:
            raise _not_opened(error) from error
        if not directory and not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise SourceNotAllowed("The path does not name a regular file.")
        return found


def _not_opened(error: OSError) -> CoppiceError:
    match error.errno:
        case errno.ENOENT:
            return PullFailed("There is no such file beneath the import root.", reason="not_found")
        case errno.EACCES | errno.EPERM:
            return PullFailed("The server may not read the file.", reason="denied")
        # ELOOP: Linux for a symlink; EMLINK: FreeBSD for the same; ENOTDIR: both for a symlink
        # where a directory is asked for.
        case errno.ELOOP | errno.EMLINK | errno.ENOTDIR | errno.ENXIO:
            return SourceNotAllowed("The path leads over a symlink, or is of another kind.")
    return PullFailed("The file cannot be read.", reason="unreachable", private=str(error))
