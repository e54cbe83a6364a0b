"""Imports against the plain recipe and the floor: ``deploy/private-zfs python -m bench.import``.

The recipe is buildah pull, from, mount, ``rsync -aHAX --numeric-ids``, umount, rm, snapshot, run by
hand; the floor ``curl | igzip -dc | tar -x`` of the same layers, which checks nothing. Coppice's
import is a POST to its server, with everything that it does besides. All three in turn, from the
same registry on loopback, each into a new place of the same pool; medians, ± half the range.

cold       nothing of the image is here
warm       all layers are here, as each way keeps them; on zfs no tree of a layer
shared     an image with four layers of another that is here, and 1 % of the entries in a fifth;
           the recipe has all of it in its storage already
unchanged  the same digest under another name, against one HEAD and a bare ``zfs clone``
memory     60,000 entries, 1 GB: the most that the server and its children hold together
self       the recipe against itself: the machine's noise

After each cold case the tree that the recipe made is read, and must have native's tree digest.

The table goes to stdout, the figures to var/bench/import.json. Ends with 1 where a goal is missed.
``python -m bench.import cold dir debian`` measures what these words name, and leaves the file as it
is. ENGINE=buildah measures the other engine, RUNS=N repeats as often.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import _images
from bench._ways import Clone, Coppice, Floor, Pool, Recipe, run
from templates_app.sources.plant import described
from templates_app.trust import tree
from templates_app.trust.amend import amend
from tests.registries import Registry
from tests.servers import ROOT

RUNS = int(os.environ.get("RUNS", "3"))
FEWER = min(RUNS, 2)  # where the recipe takes a minute
ENGINE = os.environ.get("ENGINE", "native")
RESULT = ROOT / "var" / "bench" / "import.json"
NAMESERVER = "10.78.0.1"  # the default: what an import plants, and the recipe does not
MB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    image: str
    pool: str
    runs: int = RUNS
    recipe: float | None = None  # goal: so many times faster than the recipe
    floor: float | None = None  # goal: at most so many times the floor
    clone: float | None = None  # goal: at most so many times HEAD and clone
    memory: int | None = None  # goal: at most so many bytes


CASES = (
    Case(name="self", image="debian", pool="dir"),
    Case(name="cold", image="debian", pool="dir", recipe=5, floor=1.4),
    Case(name="warm", image="debian", pool="dir"),
    Case(name="cold", image="small", pool="dir", runs=FEWER, recipe=5, floor=1.4),
    Case(name="shared", image="small", pool="dir", runs=FEWER),
    Case(name="memory", image="big", pool="dir", runs=1, memory=200 * MB),
    Case(name="cold", image="debian", pool="zfs", recipe=1.6, floor=1.15),
    Case(name="warm", image="debian", pool="zfs"),
    Case(name="cold", image="small", pool="zfs", runs=FEWER, recipe=1.6, floor=1.15),
    Case(name="shared", image="small", pool="zfs", runs=FEWER, recipe=10),
    Case(name="unchanged", image="small", pool="zfs", clone=2),
)


class Bench:
    """A registry, the pools, and the ways into them; made when a case first needs them."""

    def __init__(self) -> None:
        self.host = Path(tempfile.mkdtemp(prefix="coppice-bench-"))
        self.place = self._disk()
        self.registry = Registry(self.place)
        self.registry.start()
        self.pushed: set[str] = set()
        self.pools: dict[str, Pool] = {}
        self.servers: dict[str, Coppice] = {}
        self.recipes: dict[str, Recipe] = {}
        self.small_base: list[Any] = []
        self.images = 0

    def _disk(self) -> Path:
        """A new ext4 in a file: what other files did to the host's does not show, and a million
        files are gone with it at once (on a disk that discards, each costs a millisecond)."""
        disk, place = self.host / "ext4", self.host / "place"
        place.mkdir()
        run("truncate", "-s", "40G", disk)
        run("mkfs.ext4", "-q", "-F", disk)
        run("mount", "-o", "loop,noinit_itable", disk, place)  # nothing is made ready meanwhile
        return place

    def close(self) -> None:
        for server in self.servers.values():
            server.stop()
        self.registry.stop()
        for pool in self.pools.values():
            pool.destroy()
        for mounted in [*sorted(self.place.glob("storage-*/root/overlay")), self.place]:
            subprocess.run(["umount", "--lazy", mounted], capture_output=True)
        for one in self.host.iterdir():
            one.unlink() if one.is_file() else one.rmdir()
        self.host.rmdir()

    def reference(self, image: str) -> str:
        """Pushed, if it was not yet. ``small-2`` is another image on the base of ``small``."""
        if image not in self.pushed:
            self.pushed.add(image)
            self.registry.push(f"bench/{image}", "1", self._document(image))
        return f"{self.registry.host}/bench/{image}:1"

    def _document(self, image: str) -> Any:
        if image.startswith("small"):
            self.small_base = self.small_base or _images.small_base()
            return _images.small(self.small_base, int(image.partition("-")[2] or 0))
        return {"debian": _images.debian, "big": _images.big, "tiny": _images.tiny}[image]()

    def pool(self, kind: str) -> Pool:
        if kind not in self.pools:
            self.pools[kind] = Pool(self.place, self.host, kind)
        return self.pools[kind]

    def recipe(self, kind: str) -> Recipe:
        if kind not in self.recipes:
            self.recipes[kind] = Recipe(self.place, self.pool(kind))
            self.recipes[kind].run(self.reference("tiny"))
        return self.recipes[kind]

    def server(self, kind: str, label: str = "") -> Coppice:
        key = f"{kind}{label}"
        if key not in self.servers:
            place = self.place / f"state-{key}"
            made = Coppice(place, self.pool(kind), self.registry.host, ENGINE)
            made.run(self.reference("tiny"))
            self.servers[key] = made
        return self.servers[key]


#: What is done before a way's run, not measured; and the run: seconds.
Side = tuple[Callable[[], object], Callable[[], float]]


def measure(bench: Bench, case: Case) -> dict[str, Any]:
    sides, first = SIDES[case.name](bench, case)
    row: dict[str, Any] = {"case": case.name, "image": case.image, "pool": case.pool}
    if first is not None:
        # Once before, with a look at memory: the look costs time, so this run is not counted.
        server, prepare, reference = first
        prepare()
        with server.memory() as memory:
            seconds = server.run(reference)
        row["peakMemoryBytes"] = memory[0]
        row["entries"] = server.template["entries"]
        if not sides:
            row["nativeSeconds"], row["nativeSpread"] = seconds, 0.0
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(case.runs):
        order = list(sides)
        for name in order[turn % len(order) :] + order[: turn % len(order)] if order else []:
            prepare, way = sides[name]
            prepare()
            os.sync()  # what one way left in memory is not written while the next one is measured
            times[name].append(way())
    if first is not None:
        row["milliseconds"] = first[0].template["milliseconds"]  # of its last run
    for name, seconds_of in times.items():
        row[f"{name}Seconds"] = round(statistics.median(seconds_of), 3)
        row[f"{name}Spread"] = round((max(seconds_of) - min(seconds_of)) / 2, 3)
    if case.name == "cold":
        row["treeDigest"] = same_tree(bench, case)
    return {**row, "runs": case.runs}


def same_tree(bench: Bench, case: Case) -> str:
    """The digest of the tree that the recipe made last. It ends all where native's is another."""
    manifest = io.BytesIO()
    tree.scan(bench.recipe(case.pool).tree, limit_entries=1_000_000, into=manifest)
    # buildah makes a root of its own; none of these images says how it is.
    found = manifest.getvalue().replace(b"\n. type=dir mode=0555 ", b"\n. type=dir mode=0755 ", 1)
    theirs = tree.digest(amend(found, described(NAMESERVER)))
    ours = str(bench.server(case.pool).template["treeDigest"])
    if theirs != ours:
        raise SystemExit(
            f"{case.image} on {case.pool}: the recipe's tree has the digest {theirs},"
            f" {ENGINE}'s has {ours}."
        )
    return ours


First = tuple[Coppice, Callable[[], object], str] | None


def nothing() -> None:
    pass


def _self(bench: Bench, case: Case) -> tuple[dict[str, Side], First]:
    recipe, reference = bench.recipe(case.pool), bench.reference(case.image)
    recipe.pull(reference)
    side = (nothing, lambda: recipe.run(reference))
    return {"recipe": side, "again": side}, None


def _cold(bench: Bench, case: Case) -> tuple[dict[str, Side], First]:
    recipe, ours = bench.recipe(case.pool), bench.server(case.pool)
    reference = bench.reference(case.image)
    floor = Floor(bench.pool(case.pool))
    sides: dict[str, Side] = {
        "recipe": (recipe.forget, lambda: recipe.run(reference)),
        "native": (ours.forget, lambda: ours.run(reference)),
        "floor": (nothing, lambda: floor.run(reference)),
    }
    return sides, (ours, ours.forget, reference)


def _warm(bench: Bench, case: Case) -> tuple[dict[str, Side], First]:
    recipe, ours = bench.recipe(case.pool), bench.server(case.pool)
    reference = bench.reference(case.image)
    ours.run(reference)
    sides: dict[str, Side] = {
        "recipe": (lambda: recipe.pull(reference), lambda: recipe.run(reference)),
        "native": (ours.forget_states, lambda: ours.run(reference)),
    }
    return sides, (ours, ours.forget_states, reference)


def _shared(bench: Bench, case: Case) -> tuple[dict[str, Side], First]:
    """Every run has an image of its own on the base that ``small`` left here."""
    recipe, ours = bench.recipe(case.pool), bench.server(case.pool)
    ours.run(bench.reference(case.image))

    def another() -> str:
        bench.images += 1
        return bench.reference(f"{case.image}-{bench.images}")

    references = {"recipe": "", "native": ""}

    def ready_recipe() -> None:
        references["recipe"] = another()
        recipe.pull(references["recipe"])

    def ready_native() -> None:
        references["native"] = another()

    sides: dict[str, Side] = {
        "recipe": (ready_recipe, lambda: recipe.run(references["recipe"])),
        "native": (ready_native, lambda: ours.run(references["native"])),
    }
    return sides, (ours, nothing, another())


def _unchanged(bench: Bench, case: Case) -> tuple[dict[str, Side], First]:
    ours, reference = bench.server(case.pool), bench.reference(case.image)
    ours.run(reference)
    clone = Clone(bench.pool(case.pool))

    def origin() -> None:
        clone.origin = str(ours.template["origin"])

    sides: dict[str, Side] = {
        "native": (nothing, lambda: ours.run(reference)),
        "clone": (origin, lambda: clone.run(reference)),
    }
    return sides, (ours, nothing, reference)


def _memory(bench: Bench, case: Case) -> tuple[dict[str, Side], First]:
    """A server of its own, that has imported nothing large before."""
    return {}, (bench.server(case.pool, "-memory"), nothing, bench.reference(case.image))


SIDES = {
    "self": _self,
    "cold": _cold,
    "warm": _warm,
    "shared": _shared,
    "unchanged": _unchanged,
    "memory": _memory,
}


# --- the table, and the goals --------------------------------------------------------------------


def judged(case: Case, row: dict[str, Any]) -> list[tuple[str, bool]]:
    """Each goal in words, with what was reached, and whether it was."""
    found = []
    ours = row.get("nativeSeconds")
    if case.recipe is not None:
        ratio = row["recipeSeconds"] / ours
        found.append((f"recipe {ratio:.2f}x >= {case.recipe:g}x", ratio >= case.recipe))
    if case.floor is not None:
        ratio = ours / row["floorSeconds"]
        found.append((f"floor {ratio:.2f}x <= {case.floor:g}x", ratio <= case.floor))
    if case.clone is not None:
        ratio = ours / row["cloneSeconds"]
        found.append((f"clone {ratio:.2f}x <= {case.clone:g}x", ratio <= case.clone))
    if case.memory is not None:
        peak = row["peakMemoryBytes"]
        text = f"memory {peak / MB:.0f}M <= {case.memory / MB:.0f}M"
        found.append((text, peak <= case.memory))
    return found


COLUMNS = ("recipe", "native", "floor", "clone", "again")


def show(case: Case, row: dict[str, Any], *, head: bool) -> None:
    if head:
        titles = "".join(f"{name:>14}" for name in COLUMNS)
        print(f"{'case':9} {'image':6} {'pool':4} {'entries':>7}{titles} {'memory':>7}  goals")
    cells = ""
    for name in COLUMNS:
        if (seconds := row.get(f"{name}Seconds")) is None:
            cells += " " * 14
        else:
            cells += f"{seconds:8.2f} ±{row[f'{name}Spread']:4.2f}"
    memory = f"{row['peakMemoryBytes'] / MB:6.0f}M" if "peakMemoryBytes" in row else ""
    goals = ", ".join(text if met else f"{text} MISSED" for text, met in judged(case, row))
    print(
        f"{case.name:9} {case.image:6} {case.pool:4} {row.get('entries', ''):>7}"
        f"{cells} {memory:>7}  {goals}",
        flush=True,
    )
    if stages := row.get("milliseconds"):
        print(f"{'':10}ms: {', '.join(f'{stage} {took}' for stage, took in stages.items())}")
    if digest := row.get("treeDigest"):
        print(f"{'':10}tree: {digest}, the recipe's too")


def chosen(words: list[str]) -> list[Case]:
    """Words of one kind (case, image, pool) are alternatives; one word of each kind must hold."""
    kinds = [{getattr(case, kind) for case in CASES} for kind in ("name", "image", "pool")]
    if unknown := set(words) - set().union(*kinds):
        raise SystemExit(f"No case, image or pool is called {', '.join(sorted(unknown))}.")
    wanted = [kind & set(words) or kind for kind in kinds]
    return [
        case
        for case in CASES
        if case.name in wanted[0] and case.image in wanted[1] and case.pool in wanted[2]
    ]


def main() -> int:
    cases = chosen(sys.argv[1:])
    begun = time.monotonic()
    rows = []
    bench = Bench()
    try:
        for case in cases:
            rows.append(measure(bench, case))
            show(case, rows[-1], head=len(rows) == 1)
    finally:
        bench.close()
    if tuple(cases) == CASES and ENGINE == "native":
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(rows, indent=2) + "\n")
    print(
        f"Seconds, medians of up to {RUNS} alternating runs, ± half the range; engine {ENGINE},"
        f" {os.cpu_count()} cores, {run('uname', '-sr')}; all of it in"
        f" {time.monotonic() - begun:.0f} s."
    )
    goals = [goal for case, row in zip(cases, rows, strict=True) for goal in judged(case, row)]
    missed = [text for text, met in goals if not met]
    print(f"{len(goals) - len(missed)} of {len(goals)} goals are met.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
