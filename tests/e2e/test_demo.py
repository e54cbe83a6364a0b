"""The demo, whole: what it shows, in which order, and that it leaves nothing running."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.test_bad_input import path_without
from tests.e2e.test_crash import mounts_below
from tests.pools import sh
from tests.servers import ROOT

IMPORTED = (
    r"^template=debian12-min snapshot=(?P<root>\S+)/debian12-min-template@base size=[0-9.]+M$"
)


def demo(place: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.demo", "--in", str(place)],
        cwd=ROOT,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def nothing_runs_in(place: Path) -> None:
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if any(str(place) in word for word in process.info["cmdline"] or ())
    ]
    assert left == []
    assert mounts_below(place) == []


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "demo"


def test_the_demo_goes_the_whole_way_on_a_real_zfs_and_can_be_repeated(zpool: str, place: Path):
    shown = demo(place)
    imported = re.search(IMPORTED, shown, re.MULTILINE)
    assert imported and imported["root"] == "zroot/jails"
    refused = shown.index("(exit status 5: refused by the gate)")
    signed = shown.index("template=debian12-min key=coppice keyid=")
    launched = shown.index("origin=zroot/jails/coppice/debian12-min-g1-")
    assert imported.start() < refused < signed < launched
    history = shown[launched:].splitlines()
    # Imported, refused, signed, launched; what the server is set to stands between them in the log.
    positions = [int(line.split()[2]) for line in history if line.startswith("20")]
    assert len(positions) == 4 and positions == sorted(set(positions))
    state = json.loads((place / "local.json").read_text())
    assert f"http://127.0.0.1:{state['port']}/admin/" in shown
    assert f"password  {state['password']}" in shown
    assert (place / "local.json").stat().st_mode & 0o077 == 0
    assert "zroot" not in sh("zpool", "list", "-H", "-o", "name").split()
    nothing_runs_in(place)
    assert re.search(IMPORTED, demo(place), re.MULTILINE)
    nothing_runs_in(place)


def test_without_zfs_the_demo_says_so_and_uses_the_directory_pool(place: Path, tmp_path: Path):
    path = path_without("zfs-fuse", tmp_path)
    shown = demo(place, PATH=path, PRIVATE_ZFS="")
    assert "No ZFS on this machine" in shown and "zfs-fuse" in shown
    imported = re.search(IMPORTED, shown, re.MULTILINE)
    assert imported and imported["root"] == str(place / "pool")
    nothing_runs_in(place)


def test_two_demos_do_not_work_in_one_directory(place: Path):
    place.parent.mkdir(exist_ok=True)
    with place.with_name("demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [sys.executable, "-m", "deploy.demo", "--in", str(place)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert "end it first" in done.stderr
    assert not place.exists()
