"""buildah with a configuration, a storage and a home of its own.

What an operator has set up for other uses of the program (mirrors, short names, credentials in a
home directory, a storage driver) must not change what an import does, so all of it is said here, in
files below ``<state>/containers``. What the program reads all the same and offers no way around:
drop-ins in /etc/containers/registries.conf.d, certificates in /etc/containers/certs.d.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from templates_app import run
from templates_app.names import Digest, Platform, Reference
from templates_app.run import IMPORT_MARK, Result
from templates_app.sources import complaints, credentials
from templates_app.sources.base import SourceContext

#: Seconds for what only concerns our own storage, such as removing a container.
TIDY_SECONDS = 120

#: File systems on which overlay mounts do not work: they are one themselves, or lack what it needs.
_NO_OVERLAY = frozenset({"overlay", "aufs", "zfs", "fuse-zfs", "ecryptfs", "vfat", "nfs", "nfs4"})


@dataclass(frozen=True, slots=True)
class Programs:
    """For one set of settings. Making one touches nothing."""

    context: SourceContext

    @property
    def home(self) -> Path:
        return self.context.state_dir / "containers"

    @property
    def storage(self) -> Path:
        return self.home / "storage"

    def temporary(self, import_id: str = "") -> Path:
        """Where it puts what is on its way; an import has a place of its own."""
        return self.home / "tmp" / import_id

    def pull(
        self,
        reference: Reference,
        manifest: Digest,
        platform: Platform,
        import_id: str,
        on_tick: Callable[[], None],
    ) -> None:
        """The image is in the storage. By digest: a tag could mean another image by now."""
        argv = [
            *self._buildah("pull", "--quiet", "--policy", "always", "--remove-signatures"),
            *self._signature_policy(),
            *_of_platform(platform),
            *self._access(reference),
            "--",
            f"docker://{reference.name}@{manifest}",
        ]
        seconds = self.context.step_seconds
        env = self._environment(import_id)
        result = run.run(argv, timeout=seconds, env=env, check=False, on_tick=on_tick)
        self._judge(result, reference)

    def make_container(
        self,
        reference: Reference,
        manifest: Digest,
        platform: Platform,
        name: str,
        import_id: str,
    ) -> None:
        argv = [
            *self._buildah("from", "--quiet", "--pull-never", "--name", name),
            *self._signature_policy(),
            *_of_platform(platform),
            "--",
            f"docker://{reference.name}@{manifest}",
        ]
        env = self._environment(import_id)
        result = run.run(argv, timeout=self.context.step_seconds, env=env, check=False)
        self._judge(result, reference)

    def buildah(self, *words: str, import_id: str = "", check: bool = True) -> Result:
        """Run a buildah command that concerns our own storage alone. Any error of run.run()."""
        return run.run(
            self._buildah(*words),
            timeout=min(TIDY_SECONDS, max(self.context.step_seconds, 10)),
            env=self._environment(import_id),
            check=check,
            log_failure=check,
        )

    def knows_image(self, image_id: str) -> bool:
        words = ("inspect", "--type", "image", "--format", "{{.FromImageID}}", "--", image_id)
        return self.buildah(*words, check=False).status == 0

    def _buildah(self, *words: str) -> list[str]:
        self.prepare()
        root = ["--root", str(self.storage), "--runroot", str(self.home / "run")]
        return ["buildah", *root, *words]

    # --- what it is told -------------------------------------------------------------------------

    def _access(self, reference: Reference) -> list[str]:
        """How the registry is spoken to: TLS unless the operator said otherwise, credentials."""
        # Not said otherwise: it would count for the mirrors too, against registries.conf.
        options = ["--tls-verify=false"] if reference.host in self.context.insecure else []
        if self.context.ca_file is not None:
            options += ["--cert-dir", self._path("certs")]
        if self.context.auth_file is not None:
            credentials.find(self.context.auth_file, reference.host)  # it can be read
            options += ["--authfile", str(self.context.auth_file)]
        return options

    def _signature_policy(self) -> list[str]:
        return ["--signature-policy", self._path("policy.json")]

    def _environment(self, import_id: str = "") -> dict[str, str]:
        own = str(self.home / "home")
        env = {
            "HOME": own,
            "XDG_RUNTIME_DIR": own,  # where credentials of `skopeo login` would be
            "TMPDIR": str(self.temporary(import_id)),
            "CONTAINERS_REGISTRIES_CONF": self._path("registries.conf"),
            "CONTAINERS_STORAGE_CONF": self._path("storage.conf"),
            "CONTAINERS_CONF": self._path("containers.conf"),
        }
        return env | ({IMPORT_MARK: import_id} if import_id else {})

    def _judge(self, result: Result, reference: Reference) -> None:
        if result.status != 0:
            raise complaints.error(result, reference, self.context.auth_file)

    def _path(self, name: str) -> str:
        return str(self.home / "etc" / name)

    def prepare(self) -> None:
        """The directories and configuration files are there. Safe in many processes at once."""
        for name in ("etc/certs", "home", "tmp", "locks"):
            (self.home / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in self._files().items():
            path = self.home / "etc" / name
            if not path.exists() or path.read_text() != text:
                half = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
                half.write_text(text)
                half.rename(path)

    def _files(self) -> dict[str, str]:
        accept = [{"type": "insecureAcceptAnything"}]  # what we check is digests, and our own keys
        found = credentials.authorities(self.context.ca_file)
        return ({"certs/ca.crt": found} if found else {}) | {
            "registries.conf": registries(self.context),
            "policy.json": json.dumps({"default": accept}) + "\n",
            "containers.conf": "",
            "storage.conf": "[storage]\n"
            f'driver = "{driver(self.context.state_dir)}"\n'
            f"graphroot = {json.dumps(str(self.storage))}\n"
            f"runroot = {json.dumps(str(self.home / 'run'))}\n"
            # Without this the driver leaves a mount of its directory on itself behind for ever.
            '[storage.options.overlay]\nskip_mount_home = "true"\n',
        }


def registries(context: SourceContext) -> str:
    """containers-registries.conf(5): no short names, and the mirrors that the settings name."""
    lines = ["unqualified-search-registries = []", 'short-name-mode = "disabled"']
    for host, mirrors in context.mirrors:
        lines += ["[[registry]]", f'location = "{host}"']
        for mirror in mirrors:
            plain = "true" if mirror in context.insecure else "false"
            lines += ["[[registry.mirror]]", f'location = "{mirror}"', f"insecure = {plain}"]
    return "\n".join([*lines, ""])


def driver(state_dir: Path) -> str:
    """The storage driver that works where the state directory is (containers-storage.conf(5))."""
    kind = file_system(state_dir)
    if sys.platform.startswith("freebsd"):
        return "zfs" if kind == "zfs" else "vfs"
    return "vfs" if kind in _NO_OVERLAY else "overlay"


def file_system(path: Path) -> str:
    """The type of the file system that ``path`` is on, as mount(8) names it."""
    real = path.resolve()
    above = [
        part
        for part in psutil.disk_partitions(all=True)
        if real == Path(part.mountpoint) or Path(part.mountpoint) in real.parents
    ]
    # The longest is the innermost; of several at one place the last one hides the others.
    innermost = max(enumerate(above), key=lambda one: (len(one[1].mountpoint), one[0]))[1]
    return str(innermost.fstype)


def _of_platform(platform: Platform) -> Sequence[str]:
    """Not to choose by (a manifest's digest leaves no choice), but so that no warning is given.

    Newer versions refuse what is not for the host unless they are told that it is meant.
    """
    variant = ["--variant", platform.variant] if platform.variant else []
    return ["--os", platform.os, "--arch", platform.architecture, *variant]
