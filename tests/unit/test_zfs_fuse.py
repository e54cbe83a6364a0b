"""What zfs-fuse cannot bear is not done to it: two mounts at once. (zfs is a script here.)"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from templates_app.datasets import zfs_command
from templates_app.datasets.zfs_command import mounting, zfs
from templates_app.errors import ImportTimeout


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where the daemon's socket would be; ``zfs`` notes its runs there, and takes a while."""
    (tmp_path / "zfs_socket").touch()
    script = tmp_path / "bin" / "zfs"
    script.parent.mkdir()
    script.write_text(
        f"""#!/bin/sh
        cd {tmp_path}
        mkdir running 2>/dev/null || echo "$@" >> at-once
        echo "$@" >> begun
        while [ -e wait ]; do sleep 0.02; done
        sleep 0.05
        rmdir running 2>/dev/null; true
        """
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(zfs_command, "ZFS_FUSE", tmp_path)
    return tmp_path


def together(*calls):
    threads = [threading.Thread(target=zfs, args=words) for words in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_all_that_mounts_one_runs_at_a_time(place):
    together(("clone", "a"), ("create", "b"), ("mount", "c"), ("rollback", "d"), ("rename", "e"))
    assert len((place / "begun").read_text().split()) == 10
    assert not (place / "at-once").exists()


def test_what_mounts_nothing_waits_for_nobody(place):
    with mounting(1.0):
        together(("list", "a"), ("snapshot", "b"), ("destroy", "c"))
        zfs("clone", "-o", "canmount=off", "d")


def test_with_another_zfs_nobody_waits(place):
    (place / "zfs_socket").unlink()
    with mounting(1.0) as held:
        assert held == ()
        together(("clone", "a"), ("clone", "b"), ("clone", "c"))
    assert (place / "at-once").exists()


def test_one_whose_caller_was_killed_is_waited_for(place):
    (place / "wait").touch()
    code = (
        "import pathlib, sys; from templates_app.datasets import zfs_command as command;"
        "command.ZFS_FUSE = pathlib.Path(sys.argv[1]); command.zfs('mount', 'it')"
    )
    caller = subprocess.Popen([sys.executable, "-c", code, place])
    until = time.monotonic() + 20
    while not (place / "begun").exists() and time.monotonic() < until:
        time.sleep(0.02)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    with pytest.raises(ImportTimeout), mounting(0.3):
        pass
    (place / "wait").unlink()
    with mounting(20.0):
        assert not (place / "running").exists()


def test_a_caller_that_fails_holds_nothing(place):
    with contextlib.suppress(KeyError), mounting(1.0):
        raise KeyError
    with mounting(0.0):
        pass
