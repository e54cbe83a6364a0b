"""A launch through the gate against a bare clone: ``deploy/private-zfs python -m bench.gate``.

``POST /sandboxes`` of a signed template with the gate switched on, over HTTP, with all that it does
besides the clone (token, gate, live guid, note for recovery, event, read model), in turn with
``zfs clone`` of the same snapshot by hand. Both are timed from outside, by the same clock; what was
made is destroyed after each turn, so both meet the same number of datasets.

launch   POST /sandboxes, with time for a clone to be made ready since the one before (ready.py)
next     POST /sandboxes at once after another: its clone is being made when it comes; no goal
named    POST /sandboxes with a name: its clone is made while it waits, as is the first of a series
         without; no goal
clone    the bare ``zfs clone``
again    another bare ``zfs clone``: against ``clone`` it is the machine's noise
gate     GET /templates/NAME/gate: the decision alone, nothing cloned; no goal

Medians of 200, in milliseconds, with the middle half of the values. The table goes to stdout, the
figures to var/bench/gate.json. Ends with 1 where the goal is missed. RUNS=N repeats as often, and
leaves the file as it is.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bench import _images
from bench._ways import Pool, run
from tests.pools import stubbornly
from tests.postgres import Cluster
from tests.registries import Registry
from tests.servers import ROOT, Installation, Keys, Server

RUNS = int(os.environ.get("RUNS", "200"))
RESULT = ROOT / "var" / "bench" / "gate.json"
GOAL = 1.5  # a launch costs at most so many bare clones
SIDES = ("launch", "next", "named", "clone", "again", "gate")
TOLD = ("launch", "next", "named", "again")  # against a clone
HELD = ("launch",)  # to the goal
DATABASES = ("sqlite", "postgresql")


class Answer(NamedTuple):
    took: float  # seconds
    status: int
    told: dict[str, Any]


class Launches:
    """A server with one signed template, and the ways to clone it."""

    def __init__(self, place: Path, pool: Pool, registry: Registry, url: str) -> None:
        self.pool = pool
        self.installation = Installation(
            place,
            pool=pool.address,
            database_url=url,
            COPPICE_REQUIRE_SIGNED_TEMPLATES="1",
            COPPICE_REGISTRIES_INSECURE=registry.host,
            COPPICE_PLATFORM="linux/amd64",
        )
        if url:
            self.installation.manage("migrate", "--verbosity=0")
        keys = Keys(place / "keys")
        secret = keys.trust("bench", self.installation)
        self.server = Server(self.installation, forked=False)
        self.server.start()
        operator, signer = self.server.api("operator"), self.server.api("signer")
        self.api = self.server.api("gateway", timeout=60)
        # What is timed is sent by the standard library: httpx takes longer for a request than a
        # gateway that is not written in Python. On one connection, as of a gateway.
        self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        self.headers = {
            "Authorization": self.api.headers["Authorization"],
            "Content-Type": "application/json",
        }
        self.name = f"bench-{pool.number_next()}"
        body = {"name": self.name, "from": f"oci:{registry.host}/bench/tiny:1"}
        self.origin = str(self._posted(operator, "/templates", body)["origin"])
        statement = self.api.get(f"/templates/{self.name}/statement").raise_for_status().content
        signature = {"signature": keys.sign(secret, statement)}
        self._posted(signer, f"/templates/{self.name}/signatures", signature)

    def _posted(self, api: Any, path: str, body: dict[str, str]) -> dict[str, Any]:
        answer = api.post(path, json=body)
        if answer.status_code != 201:
            raise SystemExit(answer.text)
        return dict(answer.json())

    def timed(self, method: str, path: str, body: dict[str, str] | None = None) -> Answer:
        begun = time.perf_counter()
        text = json.dumps(body).encode() if body else None
        self.connection.request(method, path, text, self.headers)
        answer = self.connection.getresponse()
        told = json.loads(answer.read())
        return Answer(time.perf_counter() - begun, answer.status, told)

    def launch(self) -> float:
        return self._ended(self._launched())

    def next(self) -> float:
        before, answer = self._launched(), self._launched()
        self._ended(before)
        return self._ended(answer)

    def named(self) -> float:
        return self._ended(self._launched(name=f"named-{self.pool.number_next()}"))

    def _launched(self, **more: str) -> Answer:
        answer = self.timed("POST", "/sandboxes", {"template": self.name, **more})
        if answer.status != 201 or not answer.told["signed"]:
            raise SystemExit(str(answer))
        return answer

    def _ended(self, answer: Answer) -> float:
        self.api.delete(f"/sandboxes/{answer.told['id']}").raise_for_status()
        return answer.took

    def clone(self) -> float:
        name = f"{self.pool.root}/clone-{self.pool.number_next()}"
        begun = time.perf_counter()
        run("zfs", "clone", self.origin, name)
        took = time.perf_counter() - begun
        stubbornly("zfs", "destroy", name)
        return took

    def gate(self) -> float:
        answer = self.timed("GET", f"/templates/{self.name}/gate")
        if not answer.told["allowed"]:
            raise SystemExit(str(answer))
        return answer.took


def measure(launches: Launches, database: str) -> dict[str, Any]:
    sides: dict[str, Callable[[], float]] = {
        "launch": launches.launch,
        "next": launches.next,
        "named": launches.named,
        "clone": launches.clone,
        "again": launches.clone,
        "gate": launches.gate,
    }
    for side in sides.values():
        for _ in range(5):  # caches warm, statements prepared
            side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(RUNS):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(sides[name]() * 1000)
    row: dict[str, Any] = {"database": database, "runs": RUNS, "goal": GOAL, "ratio": {}}
    for name, all_of in times.items():
        low, middle, high = statistics.quantiles(all_of, n=4)
        row[name] = {"median": round(middle, 2), "half": [round(low, 2), round(high, 2)]}
    for name in TOLD:
        row["ratio"][name] = round(row[name]["median"] / row["clone"]["median"], 3)
    return row


def show(row: dict[str, Any]) -> None:
    for name in SIDES:
        low, high = row[name]["half"]
        ratio = f"{row['ratio'][name]:.2f}x" if name in TOLD else ""
        if name in HELD:
            ratio += f" <= {GOAL:g}x" + (" MISSED" if row["ratio"][name] > GOAL else "")
        half = f"[{low:.2f}-{high:.2f}]"
        print(
            f"{row['database']:11}{name:7}{row[name]['median']:8.2f} {half:15} {ratio}", flush=True
        )


def main() -> int:
    host = Path(tempfile.mkdtemp(prefix="coppice-bench-"))
    registry, pool, rows = Registry(host), Pool(host, host, "zfs"), []
    registry.start()
    try:
        registry.push("bench/tiny", "1", _images.tiny())
        print(f"{'database':18}{'ms':>8} {'':15} of a clone")
        with Cluster() as cluster:
            for database in DATABASES:
                url = cluster.create("gate") if database == "postgresql" else ""
                launches = Launches(host / database, pool, registry, url)
                try:
                    rows.append(measure(launches, database))
                finally:
                    launches.server.stop()
                show(rows[-1])
    finally:
        registry.stop()
        pool.destroy()
        shutil.rmtree(host, ignore_errors=True)
    if RUNS >= 200:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"Medians of {RUNS}, the middle half in brackets; {os.cpu_count()} cores,"
          f" {run('uname', '-sr')}.")  # fmt: skip
    return 1 if any(row["ratio"][name] > GOAL for row in rows for name in HELD) else 0


if __name__ == "__main__":
    sys.exit(main())
