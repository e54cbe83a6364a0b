"""Whatever step a use case dies at, and whatever instant: recovery makes pool and log agree.

`make test` kills at each boundary between two kinds of steps once, on `dir:` with both databases;
on `zfs:`, where that takes minutes, at a part of them that is another one each day. With
FAULTS=all, as `make soak` has it, processes die at every step of every use case on all of them.
"""

from __future__ import annotations

import datetime
import os
import zlib

import psutil
import pytest

from templates_app import store
from templates_app.services import recovery
from tests.faults import process, report
from tests.faults.steps import Act, die, general
from tests.faults.world import USE_CASES, UseCase, World, who

ALL = os.environ.get("FAULTS") == "all"
#: On zfs, one boundary of so many is tried; which, the day says.
PART = 1 if ALL else 6
TODAY = datetime.datetime.now(datetime.UTC).toordinal()
#: Random instants, for each pair of pool and database.
INSTANTS = 100 if ALL else 10
#: Those that begin alike are killed in one test: what one has shown, the next does not repeat.
GROUPS = {
    "import": ("forced import", "first import", "import over a hand-made one"),
    "moving": ("rollback", "sweep", "destroy", "retirement", "reload"),
    "sandboxes": ("launch", "launch of a ready clone", "end of a sandbox"),
    "recovery": ("recovery",),
}


@pytest.mark.parametrize("group", GROUPS)
def test_whatever_step_it_dies_at_recovery_makes_pool_and_log_agree(
    world: World, group: str, database_url: str
):
    lines = report.Lines(world.driver.kind, database_url)
    done: set[object] = set()
    problems: dict[str, object] = {}  # each with where it was seen first
    for name in GROUPS[group]:
        one = USE_CASES[name]
        while (end := killed(world, one, _where_none_has(world, done, name))).killed:
            done.add((name, len(end.steps)) if ALL else end.boundary)
            outcome, wrong = after(world, one)
            lines.add(name, end.boundary, outcome)
            for sentence in wrong:
                problems.setdefault(sentence, (name, end.boundary, outcome))
        assert end.error is None, (name, end.error)
        outcome, wrong = after(world, one)
        assert (outcome, wrong) == ("done", []) or name == "recovery"
    lines.write(group)
    assert problems == {}
    assert world.at_the_end() == []


def _where_none_has(world: World, done: set[object], name: str) -> Act:
    """It dies at the first boundary where no process has died yet."""
    last = "the beginning"
    part = PART if world.driver.kind == "zfs" else 1

    def act(number: int, what: str) -> None:
        nonlocal last
        boundary = (last, general(what))
        last = general(what)
        chosen = zlib.crc32(repr(boundary).encode()) % part == TODAY % part
        if chosen and ((name, number) if ALL else boundary) not in done:
            die()

    return act


def test_whatever_instant_it_dies_at_recovery_makes_pool_and_log_agree(
    world: World, database_url: str
):
    lines = report.Lines(world.driver.kind, database_url)
    names = [name for name in USE_CASES if name != "recovery"]
    takes: dict[str, float] = {}
    problems = []
    for number in range(INSTANTS):
        name = names[number % len(names)]
        one = USE_CASES[name]
        if name not in takes:
            takes[name] = killed(world, one).seconds
            after(world, one)
        moment = world.random.uniform(0.0, takes[name])
        end = killed(world, one, kill_after=moment)
        outcome, wrong = after(world, one)
        lines.add(name, ("a random instant", "another"), outcome)
        if wrong:
            problems.append((name, moment, end.steps[-3:], wrong))
    lines.write("instants")
    assert problems == []
    assert world.at_the_end() == []


RULES = {
    "what died before its event is undone": ("dead_imports.end_if_dead", "forced import"),
    "what was given up is undone": ("dead_imports.undo_abandoned", "forced import"),
    "a clone that no event knows goes": ("recovery._finish_launches", "launch"),
    "a clone that waits for a launch is given back": (
        "ready.give_back",
        "launch of a ready clone",
    ),
    "an end that has begun is finished": ("recovery._finish_endings", "end of a sandbox"),
    "what the log has as gone, goes": ("recovery.finish_destroys", "destroy"),
    "the alias follows the log": ("recovery._point_aliases", "rollback"),
    "the pool is swept": ("directory.DirectoryDriver.sweep", "launch"),
    "no lock is left behind": ("intents.tidy_locks", "launch"),
}


@pytest.mark.parametrize("rule", RULES)
def test_without_one_rule_of_recovery_something_is_wrong(
    dir_world: World, rule: str, monkeypatch: pytest.MonkeyPatch
):
    """So what holds above does not hold by itself."""
    where, name = RULES[rule]
    module, _, attribute = where.partition(".")
    monkeypatch.setattr(f"{MODULES[module]}.{attribute}", lambda *_args, **_rest: [])
    one, done = USE_CASES[name], set[object]()
    while (end := killed(dir_world, one, _where_none_has(dir_world, done, name))).killed:
        done.add((name, len(end.steps)) if ALL else end.boundary)
        if after(dir_world, one)[1]:
            return
    pytest.fail(f"nothing was wrong after {len(done)} kills of {name}")


MODULES = {
    "dead_imports": "templates_app.services.dead_imports",
    "recovery": "templates_app.services.recovery",
    "intents": "templates_app.services.intents",
    "ready": "templates_app.services.ready",
    "directory": "templates_app.datasets.directory",
}


def killed(
    world: World, one: UseCase, act: Act | None = None, *, kill_after: float | None = None
) -> process.End:
    one.prepare(world)
    world.size = store.size()
    world.programs = {child.pid for child in psutil.Process().children()}
    return process.run(lambda: one.work(world), act, kill_after=kill_after)


def after(world: World, one: UseCase) -> tuple[str, list[str]]:
    """Recover; what became of it, and all that is wrong then."""
    before = store.size()
    dry = recovery.recover(context=who(), dry_run=True)
    wrong = ["a dry run of recovery has written to the log"] if store.size() != before else []
    said = world.recover()
    wrong += [sentence for sentence in said if "could not" in sentence]
    if len(dry) > len(said):
        wrong.append(f"a dry run said {dry}, and then was done {said}")
    wrong += world.violations()
    wrong += [f"{program} still runs" for program in process.left_running(world.programs)]
    if again := world.recover():
        wrong.append(f"the second recovery still found {again}")
    types = [event.type for event in store.read(after=world.size)]
    wrong += [f"an event {kind}" for kind in types if kind not in (*one.events, "import-failed")]
    if set(types) & set(one.events):
        return "done", wrong
    return ("undone" if types or said else "not begun"), wrong
