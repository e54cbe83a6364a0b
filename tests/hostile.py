"""The corpora through whole imports, with a watch over everything that is not the tree.

Each case is an image of one OCI layout, so whoever imports it needs neither a registry nor root.
:func:`tried` imports them one by one into one pool and says in sentences what was not as it should
be: nothing may lie, change or be missing outside of the tree, nothing may take longer than it may,
nothing may be left of a refusal, and a refusal names its rule. What is accepted is compared with
what the corpus says, and the disk with the manifest.

``python -m tests.hostile PLACE WORD…`` does so on a ``dir:`` pool below PLACE with what the words
choose, in a process that may be somebody else's (:mod:`tests.ordinary`).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from deploy import images
from templates_app import layered, pipeline, sources
from templates_app.datasets import from_pool
from templates_app.datasets.base import DatasetDriver, generation_name
from templates_app.errors import CoppiceError, TreeRefused
from templates_app.names import Platform, TemplateName
from templates_app.run import IMPORT_MARK
from templates_app.sources.base import LayerState, Receipt, Resolved, SourceContext, States
from templates_app.sources.documents import MAX_LAYERS
from templates_app.sources.native import engine, failures
from templates_app.sources.native.limits import Limits
from templates_app.trust import mtree, tree
from templates_app.trust.manifests import Archive, Texts
from tests import layouts
from tests.corpus import members
from tests.corpus.stacks import STACKS
from tests.corpus.streams import STREAMS
from tests.native.archives import END, file

SECONDS = 30  # that one import may take; none comes near it
NAMESERVER = "10.78.0.1"
SENTINEL = "as it was"
#: A layer that leaves nothing of what is below.
EMPTY = members.archive([members.directory(b"./"), members.file(b".wh..wh..opq")])


@dataclass(frozen=True)
class Case:
    """An image: a stack of the corpus, or a stream as a layer on one that is sound."""

    name: str
    archives: tuple[bytes, ...]
    rule: str = ""  # that refuses it
    tree: tuple[str, ...] | None = None  # as members.lines has it; None: not said
    layers: tuple[members.Layer, ...] = ()
    contents: tuple[tuple[bytes, bytes], ...] = ()  # of files, by their names
    finding: str = ""

    @property
    def flagged(self) -> bool:
        return any(member.flags for layer in self.layers for member in layer)


def _stack(stack: Any) -> Case:
    return Case(
        name=f"stack:{stack.name}",
        archives=tuple(members.archive(layer) for layer in stack.layers),
        rule=stack.rule,
        tree=stack.tree,
        layers=stack.layers,
        finding=stack.finding,
    )


def _stream(stream: Any) -> Case:
    refused = isinstance(stream.expected, str)
    return Case(
        name=f"stream:{stream.name}",
        archives=(file(b"sound", b"x") + END, stream.data),
        rule=stream.expected if refused else "",
        contents=() if refused else tuple(stream.expected),
        finding="after the end of its archive" if "after-the-end" in stream.name else "",
    )


CASES = {case.name: case for case in [*map(_stack, STACKS), *map(_stream, STREAMS)]}
#: The archive's grammar refuses these before the model sees them.
EARLIER = {
    f"stack:{name}": "trailing-slash"
    for name in (
        "entry-is-the-root-as-file",
        "root-as-fifo",
        "root-as-hard-link",
        "root-as-symlink-by-dots",
    )
}


def write_layout(place: Path, cases: Iterable[Case]) -> None:
    """A layout with an image for each case, by :func:`ref`."""
    layouts.write(
        place,
        {
            ref(case): images.image([images.layer_of(one, level=1) for one in case.archives])
            for case in cases
        },
    )


def ref(case: Case) -> str:
    return f"case-{hashlib.sha256(case.name.encode()).hexdigest()[:16]}"


# --- what must stay as it is ---------------------------------------------------------------------


@dataclass
class Ground:
    """A pool at ``above``/…, with sentinels beside, above and in it; and the engine's own places.

    ``pool`` is where the driver's datasets lie, ``temporary`` where temporary files would.
    """

    above: Path
    pool: Path
    driver: DatasetDriver
    state: Path
    temporary: Path
    layout: Path
    refuses: Mapping[str, str]  # cases that this pool does not take, and the rule
    kept: layered.Kept | None = None
    neighbour: str = ""  # a sealed generation
    _before: dict[str, Any] = field(default_factory=dict)

    def prepare(self) -> None:
        for place in (self.above, self.pool):
            (place / "etc").mkdir()
            for name in ("beside", "etc/passwd"):
                (place / name).write_text(SENTINEL)
        tempfile.tempdir = str(self.temporary)
        self.driver.check()
        self.neighbour = "coppice/neighbour-g1-0000000a"
        made = self.driver.create(self.neighbour)
        (made.path / "f").write_text(SENTINEL)
        os.link(made.path / "f", made.path / "linked")
        self.driver.seal(self.neighbour)
        if self.kept:  # its place is made when it is first needed
            with self.kept.store.filling("image-first", None):
                pass
            self.forget_layers()
        self._before = self.picture()

    def source(self, name: str) -> sources.Source:
        """An image of the layout."""
        context = SourceContext(
            platform=Platform("linux", "amd64"),
            allowed=(),
            insecure=(),
            auth_file=None,
            step_seconds=SECONDS,
            state_dir=self.state,
            limit_image_bytes=2**30,
            limits=Limits(seconds=SECONDS, file_bytes=2**33),
            import_roots=(self.layout.parent,),
        )
        return sources.parse(f"oci-layout:{self.layout}:{name}", context)

    def forget_layers(self) -> None:
        for image in self.kept.store.images() if self.kept else ():
            self.kept.store.remove(image.name)

    def picture(self) -> dict[str, Any]:
        """All that an import must leave as it is."""
        seen: dict[str, Any] = {}
        for place in (self.above, self.pool):
            for path in [place, *(place / name for name in ("beside", "etc", "etc/passwd"))]:
                there = path.lstat()
                facts = [there.st_mode, there.st_uid, there.st_gid, there.st_nlink, there.st_ino]
                if not path.is_dir() or path.name == "etc":
                    facts += [there.st_mtime_ns, there.st_ctime_ns]
                seen[str(path)] = facts
            seen[f"names in {place}"] = sorted(os.listdir(place))  # noqa: PTH208 - names
        # Of the host: what `..` and absolute names aim at.
        for path in map(Path, ("/etc/passwd", "/etc/resolv.conf")):
            there = path.stat()
            seen[str(path)] = (there.st_mode, there.st_uid, there.st_mtime_ns, there.st_ctime_ns)
        seen["names in /"] = sorted(os.listdir("/"))  # noqa: PTH208 - names
        aimed_at = map(Path, ("/etc/a", "/etc/x", "/tmp/a", "/tmp/g"))
        seen["names below /"] = [path for path in aimed_at if os.path.lexists(path)]
        seen["datasets"] = sorted(one.relative for one in self.driver.find_all())
        seen["neighbour"] = self.driver.snapshot(self.neighbour)
        table = Path("/proc/self/mountinfo").read_text().splitlines()
        seen["mounts"] = [line for line in table if f" {self.above}" in line]
        seen["descriptors"] = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names
        seen["threads"] = psutil.Process().num_threads()
        seen["temporary files"] = list(self.temporary.iterdir())
        return seen

    def disturbed(self, import_id: str) -> Iterator[str]:
        """What is not as it was, and what is left of an import that is over."""
        if alive := _marked(import_id):
            yield f"left processes: {alive}"
        now = self.picture()
        for what, then in self._before.items():
            if now[what] != then:
                yield f"{what}: {then} became {now[what]}"
        for place in ("work", "trash"):
            inner = self.pool / ".coppice" / place
            if inner.is_dir() and (left := sorted(inner.iterdir())):
                yield f"left in the pool: {left}"
        # Whole blobs stay: they are what they are, whoever sent them. Nothing else does.
        blobs = self.state / "blobs"
        left = [path for path in blobs.rglob("*") if path.is_file() and _odd_blob(path)]
        left += list(self.state.glob("engine/empty/*"))
        left += list((self.state / "blobs/new").glob("*"))
        if left:
            yield f"left in the state directory: {left}"


def _odd_blob(path: Path) -> bool:
    return path.name != hashlib.sha256(path.read_bytes()).hexdigest()


def _marked(import_id: str) -> list[str]:
    """The processes of an import, by what they were started with."""
    mark = f"{IMPORT_MARK}={import_id}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (place / "environ").read_bytes().split(b"\0"):
                found.append(f"{place.name} {(place / 'cmdline').read_bytes()!r}")
        except OSError:  # it has just ended
            continue
    return found


# --- an import -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """What an engine says of a tree, and what lies there."""

    layers: int  # that are in it
    manifest: bytes
    findings: tuple[str, ...]
    scanned: bytes


@dataclass(frozen=True)
class Watched:
    """A source that has the tree looked at when it is filled, before anything is planted in it;
    and after each layer of which a state is kept."""

    source: sources.Source
    seen: list[Look]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def fetch(
        self, resolved: Resolved, into: Path, report: Any, import_id: str, states: Any = None
    ) -> Receipt:
        def keep(state: LayerState) -> None:
            self.look(into, state.number, state.manifest, state.findings)
            states.keep(state)

        watched = states and States(done=states.done, keep=keep)
        receipt = self.source.fetch(resolved, into, report, import_id, watched)
        assert receipt.manifest is not None
        if not states:
            self.look(into, len(resolved.layers), receipt.manifest, receipt.findings)
        return receipt

    def look(self, into: Path, layers: int, manifest: bytes, findings: tuple[str, ...]) -> None:
        scanned = io.BytesIO()
        tree.scan(into, limit_entries=10_000, into=scanned)
        self.seen.append(Look(layers, manifest, findings, scanned.getvalue()))


def id_of_import(number: int) -> str:
    """Of this process alone: it is what the processes of an import are found by, on all the host,
    where another of pytest's workers imports at the same time."""
    return f"{os.getpid() % 2**16:04x}{number:04x}"


def tried(ground: Ground, cases: Sequence[Case]) -> list[str]:
    """Import each case; what was not as it should be."""
    write_layout(ground.layout, cases)
    ground.prepare()
    wrong = []
    for number, case in enumerate(cases, 1):
        begun = time.monotonic()
        import_id = id_of_import(number)
        wrong += [f"{case.name}: {one}" for one in _judged(ground, case, import_id)]
        if (took := time.monotonic() - begun) > SECONDS:
            wrong.append(f"{case.name}: took {took:.0f} seconds")
    return wrong


def tried_together(ground: Ground, cases: Iterable[Case]) -> list[str]:
    """Cases that nothing refuses, many in one image: where an import costs much.

    A layer between two of them hides all that is there. What is kept of each layer is looked at.
    """
    ground.prepare()
    wrong: list[str] = []
    groups: list[list[Case]] = [[]]
    for case in cases:
        assert not case.rule
        if sum(len(one.archives) + 1 for one in groups[-1]) > MAX_LAYERS - 10:
            groups.append([])
        groups[-1].append(case)
    for number, group in enumerate(groups):
        document = images.image(
            [images.layer_of(one) for case in group for one in (*case.archives, EMPTY)]
        )
        layouts.write(ground.layout, {"together": document})
        seen: list[Look] = []
        source = ground.source("together")
        import_id = id_of_import(number)
        run(ground, source, import_id, seen)
        ground.driver.destroy(generation_name("hostile", 1, import_id))
        by_layers = {look.layers: look for look in seen}
        layers = 0
        for case in group:
            look = by_layers[layers + len(case.archives)]
            # Of all findings together only the first ones are told.
            wrong += [f"{case.name}: {one}" for one in _of_tree(replace(case, finding=""), look)]
            layers += len(case.archives) + 1
        ground.forget_layers()
        wrong += list(ground.disturbed(import_id))
    return wrong


def _judged(ground: Ground, case: Case, import_id: str) -> Iterator[str]:
    seen: list[Look] = []
    source = ground.source(ref(case))
    try:
        made = run(ground, source, import_id, seen)
    except TreeRefused as refusal:
        rule = refusal.extra["rule"]
        planted = ""
        if seen and re.search(rb"^\./etc type=(?!dir )", seen[-1].scanned, re.MULTILINE):
            planted = "etc-not-a-directory"
        if rule != (planted or ground.refuses.get(case.name, EARLIER.get(case.name, case.rule))):
            yield f"was refused by {rule}, not {case.rule or 'at all'}"
        if not (planted or rule in failures.RULES or refusal.extra["path"]):
            yield "was refused without its path"
    except Exception as error:  # noqa: BLE001 - it is what is to be told
        yield f"ended with {error!r} {getattr(error, 'private', '')}"
    else:
        if case.rule or case.name in ground.refuses:
            yield f"was not refused, but {case.rule} should"
        if made.entries < 2:
            yield "has lost what was planted"
        relative = generation_name("hostile", 1, import_id)
        if ground.driver.kind == "dir":
            yield from _of_clone(ground, relative, made.tree_digest)
        ground.driver.destroy(relative)
    if seen and seen[-1].layers == len(case.archives):
        yield from _of_tree(case, seen[-1])
    ground.forget_layers()
    yield from ground.disturbed(import_id)


def _of_clone(ground: Ground, relative: str, digest: str) -> Iterator[str]:
    """What was planted is in the digest, and a sandbox has all that its generation has."""
    clone = ground.driver.clone(relative, "sandbox-hostile")
    with ground.driver.reading(relative) as original:
        texts = [io.BytesIO(), io.BytesIO()]
        for place, text in zip((original, clone.path), texts, strict=True):
            tree.scan(place, limit_entries=10_000, into=text)
    if os.geteuid() == 0 and tree.digest(texts[0].getvalue()) != digest:
        yield "has another tree digest than its tree"
    if texts[0].getvalue() != texts[1].getvalue():
        yield "is another tree in a sandbox"
    ground.driver.destroy("sandbox-hostile")


def run(ground: Ground, source: sources.Source, import_id: str, seen: list[Look]) -> pipeline.Made:
    """An import of ``hostile``, all of it but the log. ``seen`` gets the tree before planting."""
    job = pipeline.Job(
        name=TemplateName("hostile"),
        source=Watched(source, seen),
        import_id=import_id,
        generation=1,
        driver=ground.driver,
        archive=Archive.of(ground.state),
        rules=pipeline.Rules(nameserver=NAMESERVER, limit_entries=100_000, refuse_foreign=False),
        report=lambda progress: None,
        kept=ground.kept,
    )
    try:
        return pipeline.run(job, lambda made: made, lambda: None)
    finally:
        assert job.leftovers == []


def _of_tree(case: Case, look: Look) -> Iterator[str]:
    if case.tree is not None and not case.flagged:
        said = members.lines(look.manifest, case.layers)
        if said != case.tree:
            yield f"is {said}, not {case.tree}"
    for name, content in case.contents:
        digest = hashlib.sha256(content).hexdigest().encode()
        if content and not re.search(
            rb"^\./%s type=file .* sha256=%s$" % (re.escape(mtree.escape(name)), digest),
            look.scanned,
            re.MULTILINE,
        ):
            yield f"has not {content!r} in {name!r}, but {look.scanned!r}"
    if case.finding not in " ".join(look.findings):
        yield f"has no finding {case.finding!r}, but {look.findings}"
    expected = look.manifest if os.geteuid() == 0 else _of_ordinary_user(look.manifest)
    if look.scanned != expected:
        yield f"the disk has {look.scanned.decode()}, the manifest {expected.decode()}"


_NODE = re.compile(rb"(\S+) type=(\w+)(?: mode=(\d+))? uid=\d+ gid=\d+ ?(.*)\n")


def _of_ordinary_user(manifest: bytes) -> bytes:
    """What lies on the disk of a tree with this manifest where the server is not root.

    All is the server's, permissions give the owner what it needs to work with the tree, devices
    are not there, nor are capabilities.
    """
    text, left_out = [mtree.FIRST_LINE], False
    who = b" uid=%d gid=%d" % (os.geteuid(), os.getegid())
    for line in manifest.splitlines(keepends=True)[1:]:
        if line.startswith(b"#"):
            if not (left_out or line.startswith(b"# xattr security.")):
                text.append(line)
            continue
        found = _NODE.fullmatch(line)
        assert found, line
        path, kind, mode, rest = found.groups()
        left_out = kind in (b"char", b"block")
        if left_out:
            continue
        said = b""
        if mode is not None:
            least = {b"dir": 0o700, b"file": 0o600}.get(kind, 0)
            said = b" mode=%04o" % (int(mode, 8) | least)
        text.append(b"%s type=%s%s%s%s\n" % (path, kind, said, who, b" " + rest if rest else b""))
    return b"".join(text)


# --- grounds -------------------------------------------------------------------------------------


def chosen(*words: str) -> list[Case]:
    """Those whose names begin with one of the words; behind ``some:`` as :func:`some` has them."""
    found: list[Case] = []
    for word in words:
        if word.startswith("some:"):
            found += some(word.removeprefix("some:"))
        else:
            found += [case for case in CASES.values() if case.name.startswith(word)]
    return found


def some(word: str) -> list[Case]:
    """All that are accepted, and of the others one for each rule: a refusal is the reader's, and
    that sees neither pool nor user."""
    cases = chosen(word)
    return [
        *(one for one in cases if not one.rule),
        *{one.rule: one for one in cases if one.rule}.values(),
    ]


def on_directory(place: Path) -> Ground:
    """In an empty place of ours."""
    pool = place / "above" / "pool"
    pool.mkdir(parents=True)
    return _ground(place, pool, from_pool(f"dir:{pool}", step_seconds=SECONDS, state_dir=place))


def on_zfs(place: Path, driver: DatasetDriver, mountpoint: Path) -> Ground:
    """``place`` is an empty directory of ours, ``mountpoint`` where the driver's root is."""
    ground = _ground(place, mountpoint, driver)
    assert driver.layers is not None
    return replace(
        ground,
        kept=layered.Kept(
            store=driver.layers,
            manifests=Texts(ground.state / "manifests"),
            notes=Texts(ground.state / "layers"),
            engine="native",
            patience=SECONDS,
            make_room=lambda _transferred: None,
        ),
    )


def _ground(place: Path, pool: Path, driver: DatasetDriver) -> Ground:
    for name in ("state", "temporary"):
        (place / name).mkdir()
    return Ground(
        above=pool.parent,
        pool=pool,
        driver=driver,
        state=place / "state",
        temporary=place / "temporary",
        layout=place / "layout",
        # zfs-fuse takes no such owner; an ordinary user's files have no owners of an image.
        refuses={"stack:longest-path": "path-length"}
        if driver.kind == "dir"
        else {"stack:largest-owner": "owners"},
    )


def main() -> None:
    place, *words = sys.argv[1:]
    if words[0].startswith("zfs:"):
        driver = from_pool(words[0], step_seconds=SECONDS, state_dir=Path(place))
        try:
            driver.check()
            said = {}
        except CoppiceError as error:
            said = {"code": error.code, "detail": error.detail, "next": error.next_step}
        print(json.dumps(said))
    elif words == ["confinement"]:
        tried(on_directory(Path(place)), chosen("stack:dots"))
        print(json.dumps(sorted(engine._confined)))
    else:
        print(json.dumps(tried(on_directory(Path(place)), chosen(*words))))


if __name__ == "__main__":
    main()
