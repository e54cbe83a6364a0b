"""Two servers under mixed load on one pool and one PostgreSQL, and one of them is killed, again and
again. Now and then all stands still, and then nothing may be wrong. At the end all sandboxes and
templates are destroyed, and nothing may be left.

SOAK_SECONDS says how long: 60 where nothing is said, and more by `make soak`. The other server is
never killed: at the end it has no more descriptors, processes, mounts and (much) memory than it had
when it was warm.
"""

from __future__ import annotations

import collections
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from django.db import connections

from templates_app.models import Sandbox, Template
from templates_app.services import ready, sweep
from tests.faults.world import World, who
from tests.servers import Installation, Keys, MakeServer, Server

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
#: Seconds between two looks at everything, and between two kills.
LOOKS, KILLS = 15.0, 5.0
CLIENTS = 3
#: Sandboxes that live at once, at most: each is a mount, and its end waits for the pool.
LIVING = 20
NAMES = ("alder", "birch", "cedar")
#: What an answer may be when others do the same at the same time, or the server has just died.
FINE = {200, 201, 204, 404, 409, 412, 503}


class Load:
    """Clients that do this and that, until they are told to stand still, or to end."""

    def __init__(self, world: World, servers: list[Server], keys: Keys) -> None:
        self.world, self.servers, self.keys = world, servers, keys
        self.counts: collections.Counter[str] = collections.Counter()
        self.odd: list[str] = []
        self._moving, self._over = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._busy = 0
        self._secret = keys.trust("release", servers[0].installation)
        tokens = servers[0].installation
        self._headers = {
            role: {"Authorization": f"Bearer {tokens.token(role)}"}
            for role in ("operator", "signer", "gateway")
        }

    def run(self) -> list[threading.Thread]:
        self._moving.set()
        threads = [threading.Thread(target=self._client, args=(seed,)) for seed in range(CLIENTS)]
        for thread in threads:
            thread.start()
        return threads

    def end(self) -> None:
        self._over.set()
        self._moving.set()

    def stand_still(self) -> None:
        self._moving.clear()
        until = time.monotonic() + 90
        while self._busy and time.monotonic() < until:
            time.sleep(0.02)
        assert not self._busy, "a request does not come back"

    def move(self) -> None:
        self._moving.set()

    def _client(self, seed: int) -> None:
        chance = random.Random(seed)
        works = [self.launch] * 8 + [self.end_one] * 6 + [self.import_one] * 3
        works += [self.roll_back, self.sign, self.destroy, self.sweep]
        while not self._over.is_set():
            self._moving.wait()
            with self._lock:
                self._busy += 1
            try:
                chance.choice(works)(chance)
            except httpx.TransportError:
                self.counts["lost"] += 1  # the server was killed
            except Exception as odd:  # noqa: BLE001 - told, and the test fails by it
                self.odd.append(f"{type(odd).__name__}: {odd}")
            finally:
                connections.close_all()
                with self._lock:
                    self._busy -= 1

    def _ask(self, role: str, method: str, path: str, chance: random.Random, **rest: Any) -> None:
        url = f"{chance.choice(self.servers).url}{path}"
        headers = {**self._headers[role], **rest.pop("headers", {})}
        answer = httpx.request(method, url, headers=headers, timeout=90, trust_env=False, **rest)
        self.counts[f"{method} {path.split('/')[1]} {answer.status_code}"] += 1
        # Somebody else made another generation current between the statement and its signature.
        overtaken = answer.status_code == 422 and path.endswith("/signatures")
        if answer.status_code not in FINE and not overtaken:
            self.odd.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")

    def import_one(self, chance: random.Random) -> None:
        with self._lock:
            self.world.image()
            source = f"oci-layout:{self.world.shelf / str(self.world.made)}"
        body = {"name": chance.choice(NAMES), "from": source, "force": True}
        self._ask("operator", "POST", "/templates", chance, json=body)

    def launch(self, chance: random.Random) -> None:
        if Sandbox.objects.filter(destroyed_at=None).count() >= LIVING:
            self.end_one(chance)
            return
        body = {"template": chance.choice(NAMES)}
        self._ask("gateway", "POST", "/sandboxes", chance, json=body)

    def end_one(self, chance: random.Random) -> None:
        live = list(Sandbox.objects.filter(destroyed_at=None).values_list("id", flat=True))
        if live:
            self._ask("gateway", "DELETE", f"/sandboxes/{chance.choice(live)}", chance)

    def roll_back(self, chance: random.Random) -> None:
        self._ask(
            "operator", "POST", f"/templates/{chance.choice(NAMES)}/rollback", chance, json={}
        )

    def sign(self, chance: random.Random) -> None:
        name = chance.choice(NAMES)
        url = f"{self.servers[0].url}/templates/{name}/statement"
        got = httpx.get(url, headers=self._headers["signer"], timeout=90, trust_env=False)
        if got.status_code == 200:
            with self._lock:
                signature = self.keys.sign(self._secret, got.content)
            body = {"signature": signature}
            self._ask("signer", "POST", f"/templates/{name}/signatures", chance, json=body)

    def destroy(self, chance: random.Random) -> None:
        self._ask("operator", "DELETE", f"/templates/{chance.choice(NAMES)}", chance)

    def sweep(self, _chance: random.Random) -> None:
        sweep.sweep(context=who())
        self.counts["sweep"] += 1

    def clear(self) -> list[str]:
        """End all there is, as an operator does; what is left on the pool then."""
        chance = random.Random()
        for sandbox in Sandbox.objects.filter(destroyed_at=None).values_list("id", flat=True):
            self._ask("gateway", "DELETE", f"/sandboxes/{sandbox}", chance)
        for name in NAMES:
            self._ask("operator", "DELETE", f"/templates/{name}", chance)
        self.world.recover()  # prunes the layer states, which no template needs any more
        left = [one.name for one in self.world.driver.find_all()]
        if self.world.driver.layers is not None:
            left += [one.name for one in self.world.driver.layers.images()]
        return [f"{name} is left on the pool" for name in left]


def figures(world: World, server: Server) -> dict[str, float]:
    """Of the server that is never killed, and of what both have made."""
    assert server.process is not None
    own = psutil.Process(server.process.pid)
    family = [own, *own.children(recursive=True)]
    mounts = Path("/proc/self/mounts").read_text().count(f" {world.root}/")
    return {
        "processes": len(family),
        "descriptors": sum(one.num_fds() for one in family),
        "threads": sum(one.num_threads() for one in family),
        "MB": round(sum(one.memory_info().rss for one in family) / 2**20),
        "mounts besides sandboxes": mounts - Sandbox.objects.filter(destroyed_at=None).count(),
        "files in the state directory": sum(
            1 for path in world.state.rglob("*") if path.is_file() and "blobs" not in path.parts
        ),
        "sandboxes": Sandbox.objects.filter(destroyed_at=None).count(),
    }


def wrong(world: World) -> list[str]:
    said = world.recover()
    until = time.monotonic() + 20
    while ready.notes() and time.monotonic() < until:
        time.sleep(0.05)  # a server makes one just now, for a launch that was answered
        said += world.recover()
    return [sentence for sentence in said if "could not" in sentence] + world.violations()


@pytest.fixture
def installation(soak_world: World, postgres_url: str) -> Installation:
    return Installation(
        soak_world.state,
        pool=soak_world.driver.pool,
        database_url=postgres_url,
        COPPICE_IMPORT_ROOTS=str(soak_world.shelf),
        COPPICE_PLATFORM="linux/amd64",
        COPPICE_DNS_NAMESERVER="",
        COPPICE_RETAIN_GENERATIONS="1",
        COPPICE_LIMIT_LAYERS_BYTES="0",
    )


def test_nothing_goes_wrong_and_nothing_is_left_under_mixed_load_and_kills(
    soak_world: World, installation: Installation, serve: MakeServer, keys: Keys
):
    world = soak_world
    steady, mortal = serve(installation), serve(installation)
    load = Load(world, [steady, mortal], keys)
    threads = load.run()
    start: dict[str, float] = {}
    problems: list[str] = []
    kills = looks = 0
    begun = look = kill = time.monotonic()
    try:
        while time.monotonic() - begun < SECONDS and not problems and not load.odd:
            time.sleep(0.1)
            if time.monotonic() - kill > KILLS:
                mortal.kill()
                mortal.start()
                kills, kill = kills + 1, time.monotonic()
            if time.monotonic() - look > LOOKS:
                load.stand_still()
                problems = wrong(world)
                start = start or figures(world, steady)
                looks += 1
                load.move()
                look = time.monotonic()
    finally:
        load.stand_still()
        load.end()
        for thread in threads:
            thread.join()
    problems += wrong(world) + world.at_the_end()
    end = figures(world, steady)
    problems += load.clear()
    lines = [f"{sum(load.counts.values())} requests, {kills} kills, {looks + 1} looks"]
    lines += [f"  {what}: {count}" for what, count in sorted(load.counts.items())]
    lines += [f"  {what}: {start.get(what, 0):g} -> {value:g}" for what, value in end.items()]
    print("\n".join(lines))
    (Path("var") / "faults").mkdir(parents=True, exist_ok=True)
    (Path("var") / "faults" / "soak.txt").write_text("\n".join(lines) + "\n")
    assert (problems, load.odd) == ([], [])
    assert load.counts["POST sandboxes 201"] > 0 and load.counts["POST templates 201"] > 0
    assert Template.objects.exists() or load.counts["DELETE templates 204"]
    assert end["processes"] == start["processes"]
    assert end["mounts besides sandboxes"] <= start["mounts besides sandboxes"]
    assert end["descriptors"] <= start["descriptors"] + 8
    assert end["MB"] <= start["MB"] * 1.25 + 20
