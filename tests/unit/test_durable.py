"""What a directory pool does so that a tree outlives a power failure, and waits for no more."""

from __future__ import annotations

import ctypes
import errno
import threading

import pytest

from templates_app.datasets import from_pool, trees
from templates_app.errors import OutOfSpace, PoolUnavailable

GENERATION = "coppice/web-g1-0000000a"


@pytest.fixture
def calls(monkeypatch):
    """Released once for each time that the tree was written out."""
    monkeypatch.setattr(trees, "_PAUSE", 0.01)
    calls = threading.Semaphore(0)
    real = trees._syncfs

    def counted(descriptor):
        calls.release()
        return real(descriptor)

    monkeypatch.setattr(trees, "_syncfs", counted)
    return calls


def failing(number, called):
    def syncfs(_):
        called.set()
        ctypes.set_errno(number)
        return -1

    return syncfs


def test_the_disk_gets_what_is_there_while_more_is_written(tmp_path, calls):
    with trees.written_out_meanwhile(tmp_path):
        (tmp_path / "file").write_text("x")
        assert calls.acquire(timeout=10)
        assert calls.acquire(timeout=10)
    while calls.acquire(blocking=False):
        pass
    assert not calls.acquire(timeout=0.1), "nobody waits for it any more"


@pytest.mark.parametrize(
    ("number", "error"), [(errno.EIO, PoolUnavailable), (errno.ENOSPC, OutOfSpace)]
)
def test_what_the_disk_says_meanwhile_is_not_lost(tmp_path, monkeypatch, number, error):
    """syncfs(2) tells it once: the last call, before the event, would not be told again."""
    called = threading.Event()
    monkeypatch.setattr(trees, "_syncfs", failing(number, called))
    monkeypatch.setattr(trees, "_PAUSE", 0.01)
    with pytest.raises(error), trees.written_out_meanwhile(tmp_path):
        assert called.wait(10)


def test_an_error_of_the_block_is_the_one_that_is_told(tmp_path, calls):
    with pytest.raises(KeyError), trees.written_out_meanwhile(tmp_path):
        raise KeyError("mine")


def test_a_generation_is_on_the_disk_under_its_name_when_it_is_sealed(tmp_path, monkeypatch):
    (tmp_path / "pool").mkdir()
    pool = from_pool(f"dir:{tmp_path}/pool", step_seconds=10, state_dir=tmp_path / "state")
    path = pool.create(GENERATION).path
    (path / "file").write_text("x")
    written = []

    def make_durable(top):
        written.append((top.name, path.is_symlink(), (path / "file").read_text()))

    monkeypatch.setattr(trees, "make_durable", make_durable)
    pool.seal(GENERATION)
    assert written == [("web-g1-0000000a@base", True, "x")]


def test_one_that_the_disk_refuses_is_not_sealed(tmp_path, monkeypatch):
    (tmp_path / "pool").mkdir()
    pool = from_pool(f"dir:{tmp_path}/pool", step_seconds=10, state_dir=tmp_path / "state")
    pool.create(GENERATION)
    monkeypatch.setattr(trees, "_syncfs", failing(errno.EIO, threading.Event()))
    with pytest.raises(PoolUnavailable, match="cannot be sealed"):
        pool.seal(GENERATION)
    pool.destroy(GENERATION)
    assert pool.find_all() == []
