"""The ways to bring an image into a pool that ``bench.import`` compares."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.servers import Installation, Server


def run(*argv: str | Path) -> str:
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, argv))}: {done.stderr.strip()}")
    return done.stdout.strip()


class Pool:
    """``dir:`` or ``zfs:``. Every tree is new and stays until the end: deleting many files makes
    the next ones slow on some file systems, and that would be measured. ZFS's disk is a file of
    the host's, not one in another file's file system."""

    def __init__(self, place: Path, host: Path, kind: str) -> None:
        self.kind = kind
        self.number = 0
        if kind == "zfs":
            run("truncate", "-s", "24G", host / "zfs")
            mountpoint = place / "zbench"
            run(
                "zpool",
                "create",
                "-o",
                "cachefile=none",
                "-m",
                mountpoint,
                "zbench",
                host / "zfs",
            )
            run("zfs", "create", "zbench/jails")
            self.root = "zbench/jails"
        else:
            (place / "dir").mkdir()
            self.root = str(place / "dir")

    @property
    def address(self) -> str:
        return f"{self.kind}:{self.root}"

    def number_next(self) -> int:
        self.number += 1
        return self.number

    def fresh(self, what: str) -> tuple[str, Path]:
        """An empty place: its dataset (or directory), and where it is."""
        name = f"{self.root}/{what}-{self.number_next()}"
        if self.kind == "dir":
            Path(name).mkdir()
            return name, Path(name)
        run("zfs", "create", name)
        return name, Path(run("zfs", "get", "-Hp", "-o", "value", "mountpoint", name))

    def seal(self, name: str) -> None:
        if self.kind == "zfs":
            run("zfs", "snapshot", f"{name}@base")

    def destroy(self) -> None:
        if self.kind == "zfs":
            subprocess.run(["zpool", "destroy", "-f", "zbench"], capture_output=True)


class Recipe:
    """buildah pull, from, mount, ``rsync -aHAX``, umount, rm, snapshot: by hand."""

    def __init__(self, place: Path, pool: Pool) -> None:
        self.place, self.pool = place, pool
        self.storage: list[str] = []
        self.tree = place  # what the last run made
        self.forget()

    def forget(self) -> None:
        """A container storage that never saw the image."""
        place = self.place / f"storage-{self.pool.kind}-{self.pool.number_next()}"
        self.storage = ["buildah", "--root", str(place / "root"), "--runroot", str(place / "run")]

    def pull(self, reference: str) -> None:
        run(*self.storage, "pull", "--quiet", "--tls-verify=false", f"docker://{reference}")

    def run(self, reference: str) -> float:
        begun = time.perf_counter()
        name, into = self.pool.fresh("recipe")
        self.tree = into
        self.pull(reference)
        container = run(*self.storage, "from", "--tls-verify=false", f"docker://{reference}")
        source = run(*self.storage, "mount", container)
        run("rsync", "-aHAX", "--numeric-ids", "--exclude=/dev/*", "--exclude=/proc/*",
            f"{source}/", f"{into}/")  # fmt: skip
        run(*self.storage, "umount", container)
        run(*self.storage, "rm", container)
        self.pool.seal(name)
        return time.perf_counter() - begun


class Floor:
    """``curl | igzip -dc | tar -x`` of the layers: no check of anything, no whiteouts."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def run(self, reference: str) -> float:
        base, layers = blobs(reference)
        begun = time.perf_counter()
        name, into = self.pool.fresh("floor")
        for digest in layers:
            curl = ["curl", "--silent", "--fail", "--location", f"{base}/blobs/{digest}"]
            pipe = subprocess.PIPE
            with (
                subprocess.Popen(curl, stdout=pipe) as fetch,
                subprocess.Popen(["igzip", "-dc"], stdin=fetch.stdout, stdout=pipe) as unzip,
                subprocess.Popen(
                    ["tar", "-x", "--warning=no-unknown-keyword", "-C", into], stdin=unzip.stdout
                ) as unpack,
            ):
                for one in (fetch, unzip):
                    if one.stdout is not None:
                        one.stdout.close()  # theirs alone now: an end is seen
            if fetch.returncode or unzip.returncode or unpack.returncode:
                raise SystemExit("the floor's pipe broke")
        self.pool.seal(name)
        return time.perf_counter() - begun


class Clone:
    """What an unchanged image costs at the least: one HEAD of its manifest, one ``zfs clone``."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.origin = ""

    def run(self, reference: str) -> float:
        base, _ = blobs(reference)
        tag = reference.rpartition(":")[2]
        name = f"{self.pool.root}/clone-{self.pool.number_next()}"
        begun = time.perf_counter()
        httpx.head(f"{base}/manifests/{tag}", headers=ACCEPT, trust_env=False).raise_for_status()
        run("zfs", "clone", self.origin, name)
        return time.perf_counter() - begun


class Coppice:
    """Over HTTP, with everything that it does besides: checks, digests, statement, event."""

    def __init__(self, place: Path, pool: Pool, host: str, engine: str) -> None:
        self.place, self.pool, self.engine = place, pool, engine
        self.installation = Installation(
            place,
            pool=pool.address,
            COPPICE_ENGINE=engine,
            COPPICE_REGISTRIES_INSECURE=host,
            COPPICE_PLATFORM="linux/amd64",
        )
        self.server = Server(self.installation)
        self.server.start()
        self.api = self.server.api("operator", timeout=600)
        self.template: dict[str, Any] = {}
        self.made: list[str] = []

    def forget(self) -> None:
        """Nothing of any image is here: blobs, layer states, container storage."""
        if self.engine == "buildah":
            storage = self.place / "containers"
            run("buildah", "--root", storage / "storage", "--runroot", storage / "run", "rmi",
                "--all", "--force")  # fmt: skip
            return
        self.forget_states()
        self.installation.manage("prune_cache", "--all")

    def forget_states(self) -> None:
        """No tree of a layer is kept. Those that templates are clones of stay, so they go, too."""
        if self.engine == "buildah" or self.pool.kind == "dir":
            return
        while self.made:
            self.api.delete(f"/templates/{self.made.pop()}").raise_for_status()
        self.installation.manage("prune_layers", "--all")

    def run(self, reference: str) -> float:
        name = f"bench-{self.pool.number_next()}"
        body = {"name": name, "from": f"oci:{reference}"}
        begun = time.perf_counter()
        answer = self.api.post("/templates", json=body)
        took = time.perf_counter() - begun
        if answer.status_code != 201:
            raise SystemExit(answer.text)
        self.template = answer.json()
        self.made.append(name)
        return took

    def stop(self) -> None:
        self.server.stop()

    @contextlib.contextmanager
    def memory(self) -> Iterator[list[int]]:
        """Gets one figure: the most bytes that the server and its children held at a moment.

        Proportional set size: a page that several of them share counts once.
        """
        found = [0]
        over = threading.Event()
        process = self.server.process
        if process is None:
            raise RuntimeError("the server does not run")

        def watch() -> None:
            while not over.wait(0.03):
                found[0] = max(found[0], _proportional(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield found
        finally:
            over.set()
            watcher.join()


ACCEPT = {"Accept": "application/vnd.oci.image.manifest.v1+json"}


def blobs(reference: str) -> tuple[str, list[str]]:
    """The repository's address, and the layers' digests."""
    host, _, rest = reference.partition("/")
    repository, _, tag = rest.rpartition(":")
    base = f"http://{host}/v2/{repository}"
    answer = httpx.get(f"{base}/manifests/{tag}", headers=ACCEPT, trust_env=False)
    manifest = json.loads(answer.raise_for_status().content)
    return base, [layer["digest"] for layer in manifest["layers"]]


def _proportional(pid: int) -> int:
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for one in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(OSError):  # it has just ended
                text = Path(f"/proc/{one.pid}/smaps_rollup").read_text()
                total += 1024 * int(text.partition("\nPss:")[2].split(maxsplit=1)[0])
    return total
