"""The buildah engine: pull into container storage, mount, copy, unmount, remove.

The image stays in the storage as a cache, by digest; the container does not. Whatever ends a fetch,
what it had made is undone: the container, its mount, its temporary files, and after a failure the
image too, if it was not there before and nobody else uses it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from templates_app import run
from templates_app.errors import (
    CoppiceError,
    ImportTimeout,
    PoolUnavailable,
    ProgramFailed,
    ProgramKilled,
    TreeRefused,
    Unavailable,
)
from templates_app.names import Digest, Reference
from templates_app.run import IMPORT_MARK
from templates_app.sources import complaints, storage
from templates_app.sources.base import LEFT_OUT, Progress, Receipt, Report, Resolved
from templates_app.sources.programs import Programs

logger = logging.getLogger("coppice.buildah")

#: rsync is three processes. When one of them dies the others end with a status of errcode.h: the
#: pipe between them broke (10, 12), a sibling crashed (15), a signal (16, 19, 20).
_PART_DIED = (10, 12, 15, 16, 19, 20)
_TO_CHECK = re.compile(r"(?:to-chk|ir-chk)=([0-9]+)/([0-9]+)")


def container_name(import_id: str) -> str:
    return f"coppice-{import_id}"


def fetch(
    programs: Programs,
    reference: Reference,
    resolved: Resolved,
    into: Path,
    report: Report,
    import_id: str,
) -> Receipt:
    """Fill the empty directory ``into`` with the files of what ``resolved`` says.

    Raises PullFailed, TreeRefused, ProgramKilled, ProgramMissing, ImportTimeout, OutOfSpace and
    StorageReadOnly.
    """
    if os.geteuid() != 0:
        raise Unavailable(
            "The buildah engine must run as root: it mounts images and keeps their owners.",
            hint="Run the server as root.",
        )
    if any(into.iterdir()):
        # rsync would merge with what is there, and write through a symlink that somebody left.
        raise ValueError(f"{into} is not empty")
    work = _Fetch(programs, reference, resolved, report, import_id)
    try:
        with work.timed("pull"):
            work.pull()
        with work.timed("copy"):
            work.copy(into)
    except BaseException:
        # BaseException: the queue's timeout and an interrupt come as SystemExit, KeyboardInterrupt.
        work.tidy()
        work.forget_image()
        raise
    work.tidy()
    return Receipt(
        engine="buildah",
        milliseconds=work.milliseconds,
        left_out=LEFT_OUT,
        findings=tuple(work.findings),
    )


@dataclass(slots=True)
class _Fetch:
    programs: Programs
    reference: Reference
    resolved: Resolved
    report: Report
    import_id: str
    pulled: bool = False  # the image is in the storage because of us
    milliseconds: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    @property
    def container(self) -> str:
        return container_name(self.import_id)

    @property
    def manifest(self) -> Digest:
        return Digest.parse(self.resolved.digests.manifest)

    @property
    def image_id(self) -> str:
        """What container storage calls an image: the digest of its config, without `sha256:`."""
        return Digest.parse(self.resolved.digests.config).hex

    @property
    def temporary(self) -> Path:
        return self.programs.temporary(self.import_id)

    def pull(self) -> None:
        total = sum(layer.size for layer in self.resolved.layers)

        def watch() -> None:
            done = min(_bytes_below(self.temporary), total)
            self.report(Progress(stage="pull", done=done, total=total))

        self.programs.prepare()
        self.temporary.mkdir(mode=0o700)
        watch()
        # One at a time for one image: the others then find it there. And so nobody removes it (a
        # failed import does) before there is a container, which keeps it.
        with self._image_locked():
            there = self.programs.knows_image(self.image_id)
            self.pulled = not there
            platform = self.resolved.platform
            self.programs.pull(self.reference, self.manifest, platform, self.import_id, watch)
            self.programs.make_container(
                self.reference, self.manifest, platform, self.container, self.import_id
            )
        self._check_origin()

    def copy(self, into: Path) -> None:
        self.report(Progress(stage="copy", unit="entries"))
        mounted = self.programs.buildah(
            "mount", "--", self.container, import_id=self.import_id
        ).stdout.strip()
        root = Path(mounted)
        if self.programs.storage.resolve() not in root.resolve().parents:
            raise ProgramFailed(
                "buildah mounted the image in an unexpected place.", private=mounted
            )
        if not stat.S_ISDIR(root.lstat().st_mode):
            raise TreeRefused(
                "The image's root is not a directory.", extra={"rule": "root-not-a-directory"}
            )
        self._rsync(root, into)
        self._settle_root(into)

    def _rsync(self, root: Path, into: Path) -> None:
        result = run.run(
            [*_rsync_options(), "--", f"{root}/", f"{into}/"],
            timeout=self.programs.context.step_seconds,
            env={IMPORT_MARK: self.import_id},
            check=False,
            on_line=self._progress,
        )
        if result.status != 0:
            raise _rsync_error(result)

    def _settle_root(self, into: Path) -> None:
        """The root directory is as the image's layers say, or 0755 and root's if they do not.

        buildah drops what a layer says of `./` and makes the root 0555. Other engines do not, and
        the same image must give the same tree.
        """
        said = storage.root_entry(self.programs.storage, self.image_id)
        uid, gid, mode = (said.uid, said.gid, said.mode) if said else (0, 0, 0o755)
        os.chown(into, uid, gid, follow_symlinks=False)
        into.chmod(mode & 0o7777)  # after chown, which clears set-id bits

    def _progress(self, line: str) -> None:
        if found := _TO_CHECK.search(line):
            left, total = int(found[1]), int(found[2])
            self.report(Progress(stage="copy", done=total - left, total=total, unit="entries"))

    def _check_origin(self) -> None:
        """The container is of the image that was resolved, and its layers are what it says.

        buildah does not compare a layer's uncompressed digest with the config's, so an image could
        lie there and be found again under another one's id; container storage knows what it
        unpacked.
        """
        words = ("inspect", "--type", "container", "--", self.container)
        said = json.loads(self.programs.buildah(*words, import_id=self.import_id).stdout)
        if said["FromImageID"] != self.image_id:
            raise self._corrupt(f"buildah made a container of {said['FromImageID']}")
        unpacked = storage.layers(self.programs.storage, self.image_id)
        if unpacked is None:
            self.findings.append("The layers' uncompressed digests could not be compared.")
            same = said["FromImageDigest"] == self.resolved.digests.manifest
        else:
            # Several manifests may share a config (other compression, same layers); the storage
            # keeps one of them, so then the manifest's digest proves nothing.
            same = unpacked == self.resolved.config["rootfs"]["diff_ids"]
        if not same:
            raise self._corrupt(f"layers {unpacked}, manifest {said['FromImageDigest']}")

    def _corrupt(self, private: str) -> CoppiceError:
        return complaints.pull_failed(self.reference, "corrupt", private)

    # --- undoing ---------------------------------------------------------------------------------

    def tidy(self) -> None:
        """Container, mount and temporary files are gone. What cannot be removed is a finding."""
        try:
            remove_container(self.programs, self.container)
        except CoppiceError as error:
            logger.warning("%s is left for recovery: %s", self.container, error.private)
            self.findings.append(f"The container {self.container} could not be removed.")
        shutil.rmtree(self.temporary, ignore_errors=True)

    def forget_image(self) -> None:
        """After a failure: the image that we brought goes again, unless somebody uses it."""
        if not self.pulled:
            return
        try:
            with self._image_locked():
                # Without --force it refuses an image that a container is made of.
                self.programs.buildah("rmi", "--", self.image_id, check=False)
        except CoppiceError as error:
            logger.warning("image %s stays in the storage: %s", self.image_id, error.detail)

    @contextmanager
    def _image_locked(self) -> Iterator[None]:
        """Nobody else pulls or removes this image; across threads and processes."""
        path = self.programs.home / "locks" / self.image_id[:2]  # 256 files at the most
        deadline = time.monotonic() + self.programs.context.step_seconds
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise ImportTimeout(
                            "Another import of the same image took too long."
                        ) from None
                    time.sleep(0.05)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.milliseconds[stage] = round((time.monotonic() - begun) * 1000)


def remove_container(programs: Programs, name: str) -> bool:
    """Unmount and remove it; whether it was there. ProgramFailed if it is there still."""
    if not programs.storage.exists():
        return False
    # rm unmounts first, also what is still in use or was mounted in a namespace that is gone;
    # umount alone fails there and would leave it.
    done = programs.buildah("rm", "--", name, check=False)
    if done.status != 0 and "not known" not in done.stderr:
        raise ProgramFailed(
            f"buildah could not remove the container {name}.", private=done.stderr[-4000:]
        )
    return done.status == 0


def _rsync_options() -> list[str]:
    """-a, and what it leaves out: hard links, ACLs, extended attributes; numbers for owners.

    Without incremental recursion the whole list is known first, so that progress has a total.
    """
    options = ["rsync", "-aHAX", "--numeric-ids", "--no-inc-recursive", "--info=progress2"]
    options += [f"--exclude={pattern}" for pattern in LEFT_OUT]
    if sys.platform.startswith("freebsd"):
        # chflags(2); the port's rsync has it, by an option that upstream does not know.
        options += ["--fileflags"] if _knows_file_flags() else []
    else:
        # Labels of this host's security modules (security.selinux, trusted.*) are not the image's.
        options += ["--filter=+x user.*", "--filter=+x security.capability", "--filter=-x *"]
    return options


def _knows_file_flags() -> bool:
    return "--fileflags" in run.run(["rsync", "--help"], timeout=10).stdout


def _rsync_error(result: run.Result) -> CoppiceError:
    private = result.stderr[-4000:]
    if found := complaints.storage_error(result.stderr, private):
        return found
    if "Operation not supported" in result.stderr:
        return PoolUnavailable(
            "The pool's file system does not take an attribute that the image's files have.",
            hint="Use a file system with extended attributes and ACLs.",
            private=private,
        )
    if result.status in _PART_DIED:
        return ProgramKilled("A part of rsync was killed.", private=private)
    return ProgramFailed(f"rsync ended with status {result.status}.", private=private)


def _bytes_below(place: Path) -> int:
    """Bytes of the files in a tree that others change meanwhile."""
    total = 0
    for parent, _, names in os.walk(place):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - hot
            except FileNotFoundError:
                continue
    return total
