"""A Debian userland as a container image, assembled from packages: real input for demo and tests.

``apt-get download`` fetches the packages once into ``var/cache/debs``; their tar streams are merged
into layers in memory. No maintainer script runs and nothing is unpacked, so no root is needed and
owners, set-id bits, hard links and symlinks arrive as Debian ships them.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from deploy import images
from deploy.images import Document, Entry, Layer

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "var" / "cache"

#: A shell, the core utilities, accounts, mounts: what one finds in a minimal container image.
SMALL = """
    base-files base-passwd bash coreutils dash debianutils diffutils findutils gcc-12-base grep
    gzip hostname libacl1 libattr1 libaudit-common libaudit1 libblkid1 libbz2-1.0 libc-bin libc6
    libcap-ng0 libcap2 libcrypt1 libdb5.3 libgcc-s1 libgmp10 liblzma5 libmount1 libpam-modules
    libpam-runtime libpam0g libpcre2-8-0 libselinux1 libsmartcols1 libtinfo6 libudev1 libuuid1 login
    mount ncurses-base ncurses-bin passwd perl-base sed tar util-linux zlib1g
"""

#: Languages, locales, terminals, time zones: with SMALL more than 5,000 files.
MORE = """
    iputils-ping libperl5.36 libpython3-stdlib libpython3.11-minimal libpython3.11-stdlib locales
    ncurses-term perl perl-modules-5.36 python3-minimal python3.11-minimal tzdata
"""

#: Directories that Debian 12 has as symlinks into /usr.
MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")

#: security.capability of ping as its package sets it: VFS_CAP_REVISION_2 with the effective bit,
#: CAP_NET_RAW (13) permitted (linux/capability.h).
PING_CAPABILITY = struct.pack("<5I", 0x0200_0001, 1 << 13, 0, 0, 0)


class DownloadFailed(Exception):
    """A package could not be had; the text says which, and what apt said."""


def small(platform: str = "linux/amd64") -> Document:
    """Hundreds of files in two layers, set-uid programs, hard links and symlinks among them."""
    base = _cached_layer("base", SMALL.split(), _base)
    return images.image([base, images.layer(local_files())], platform=platform)


def large(platform: str = "linux/amd64") -> Document:
    """More than 5,000 files in three layers; the third changes and hides what the others have."""
    return images.image(large_layers(), platform=platform)


def large_layers() -> list[Layer]:
    base = _cached_layer("base", SMALL.split(), _base)
    more = _cached_layer("more", MORE.split(), _more)
    return [base, more, images.layer([*local_files(), *second_thoughts()])]


def local_files() -> list[Entry]:
    """What an image's author puts on top: also everything that an import leaves out or replaces."""
    return [
        images.file("etc/hostname", "userland\n"),
        images.symlink("etc/resolv.conf", "../run/resolvconf/resolv.conf"),
        images.directory("dev"),
        images.device("dev/null", 1, 3),
        images.symlink("dev/fd", "/proc/self/fd"),
        images.directory("proc"),
        images.file("proc/placeholder", "the image's, not the kernel's\n"),
        images.directory("srv/app"),
        images.directory("srv/app/dev"),
        images.file("srv/app/dev/settings", "mode = development\n"),
        images.file("srv/app/one-of-three", "one inode, three names\n", uid=1000, gid=1000),
        images.hardlink("srv/app/two-of-three", "srv/app/one-of-three", uid=1000, gid=1000),
        images.hardlink("srv/app/three-of-three", "srv/app/one-of-three", uid=1000, gid=1000),
        images.fifo("srv/app/pipe", 0o600, uid=1000, gid=1000),
    ]


def second_thoughts() -> list[Entry]:
    """Whiteouts, an opaque directory, replaced kinds: what a Dockerfile's later steps leave."""
    return [
        images.whiteout("usr/share/doc/bash"),
        images.whiteout("usr/bin/pinky"),
        images.directory("usr/share/locale/de"),
        images.opaque("usr/share/locale/de"),
        images.file("usr/share/locale/de/kept", "only this\n"),
        images.symlink("usr/share/zoneinfo/Europe/Vienna", "Berlin"),
        images.directory("usr/bin"),
        images.file("usr/bin/perl", '#!/bin/sh\nexec perl5.36.0 "$@"\n', 0o755),
        images.file(
            "srv/app/labelled", "x", xattrs={"user.origin": b"tests", "user.raw": b"\xff\0"}
        ),
    ]


# --- layers out of packages ----------------------------------------------------------------------


def _base(packages: Iterable[Path]) -> list[Entry]:
    top = [images.directory("./")]
    top += [images.directory(f"usr/{name}") for name in ("", *MERGED)]
    top += [images.symlink(name, f"usr/{name}") for name in MERGED]
    top += [images.directory("tmp", 0o1777), images.directory("root", 0o700)]
    found = _unique([*top, *_entries(packages)])
    masters = {e.path: e.content for e in found if e.path.startswith("usr/share/base-passwd/")}
    accounts = [
        images.file("etc/passwd", masters["usr/share/base-passwd/passwd.master"]),
        images.file("etc/group", masters["usr/share/base-passwd/group.master"]),
        images.file("etc/shadow", "root:*:19000:0:99999:7:::\n", 0o640, gid=42),
    ]
    return [*found, *accounts]


def _more(packages: Iterable[Path]) -> list[Entry]:
    return _unique(_entries(packages))


def _unique(entries: Iterable[Entry]) -> list[Entry]:
    """Directories that several packages ship stand once, as the first one has them (layer.md)."""
    seen: dict[str, Entry] = {}
    for entry in entries:
        seen.setdefault(entry.path.strip("/"), entry)
    return list(seen.values())


def _entries(packages: Iterable[Path]) -> Iterator[Entry]:
    for package in packages:
        done = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", str(package)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        )
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            for member in archive:
                if path := _merged(member.name):
                    yield _entry(archive, member, path)


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> Entry:
    stream = archive.extractfile(member) if member.isreg() else None
    return Entry(
        path=path,
        type=member.type,
        content=stream.read() if stream else b"",
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        target=_merged(member.linkname) if member.islnk() else member.linkname,
        xattrs={"security.capability": PING_CAPABILITY} if path == "usr/bin/ping" else {},
        mtime=int(member.mtime),
    )


def _merged(name: str) -> str:
    """A path as dpkg would unpack it on a system where /bin and its like lead into /usr."""
    path = name.removeprefix("./").strip("/")
    first, slash, _ = path.partition("/")
    if first in MERGED:
        return f"usr/{path}" if slash else ""
    return "" if path == "." else path


def _cached_layer(
    name: str, packages: Sequence[str], make: Callable[[Iterable[Path]], list[Entry]]
) -> Layer:
    """The layer as it was made before, where the packages and this program are the same still."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test workers ask at once
        debs = download(packages)
        recipe = hashlib.sha256(Path(__file__).read_bytes())
        recipe.update(Path(images.__file__).read_bytes())
        recipe.update(json.dumps([deb.name for deb in debs]).encode())
        place = CACHE / "layers" / f"{name}-{recipe.hexdigest()[:16]}"
        if not place.exists():
            made = images.layer(make(debs))
            place.parent.mkdir(exist_ok=True)
            half = place.with_suffix(".half")
            half.write_bytes(made.diff_id.encode() + b"\n" + made.blob)
            half.rename(place)
        diff_id, _, blob = place.read_bytes().partition(b"\n")
    return Layer(blob, diff_id.decode())


def download(packages: Sequence[str]) -> list[Path]:
    """The packages' files, in the order given; those that are not in the cache are fetched."""
    place = CACHE / "debs"
    place.mkdir(parents=True, exist_ok=True)
    missing = [name for name in packages if _find(place, name) is None]
    if missing:
        # _apt, the user that apt downloads as, may not write below a private checkout.
        argv = ["apt-get", "--quiet", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]
        done = subprocess.run(
            [*argv, "download", "--", *missing],
            cwd=place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise DownloadFailed(
                f"apt-get download failed (is `apt-get update` needed?): {done.stderr.strip()}"
            )
    found = [_find(place, name) for name in packages]
    return [one for one in found if one is not None]


def _find(place: Path, package: str) -> Path | None:
    return next(iter(sorted(place.glob(f"{package}_*.deb"))), None)
