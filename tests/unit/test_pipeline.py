"""The import's stages and their undoing, on a real directory pool.

The source is written by hand, and the driver fails where a test says so. What real ones do is in
tests/contract and tests/e2e; here are the moments at which they cannot be made to fail.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from templates_app import pipeline
from templates_app.datasets import from_pool
from templates_app.errors import (
    AdoptedInTheWay,
    CoppiceError,
    OutOfSpace,
    PlatformIncompatible,
    PoolBusy,
    PullFailed,
    TreeRefused,
)
from templates_app.events import Deviation, Digests
from templates_app.names import Platform, TemplateName
from templates_app.pipeline import STAGES, Job, Made, Rules
from templates_app.sources.base import Progress, Receipt, Resolved
from templates_app.trust import tree
from templates_app.trust.manifests import Archive
from tests.unit.test_verdict import FREEBSD_PROGRAM

ID = "0000000a"
RELATIVE = f"coppice/web-g1-{ID}"
A = "sha256:" + "a" * 64


@dataclass
class HandSource:
    """Fills a directory with what it is told, and says what it is told."""

    fill: Any = None
    fails: BaseException | None = None  # at the end of fetch
    unresolved: BaseException | None = None
    scheme: str = "oci"
    given: str = "localhost/web"
    canonical: str = "localhost/web:latest"
    stages: tuple[str, ...] = ("pull", "copy")

    def resolve(self) -> Resolved:
        if self.unresolved:
            raise self.unresolved
        return Resolved(
            canonical=self.canonical,
            floating=True,
            digests=Digests(index=None, manifest=A, config=A),
            platform=Platform("linux", "amd64"),
            config={},
            layers=(),
        )

    def fetch(self, resolved, into: Path, report, import_id: str) -> Receipt:
        for stage in self.stages:
            report(Progress(stage=stage))
        (into / "etc").mkdir()
        if self.fill:
            self.fill(into)
        if self.fails:
            raise self.fails
        return Receipt(
            engine="hand",
            milliseconds={"pull": 1, "copy": 2},
            left_out=("/dev/*",),
            findings=("something odd",),
        )


@dataclass
class Faulty:
    """A driver that hands on to a real one, and raises once when a method is done, or before."""

    real: Any
    after: dict[str, BaseException] = field(default_factory=dict)
    before: dict[str, BaseException] = field(default_factory=dict)
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def __getattr__(self, name):
        method = getattr(self.real, name)
        if not callable(method):
            return method

        def call(*args):
            self.calls.append((name, *args))
            if name in self.before:
                raise self.before[name]
            result = method(*args)
            if name in self.after:
                raise self.after.pop(name)
            return result

        return call


@pytest.fixture
def pool(dir_pool):
    dir_pool.check()
    return dir_pool


def job_on(pool, source, *, seen=None, hand_made=False, **rules):
    return Job(
        name=TemplateName("web"),
        source=source,
        import_id=ID,
        generation=1,
        driver=pool,
        archive=Archive.of(pool.root.parent / "state"),
        rules=Rules(
            **{"nameserver": "10.78.0.1", "limit_entries": 100, "refuse_foreign": False, **rules}
        ),
        report=(seen if seen is not None else []).append,
        hand_made=hand_made,
    )


def lying_about(pool):
    return [found.relative for found in pool.find_all() if found.relative != "coppice"]


def nothing() -> None:
    """What is in the log, if it is asked after a failure."""


def run(job) -> Made:
    return pipeline.run(job, lambda made: made, nothing)


class Rotten(HandSource):
    """A blob of the cache was wrong, and is gone: ``times`` times."""

    times = 1

    def fetch(self, resolved, into, report, import_id):
        receipt = super().fetch(resolved, into, report, import_id)
        if self.times:
            self.times -= 1
            (into / "rotten").write_text("of the wrong bytes")
            raise PullFailed("It was damaged.", reason="corrupt", again=True)
        return receipt


def test_what_rotted_in_the_cache_is_fetched_once_more_from_the_front(pool):
    clean = run(job_on(pool, HandSource()))
    pool.destroy(clean.dataset.partition("pool/")[2])
    job = job_on(pool, Rotten())
    made = run(job)
    assert made.tree_digest == clean.tree_digest
    assert job.undone == [f"dataset {job.relative}"] and job.leftovers == []


def test_once_more_and_not_for_ever(pool):
    source = Rotten()
    source.times = 2
    with pytest.raises(PullFailed):
        run(job_on(pool, source))
    assert lying_about(pool) == []


# --- the happy way -------------------------------------------------------------------------------


def test_a_generation_is_made_sealed_and_committed(pool):
    job = job_on(pool, HandSource(fill=lambda into: (into / "etc/motd").write_text("hello")))
    committed = []

    def commit(made: Made) -> str:
        assert pool.snapshot(RELATIVE) == made.snapshot  # all is there when the event is written
        committed.append(made)
        return "the event"

    assert pipeline.run(job, commit, nothing) == "the event"
    (made,) = committed
    assert made.dataset == pool.full_name(RELATIVE)
    assert [one.path for one in made.deviations] == ["/etc/resolv.conf"]
    assert made.findings == ("something odd",)
    assert made.entries == 3  # etc, motd, resolv.conf
    assert made.verdict.result == "none"
    with pool.reading(RELATIVE) as view:
        assert (view / "etc/motd").read_text() == "hello"
    assert (job.undone, job.leftovers) == ([], [])


def test_an_engine_that_makes_the_manifest_saves_reading_the_tree(pool, monkeypatch):
    class Reading(HandSource):
        def fetch(self, resolved, into, report, import_id):
            receipt = super().fetch(resolved, into, report, import_id)
            text = io.BytesIO()
            tree.scan(into, limit_entries=100, into=text)
            owner = Deviation(path=".", reason="owners are the server's")
            monkeypatch.setattr(tree, "scan", None)
            return replace(receipt, manifest=text.getvalue(), deviations=(owner,))

    scanned = run(job_on(pool, HandSource()))
    pool.destroy(RELATIVE)
    made = run(job_on(pool, Reading()))
    assert (made.tree_digest, made.entries) == (scanned.tree_digest, scanned.entries)
    assert [one.path for one in made.deviations] == [".", "/etc/resolv.conf"]


def test_the_stages_come_in_order_and_are_timed(pool):
    seen: list[Progress] = []
    made = run(job_on(pool, HandSource(), seen=seen))
    assert list(dict.fromkeys(one.stage for one in seen)) == list(STAGES)
    assert set(made.milliseconds) == set(STAGES) - {"record"}


def test_a_source_cannot_make_up_stages(pool):
    with pytest.raises(ValueError, match="unknown stage 'dance'"):
        run(job_on(pool, HandSource(stages=("dance",))))
    assert lying_about(pool) == []


def test_without_a_resolver_nothing_deviates(pool):
    made = run(job_on(pool, HandSource(), nameserver=""))
    assert made.deviations == ()
    assert made.entries == 1


def test_the_same_tree_is_the_same_statement_wherever_it_is_made(pool, tmp_path):
    other = tmp_path / "other"
    (other / "state").mkdir(parents=True)
    (other / "pool").mkdir()
    second = from_pool(f"dir:{other / 'pool'}", step_seconds=60, state_dir=other / "state")
    second.check()
    one, two = run(job_on(pool, HandSource())), run(job_on(second, HandSource()))
    assert (one.tree_digest, one.statement) == (two.tree_digest, two.statement)
    assert one.snapshot.guid != two.snapshot.guid


# --- failures, stage by stage --------------------------------------------------------------------


def at(stage, error):
    """A source, a driver's faults, rules and a commit that fail at ``stage`` with ``error``."""
    source, faults, rules, commit = HandSource(), {}, {}, None
    match stage:
        case "resolve":
            source = HandSource(unresolved=error)
        case "create":
            faults = {"create": error}
        case "pull":
            source = HandSource(fails=error, stages=("pull",))
        case "copy":
            source = HandSource(fails=error)
        case "seal":
            faults = {"seal": error}
        case "record":

            def commit(made):
                raise error

    return source, faults, rules, commit or (lambda made: made)


ERRORS = [
    PullFailed("no", reason="denied"),
    OSError(5, "I/O error"),
    RuntimeError("a fault of ours"),
]
ERRORS += [SystemExit(1), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("stage", ["resolve", "create", "pull", "copy", "seal", "record"])
def test_whatever_ends_it_wherever_nothing_is_left(pool, stage, error):
    """The queue's timeout is a SystemExit, Ctrl-C a KeyboardInterrupt: neither is an Exception."""
    source, faults, rules, commit = at(stage, error)
    job = job_on(Faulty(pool, after=faults), source, **rules)
    with pytest.raises(type(error)) as raised:
        pipeline.run(job, commit, nothing)
    assert raised.value is error
    assert job.stage == stage
    assert lying_about(pool) == []
    assert job.undone == ([] if stage == "resolve" else [f"dataset {RELATIVE}"])
    assert job.leftovers == []


def test_a_tree_that_cannot_be_planted_in(pool, tmp_path):
    def fill(into: Path) -> None:
        (into / "etc").rmdir()
        (into / "etc").symlink_to(tmp_path)

    job = job_on(pool, HandSource(fill=fill))
    with pytest.raises(TreeRefused):
        run(job)
    assert (job.stage, lying_about(pool)) == ("plant", [])


def fill_with_freebsd(into: Path) -> None:
    (into / "bin").mkdir()
    (into / "bin/sh").write_bytes(FREEBSD_PROGRAM)


def test_foreign_programs_are_a_finding_or_refused(pool):
    made = run(job_on(pool, HandSource(fill=fill_with_freebsd)))
    assert made.verdict.result == "foreign"
    assert made.findings[-1].startswith("Programs will fail at exec: of 1 programs, 1 are freebsd")
    pool.destroy(RELATIVE)
    job = job_on(pool, HandSource(fill=fill_with_freebsd), refuse_foreign=True)
    with pytest.raises(PlatformIncompatible) as refused:
        run(job)
    assert refused.value.extra == {"abis": ["freebsd/amd64"]}
    assert (job.stage, lying_about(pool)) == ("judge", [])


def test_a_tree_with_too_many_entries(pool):
    def fill(into: Path) -> None:
        for number in range(10):
            (into / str(number)).touch()

    job = job_on(pool, HandSource(fill=fill), limit_entries=11)
    with pytest.raises(TreeRefused):
        run(job)  # ten files, etc, and the resolv.conf that was planted
    assert (job.stage, lying_about(pool)) == ("digest", [])
    run(job_on(pool, HandSource(fill=fill), limit_entries=12))


def test_a_manifest_is_held_in_memory_and_so_has_a_limit(pool):
    job = job_on(pool, HandSource(), limit_manifest_bytes=100)
    with pytest.raises(TreeRefused) as refusal:
        run(job)
    assert refusal.value.extra["rule"] == "manifest-bytes"
    assert (job.stage, lying_about(pool)) == ("digest", [])


def test_a_failed_import_says_what_it_had_resolved(pool):
    job = job_on(pool, HandSource(fails=OutOfSpace("full")))
    with pytest.raises(OutOfSpace):
        run(job)
    assert job.resolved is not None and job.resolved.digests.manifest == A


# --- undoing that fails --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PoolBusy("It is busy."), "It is busy."),
        (OSError(30, "Read-only file system"), "Read-only file system"),
        (OSError(), "OSError"),
    ],
)
def test_what_cannot_be_undone_is_named_and_the_first_error_is_raised(pool, error, words):
    driver = Faulty(pool, before={"destroy": error})
    job = job_on(driver, HandSource(fails=OutOfSpace("full")))
    with pytest.raises(OutOfSpace):
        run(job)
    assert job.leftovers == [f"dataset {RELATIVE}: {words}"]
    assert job.undone == []
    assert lying_about(pool) == [RELATIVE]


def test_undoing_goes_backwards_and_past_what_fails(pool):
    order: list[str] = []

    def step(name: str, error: CoppiceError | None = None):
        def inverse() -> None:
            order.append(name)
            if error:
                raise error

        return inverse

    job = job_on(pool, HandSource())
    job.undo_with("first", step("first"))
    job.undo_with("second", step("second", PoolBusy("It is busy.")))
    job.undo_with("third", step("third"))
    job.unwind()
    assert order == ["third", "second", "first"]
    assert (job.undone, job.leftovers) == (["third", "first"], ["second: It is busy."])
    job.unwind()  # once is enough
    assert len(order) == 3


# --- the commit: in the log, or not, or who knows ------------------------------------------------


def commit_and_fail(error):
    """As a database does whose connection breaks while it commits."""

    def commit(made: Made) -> str:
        raise error

    return commit


def test_a_commit_that_took_effect_although_it_failed_is_one(pool):
    job = job_on(pool, HandSource())
    answer = pipeline.run(job, commit_and_fail(OSError(32, "Broken pipe")), lambda: "the event")
    assert answer == "the event"
    assert (job.done, job.undecided, job.undone) == (True, False, [])
    assert lying_about(pool) == [RELATIVE]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()])
def test_an_interrupt_after_it_took_effect_undoes_nothing(pool, error):
    job = job_on(pool, HandSource())
    with pytest.raises(type(error)):
        pipeline.run(job, commit_and_fail(error), lambda: "the event")
    assert (job.done, job.undone) == (True, [])
    assert lying_about(pool) == [RELATIVE]


@pytest.mark.parametrize("silence", [OSError(111, "Connection refused"), SystemExit(1)])
def test_where_the_log_cannot_be_asked_nothing_is_undone(pool, silence):
    """The generation may be the current one: recovery finds out."""

    def committed():
        raise silence

    error = OSError(32, "Broken pipe")
    job = job_on(pool, HandSource())
    with pytest.raises(OSError, match="Broken pipe") as raised:
        pipeline.run(job, commit_and_fail(error), committed)
    assert raised.value is error
    assert (job.done, job.undecided, job.undone) == (False, True, [])
    assert lying_about(pool) == [RELATIVE]


def test_the_log_is_not_asked_about_what_never_came_to_it(pool):
    def committed():
        raise AssertionError("asked")

    with pytest.raises(OutOfSpace):
        pipeline.run(job_on(pool, HandSource(fails=OutOfSpace("full"))), str, committed)
    pipeline.run(job_on(pool, HandSource()), str, committed)


# --- a hand-made dataset in the way --------------------------------------------------------------

ASIDE = f"coppice/web-g0-{ID}"


@pytest.fixture
def by_hand(pool, tmp_path):
    place = tmp_path / "pool" / "web-template@base"
    place.mkdir()
    (place / "mine").write_text("mine")
    return place


def stands(pool, relative):
    with pool.reading(relative) as view:
        return (view / "mine").read_text() == "mine"


def test_a_hand_made_dataset_is_moved_aside_at_the_end(pool, by_hand):
    """Until then it is the current template, and stands where people clone it."""
    seen = []
    source = HandSource(fill=lambda into: seen.append(stands(pool, "web-template")))
    made = run(job_on(pool, source, hand_made=True))
    assert seen == [True]
    assert made.moved_aside == pool.full_name(ASIDE)
    assert stands(pool, ASIDE)


@pytest.mark.parametrize("stage", ["create", "pull", "seal", "record"])
def test_a_failure_leaves_it_where_it_was(pool, by_hand, stage):
    source, faults, rules, commit = at(stage, OutOfSpace("full"))
    job = job_on(Faulty(pool, after=faults), source, hand_made=True, **rules)
    with pytest.raises(OutOfSpace):
        pipeline.run(job, commit, nothing)
    assert lying_about(pool) == ["web-template"]
    assert stands(pool, "web-template")
    if stage == "record":
        assert job.undone == ["move of web-template", f"dataset {RELATIVE}"]


def test_an_interrupt_while_it_is_moved_moves_it_back(pool, by_hand):
    job = job_on(Faulty(pool, after={"move": KeyboardInterrupt()}), HandSource(), hand_made=True)
    with pytest.raises(KeyboardInterrupt):
        run(job)
    assert stands(pool, "web-template")
    assert lying_about(pool) == ["web-template"]


def test_one_with_clones_that_cannot_be_moved_stops_it_before_anything_is_made(pool, by_hand):
    pool.clone("web-template", "sandbox-1")
    driver = Faulty(pool, before={"move": PoolBusy("It is busy.")})
    job = job_on(driver, HandSource(), hand_made=True)
    with pytest.raises(AdoptedInTheWay, match=r"cannot be moved aside: It is busy\."):
        run(job)
    assert job.stage == "create"
    assert "create" not in [call[0] for call in driver.calls]
    assert lying_about(pool) == ["sandbox-1", "web-template"]


def test_one_that_cannot_be_moved_in_the_end_stays_and_all_else_goes(pool, by_hand):
    driver = Faulty(pool, before={"move": PoolBusy("It is busy.")})
    job = job_on(driver, HandSource(), hand_made=True)
    with pytest.raises(AdoptedInTheWay):
        run(job)
    assert job.stage == "seal"
    assert lying_about(pool) == ["web-template"]
    assert stands(pool, "web-template")


def test_one_that_nobody_has_adopted_is_never_moved(pool, by_hand):
    job = job_on(pool, HandSource())
    with pytest.raises(AdoptedInTheWay):
        run(job)
    assert (job.stage, lying_about(pool)) == ("create", ["web-template"])
    assert stands(pool, "web-template")


def test_one_that_somebody_removed_is_not_missed(pool):
    made = run(job_on(pool, HandSource(), hand_made=True))
    assert made.moved_aside is None
