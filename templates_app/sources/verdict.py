"""Whether an image's programs fit its platform, from ELF headers; nothing is executed.

A Linux program on a FreeBSD host fails only at exec, long after the import. The kernel tells whose
a program is by the ELF header's OSABI byte, by a note with the system's name, or by the loader that
it asks for (FreeBSD: sys/kern/imgact_elf.c); so do we. The files are the image's and may lie about
themselves in every field: what is read of one is bounded, and what cannot be read is counted.
"""

from __future__ import annotations

import os
import platform as host
import re
import stat
import struct
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from elftools.elf.enums import ENUM_E_MACHINE

from templates_app.events import Verdict
from templates_app.names import Platform
from templates_app.sources.base import Resolved
from templates_app.trust import mtree

#: Where a system keeps its programs; the image's own root last.
_PLACES = (
    "bin",
    "sbin",
    "usr/bin",
    "usr/sbin",
    "usr/local/bin",
    "usr/local/sbin",
    "usr/libexec",
    "libexec",
    "rescue",
    "lib",
    "lib64",
    "usr/lib",
    "usr/lib64",
    "usr/local/lib",
    "",
)
_LOOKED_INTO = frozenset(place.encode() for place in _PLACES)
_MAX_ENTRIES = 4096  # of one directory that are looked at
_MAX_PROGRAMS = 64  # of one directory that are judged: a system's are all of one kind
_MAX_WALKED = 512  # directories, where no usual place has a program
_MAX_OPENED = 4096  # files in those
_MAX_SEGMENTS = 64
_MAX_READ = 4096  # bytes of an interpreter's name, or of a segment of notes
#: A file that somebody may execute, in a manifest: an odd digit is one of permissions with x.
_PROGRAM = re.compile(
    rb"\n\./(\S+) type=file mode=[0-7](?:[1357][0-7]{2}|[0-7][1357][0-7]|[0-7]{2}[1357]) "
)

_ET_EXEC, _ET_DYN = 2, 3
_PT_INTERP, _PT_NOTE = 3, 4
#: ELF OSABI byte -> GOOS (gABI, "ELF identification"). 0 says nothing: most Linux programs have it.
_OSABI = {2: "netbsd", 3: "linux", 6: "solaris", 9: "freebsd", 12: "openbsd"}
#: A note's owner, with type 1, names the system; GNU's says it in its first word.
_NOTES = {b"FreeBSD": "freebsd", b"NetBSD": "netbsd", b"OpenBSD": "openbsd", b"Android": "linux"}
_GNU_SYSTEMS = {0: "linux", 1: "hurd", 2: "solaris", 3: "freebsd"}
_LOADERS = (
    (b"/libexec/ld-elf", "freebsd"),
    (b"/usr/libexec/ld.elf_so", "netbsd"),
    (b"/usr/libexec/ld.so", "openbsd"),
    (b"ld-linux", "linux"),
    (b"ld-musl", "linux"),
    (b"/lib64/ld64.so", "linux"),
    (b"/lib/ld64.so", "linux"),
    (b"/lib/ld.so.1", "linux"),
)
#: (e_machine, 64 bits, order of bytes) -> GOARCH.
_MACHINES = {
    (62, True, "<"): "amd64",
    (3, False, "<"): "386",
    (183, True, "<"): "arm64",
    (40, False, "<"): "arm",
    (243, True, "<"): "riscv64",
    (21, True, "<"): "ppc64le",
    (21, True, ">"): "ppc64",
    (22, True, ">"): "s390x",
    (258, True, "<"): "loong64",
}
#: Of all others: how the gABI calls them.
_MACHINE_NAMES = {number: name for name, number in ENUM_E_MACHINE.items() if name != "_default_"}


@dataclass(slots=True)
class _Found:
    abis: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0


def judge(root: Path, platform: Platform, manifest: bytes | None = None) -> Verdict:
    """The verdict on the tree below ``root`` for ``platform`` (the image config's).

    ``manifest`` is the tree's, where there is one already: it says where programs may be if they
    are in no usual place, which else takes a walk through everything.

    ``native``: every program that was looked at fits. ``foreign``: none does. ``mixed``: some do.
    ``none``: there is no program. ``unknown/ARCH`` stands for a program that does not say whose it
    is: Linux runs it, FreeBSD refuses it.
    """
    found = _Found()
    with _directory(root) as top:
        if top is not None:
            for place in _PLACES:
                _look_into(top, place, found)
            if not found.abis:
                _elsewhere(top, _walk(top) if manifest is None else _listed(manifest), found)
    fitting = sum(count for abi, count in found.abis.items() if _fits(abi, platform))
    total = found.abis.total()
    result = "none" if not total else "native" if fitting == total else "mixed"
    if total and not fitting:
        result = "foreign"
    shown = ", ".join(f"{count} are {abi}" for abi, count in sorted(found.abis.items()))
    reason = f"of {total} programs, {shown}" if total else "no ELF program was found"
    if found.unreadable:
        reason += f"; {found.unreadable} could not be read"
    return Verdict(
        result=result, abis=tuple(sorted(found.abis)), config_platform=str(platform), reason=reason
    )


def too_new(resolved: Resolved) -> tuple[str, ...]:
    """FreeBSD runs what is of its own version or older; an image may say what it was built for."""
    said = resolved.config.get("os.version")
    if resolved.platform.os != "freebsd" or not sys.platform.startswith("freebsd"):
        return ()
    if not isinstance(said, str) or _version(said) <= _version(host.release()):
        return ()
    return ("The image is for a newer FreeBSD than this host's kernel.",)


def _version(text: str) -> tuple[int, int]:
    found = re.match(r"([0-9]{1,4})(?:\.([0-9]{1,4}))?", text)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def _fits(abi: str, platform: Platform) -> bool:
    system, _, architecture = abi.partition("/")
    if system == "unknown":
        system = "linux"
    if architecture == "386" and platform.architecture == "amd64":
        architecture = "amd64"
    return (system, architecture) == (platform.os, platform.architecture)


# --- the tree ------------------------------------------------------------------------------------


@contextmanager
def _directory(path: bytes | str | Path, above: int | None = None) -> Iterator[int | None]:
    """A descriptor, without following a symlink; None where there is no directory."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, dir_fd=above)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _look_into(top: int, place: str, found: _Found) -> None:
    """Judge the programs that lie directly in ``place``."""
    first, _, rest = place.partition("/")
    with _directory(first or ".", top) as inside:
        if inside is None:
            return
        if rest:
            _look_into(inside, rest, found)
        else:
            _judge_files(inside, found)


def _judge_files(directory: int, found: _Found) -> None:
    judged = 0
    for name in _names(directory):
        if judged >= _MAX_PROGRAMS:
            return
        judged += _judge_file(directory, name, found)


def _names(directory: int) -> list[bytes]:
    with os.scandir(directory) as entries:
        few = zip(entries, range(_MAX_ENTRIES), strict=False)
        return sorted(os.fsencode(entry.name) for entry, _ in few)


# An image may be one program in /app. So where the usual places have none, all directories are
# looked into, breadth first and not for ever; of their files only those that may be executed, for
# there may be a million others.

_Directory = tuple[list[bytes], Iterable[bytes]]  # its path, and names that are in it


def _elsewhere(top: int, directories: Iterable[_Directory], found: _Found) -> None:
    opened = 0
    for path, names in directories:
        if b"/".join(path) in _LOOKED_INTO:
            continue
        judged = 0
        with _descend(top, path) as inside:
            for name in names:
                if inside is None or judged >= _MAX_PROGRAMS or opened >= _MAX_OPENED:
                    break
                if _may_run(inside, name):
                    opened += 1
                    judged += _judge_file(inside, name, found)
        if found.abis or opened >= _MAX_OPENED:
            return


def _walk(top: int) -> Iterator[_Directory]:
    paths = [[name] for name in _names(top)]
    for _ in range(_MAX_WALKED):
        if not paths:
            return
        path = paths.pop(0)
        with _descend(top, path) as inside:
            names = _names(inside) if inside is not None else []
        if names:
            yield path, names
            paths += [[*path, name] for name in names][: _MAX_WALKED - len(paths)]


def _listed(manifest: bytes) -> list[_Directory]:
    directories: dict[bytes, list[bytes]] = {}
    for line in _PROGRAM.finditer(manifest):
        path, _, name = mtree.unescape(line[1]).rpartition(b"/")
        directories.setdefault(path, []).append(name)
    paths = sorted((path.split(b"/") for path in directories if path), key=lambda p: (len(p), p))
    return [(path, directories[b"/".join(path)]) for path in paths[:_MAX_WALKED]]


def _may_run(directory: int, name: bytes) -> bool:
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111)


@contextmanager
def _descend(top: int, path: list[bytes]) -> Iterator[int | None]:
    with _directory(path[0], top) as inside:
        if inside is None or len(path) == 1:
            yield inside
        else:
            with _descend(inside, path[1:]) as below:
                yield below


def _judge_file(directory: int, name: bytes, found: _Found) -> bool:
    """Count the file's ABI; whether it is a program or library at all."""
    # O_NONBLOCK: opening a fifo would wait for a writer for ever.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            return False  # not opened at all: opening a device may do something
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError:
        return False
    try:
        if os.pread(descriptor, 4, 0) != b"\x7fELF":
            return False
        abi = _abi(descriptor)
    except (_BrokenError, OSError):
        found.unreadable += 1
        return True
    finally:
        os.close(descriptor)
    if abi is None:
        return False
    found.abis[abi] += 1
    return True


# --- one file ------------------------------------------------------------------------------------


class _BrokenError(Exception):
    """No kernel would take it for a program."""


def _abi(descriptor: int) -> str | None:
    """``os/arch`` of an executable or shared object; None for other kinds of ELF files.

    By the ELF header and the program headers alone (gABI, chapters 4 and 5): kernels do not look at
    sections, and a hostile table of them costs time.
    """
    start = os.pread(descriptor, 64, 0)
    if len(start) < 16 or start[4] not in (1, 2) or start[5] not in (1, 2):
        raise _BrokenError("neither 32 nor 64 bits, or in no order of bytes")
    wide, order = start[4] == 2, "<" if start[5] == 1 else ">"
    header = struct.Struct(order + ("HHIQQQIHHH" if wide else "HHIIIIIHHH"))
    if len(start) < 16 + header.size:
        raise _BrokenError("the header is cut off")
    kind, machine, _, _, at, _, _, _, size, count = header.unpack_from(start, 16)
    if kind not in (_ET_EXEC, _ET_DYN):
        return None
    segments = _segments(descriptor, order, wide, at, size, count)
    system = _system(descriptor, start[7], order, segments)
    return f"{system}/{_MACHINES.get((machine, wide, order)) or _machine(machine)}"


def _machine(number: int) -> str:
    return _MACHINE_NAMES.get(number, str(number)).removeprefix("EM_").lower()


def _segments(
    descriptor: int, order: str, wide: bool, at: int, size: int, count: int
) -> list[tuple[int, int, int]]:
    """The type of each segment, where it is in the file, and its size there."""
    form = struct.Struct(order + ("IIQQQQQQ" if wide else "IIIIIIII"))
    if count > _MAX_SEGMENTS:
        raise _BrokenError("more segments than any program has")
    if count and size != form.size:  # as kernels do: neither runs it
        raise _BrokenError("segments of another size than there is")
    if at >= 2**63 - count * size:
        raise _BrokenError("an offset beyond any file")
    table = os.pread(descriptor, count * size, at)
    if len(table) < count * size:
        raise _BrokenError("the program headers are cut off")
    rows = form.iter_unpack(table)
    return [(one[0], one[2], one[5]) if wide else (one[0], one[1], one[4]) for one in rows]


def _system(
    descriptor: int, osabi_byte: int, order: str, segments: list[tuple[int, int, int]]
) -> str:
    osabi = _OSABI.get(osabi_byte)
    if osabi and osabi != "linux":
        return osabi
    by_loader, by_note = None, None
    for kind, offset, size in segments:
        if kind not in (_PT_INTERP, _PT_NOTE) or offset >= 2**63:
            continue
        data = os.pread(descriptor, min(size, _MAX_READ), offset)
        if kind == _PT_INTERP:
            by_loader = by_loader or _of_loader(data)
        else:
            by_note = by_note or _of_notes(data, order)
    return by_note or osabi or by_loader or "unknown"


def _of_loader(data: bytes) -> str | None:
    name = data.partition(b"\0")[0]
    return next((system for part, system in _LOADERS if part in name), None)


def _of_notes(data: bytes, order: str) -> str | None:
    """The system that a segment of notes names (gABI, "Note section"; all padded to 4 bytes)."""
    at = 0
    while at + 12 <= len(data):
        name_size, desc_size, kind = struct.unpack_from(f"{order}III", data, at)
        name = data[at + 12 : at + 12 + name_size].rstrip(b"\0")
        desc_at = at + 12 + (name_size + 3) // 4 * 4
        if kind == 1:
            if system := _NOTES.get(name):
                return system
            if name == b"GNU" and desc_size >= 4 and desc_at + 4 <= len(data):
                return _GNU_SYSTEMS.get(struct.unpack_from(f"{order}I", data, desc_at)[0])
        at = desc_at + (desc_size + 3) // 4 * 4
    return None
