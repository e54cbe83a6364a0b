"""What the writer removes: a name, or a directory with all below it, by descriptors alone."""

from __future__ import annotations

import os

from templates_app.trust import attributes

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_below(parent: int, name: bytes) -> None:
    """Remove the directory ``name`` with all below it, following nothing.

    Not recursive in Python: a tree may be as deep as the model allows.
    """
    stack = [_emptied(parent, name)]
    try:
        while stack:
            fd, own, directories = stack[-1]
            if directories:
                stack.append(_emptied(fd, directories.pop()))
                continue
            stack.pop()
            os.close(fd)
            os.rmdir(own, dir_fd=stack[-1][0] if stack else parent)
    finally:
        for fd, _, _ in stack:
            os.close(fd)


def _emptied(parent: int, name: bytes) -> tuple[int, bytes, list[bytes]]:
    """A directory whose files are gone: a descriptor, its name, and the directories in it."""
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        attributes.clear_flags(fd)
        with os.scandir(fd) as found:
            entries = [(os.fsencode(one.name), one.is_dir(follow_symlinks=False)) for one in found]
        for below, is_directory in entries:
            if not is_directory:
                unlink(fd, below)
    except BaseException:
        os.close(fd)
        raise
    return fd, name, [below for below, is_directory in entries if is_directory]


def unlink(directory: int, name: bytes) -> None:
    """File flags are cleared first (L16): an immutable file cannot be unlinked."""
    try:
        os.unlink(name, dir_fd=directory)
    except PermissionError:
        if not attributes.clear_flags_of(directory, name):
            raise
        os.unlink(name, dir_fd=directory)
