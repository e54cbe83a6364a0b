"""An ordinary user: ``python -m tests.ordinary ROOT MODULE ARGUMENT…`` runs a module as nobody.

As root. No capability is left and none can come back; of a checkout or an interpreter below a
directory that is shut to others (``/root``), just these are shown, in a mount namespace of its own.

ROOT is ``/``, or an empty directory: who is in a chroot may make no user namespace, and so neither
a network nor a root directory of its own, as in many a container.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOBODY = 65534
_NEW_NAMESPACE = 0x00020000  # CLONE_NEWNS
_BIND, _RECURSIVE, _PRIVATE = 4096, 16384, 1 << 18
_DETACH = 2  # MNT_DETACH
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A directory of nobody's, where nobody can reach it; pytest's own are shut."""
    made = Path("/tmp") / f"coppice-nobody-{os.getpid()}"
    made.mkdir()
    os.chown(made, NOBODY, NOBODY)
    try:
        yield made
    finally:
        subprocess.run(["rm", "-rf", "--", made], check=True, timeout=60)


def run(module: str, *arguments: str | Path, seconds: float = 60, namespaces: bool = True) -> str:
    """The standard output of a module that nobody runs; ``namespaces``: it may make such."""
    with tempfile.TemporaryDirectory() as empty:
        return _run("/" if namespaces else empty, [module, *map(str, arguments)], seconds)


def _run(root: str, words: list[str], seconds: float) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.ordinary", root, *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def main() -> None:
    if _libc.unshare(_NEW_NAMESPACE) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    _mount("none", "/", _RECURSIVE | _PRIVATE)
    _forget_pools()
    _show([ROOT, Path(sys.prefix), Path(sys.base_prefix)])
    root, *words = sys.argv[1:]
    if root != "/":
        _mount("/", root, _BIND | _RECURSIVE)
        os.chroot(root)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", *words])  # noqa: S606 - an argv list


def _forget_pools() -> None:
    """Our copies of ZFS's mounts would keep the pools of other tests busy while we are there."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if "zfs" in after.split()[0] or "fuse" in after.split()[0]:
            _libc.umount2(before.split()[4].encode(), _DETACH)


def _show(needed: list[Path]) -> None:
    """Each of the directories can be reached by anybody."""
    shut: dict[Path, list[Path]] = {}
    for path in needed:
        for above in reversed(path.parents):
            if not above.stat().st_mode & stat.S_IXOTH:
                shut.setdefault(above, []).append(path)
                break
    for above, paths in shut.items():
        held = [(path, os.open(path, os.O_PATH)) for path in paths]
        _mount("none", above, 0, b"tmpfs", b"mode=755")
        for path, descriptor in held:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
            _mount(f"/proc/self/fd/{descriptor}", path, _BIND | _RECURSIVE)
            os.close(descriptor)


def _mount(
    source: str, target: Path | str, flags: int, kind: bytes | None = None, data: bytes = b""
) -> None:
    if _libc.mount(source.encode(), os.fsencode(target), kind, flags, data) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


if __name__ == "__main__":
    main()
