"""The directory of trusted keys: which of its files are keys, and which are not used, and why."""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from templates_app.errors import KeyMalformed
from templates_app.events import Finding
from templates_app.trust import keyfiles
from templates_app.trust.keyfiles import OddError
from templates_app.trust.signify import PublicKey, TrustedKey

logger = logging.getLogger("coppice.trust")

_PUB_FILE = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._@+-]{0,63})\.pub")


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    keys: tuple[TrustedKey, ...]  # in order of their files' names
    problems: tuple[Finding, ...]  # files that are not used, each with the reason


_warned: frozenset[Finding] = frozenset()


def load_trusted(directory: Path | None) -> list[TrustedKey]:
    """The keys that count now. Each problem is logged when it is new, not at every call."""
    global _warned
    found = read_trusted(directory)
    for problem in found.problems:
        if problem not in _warned:
            logger.warning("Trusted keys in %s, %s: %s", directory, problem.subject, problem.detail)
    _warned = frozenset(found.problems)
    return list(found.keys)


def read_trusted(directory: Path | None) -> TrustedKeys:
    """Read all ``*.pub`` files of the directory; a bad one is a problem and stops no other.

    Not used: links, what is not a regular file or longer than 4 KiB, what somebody else than root
    or the server's user owns or can write to. Of the directory the same: who can write there could
    bring keys of his own. None means that no key is trusted.
    """
    if directory is None:
        return TrustedKeys((), ())
    try:
        files = _pub_files(directory)
    except OddError as odd:
        return TrustedKeys((), (_problem(directory, str(odd)),))
    found = [_known_files.look(path, there) for path, there in files]
    return TrustedKeys(
        tuple(one for one in found if isinstance(one, TrustedKey)),
        tuple(one for one in found if isinstance(one, Finding)),
    )


def _read_one(path: Path) -> TrustedKey | Finding:
    """The key in one file, or why it is not used."""
    try:
        label = _PUB_FILE.fullmatch(path.name)
        if label is None:
            raise OddError("its name has other characters than A-Z, a-z, 0-9 and ._@+-")
        with keyfiles.opened(path) as (fd, there):
            _refuse_writable_by_others(there)
            public_key = PublicKey.parse(os.read(fd, keyfiles.MAX_KEY_FILE))
    except OddError as odd:
        return _problem(path, str(odd))
    except KeyMalformed as error:
        return _problem(path, error.detail.rstrip("."))
    return TrustedKey(label[1], public_key)


class _KnownFiles:
    """What a file said when it was last read, for as long as nothing about it changes.

    Its change time moves with everything that can be done to a file (content, mode, owner, name),
    and nobody can set it back; but by the clock's ticks, so that of a file that changed a moment
    ago it is not believed.
    """

    SETTLED = 2_000_000_000  # nanoseconds; a file system's clock ticks in far less
    MOST = 1000

    def __init__(self) -> None:
        self._said: dict[str, tuple[tuple[int, ...], TrustedKey | Finding]] = {}

    def look(self, path: str, there: os.stat_result | None) -> TrustedKey | Finding:
        if there is None:
            return _read_one(Path(path))
        identity = (there.st_dev, there.st_ino, there.st_mode, there.st_uid, there.st_gid) + (
            there.st_size, there.st_mtime_ns, there.st_ctime_ns,
        )  # fmt: skip
        seen = self._said.get(path)
        if seen is not None and seen[0] == identity:
            return seen[1]
        read = _read_one(Path(path))
        if there.st_ctime_ns < time.time_ns() - self.SETTLED:
            if len(self._said) >= self.MOST:
                self._said.clear()
            self._said[path] = identity, read
        return read


_known_files = _KnownFiles()


def _pub_files(directory: Path) -> list[tuple[str, os.stat_result | None]]:
    """The files in order of their names, each with what lstat says of it."""
    try:
        _refuse_writable_by_others(directory.stat())
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(".pub"))
    except OSError as error:
        raise OddError(f"it cannot be read ({error.strerror})") from None
    # Text, not paths: of a hundred files those take longer than all the rest.
    return [(f"{directory}/{name}", _lstat(f"{directory}/{name}")) for name in names]


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:  # it has just gone: opening it says so
        return None


def _refuse_writable_by_others(there: os.stat_result) -> None:
    if there.st_uid not in (0, os.geteuid()):
        raise OddError(f"it is owned by user {there.st_uid}, neither root nor the server's user")
    if there.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OddError("others than its owner can write to it")


def _problem(path: Path, why: str) -> Finding:
    shown = os.fsencode(path.name).decode("utf-8", "replace")
    return Finding(code="trusted_key_unusable", subject=shown, detail=f"Not used: {why}.")
