"""A pool and a log, what is done with them, and what must hold of both whenever nothing runs."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy import images
from templates_app import lifecycle, store
from templates_app.datasets.base import DatasetDriver, alias_name
from templates_app.events import Meta
from templates_app.models import Generation, Lease, Sandbox, Template
from templates_app.services import (
    common,
    destroy,
    generations,
    imports,
    launches,
    readmodels,
    ready,
    recovery,
    reload,
    sweep,
)
from tests import layouts
from tests.faults import process
from tests.faults.steps import die
from tests.pools import sh
from tests.services.conftest import hand_make

FILES = 4
#: What may lie in the state directory when nothing runs; all else was left by somebody.
_STAYS = (
    r"pools(/.+)?",
    # An import goes on with the part of a blob, for a week; the part of a text stays for an hour.
    r"blobs(/sha256(/[0-9a-f]{64}(\.part)?)?|/new)?",
    r"(manifests|documents|layers)(/[0-9a-f]{64}\.zst|/[0-9a-f]{16}\.part)?",
    r"engine(/empty)?|pool-locks|leases|launches|endings|ready",
    # A server's own.
    r"secret-key|server\.log|trusted-keys(/.+\.pub)?|log(/[a-z0-9]+\.(pub|sec)|/lock)?",
    r"log/frontier\.json|log/checkpoints(/checkpoint-[0-9]+(\.sig|\.note)?)?",
)


def who() -> Meta:
    return common.context(actor="operator", source="api", request_id="a-request")


@dataclass
class World:
    driver: DatasetDriver
    state: Path
    shelf: Path  # where images lie
    made: int = 0
    size: int = 0  # of the log, before what is killed
    programs: set[int] = field(default_factory=set)  # that ran then
    random: random.Random = field(default_factory=lambda: random.Random(5))
    _mountpoint: Path | None = None

    # --- what is done ----------------------------------------------------------------------------

    def image(self) -> None:
        """A new image, whose every file says its number."""
        self.made += 1
        text = str(self.made)
        files = [images.file(f"d/{number}", text) for number in range(FILES)]
        layer = images.layer([images.directory("d/"), *files])
        layouts.write(self.shelf / text, {"": images.image([layer])})

    def import_it(self, name: str, *, force: bool = True) -> None:
        self.image()
        self.import_image(name, force=force)

    def import_image(self, name: str, *, force: bool = True, **rest: Any) -> None:
        """The image that was made last."""
        source = f"oci-layout:{self.shelf / str(self.made)}"
        imports.import_template(name=name, source=source, force=force, context=who(), **rest)

    def has(self, name: str) -> bool:
        return Template.objects.filter(pk=name).exists()

    def destroy(self, name: str) -> None:
        for sandbox in Sandbox.objects.filter(template_name=name, destroyed_at__isnull=True):
            launches.destroy_sandbox(sandbox_id=sandbox.id, context=who())
        if self.has(name):
            destroy.destroy(name=name, context=who())

    def tidy(self, name: str, *, keep: int) -> None:
        """At most so many generations of a name stand."""
        standing = Generation.objects.filter(template_name=name, destroyed_position__isnull=True)
        if standing.count() > keep:
            sweep.sweep(context=who())

    def hand_made(self, name: str) -> None:
        """A generation 0, adopted where it stands."""
        if self.has(name) and Template.objects.get(pk=name).current.adopted:
            return
        self.destroy(name)
        hand_make(self.driver, name, "by hand")
        reload.reload(context=who())

    def recover(self) -> list[str]:
        return recovery.recover(context=who())

    # --- what must hold --------------------------------------------------------------------------

    def violations(self) -> list[str]:
        """Sentences, one for each thing that is not as the log says, or that nobody needs."""
        return [
            *self._of_generations(),
            *self._of_sandboxes(),
            *self._of_the_pool(),
            *self._of_the_state_directory(),
            *self._of_the_log(),
        ]

    def _of_generations(self) -> Iterator[str]:
        found = {one.name: one for one in self.driver.find_all()}
        for row in Generation.objects.filter(destroyed_position__isnull=True):
            one = found.get(row.dataset)
            if one is None or one.base is None:
                yield f"{row} is in the log, and has no {row.dataset}@base"
            elif one.base.guid != row.snapshot_guid:
                yield f"{row} has another guid than the log says"
        for template in Template.objects.select_related("current"):
            if template.missing:
                yield f"{template} is taken to be missing"
            alias = found.get(self.driver.full_name(alias_name(template.name)))
            if template.current.adopted:
                continue
            if alias is None or alias.base is None or alias.origin != template.current.origin:
                yield f"the alias of {template} does not lead to {template.current.origin}"

    def _of_sandboxes(self) -> Iterator[str]:
        mounts = Path("/proc/self/mounts").read_text()
        for sandbox in Sandbox.objects.filter(destroyed_at__isnull=True):
            place = self.root / f"sandbox-{sandbox.id}"
            if self.driver.kind == "zfs" and f" {place} " not in mounts:
                yield f"sandbox {sandbox} is not mounted"
                continue
            try:
                read = {path.read_text() for path in (place / "d").iterdir()}
                count = len(list((place / "d").iterdir()))
            except OSError as gone:
                yield f"sandbox {sandbox} cannot be read: {gone}"
                continue
            row = Generation.objects.get(pk=f"{sandbox.template_name}@{sandbox.generation}")
            wanted = re.match(r"oci-layout:([0-9]+)", row.reference)
            if wanted is None or (read, count) != ({wanted[1]}, FILES):
                yield f"sandbox {sandbox} reads {read} of {row.reference}, {count} files"

    def _of_the_pool(self) -> Iterator[str]:
        known = {row.dataset for row in Generation.objects.filter(destroyed_position__isnull=True)}
        known |= {self.driver.full_name(alias_name(row.name)) for row in Template.objects.all()}
        known |= {row.dataset for row in Sandbox.objects.filter(destroyed_at__isnull=True)}
        for one in self.driver.find_all():
            operators = one.origin is None and one.relative == alias_name("adopted")
            if one.name not in known and not operators:
                yield f"nobody knows {one.name}"
        if self.driver.layers is not None:
            for image in self.driver.layers.images():
                if not image.states:
                    yield f"nothing was kept of {image.name}"
        live = {row.id for row in Sandbox.objects.filter(destroyed_at__isnull=True)}
        allowed = {str(self.root / f"sandbox-{one}") for one in live} | {str(self.root)}
        named = [*Template.objects.values_list("name", flat=True), "adopted"]
        allowed |= {str(self.root / alias_name(name)) for name in named}
        for line in Path("/proc/self/mounts").read_text().splitlines():
            place = line.split()[1]
            if place.startswith((f"{self.root}/", f"{self.state}/")) and place not in allowed:
                yield f"{place} is mounted"
        inner = self.root / ".coppice"
        for place in ("work", "trash", "locks", "clones"):
            for path in sorted((inner / place).glob("*")):
                if place == "clones" and path.name in {f"sandbox-{one}.json" for one in live}:
                    continue
                yield f"{path.relative_to(self.root)} was left in the pool"

    def _of_the_state_directory(self) -> Iterator[str]:
        for path in sorted(self.state.rglob("*")):
            relative = str(path.relative_to(self.state))
            if not any(re.fullmatch(pattern, relative) for pattern in _STAYS):
                yield f"{relative} was left in the state directory"
        if (locks := self.state / "pool-locks").is_dir() and any(locks.iterdir()):
            yield f"locks of dead processes: {sorted(one.name for one in locks.iterdir())}"
        for place in ("leases", "launches", "endings", "ready"):
            if (self.state / place).is_dir() and any((self.state / place).iterdir()):
                left = sorted(one.name for one in (self.state / place).iterdir())
                yield f"{left} were left in {place}"

    def _of_the_log(self) -> Iterator[str]:
        for lease in Lease.objects.all():
            yield f"the lease of {lease} is left"
        ended: dict[str, str] = {}
        for one in store.read(types=["imported", "import-failed"]):
            import_id = getattr(one.event, "import_id", "")
            if import_id in ended:
                yield f"import {import_id} ended twice: {ended[import_id]}, {one.type}"
            ended[import_id] = one.type
        for name in Template.objects.values_list("name", flat=True):
            lifecycle.current(common.state_of(name))  # it can be folded

    def at_the_end(self) -> list[str]:
        """What takes too long to be asked after each kill."""
        return [f"the read models differ: {row}" for row in readmodels.check()[1]]

    @property
    def root(self) -> Path:
        """Where the pool is mounted."""
        if self._mountpoint is None:
            full = self.driver.full_name("x").removesuffix("/x")
            if self.driver.kind == "zfs":
                self._mountpoint = Path(
                    sh("zfs", "get", "-Hp", "-o", "value", "mountpoint", full).strip()
                )
            else:
                self._mountpoint = Path(full)
        return self._mountpoint


@dataclass(frozen=True)
class UseCase:
    """``prepare`` brings about what it begins with. ``events``: what it may add to the log."""

    prepare: Callable[[World], None]
    work: Callable[[World], object]
    events: tuple[str, ...]


def _one_more(world: World) -> None:
    world.image()
    _there(world)


def _there(world: World) -> None:
    if not world.has("web"):
        world.import_it("web")
    world.tidy("web", keep=3)


def _two(world: World) -> None:
    _there(world)
    while Generation.objects.filter(template_name="web", destroyed_position=None).count() < 2:
        world.import_it("web")


def _roll(world: World) -> None:
    current = Template.objects.get(pk="web").current.number
    other = Generation.objects.filter(template_name="web", destroyed_position=None).exclude(
        number=current
    )
    generations.rollback(name="web", to=other[0].number, context=who())


def _to_sweep(world: World) -> None:
    _two(world)
    while Generation.objects.filter(template_name="web", destroyed_position=None).count() < 3:
        world.import_it("web")


def _fresh(world: World) -> None:
    world.image()
    world.destroy("fresh")


def _hand_made(world: World) -> None:
    world.image()
    world.hand_made("made")


def _launched(world: World) -> None:
    _there(world)
    if not Sandbox.objects.filter(template_name="web", destroyed_at=None).exists():
        _launch(world)


def _few_sandboxes(world: World) -> None:
    _there(world)
    live = Sandbox.objects.filter(template_name="web", destroyed_at=None)
    for sandbox in live[2:]:
        launches.destroy_sandbox(sandbox_id=sandbox.id, context=who())


def _launch(world: World) -> None:
    launches.create_sandbox(template="web", name=None, context=who())


def _launch_a_ready_one(world: World) -> None:
    generation = lifecycle.current(common.state_of("web"))
    made = ready.make(common.driver(), generation)
    assert made is not None
    _launch(world)
    assert Sandbox.objects.filter(pk=made.note.sandbox_id).exists(), "it was not launched"


def _end_sandbox(world: World) -> None:
    sandbox = Sandbox.objects.filter(template_name="web", destroyed_at=None)[0]
    launches.destroy_sandbox(sandbox_id=sandbox.id, context=who())


def _doomed(world: World) -> None:
    if not world.has("doomed"):
        world.import_it("doomed")
        world.import_it("doomed")


def _in_use(world: World) -> None:
    """A sandbox runs on what is to be retired; of earlier ones nothing is left."""
    for sandbox in Sandbox.objects.filter(template_name="leaving", destroyed_at=None):
        launches.destroy_sandbox(sandbox_id=sandbox.id, context=who())
    sweep.sweep(context=who())
    if not world.has("leaving"):
        world.import_it("leaving")
    launches.create_sandbox(template="leaving", name=None, context=who())


def _to_adopt(world: World) -> None:
    world.destroy("adopted")
    if alias_name("adopted") not in {one.relative for one in world.driver.find_all()}:
        hand_make(world.driver, "adopted")


def _mess(world: World) -> None:
    """Four dead processes, each at some step of something else."""
    steps = {"forced import": 60, "launch": 10, "end of a sandbox": 6, "rollback": 12}
    for name, most in steps.items():
        one = USE_CASES[name]
        one.prepare(world)
        dies_at = world.random.randrange(1, most)

        def act(number: int, _: str, dies_at: int = dies_at) -> None:
            if number == dies_at:
                die()

        process.run(lambda one=one: one.work(world), act)


USE_CASES = {
    "first import": UseCase(
        _fresh, lambda world: world.import_image("fresh", force=False), ("imported",)
    ),
    "forced import": UseCase(_one_more, lambda world: world.import_image("web"), ("imported",)),
    "import over a hand-made one": UseCase(
        _hand_made, lambda world: world.import_image("made"), ("imported",)
    ),
    "rollback": UseCase(_two, _roll, ("rolled-back",)),
    "sweep": UseCase(_to_sweep, lambda _: sweep.sweep(context=who()), ("retired",)),
    "launch": UseCase(_few_sandboxes, _launch, ("sandbox-created",)),
    "launch of a ready clone": UseCase(_few_sandboxes, _launch_a_ready_one, ("sandbox-created",)),
    "end of a sandbox": UseCase(_launched, _end_sandbox, ("sandbox-destroyed",)),
    "destroy": UseCase(
        _doomed, lambda _: destroy.destroy(name="doomed", context=who()), ("destroyed",)
    ),
    "retirement": UseCase(
        _in_use,
        lambda _: destroy.destroy(name="leaving", retire=True, context=who()),
        ("destroyed",),
    ),
    "reload": UseCase(_to_adopt, lambda _: reload.reload(context=who()), ("reloaded",)),
    "recovery": UseCase(
        _mess,
        lambda world: world.recover(),
        ("import-failed", "imported", "sandbox-created", "sandbox-destroyed", "rolled-back"),
    ),
}
