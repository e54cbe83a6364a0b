"""Whose programs an image has, from headers that may lie; nothing of the image is executed."""

from __future__ import annotations

import io
import os
import shutil
import stat
import struct
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from templates_app.names import Platform
from templates_app.sources import verdict
from templates_app.sources.base import Resolved
from templates_app.sources.verdict import judge
from templates_app.trust import tree

LINUX, FREEBSD = Platform("linux", "amd64"), Platform("freebsd", "amd64")


def note(owner, description, order="<", kind=1):
    name = owner + b"\0"
    padded = [part + bytes(-len(part) % 4) for part in (name, description)]
    return struct.pack(f"{order}III", len(name), len(description), kind) + b"".join(padded)


GNU_LINUX = note(b"GNU", struct.pack("<IIII", 0, 3, 2, 0))
NOTE_FREEBSD = note(b"FreeBSD", struct.pack("<I", 1401000))


def elf(
    *,
    machine=62,
    osabi=0,
    wide=True,
    order="<",
    kind=3,
    loader=b"",
    notes=b"",
    segments=None,
    sections=0,
):
    """An ELF file (gABI): header, program headers, then the segments' bytes."""
    parts = [(3, loader + b"\0")] if loader else []
    parts += [(4, notes)] if notes else []
    parts += [(2, bytes(16))] if sections else []  # makes readers look for the table's strings
    size, width = (64, 56) if wide else (52, 32)
    count = len(parts) if segments is None else segments
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1, osabi]) + bytes(8)
    word = "Q" if wide else "I"
    header = ident + struct.pack(
        f"{order}HHI{word}{word}{word}IHHHHHH",
        *(kind, machine, 1, 0, size, sections and 2**40 if wide else sections, 0),
        *(size, width, count, 64 if wide else 40, sections and 0xFFF0, sections),
    )
    at, headers, body = size + width * len(parts), b"", b""
    for type_, data in parts:
        if wide:
            headers += struct.pack(f"{order}IIQQQQQQ", type_, 4, at, 0, 0, len(data), len(data), 1)
        else:
            headers += struct.pack(f"{order}IIIIIIII", type_, at, 0, 0, len(data), len(data), 4, 1)
        body += data
        at += len(data)
    return header + headers + body


LINUX_PROGRAM = elf(loader=b"/lib64/ld-linux-x86-64.so.2", notes=GNU_LINUX)
FREEBSD_PROGRAM = elf(osabi=9, loader=b"/libexec/ld-elf.so.1", notes=NOTE_FREEBSD)


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "root"
    for name in ("bin", "usr/bin", "lib", "etc"):
        (place / name).mkdir(parents=True)
    return place


def abi(root, data, platform=LINUX):
    (root / "bin/program").write_bytes(data)
    return judge(root, platform).abis


# --- results -------------------------------------------------------------------------------------


def test_programs_that_fit_are_native(root):
    (root / "bin/sh").write_bytes(LINUX_PROGRAM)
    (root / "usr/bin/env").write_bytes(LINUX_PROGRAM)
    (root / "bin/script").write_text("#!/bin/sh\n")
    verdict = judge(root, LINUX)
    assert (verdict.result, verdict.abis) == ("native", ("linux/amd64",))
    assert verdict.config_platform == "linux/amd64"
    assert verdict.reason == "of 2 programs, 2 are linux/amd64"


def test_linux_programs_in_a_freebsd_image_are_foreign(root):
    (root / "bin/sh").write_bytes(LINUX_PROGRAM)
    assert judge(root, FREEBSD).result == "foreign"
    (root / "bin/sh").write_bytes(FREEBSD_PROGRAM)
    assert judge(root, FREEBSD).result == "native"
    assert judge(root, LINUX).result == "foreign"


def test_some_of_both_are_mixed(root):
    (root / "bin/sh").write_bytes(FREEBSD_PROGRAM)
    (root / "bin/tool").write_bytes(LINUX_PROGRAM)
    verdict = judge(root, FREEBSD)
    assert verdict.result == "mixed"
    assert verdict.abis == ("freebsd/amd64", "linux/amd64")
    assert verdict.reason == "of 2 programs, 1 are freebsd/amd64, 1 are linux/amd64"


def test_scripts_alone_are_no_programs(root):
    (root / "bin/script").write_text("#!/bin/sh\n")
    (root / "bin/empty").touch()
    (root / "bin/short").write_bytes(b"\x7fEL")
    assert (judge(root, LINUX).result, judge(root, LINUX).abis) == ("none", ())


def test_this_machines_own_programs_are_read():
    found = judge(Path("/"), LINUX)
    assert found.result == "native" and "could not be read" not in found.reason


# --- whose a program is --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "system"),
    [
        (elf(notes=GNU_LINUX), "linux"),
        (elf(loader=b"/lib64/ld-linux-x86-64.so.2"), "linux"),
        (elf(loader=b"/lib/ld-musl-x86_64.so.1"), "linux"),
        (elf(loader=b"/system/bin/linker64", notes=note(b"Android", b"1234")), "linux"),
        (elf(osabi=3), "linux"),
        (elf(osabi=9), "freebsd"),
        (elf(notes=NOTE_FREEBSD), "freebsd"),
        (elf(loader=b"/libexec/ld-elf.so.1"), "freebsd"),
        (elf(loader=b"/libexec/ld-elf32.so.1"), "freebsd"),
        (elf(osabi=2), "netbsd"),
        (elf(notes=note(b"NetBSD", b"1234")), "netbsd"),
        (elf(loader=b"/usr/libexec/ld.elf_so"), "netbsd"),
        (elf(notes=note(b"OpenBSD", b"1234")), "openbsd"),
        (elf(loader=b"/usr/libexec/ld.so"), "openbsd"),
        (elf(osabi=6), "solaris"),
        (elf(notes=note(b"GNU", struct.pack("<IIII", 3, 3, 2, 0))), "freebsd"),  # Debian's kFreeBSD
        # The note says it, whatever the loader is called.
        (elf(loader=b"/libexec/ld-elf.so.1", notes=GNU_LINUX), "linux"),
        # Other notes come first in most programs.
        (elf(notes=note(b"GNU", b"x" * 20, kind=3) + NOTE_FREEBSD), "freebsd"),
        (elf(notes=note(b"FreeBSD", b"1234", kind=2)), "unknown"),
        (elf(), "unknown"),
        (elf(loader=b"/opt/loader"), "unknown"),
    ],
)
def test_by_its_abi_byte_its_notes_its_loader(root, data, system):
    assert abi(root, data) == (f"{system}/amd64",)


def test_one_that_does_not_say_runs_on_linux_alone(root):
    """A static program in Go: Linux runs it, FreeBSD refuses it."""
    abi(root, elf())
    assert judge(root, LINUX).result == "native"
    assert judge(root, FREEBSD).result == "foreign"


@pytest.mark.parametrize(
    ("machine", "wide", "order", "architecture"),
    [
        (62, True, "<", "amd64"),
        (3, False, "<", "386"),
        (183, True, "<", "arm64"),
        (40, False, "<", "arm"),
        (243, True, "<", "riscv64"),
        (21, True, "<", "ppc64le"),
        (21, True, ">", "ppc64"),
        (22, True, ">", "s390x"),
        (62, False, "<", "x86_64"),  # x32 is not amd64
        (40, False, ">", "arm"),
        (8, False, ">", "mips"),
        (0xFEED, True, "<", "65261"),
    ],
)
def test_what_machine_it_is_for(root, machine, wide, order, architecture):
    notes = note(b"GNU", struct.pack(f"{order}IIII", 0, 3, 2, 0), order)
    data = elf(machine=machine, wide=wide, order=order, notes=notes)
    assert abi(root, data) == (f"linux/{architecture}",)


def test_programs_of_32_bits_run_on_amd64(root):
    abi(root, elf(machine=3, wide=False, notes=GNU_LINUX))
    assert judge(root, LINUX).result == "native"
    assert judge(root, Platform("linux", "arm64")).result == "foreign"


@pytest.mark.parametrize("kind", [0, 1, 4, 0xFE00])
def test_object_files_and_cores_are_no_programs(root, kind):
    assert abi(root, elf(kind=kind, notes=GNU_LINUX)) == ()


# --- the tree ------------------------------------------------------------------------------------


def judged(root, listed):
    """With the walk, or with the manifest that says where files are."""
    into = io.BytesIO()
    tree.scan(root, limit_entries=100_000, into=into)
    return judge(root, LINUX, into.getvalue() if listed else None)


@pytest.mark.parametrize("listed", [True, False])
def test_one_program_anywhere_is_found(root, listed):
    (root / "srv/a/b/c d").mkdir(parents=True)
    program = root / "srv/a/b/c d/an app"
    program.write_bytes(LINUX_PROGRAM)
    assert judged(root, listed).result == "none"  # nobody may execute it
    program.chmod(0o755)
    assert judged(root, listed).reason == "of 1 programs, 1 are linux/amd64"


@pytest.mark.parametrize("listed", [True, False])
def test_elsewhere_the_first_directory_with_a_program_decides(root, listed):
    for path, program in (
        ("app/z", LINUX_PROGRAM),
        ("app/a/a", FREEBSD_PROGRAM),
        ("srv/a", FREEBSD_PROGRAM),
        ("lib/sub/a", FREEBSD_PROGRAM),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(program)
        (root / path).chmod(0o711)
    assert judged(root, listed).abis == ("linux/amd64",)


@pytest.mark.parametrize("listed", [True, False])
def test_elsewhere_only_so_many_files_are_opened(root, listed, monkeypatch):
    monkeypatch.setattr(verdict, "_MAX_OPENED", 50)
    for number in range(20):
        (root / f"srv/{number:02}").mkdir(parents=True)
        for script in range(5):
            path = root / f"srv/{number:02}/{script}"
            path.write_bytes(LINUX_PROGRAM if number == 10 else b"#!/bin/sh")
            path.chmod(0o755)
    assert judged(root, listed).result == "none"
    monkeypatch.setattr(verdict, "_MAX_OPENED", 51)
    assert judged(root, listed).reason == "of 1 programs, 1 are linux/amd64"


def test_nothing_outside_is_looked_at(root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "program").write_bytes(FREEBSD_PROGRAM)
    (root / "sbin").symlink_to(outside)
    (root / "lib64").symlink_to("../outside")
    (root / "usr/sbin").symlink_to("/usr/bin")
    (root / "bin/program").symlink_to(outside / "program")
    (root / "srv").symlink_to(outside)
    assert judge(root, LINUX).abis == ()


def test_a_root_that_is_not_there_has_no_programs(tmp_path):
    assert judge(tmp_path / "nothing", LINUX).result == "none"
    (tmp_path / "link").symlink_to("/")
    assert judge(tmp_path / "link", LINUX).result == "none"


def test_what_is_no_file_is_never_opened(root):
    os.mkfifo(root / "bin/fifo")
    os.mknod(root / "bin/zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (root / "bin/directory").mkdir()
    (root / "bin/file").write_bytes(LINUX_PROGRAM)
    assert judge(root, LINUX).result == "native"


def test_nothing_is_executed(root, tmp_path):
    """A program that would tell on us, were it run; and looking does not change the tree."""
    trace = tmp_path / "trace"
    (root / "bin/script").write_text(f"#!/bin/sh\necho ran >{trace}\n")
    (root / "bin/script").chmod(0o755)
    shutil.copy("/bin/true", root / "bin/true")
    before = {path: path.lstat() for path in root.rglob("*")}
    judge(root, LINUX)
    assert not trace.exists()
    after = {path: path.lstat() for path in root.rglob("*")}
    assert [(p, s.st_mtime_ns, s.st_ctime_ns, s.st_size) for p, s in before.items()] == [
        (p, s.st_mtime_ns, s.st_ctime_ns, s.st_size) for p, s in after.items()
    ]


def test_a_tree_without_end_is_left_at_some_point(root):
    for number in range(600):
        (root / f"srv/{number}/x").mkdir(parents=True)
    for number in range(100):
        (root / f"bin/{number:03}").write_bytes(LINUX_PROGRAM)
    assert judge(root, LINUX).reason == "of 64 programs, 64 are linux/amd64"
    shutil.rmtree(root / "bin")
    begun = time.process_time()
    assert judge(root, LINUX).result == "none"
    assert time.process_time() - begun < 2


# --- files that lie ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x7fELF",
        b"\x7fELF" + b"\xff" * 60,
        b"\x7fELF\x02\x01\x01" + bytes(57),
        LINUX_PROGRAM[:20],
        LINUX_PROGRAM[:63],
        LINUX_PROGRAM[:80],
        LINUX_PROGRAM[:-40],
        elf(segments=0xFFFF),
        elf(notes=b"\xff" * 4096),
        elf(notes=note(b"GNU", b"")),
        elf(notes=struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, 1)),
        elf(notes=struct.pack("<III", 0, 0, 0) * 300),
        elf(notes=b"x" * 11),
        elf(loader=b"/" * 5000),
        elf(sections=1, loader=b"/lib64/ld-linux-x86-64.so.2"),
        elf(wide=False, sections=1, machine=3),
    ],
    ids=range(16),
)
def test_a_broken_file_is_counted_and_never_a_crash(root, data):
    (root / "bin/good").write_bytes(LINUX_PROGRAM)
    (root / "bin/odd").write_bytes(data)
    verdict = judge(root, LINUX)
    assert "linux/amd64" in verdict.abis


def test_what_cannot_be_read_is_said(root):
    (root / "bin/odd").write_bytes(LINUX_PROGRAM[:30])
    verdict = judge(root, LINUX)
    assert (verdict.result, verdict.abis) == ("none", ())
    assert verdict.reason == "no ELF program was found; 1 could not be read"


def test_more_segments_than_any_program_has_are_not_walked(root):
    (root / "bin/odd").write_bytes(elf(segments=0xFFFF) + bytes(56 * 0xFFFF))
    begun = time.process_time()
    assert judge(root, LINUX).reason.endswith("1 could not be read")
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(("at", "value"), [(54, 57), (32, 2**64 - 1), (32, 2**63 - 100)])
def test_program_headers_that_no_kernel_would_read_are_not_read(root, at, value):
    """Of another size than there is, or beyond any file."""
    form = "<H" if at == 54 else "<Q"
    data = bytearray(LINUX_PROGRAM)
    struct.pack_into(form, data, at, value)
    (root / "bin/odd").write_bytes(data)
    assert judge(root, LINUX).reason == "no ELF program was found; 1 could not be read"


@pytest.mark.parametrize("wide", [True, False])
def test_sections_are_not_looked_at(root, wide):
    """As in the kernel: a program whose table of sections is nonsense runs, so it has an ABI."""
    data = elf(wide=wide, machine=62 if wide else 3, sections=1, notes=GNU_LINUX)
    assert abi(root, data) == ("linux/amd64" if wide else "linux/386",)


def test_segments_far_beyond_the_file_cost_nothing(root):
    data = bytearray(LINUX_PROGRAM)
    struct.pack_into("<Q", data, 64 + 8, 2**64 - 1)  # the loader's offset
    struct.pack_into("<Q", data, 64 + 56 + 32, 2**63)  # the notes' size
    begun = time.process_time()
    assert abi(root, bytes(data))[0].endswith("amd64")
    assert time.process_time() - begun < 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    st.sampled_from([LINUX_PROGRAM, FREEBSD_PROGRAM, elf(machine=3, wide=False, loader=b"/x")]),
    st.lists(st.tuples(st.integers(0, 250), st.integers(0, 255)), max_size=12),
    st.integers(4, 300),
)
def test_no_change_of_bytes_crashes_it(root, data, changes, length):
    changed = bytearray(data)
    for at, value in changes:
        changed[4 + at % (len(changed) - 4)] = value
    (root / "bin/program").write_bytes(changed[:length])
    verdict = judge(root, LINUX)
    assert verdict.result in ("native", "foreign", "none")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_no_bytes_crash_it(root, data):
    (root / "bin/program").write_bytes(b"\x7fELF" + data)
    judge(root, LINUX)


# --- what a newer system is ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "kernel", "newer"),
    [("14.1", "14.1-RELEASE-p3", False), ("14.2", "14.1-RELEASE", True), ("15.0", "14.3", True)]
    + [("13.4", "14.0", False), ("14", "14.0", False), ("x", "14.0", False), (7, "14.0", False)]
    + [(None, "14.0", False), ("14.10", "14.9", True)],
)
def test_an_image_for_a_newer_freebsd_is_a_finding_on_freebsd(monkeypatch, image, kernel, newer):
    resolved = Resolved(
        canonical="x",
        floating=True,
        digests=None,
        platform=Platform("freebsd", "amd64"),
        config={"os.version": image},
        layers=(),
    )
    assert verdict.too_new(resolved) == ()  # on Linux it says nothing
    monkeypatch.setattr(verdict.sys, "platform", "freebsd14")
    monkeypatch.setattr(verdict.host, "release", lambda: kernel)
    assert bool(verdict.too_new(resolved)) is newer
