"""Whether an image's programs fit its platform, from ELF headers; nothing is executed.

A Linux program on a FreeBSD host fails only at exec, long after the import. The kernel tells whose
a program is by the ELF header's OSABI byte, by a note with the system's name, or by the loader that
it asks for (FreeBSD: sys/kern/imgact_elf.c); so do we. The files are the image's and may lie about
themselves in every field: what is read of one is bounded, and what cannot be read is counted.
"""

from __future__ import annotations

import io
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
from typing import IO, cast

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

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
_FILE = re.compile(rb"^\./(\S+) type=file mode=([0-7]+) ", re.MULTILINE)  # of a manifest

#: ELF OSABI byte -> GOOS (gABI, "ELF identification"). 0 says nothing: most Linux programs have it.
_OSABI = {"ELFOSABI_LINUX": "linux", "ELFOSABI_FREEBSD": "freebsd", "ELFOSABI_NETBSD": "netbsd"}
_OSABI |= {"ELFOSABI_OPENBSD": "openbsd", "ELFOSABI_SOLARIS": "solaris"}
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
#: (e_machine, 64 bits, little-endian) -> GOARCH.
_MACHINES = {
    ("EM_X86_64", True, True): "amd64",
    ("EM_386", False, True): "386",
    ("EM_AARCH64", True, True): "arm64",
    ("EM_ARM", False, True): "arm",
    ("EM_RISCV", True, True): "riscv64",
    ("EM_PPC64", True, True): "ppc64le",
    ("EM_PPC64", True, False): "ppc64",
    ("EM_S390", True, False): "s390x",
    ("EM_LOONGARCH", True, True): "loong64",
}


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
    for line in _FILE.finditer(manifest):
        if int(line[2], 8) & 0o111:
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
    except (ELFError, ConstructError, OSError, ValueError):
        found.unreadable += 1
        return True
    finally:
        os.close(descriptor)
    if abi is None:
        return False
    found.abis[abi] += 1
    return True


# --- one file ------------------------------------------------------------------------------------


class _Window(io.RawIOBase):
    """A file that is read by offset, a page at the most at once, and seems to have no sections.

    Kernels do not look at sections, and a hostile table of them costs time.
    """

    def __init__(self, descriptor: int, header: bytes) -> None:
        self._descriptor = descriptor
        self._header = header
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        size = _MAX_READ if size < 0 else min(size, _MAX_READ)
        if self._at < len(self._header):
            data = self._header[self._at : self._at + size]
        else:
            data = os.pread(self._descriptor, size, self._at)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset += os.fstat(self._descriptor).st_size
        elif whence == os.SEEK_CUR:
            offset += self._at
        if not 0 <= offset < 2**63:
            raise ELFError("an offset beyond any file")
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at


def _abi(descriptor: int) -> str | None:
    """``os/arch`` of an executable or shared object; None for other kinds of ELF files."""
    window = _Window(descriptor, _without_sections(os.pread(descriptor, 64, 0)))
    elf = ELFFile(cast(IO[bytes], window))
    if elf["e_type"] not in ("ET_EXEC", "ET_DYN"):
        return None
    known = (elf["e_machine"], elf.elfclass == 64, elf.little_endian)
    architecture = _MACHINES.get(known) or str(elf["e_machine"]).removeprefix("EM_").lower()
    return f"{_system(elf, descriptor)}/{architecture}"


def _without_sections(header: bytes) -> bytes:
    """The ELF header with e_shoff, e_shnum and e_shstrndx zero (gABI, "ELF header")."""
    wide = header[4:5] == b"\x02"
    offset, width, counts, end = (40, 8, 60, 64) if wide else (32, 4, 48, 52)
    if len(header) < end:
        raise ELFError("the header is cut off")
    changed = bytearray(header[:end])
    changed[offset : offset + width] = bytes(width)
    changed[counts:end] = bytes(end - counts)
    return bytes(changed)


def _system(elf: ELFFile, descriptor: int) -> str:
    osabi = _OSABI.get(elf["e_ident"]["EI_OSABI"])
    if osabi and osabi != "linux":
        return osabi
    if elf["e_phnum"] > _MAX_SEGMENTS:
        raise ELFError("more segments than any program has")
    by_loader, by_note = None, None
    for segment in elf.iter_segments():
        kind, offset = segment["p_type"], segment["p_offset"]
        if kind not in ("PT_INTERP", "PT_NOTE") or offset >= 2**63:
            continue
        data = os.pread(descriptor, min(segment["p_filesz"], _MAX_READ), offset)
        if kind == "PT_INTERP":
            by_loader = by_loader or _of_loader(data)
        else:
            by_note = by_note or _of_notes(data, "<" if elf.little_endian else ">")
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
