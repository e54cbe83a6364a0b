"""The store against the ``eventsourcing`` library: ``python -m bench.store``.

The same events, on the same database, in turn: PostgreSQL with fsync, synchronous_commit and
full_page_writes on, SQLite with WAL and synchronous=FULL, asked of each side's own connections.
Every writer is a process of its own (bench/_store_sides.py). Per round each side works for SECONDS;
a side's figure is events per second spent in its calls, the ratio that of one round, and what is
shown their median and range. ``self`` is the peer against itself: the machine's noise. The server
of PostgreSQL has half of the processors to itself, its clients have the others: docs, Performance.

single   one event per append, with the expected version. The peer: on PostgreSQL its recorder's
         ``insert_events`` with the row made ready, on SQLite ``Application.save``
folding  a launch, whose sandbox's row we write in the same transaction; the peer has no read model,
         so no goal
batch    100 events per append
function like single, against the peer's database function (off by default). It takes no lock, so
         positions of the peer's are then not in commit order; so no goal
replay   all 10,000 events in order, decoded to objects. The peer: ``ApplicationSubscription``, from
         which it feeds its projections; on SQLite, where it has none, as in ``rows``
rows     replay, against a loop around the peer's ``select_notifications`` (1000 rows, as we read)
         and its mapper: the fastest that can be put together of its parts; no goal

The table goes to stdout, the figures to var/bench/store.json. Ends with 1 where a goal is missed.
``python -m bench.store replay batch`` measures these alone, and leaves the file as it is.
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
from dataclasses import dataclass
from pathlib import Path

from tests.postgres import Cluster

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "var" / "bench" / "store.json"
RUNS = int(os.environ.get("RUNS", "7"))
SECONDS = float(os.environ.get("SECONDS", "0.5"))


@dataclass(frozen=True)
class Case:
    name: str
    database: str
    writers: int = 1
    goal: float | None = None

    def sides(self) -> tuple[str, str]:
        if self.name == "self":
            return "peer", "peer"
        return "coppice", "function" if self.name == "function" else "peer"


CASES = (
    Case("single", "postgresql", 1, 1.0),
    Case("single", "postgresql", 4, 2.0),
    Case("self", "postgresql", 1),
    Case("self", "postgresql", 4),
    Case("function", "postgresql", 1),
    Case("function", "postgresql", 4),
    Case("folding", "postgresql", 1),
    Case("folding", "postgresql", 4),
    Case("batch", "postgresql", 1, 1.0),
    Case("replay", "postgresql", 1, 1.5),
    Case("rows", "postgresql", 1),
    Case("single", "sqlite", 1, 1.0),
    Case("self", "sqlite", 1),
    Case("folding", "sqlite", 1),
    Case("batch", "sqlite", 1),
    Case("replay", "sqlite", 1),
)


class Side:
    """Writers of one side, each in its process, all at work at the same time."""

    def __init__(self, side: str, case: Case, url: str, label: str) -> None:
        work = "single" if case.name in ("self", "function") else case.name
        self.processes = []
        for number in range(case.writers):
            argv = [sys.executable, "-m", "bench._store_sides", side, work, url]
            self.processes.append(
                subprocess.Popen(
                    [*argv, f"{label}-{number}"],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            # One after the other: each may have tables to make.
            if self._line(self.processes[-1]) != "ready":
                raise SystemExit(f"{side} did not get ready for {case}")

    def _line(self, process: subprocess.Popen[str]) -> str:
        if process.stdout is None:
            raise RuntimeError("no pipe")
        return process.stdout.readline().strip()

    def _say(self, process: subprocess.Popen[str], word: str) -> None:
        if process.stdin is None:
            raise RuntimeError("no pipe")
        process.stdin.write(f"{word}\n")
        process.stdin.flush()

    def rate(self) -> float:
        """Events per second, of all writers together."""
        for word in (str(SECONDS), "go"):
            for process in self.processes:
                self._say(process, word)
            told = [self._line(process) for process in self.processes]
        results = [json.loads(one) for one in told]
        return float(sum(one["events"] / one["seconds"] for one in results))

    def end(self) -> None:
        for process in self.processes:
            process.communicate()


def measure(case: Case, url: str, number: int) -> dict[str, object]:
    ours, theirs = (
        Side(side, case, url, f"{case.name}{number}{place}")
        for place, side in zip("ab", case.sides(), strict=True)
    )
    pairs = []
    for turn in range(RUNS):
        first, second = (ours, theirs) if turn % 2 == 0 else (theirs, ours)
        rates = {first: first.rate(), second: second.rate()}
        pairs.append((rates[ours], rates[theirs]))
    ours.end()
    theirs.end()
    ratios = [mine / its for mine, its in pairs]
    return {
        "case": case.name,
        "database": case.database,
        "writers": case.writers,
        "oursPerSecond": round(statistics.median(mine for mine, _ in pairs), 1),
        "peerPerSecond": round(statistics.median(its for _, its in pairs), 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratioLowest": round(min(ratios), 3),
        "ratioHighest": round(max(ratios), 3),
        "goal": case.goal,
        "runs": RUNS,
        "seconds": SECONDS,
    }


def migrated(url: str) -> None:
    env = {**os.environ, "DATABASE_URL": url}
    command = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(command, cwd=ROOT, env=env, check=True)


def halves(usable: set[int]) -> tuple[set[int], set[int]]:
    """Processors for the server and for the writers; the same where there is but one."""
    middle = len(usable) // 2
    return set(sorted(usable)[middle:]), set(sorted(usable)[:middle]) or usable


def fsync_milliseconds(place: Path) -> float:
    """What one small write costs until it is on this disk: the floor of every single append."""
    times = []
    with (place / "probe").open("wb") as file:
        for _ in range(100):
            begun = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


def main() -> int:
    rows = []
    cases = [case for case in CASES if case.name in (sys.argv[1:] or [case.name])]
    usable = os.sched_getaffinity(0)
    server, writers = halves(usable)
    os.sched_setaffinity(0, server)  # for this process, and for what it starts from here on
    with Cluster() as cluster, tempfile.TemporaryDirectory(prefix="coppice-bench-") as directory:
        place = Path(directory)
        floor = fsync_milliseconds(place)
        migrated(cluster.create("empty"))
        migrated(f"sqlite:///{place}/empty")
        for number, case in enumerate(cases):
            # A database of its own for each case, both sides in it: none is measured on what
            # another left behind.
            name = f"bench{number}"
            if case.database == "postgresql":
                url = cluster.create(name, "empty")
            else:
                shutil.copyfile(place / "empty", place / name)
                url = f"sqlite:///{place}/{name}"
            if case.database == "postgresql":
                cluster.execute("CHECKPOINT")
            os.sched_setaffinity(0, usable if case.database == "sqlite" else writers)
            rows.append(measure(case, url, number))
            show(rows[-1], head=number == 0)
    if cases == list(CASES):
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(rows, indent=2) + "\n")
    print(
        f"Medians of {RUNS} alternating runs of {SECONDS} s; in brackets the range of the ratio."
        f" {os.cpu_count()} cores, Python {sys.version.split()[0]}, fdatasync {floor:.2f} ms."
    )
    missed = [row for row in rows if row["goal"] is not None and row["ratio"] < row["goal"]]  # type: ignore[operator]
    for row in missed:
        print(f"missed: {row['case']} on {row['database']}, {row['writers']} writer(s)")
    return 1 if missed else 0


def show(row: dict[str, object], *, head: bool) -> None:
    if head:
        print(f"{'case':8} {'database':10} {'writers':>7} {'ours/s':>9} {'peer/s':>9} {'ratio':>6}")
    goal = "" if row["goal"] is None else f"goal {row['goal']}"
    print(
        f"{row['case']:8} {row['database']:10} {row['writers']:7}"
        f" {row['oursPerSecond']:9.1f} {row['peerPerSecond']:9.1f} {row['ratio']:6.2f}"
        f" [{row['ratioLowest']:.2f}-{row['ratioHighest']:.2f}] {goal}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
