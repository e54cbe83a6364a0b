"""var/faults/report.txt: where processes were killed, and what became of what they did."""

from __future__ import annotations

import collections
import fcntl
import json
from pathlib import Path

PLACE = Path(__file__).resolve().parents[2] / "var" / "faults"


class Lines:
    """Of one pair of pool and database."""

    def __init__(self, pool: str, database_url: str) -> None:
        self._pool = pool
        self._database = database_url.partition(":")[0]
        self._counts: collections.Counter[tuple[str, str, str, str]] = collections.Counter()

    def add(self, name: str, boundary: tuple[str, str], outcome: str) -> None:
        self._counts[(name, *boundary, outcome)] += 1

    def write(self, of: str) -> None:
        """Each test has a file of its own; together they are the report."""
        PLACE.mkdir(parents=True, exist_ok=True)
        rows = [[*key, count] for key, count in sorted(self._counts.items())]
        (PLACE / f"{of}-{self._pool}-{self._database}.json").write_text(json.dumps(rows))
        with (PLACE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (PLACE / "report.txt").write_text(_whole())


def _whole() -> str:
    lines, total = [], 0
    for path in sorted(PLACE.glob("*.json")):
        _, pool, database = path.stem.rsplit("-", 2)
        for name, before, step, outcome, count in json.loads(path.read_text()):
            total += count
            lines.append(
                f"{pool:4} {database:9} {name:27} {outcome:9} {count:4}  {before} | {step}"
            )
    head = f"{total} kills; pool, database, use case, what became of it, kills, died between\n\n"
    return head + "\n".join(lines) + "\n"
