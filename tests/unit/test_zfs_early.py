"""The look at a clone that begins while it is made: what it may tell, and what it may not."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from templates_app.datasets import zfs_early
from templates_app.datasets.zfs_early import EarlyLook
from templates_app.errors import PoolUnavailable

BASE = "p/jails/coppice/web-g1@base"
PLACE = "/jails/s"
TAKES = 4.0  # seconds


def look(mounted: str) -> dict[str, dict[str, str]]:
    clone = {"origin": BASE, "mounted": mounted, "mountpoint": PLACE}
    return {"p/jails/s": clone, BASE: {"guid": "7"}}


TOO_EARLY = [
    {},
    {BASE: {"guid": "6"}},  # the dataset was not there yet: nothing held the snapshot
    {"p/jails/s": look("no")["p/jails/s"]},
    {"p/jails/s": {**look("no")["p/jails/s"], "origin": "p/other@base"}, BASE: {"guid": "6"}},
    PoolUnavailable("It does not answer."),
]


class Pool:
    """Whose answers to looks are given, one after the other."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.asked_by: list[threading.Thread] = []

    def __call__(self):
        self.asked_by.append(threading.current_thread())
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def asked_early(self) -> list[bool]:
        return [thread is not threading.current_thread() for thread in self.asked_by]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(zfs_early, "time", made)
    monkeypatch.setattr(zfs_early, "_takes", {"p/jails": TAKES})
    monkeypatch.setattr(zfs_early, "os", SimpleNamespace(path=SimpleNamespace(ismount=mounted)))
    return made


def mounted(path: str) -> bool:
    return path == PLACE


def cloned(pool: Pool, clock: Clock, *, drawn: bool = True, steps: int = 5) -> EarlyLook:
    with EarlyLook("p/jails", "s", BASE, pool, drawn=drawn) as early:
        early.step()
        clock.now += TAKES * zfs_early._WAITS - 0.1
        early.step()
        assert pool.asked_by == []  # it cannot be there yet
        for _ in range(steps):
            clock.now += 0.1
            early.step()
            if early._thread is not None:
                early._thread.join()
    return early


def test_it_begins_when_the_clone_may_be_there_and_is_believed(clock):
    pool = Pool(look("no"))
    assert cloned(pool, clock).seen() == look("yes")
    assert pool.asked_early == [True]


def test_what_is_not_mounted_in_the_end_is_not_said_to_be(clock, monkeypatch):
    monkeypatch.setattr(zfs_early.os.path, "ismount", lambda _: False)
    assert cloned(Pool(look("no")), clock).seen() == look("no")


@pytest.mark.parametrize("early", TOO_EARLY)
def test_one_that_came_too_early_is_repeated_meanwhile(clock, early):
    pool = Pool(early, look("no"))
    assert cloned(pool, clock).seen() == look("yes")
    assert pool.asked_early == [True, True]


@pytest.mark.parametrize("early", TOO_EARLY)
def test_what_no_early_look_saw_is_looked_at_afterwards(clock, early):
    pool = Pool(early, early, look("yes"))
    assert cloned(pool, clock).seen() == look("yes")
    assert pool.asked_early == [True, True, False]


def test_one_that_takes_long_is_waited_for_and_not_begun_twice(clock):
    pool, goes_on = Pool(look("no")), threading.Event()

    def slow():
        goes_on.wait(10)
        return pool()

    with EarlyLook("p/jails", "s", BASE, slow, drawn=True) as early:
        early.step()
        for _ in range(3):
            clock.now += TAKES
            early.step()
        goes_on.set()
    assert early.seen() == look("yes") and pool.asked_early == [True]


def test_a_name_that_others_may_have_used_is_looked_at_afterwards(clock):
    pool = Pool(look("yes"))
    with EarlyLook("p/jails", "s", BASE, pool, drawn=False) as early:
        early.step()
        clock.now += TAKES
        early.step()
    assert early.seen() == look("yes") and pool.asked_early == [False]


def test_how_long_a_clone_takes_is_learned_from_those_that_were_made(clock, monkeypatch):
    monkeypatch.setattr(zfs_early, "_takes", {})

    def make(seconds: float, error: Exception | None = None) -> None:
        with EarlyLook("p/jails", "s", BASE, Pool(), drawn=True) as early:
            early.step()
            clock.now += seconds
            if error:
                raise error

    make(2.0)  # the first: nothing is guessed
    assert zfs_early._takes == {"p/jails": 2.0}
    zfs_early._takes["p/jails"] = 8.0
    make(4.0)
    assert zfs_early._takes == {"p/jails": 7.0}
    with pytest.raises(PoolUnavailable):
        make(1.0, PoolUnavailable("It does not answer."))
    assert zfs_early._takes == {"p/jails": 7.0}
