"""An import against the plain recipe: ``deploy/private-zfs python -m bench.imports``.

The recipe is buildah pull, from, mount, ``rsync -aHAX --numeric-ids``, umount, rm, and a snapshot,
run by hand on the same image, registry and pools, in turn with Coppice's import (over HTTP, with
everything that it does besides: resolving, the manifest of all files, the statement, the event).
``cold``: nothing of the image is in container storage. ``warm``: all of it is. The table goes to
stdout, the figures to var/bench/import-buildah.json.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deploy import userland
from tests.registries import Registry
from tests.servers import ROOT, Installation, Server

RUNS = int(os.environ.get("RUNS", "5"))
RESULT = ROOT / "var" / "bench" / "import-buildah.json"


def run(*argv: str | Path) -> str:
    done = subprocess.run([str(a) for a in argv], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def destroy(dataset: str) -> None:
    """Outside the measured time. zfs-fuse says "dataset is busy" for a while after a copy."""
    until = time.monotonic() + 20
    while subprocess.run(["zfs", "destroy", "-r", dataset], capture_output=True).returncode:
        if time.monotonic() > until:
            run("zfs", "destroy", "-r", dataset)  # for its complaint
        time.sleep(0.1)


class Recipe:
    """By hand, with a storage of its own."""

    def __init__(self, place: Path, reference: str) -> None:
        self.storage = ["buildah", "--root", str(place / "root"), "--runroot", str(place / "run")]
        self.reference = reference
        self.number = 0

    def forget(self) -> None:
        run(*self.storage, "rmi", "--all", "--force")

    def run(self, pool: str) -> float:
        self.number += 1
        begun = time.perf_counter()
        if pool.startswith("zfs:"):
            dataset = f"{pool.removeprefix('zfs:')}/recipe-{self.number}"
            run("zfs", "create", dataset)
            into = Path(run("zfs", "get", "-Hp", "-o", "value", "mountpoint", dataset))
        else:
            into = Path(pool.removeprefix("dir:")) / f"recipe-{self.number}"
            into.mkdir(parents=True)
        image = f"docker://{self.reference}"
        run(*self.storage, "pull", "--quiet", "--tls-verify=false", image)
        container = run(*self.storage, "from", "--tls-verify=false", image)
        source = run(*self.storage, "mount", container)
        run("rsync", "-aHAX", "--numeric-ids", "--exclude=/dev/*", "--exclude=/proc/*",
            f"{source}/", f"{into}/")  # fmt: skip
        run(*self.storage, "umount", container)
        run(*self.storage, "rm", container)
        if pool.startswith("zfs:"):
            run("zfs", "snapshot", f"{dataset}@base")
        took = time.perf_counter() - begun
        if pool.startswith("zfs:"):
            destroy(dataset)
        else:
            shutil.rmtree(into)
        return took


class Coppice:
    def __init__(self, place: Path, reference: str, pool: str, host: str) -> None:
        self.installation = Installation(
            place, pool=pool, COPPICE_REGISTRIES_INSECURE=host, COPPICE_PLATFORM="linux/amd64"
        )
        self.server = Server(self.installation)
        self.server.start()
        self.api = self.server.api("operator", timeout=600)
        self.source = f"oci:{reference}"
        storage = place / "containers"
        self.storage = ["buildah", "--root", str(storage / "storage")]
        self.storage += ["--runroot", str(storage / "run")]

    def forget(self) -> None:
        run(*self.storage, "rmi", "--all", "--force")

    def run(self, pool: str) -> float:
        begun = time.perf_counter()
        answer = self.api.post("/templates", json={"name": "bench", "from": self.source})
        took = time.perf_counter() - begun
        if answer.status_code != 201:
            raise SystemExit(answer.text)
        self.stages = self.installation.events()[-1]["data"]["milliseconds"]
        self.entries = answer.json()["entries"]
        self.api.delete("/templates/bench").raise_for_status()
        return took


def main() -> None:
    place = Path(tempfile.mkdtemp(prefix="coppice-bench-"))
    registry = Registry(place)
    registry.start()
    rows = []
    try:
        registry.push("bench/large", "1", userland.large())
        reference = f"{registry.host}/bench/large:1"
        for pool in pools(place):
            kind = pool.partition(":")[0]
            recipe = Recipe(place / f"recipe-{kind}", reference)
            ours = Coppice(place / f"state-{kind}", reference, pool, registry.host)
            try:
                for case in ("cold", "warm"):
                    rows.append(measure(case, kind, pool, recipe, ours))
            finally:
                ours.server.stop()
    finally:
        registry.stop()
        subprocess.run(["zpool", "destroy", "-f", "zbench"], capture_output=True)
        shutil.rmtree(place, ignore_errors=True)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"{'case':5} {'pool':4} {'entries':>8} {'recipe s':>14} {'coppice s':>14} {'ratio':>6}")
    for row in rows:
        print(
            f"{row['case']:5} {row['pool']:4} {row['entries']:8}"
            f" {row['recipeSeconds']:8.2f} ±{row['recipeSpread']:4.2f}"
            f" {row['coppiceSeconds']:8.2f} ±{row['coppiceSpread']:4.2f}"
            f" {row['recipeSeconds'] / row['coppiceSeconds']:6.2f}   {row['stages']}"
        )
    print(f"Medians of {RUNS} alternating runs, ± half the range; ratio: recipe / coppice.")


def pools(place: Path) -> list[str]:
    run("truncate", "-s", "8G", place / "disk")
    run("zpool", "create", "-o", "cachefile=none", "-m", place / "zbench", "zbench", place / "disk")
    run("zfs", "create", "zbench/jails")
    (place / "dir").mkdir()
    return ["zfs:zbench/jails", f"dir:{place / 'dir'}"]


def measure(case: str, kind: str, pool: str, recipe: Recipe, ours: Coppice) -> dict[str, object]:
    recipe.run(pool)
    ours.run(pool)  # both once before: programs and pages are in memory, for both
    times: dict[str, list[float]] = {"recipe": [], "coppice": []}
    for _ in range(RUNS):
        for name, way in (("recipe", recipe), ("coppice", ours)):
            if case == "cold":
                way.forget()
            times[name].append(way.run(pool))
    found: dict[str, object] = {"case": case, "pool": kind, "entries": ours.entries, "runs": RUNS}
    for name, seconds in times.items():
        found[f"{name}Seconds"] = statistics.median(seconds)
        found[f"{name}Spread"] = (max(seconds) - min(seconds)) / 2
    found["stages"] = ours.stages
    return found


if __name__ == "__main__":
    sys.exit(main())
