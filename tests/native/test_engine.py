"""The native engine whole, with its processes: what it writes, what it refuses, what it leaves."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from templates_app.errors import (
    CoppiceError,
    ImportTimeout,
    OutOfSpace,
    ProgramFailed,
    ProgramKilled,
    PullFailed,
    StorageReadOnly,
    TreeRefused,
)
from templates_app.names import Digest
from templates_app.run import IMPORT_MARK
from templates_app.sources.base import LayerState, States
from templates_app.sources.native import engine, failures
from templates_app.sources.native.cache import BlobCache
from templates_app.trust import tree
from tests.corpus.members import Member, archive, device, directory, file
from tests.native.fetched import Held, context, fetch, image
from tests.pools import sh

ID = f"{os.getpid():08x}"
SENTINEL = "as it was"


def scanned(top: Path) -> bytes:
    text = io.BytesIO()
    tree.scan(top, limit_entries=10_000, into=text)
    return text.getvalue()


def marked(import_id: str = ID) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(IMPORT_MARK) == import_id:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def status(process: psutil.Process) -> dict[str, str]:
    text = Path(f"/proc/{process.pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """A place with sentinels beside and above it, which must be as they were in the end."""
    above = tmp_path / "pool"
    place = above / "tree"
    place.mkdir(parents=True)
    watched = [above / "beside", tmp_path / "above", above / "etc", above / "etc/passwd"]
    for one in watched:
        if one.name == "etc":
            one.mkdir()
        else:
            one.write_text(SENTINEL)
    before = {one: one.lstat() for one in [above, tmp_path, *watched]}
    names = {one: sorted(path.name for path in one.iterdir()) for one in (above, above / "etc")}
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    yield place
    for one, then in before.items():
        now = one.lstat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (then.st_mode, then.st_uid, then.st_gid)
    assert all(one.read_text() == SENTINEL for one in watched if one.name != "etc")
    assert {one: sorted(path.name for path in one.iterdir()) for one in names} == names
    assert marked() == []
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


@pytest.fixture
def where(tmp_path: Path):
    return context(tmp_path / "state")


def member_layers(*layers: list[Member]) -> list[bytes]:
    return [archive(layer) for layer in layers]


# --- what it writes ------------------------------------------------------------------------------


def test_an_image_without_layers_is_an_empty_tree(held, into, where):
    receipt = fetch(held, image(held, []), into, where, import_id=ID)
    assert scanned(into) == receipt.manifest
    assert receipt.entries == 0


def test_figures(held, into, where):
    layers = member_layers(
        [file(b"a", b"x" * 1000), directory(b"d")], [file(b"d/b", b"y" * 100_000)]
    )
    resolved = image(held, layers)
    seen = []
    receipt = fetch(held, resolved, into, where, report=seen.append, import_id=ID)
    total = sum(layer.size for layer in resolved.layers)
    assert (receipt.engine, receipt.entries, receipt.written_bytes) == ("native", 3, 101_000)
    assert (receipt.fetched_bytes, receipt.cached_bytes) == (total, 0)
    assert set(receipt.milliseconds) == {"pull", "copy"}
    ends = {(one.stage, one.layer): (one.done, one.total) for one in seen}
    assert ends == {
        ("pull", 0): (resolved.layers[0].size,) * 2,
        ("pull", 1): (resolved.layers[1].size,) * 2,
        ("copy", 0): (2, 2),
        ("copy", 1): (1, 1),
    }
    # The same again: nothing is fetched.
    asked = len(held.asked)
    again = into.parent / "again"
    again.mkdir()
    receipt = fetch(held, resolved, again, where, import_id=ID)
    assert (receipt.fetched_bytes, receipt.cached_bytes) == (0, total)
    assert len(held.asked) == asked
    assert scanned(again) == scanned(into)
    sh("rm", "-r", again)


def test_states_are_kept_layer_by_layer_and_begun_from(held, into, where):
    layers = member_layers(
        [directory(b"d"), file(b"d/a", b"1")],
        [file(b"d/b", b"2"), file(b"d/.wh.a")],
        [file(b"c", b"3")],
    )
    resolved = image(held, layers)
    kept: list[LayerState] = []
    on_disk: list[bytes] = []

    def keep(state: LayerState) -> None:
        kept.append(state)
        on_disk.append(scanned(into))

    whole = fetch(held, resolved, into, where, states=States(done=None, keep=keep), import_id=ID)
    assert [state.number for state in kept] == [1, 2, 3]
    assert [state.manifest for state in kept] == on_disk  # nothing of the next layer was there
    assert whole.manifest == kept[-1].manifest

    other = into.parent / "other"
    other.mkdir()
    fetch(held, replace(resolved, layers=resolved.layers[:1]), other, where, import_id=ID)
    held.asked.clear()
    later: list[LayerState] = []
    receipt = fetch(
        held, resolved, other, where, states=States(done=kept[0], keep=later.append), import_id=ID
    )
    assert [state.number for state in later] == [2, 3]
    assert receipt.manifest == whole.manifest == scanned(other)
    assert receipt.entries == whole.entries
    sh("rm", "-r", other)


def test_what_keeps_a_state_may_fail_while_everybody_waits(held, into, where):
    """The writer for us, the reader for the writer, a download for the reader."""

    def keep(state: LayerState) -> None:
        time.sleep(1)
        raise OutOfSpace("no room for a snapshot")

    large = [file(b"%d" % number, os.urandom(4_000_000)) for number in range(4)]
    resolved = image(held, member_layers([file(b"a")], large), gzip=False)
    begun = time.monotonic()
    with pytest.raises(OutOfSpace, match="no room for a snapshot"):
        fetch(held, resolved, into, where, states=States(done=None, keep=keep), import_id=ID)
    assert time.monotonic() - begun < 20


def test_what_was_kept_counts_towards_the_limit(held, into, tmp_path):
    """Else an image that is refused comes in after all, a layer more with each try."""
    where = context(tmp_path / "state", tree_bytes=1000)
    resolved = image(held, member_layers([file(b"a", bytes(600))], [file(b"b", bytes(600))]))
    kept: list[LayerState] = []
    base = replace(resolved, layers=resolved.layers[:1])
    fetch(held, base, into, where, states=States(done=None, keep=kept.append), import_id=ID)
    with pytest.raises(TreeRefused) as refusal:
        states = States(done=kept[0], keep=kept.append)
        fetch(held, resolved, into, where, states=states, import_id=ID)
    assert refusal.value.extra["rule"] == "tree-bytes"
    assert [state.content_bytes for state in kept] == [600]


def test_what_keeps_a_state_may_fail(held, into, where):
    def keep(state: LayerState) -> None:
        raise OutOfSpace("no room for a snapshot")

    resolved = image(held, member_layers([file(b"a")], [file(b"b")]))
    with pytest.raises(OutOfSpace, match="no room for a snapshot"):
        fetch(held, resolved, into, where, states=States(done=None, keep=keep), import_id=ID)


def large_after_small(held: Held):
    """More than all pipes take, and still coming when the layer below it is written."""
    resolved = image(
        held, member_layers([file(b"a")], [file(b"b", os.urandom(8 * 2**20))]), gzip=False
    )
    whole = held.blob
    below = resolved.layers[0].digest

    def blob(digest, size, *, offset=0):
        yield from whole(digest, size, offset=offset)
        if digest != below:
            held.go_on.wait(30)  # never whole, so it goes to the reader through a pipe

    held.go_on = threading.Event()
    held.close = held.go_on.set  # type: ignore[method-assign]
    held.blob = blob  # type: ignore[method-assign]
    return resolved


def test_what_keeps_a_state_may_fail_while_the_next_layer_comes(held, into, where):
    """The writer waits, so the reader does, so whoever hands the layer over does."""

    def keep(state: LayerState) -> None:
        time.sleep(1)  # until all pipes are full
        raise OutOfSpace("no room for a snapshot")

    resolved = large_after_small(held)
    begun = time.monotonic()
    with pytest.raises(OutOfSpace, match="no room for a snapshot"):
        fetch(held, resolved, into, where, states=States(done=None, keep=keep), import_id=ID)
    assert time.monotonic() - begun < 25


@pytest.mark.parametrize("who", ["reader", "writer"])
def test_a_process_that_works_no_more_is_not_waited_for(held, into, tmp_path, who):
    def stop() -> None:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            for process in marked():
                confined = status(process).get("NoNewPrivs") == "1"
                if confined and f"{who}_process" in " ".join(process.cmdline()):
                    process.suspend()
                    return
            time.sleep(0.02)

    resolved = large_after_small(held)
    stopper = threading.Thread(target=stop)
    stopper.start()
    begun = time.monotonic()
    with pytest.raises(ImportTimeout, match="within 2 seconds"):
        fetch(held, resolved, into, context(tmp_path / "state", step_seconds=2), import_id=ID)
    stopper.join()
    assert time.monotonic() - begun < 25


# --- without root --------------------------------------------------------------------------------

AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
_CODE = """
import sys
sys.path.insert(0, {root!r})
from tests.native.test_engine import as_nobody
as_nobody({place!r})
"""
OWNED = [
    directory(b"shut", 0o555, uid=3),
    file(b"shut/secret", b"x", 0, uid=5, gid=6),
    device(b"null"),
    file(b"set-id", b"y", 0o6755),
]


def as_nobody(place: str) -> None:
    """What the test below runs as another user."""
    where = context(Path(place) / "state")
    held = Held()
    into = Path(place) / "into"
    into.mkdir()
    resolved = image(held, member_layers(OWNED, [file(b"shut/later", b"z"), file(b".wh.set-id")]))
    receipt = fetch(held, resolved, into, where)
    print(receipt.manifest.decode(), *(one.reason for one in receipt.deviations), sep="\n")


def test_an_ordinary_user_gets_the_same_manifest_and_a_tree_to_work_with(
    tmp_path, held, into, where
):
    expected = fetch(
        held,
        image(held, member_layers(OWNED, [file(b"shut/later", b"z"), file(b".wh.set-id")])),
        into,
        where,
        import_id=ID,
    )
    place = Path("/tmp") / f"coppice-nobody-{os.getpid()}"
    place.mkdir()
    os.chown(place, 65534, 65534)
    try:
        code = _CODE.format(root=str(Path(__file__).parents[2]), place=str(place))
        # Our own interpreter may lie where nobody may look: that much it may do.
        search = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        done = subprocess.run(
            [*AS_NOBODY, *search, sys.executable, "-c", code],
            env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        manifest, _, deviations = done.stdout.partition("\n\n")
        assert manifest + "\n" == expected.manifest.decode()
        assert [line.partition(":")[0] for line in deviations.splitlines()] == [
            "owners are the server's",
            "modes give the owner more",
            "devices are missing",
        ]
        secret = place / "into/shut/secret"
        assert (secret.read_text(), secret.stat().st_uid) == ("x", 65534)
        assert (place / "into/shut").stat().st_mode & 0o777 == 0o755
        sh(*AS_NOBODY, "rm", "-r", place / "into")
    finally:
        sh("rm", "-rf", place)


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_layer_that_is_not_what_the_config_says(held, into, where):
    resolved = image(held, member_layers([file(b"a", b"x")]))
    lying = replace(resolved.layers[0], diff_id=Digest("sha256:" + "b" * 64))
    with pytest.raises(PullFailed, match="not what its config says") as failure:
        fetch(held, replace(resolved, layers=(lying,)), into, where, import_id=ID)
    assert failure.value.reason == "corrupt"


def test_a_blob_of_other_bytes_than_its_digest(held, into, where):
    resolved = image(held, member_layers([file(b"a", os.urandom(300_000))]), gzip=False)
    digest = resolved.layers[0].digest
    changed = bytearray(held.blobs[digest])
    changed[-2000] ^= 1
    held.blobs[digest] = bytes(changed)
    with pytest.raises(PullFailed) as failure:
        fetch(held, resolved, into, where, import_id=ID)
    assert failure.value.reason == "corrupt"
    assert BlobCache.of(where).open(digest) is None


@pytest.mark.parametrize(
    "at", [2000, 148], ids=["contents, so another diffID", "a header's checksum, so a refusal"]
)
def test_a_blob_that_rotted_in_the_cache_goes_and_the_next_import_works(held, into, where, at):
    resolved = image(held, member_layers([file(b"a", os.urandom(300_000))]), gzip=False)
    first = into.parent / "first"
    first.mkdir()
    fetch(held, resolved, first, where, import_id=ID)
    sh("rm", "-r", first)
    path = BlobCache.of(where).path(resolved.layers[0].digest)
    path.chmod(0o600)
    with path.open("r+b") as blob:
        blob.seek(at)
        blob.write(b"rot")
    with pytest.raises(PullFailed) as failure:
        fetch(held, resolved, into, where, import_id=ID)
    assert failure.value.reason == "corrupt" and failure.value.again
    assert "try again" in failure.value.next_step
    second = into.parent / "second"
    second.mkdir()
    assert fetch(held, resolved, second, where, import_id=ID).fetched_bytes
    sh("rm", "-r", second)


def test_a_cache_of_nothing_keeps_nothing_beyond_an_import(held, into, where):
    resolved = image(held, member_layers([file(b"a", os.urandom(300_000))]))
    fetch(held, resolved, into, replace(where, limit_cache_bytes=0), import_id=ID)
    assert BlobCache.of(where).listing() == []


def test_what_the_registry_raises_comes_through(held, into, where):
    resolved = image(held, member_layers([file(b"a")], [file(b"b")]))

    def blob(digest, size, *, offset=0):
        raise PullFailed("The registry does not answer.", reason="unreachable")

    held.blob = blob  # type: ignore[method-assign]
    with pytest.raises(PullFailed, match="does not answer"):
        fetch(held, resolved, into, where, import_id=ID)


def hanging(held: Held, begun: threading.Event | None = None) -> threading.Event:
    """Downloads bring some bytes, then nothing until the holder is closed."""
    closed = threading.Event()

    def blob(digest, size, *, offset=0):
        yield held.blobs[digest][: size // 2]
        if begun:
            begun.set()
        closed.wait(30)
        raise PullFailed("The connection was closed.", reason="unreachable")

    held.blob = blob  # type: ignore[method-assign]
    held.close = closed.set  # type: ignore[method-assign]
    return closed


@pytest.fixture
def stalled(held):
    """An image of which half comes."""
    resolved = image(held, member_layers([file(b"a%d" % n, os.urandom(5000)) for n in range(100)]))
    hanging(held)
    return resolved


def test_a_layer_that_does_not_come_in_time(held, stalled, into, tmp_path):
    begun = time.monotonic()
    with pytest.raises(ImportTimeout, match="within 1 seconds"):
        fetch(held, stalled, into, context(tmp_path / "state", step_seconds=1), import_id=ID)
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("who", ["reader", "writer"])
def test_a_process_that_is_killed_is_named(held, stalled, into, where, who):
    def kill() -> None:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            for process in marked():
                if f"{who}_process" in " ".join(process.cmdline()):
                    process.send_signal(signal.SIGKILL)
                    return
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ProgramKilled, match=f"{who} was killed by SIGKILL"):
        fetch(held, stalled, into, where, import_id=ID)
    killer.join()


@pytest.mark.parametrize("interrupt", [SystemExit, KeyboardInterrupt])
def test_an_interrupt_leaves_no_process(held, stalled, into, where, interrupt):
    def report(progress):
        if progress.done:
            raise interrupt

    begun = time.monotonic()
    with pytest.raises(interrupt):
        fetch(held, stalled, into, where, report=report, import_id=ID)
    assert time.monotonic() - begun < 20
    # What had come stays, for the next import to go on from.
    parts = list((where.state_dir / "blobs").glob("*/*.part"))
    assert [part.stat().st_size for part in parts] == [stalled.layers[0].size // 2]


_SERVER = """
import sys
sys.path.insert(0, {root!r})
from tests.native.test_engine import as_server
as_server({place!r}, {import_id!r})
"""


def as_server(place: str, import_id: str) -> None:
    held = Held()
    resolved = image(held, member_layers([file(b"a", os.urandom(100_000))]))
    hanging(held)
    (Path(place) / "into").mkdir()
    fetch(held, resolved, Path(place) / "into", context(Path(place) / "state"), import_id=import_id)


def test_processes_die_with_a_server_that_is_killed(tmp_path):
    code = _SERVER.format(root=str(Path(__file__).parents[2]), place=str(tmp_path), import_id=ID)
    server = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    until = time.monotonic() + 20
    while len(marked()) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert len(marked()) == 2
    while time.monotonic() < until:
        if all(status(process).get("NoNewPrivs") == "1" for process in marked()):
            break  # the last thing that a process gives up
        time.sleep(0.02)
    for process in marked():
        process.suspend()  # none of them can notice by itself
    server.kill()
    server.wait()
    _, alive = psutil.wait_procs(marked(), timeout=5)
    assert alive == []


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "rule"),
    [
        ({"entries": 5}, "entries"),
        ({"tree_bytes": 3000}, "tree-bytes"),
        ({"file_bytes": 999}, "file-bytes"),
        ({"ratio": 2}, "ratio"),
    ],
)
def test_beyond_a_limit(held, into, tmp_path, limits, rule):
    members = [file(b"%d" % number, bytes(1000)) for number in range(9)]
    if rule == "ratio":
        members = [file(b"zeros", bytes(80_000_000))]
    resolved = image(held, member_layers(members))
    with pytest.raises(TreeRefused) as refusal:
        fetch(held, resolved, into, context(tmp_path / "state", **limits), import_id=ID)
    assert refusal.value.extra["rule"] == rule


def test_more_memory_than_a_process_may_use(held, into, tmp_path):
    """Names are kept in memory: a million of them need more than this."""
    names = [b"%0200d" % number for number in range(300)]
    members = [directory(b"/".join(names[at : at + 15])) for at in range(250)]
    layers = member_layers(members)
    where = context(tmp_path / "state", memory_bytes=30 * 2**20)
    with pytest.raises(CoppiceError) as failure:
        fetch(held, image(held, layers), into, where, import_id=ID)
    assert failure.value.extra.get("rule") == "memory" or isinstance(
        failure.value, ProgramFailed | ProgramKilled
    )


@pytest.fixture
def mounted(tmp_path: Path):
    """A file system of 2 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place)
    yield place
    sh("umount", place)


def test_a_full_pool(held, mounted, where):
    (mounted / "into").mkdir()
    resolved = image(held, member_layers([file(b"a", os.urandom(5_000_000))]))
    with pytest.raises(OutOfSpace):
        fetch(held, resolved, mounted / "into", where, import_id=ID)
    assert marked() == []


@pytest.fixture
def ext4(tmp_path: Path):
    """Its blocks have 1 KiB, and so have all attributes of a file together."""
    place, disk = tmp_path / "ext4", tmp_path / "disk"
    place.mkdir()
    sh("truncate", "-s", "4M", disk)
    sh("mkfs.ext4", "-q", "-b", "1024", disk)
    sh("mount", "-o", "loop", disk, place)
    yield place
    sh("umount", place)


def test_larger_attributes_than_the_pool_keeps_are_the_images_fault(held, ext4, where):
    """ext4 says that there is no space, although there is: nobody should look for it."""
    (ext4 / "into").mkdir()
    member = file(b"a", xattrs=((b"user.note", b"x" * 2000),))
    with pytest.raises(TreeRefused, match="user.note of 2000 bytes") as refusal:
        fetch(held, image(held, member_layers([member])), ext4 / "into", where, import_id=ID)
    assert refusal.value.extra == {"rule": "attributes"}


def test_a_pool_that_is_read_only(held, mounted, where):
    (mounted / "into").mkdir()
    sh("mount", "-o", "remount,ro", mounted)
    with pytest.raises(StorageReadOnly):
        fetch(held, image(held, member_layers([file(b"a")])), mounted / "into", where, import_id=ID)


def test_a_place_that_is_not_empty_is_not_touched(held, into, where):
    (into / "mine").write_text("here")
    with pytest.raises(ValueError, match="not empty"):
        fetch(held, image(held, member_layers([file(b"mine", b"x")])), into, where, import_id=ID)
    assert (into / "mine").read_text() == "here"


def test_somebody_who_writes_into_the_tree_ends_it(held, into, where):
    """The disk is not as the model says: nothing is written through what is there."""
    outside = into.parent.parent / "outside"
    outside.mkdir()
    resolved = image(held, member_layers([directory(b"d")], [file(b"d/x", b"1")]))

    def keep(state: LayerState) -> None:
        if state.number == 1:
            (into / "d").rmdir()
            (into / "d").symlink_to(outside)

    with pytest.raises(ProgramFailed, match="writer failed"):
        fetch(held, resolved, into, where, states=States(done=None, keep=keep), import_id=ID)
    assert list(outside.iterdir()) == []


def test_more_names_of_a_file_than_the_file_system_gives():
    raised = OSError(errno.EMLINK, os.strerror(errno.EMLINK), b"a", None, b"l64999")
    refusal = failures.again("writer", failures.told(raised))
    assert isinstance(refusal, TreeRefused)
    assert refusal.extra == {"rule": "links"}
    # FreeBSD's word for a symlink where none may be: the tree is not as the model has it.
    raised = OSError(errno.EMLINK, os.strerror(errno.EMLINK), b"a")
    assert isinstance(failures.again("writer", failures.told(raised)), ProgramFailed)


# --- confinement ---------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces and capabilities are Linux's")
def test_what_the_processes_have_given_up(held, stalled, into, where):
    facts: dict[str, dict[str, str]] = {}

    def look() -> None:
        until = time.monotonic() + 10
        while len(facts) < 2 and time.monotonic() < until:
            for process in marked():
                said = status(process)
                if said.get("NoNewPrivs") != "1":  # the last thing that it does
                    continue
                place = Path(f"/proc/{process.pid}")
                name = "reader" if "reader_process" in (place / "cmdline").read_text() else "writer"
                facts[name] = said | {
                    "net": str((place / "ns/net").readlink()),
                    "root": str((place / "root").readlink()),
                    "interfaces": (place / "net/dev").read_text(),
                    "environ": (place / "environ").read_text(),
                    "files": str(len(list((place / "fd").iterdir()))),
                    "limits": (place / "limits").read_text(),
                    "modules": (place / "maps").read_text(),
                }
            time.sleep(0.02)
        seen.set()

    seen = threading.Event()
    held.close = lambda close=held.close: (seen.wait(10), close())  # type: ignore[method-assign]
    watcher = threading.Thread(target=look)
    watcher.start()
    with pytest.raises(ImportTimeout):
        fetch(
            held,
            stalled,
            into,
            replace(where, limits=replace(where.limits, seconds=2)),
            import_id=ID,
        )
    watcher.join()
    reader, writer = facts["reader"], facts["writer"]
    own = str(Path("/proc/self/ns/net").readlink())
    assert own not in (reader["net"], writer["net"])
    assert all(len(one["interfaces"].splitlines()) == 3 for one in (reader, writer))  # lo alone
    assert writer["root"] == str(into)
    assert reader["root"] == str(where.state_dir / "engine/empty")
    assert reader["Uid"].split() == ["65534"] * 4
    assert reader["Groups"].strip() == ""
    assert {reader[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    kept = sum(1 << number for number in (0, 1, 3, 4, 27, 31))
    assert {int(writer[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {kept}
    for one in (reader, writer):
        assert one["Seccomp"] in ("0", "2")
        assert int(one["files"]) <= 7
        assert "DJANGO" not in one["environ"]
        assert re.search(r"Max core file size +0 +0 ", one["limits"])


def test_what_could_not_be_given_up_is_logged_once(caplog):
    engine._confined.clear()
    for _ in range(3):
        engine._log_missing("writer", ["a network of its own"])
    assert caplog.text.count("the writer process runs without a network of its own") == 1
    engine._confined.clear()


def test_the_processes_import_no_server(tmp_path):
    code = (
        "import sys; sys.path[:0] = sys.argv[1:];"
        "from templates_app.sources.native import reader_process, writer_process;"
        "print([name for name in ('django', 'httpx', 'httpcore', 'ssl', 'psutil')"
        " if name in sys.modules])"
    )
    from templates_app.sources.native import crew

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *crew._PATHS], capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr
