"""The blob cache: what comes in is checked, what is in use stays, what breaks goes on."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from templates_app.errors import ImportTimeout, OutOfSpace, PullFailed, Unavailable
from templates_app.names import Digest
from templates_app.sources.native.cache import BlobCache
from templates_app.sources.native.incoming import Cancelled, Incoming, fetch, keep, take
from tests.pools import sh

DATA = bytes(range(256)) * 4096  # 1 MiB
CHUNK = 64 * 1024


def digest_of(data: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "blobs", limit_bytes=2**30, patience=30)


class Server:
    """Where a blob comes from, with a fault if one is asked for; counts what it gave."""

    def __init__(self, data: bytes = DATA, *, breaks_at: int | None = None) -> None:
        self.data = data
        self.breaks_at = breaks_at
        self.offsets: list[int] = []
        self.given = 0
        self.closed = False

    def __call__(self, offset: int) -> Iterator[bytes]:
        self.offsets.append(offset)
        try:
            while offset < len(self.data):
                if self.breaks_at is not None and offset >= self.breaks_at:
                    raise PullFailed("The connection broke.", reason="unreachable")
                chunk = self.data[offset : offset + CHUNK]
                self.given += len(chunk)
                offset += len(chunk)
                yield chunk
        finally:
            self.closed = True


class TestWhatComesIn:
    def test_a_blob_is_there_after_it_was_fetched_and_not_asked_for_again(self, cache):
        server = Server()
        assert cache.open(digest_of(DATA)) is None
        for _ in range(2):
            with fetch(cache, digest_of(DATA), len(DATA), server) as file:
                assert file.read() == DATA
        assert server.offsets == [0] and server.closed
        path = cache.path(digest_of(DATA))
        assert path == cache.home / "sha256" / hashlib.sha256(DATA).hexdigest()
        assert path.stat().st_mode & 0o777 == 0o400
        assert list(path.parent.iterdir()) == [path]

    def test_an_empty_blob_is_a_blob(self, cache):
        with fetch(cache, digest_of(b""), 0, Server(b"")) as file:
            assert file.read() == b""

    @pytest.mark.parametrize(
        ("sent", "how"),
        [
            (DATA[:-1] + b"x", "its bytes are others"),
            (DATA + b"x", "more than"),
            (DATA[:-1], f"{len(DATA) - 1} bytes came"),
            (b"", "0 bytes came"),
        ],
    )
    def test_other_bytes_than_promised_are_corrupt_and_leave_nothing(self, cache, sent, how):
        with pytest.raises(PullFailed, match=how) as failed:
            fetch(cache, digest_of(DATA), len(DATA), Server(sent))
        assert failed.value.reason == "corrupt"
        assert list(cache.home.glob("*/*")) == []

    def test_an_endless_blob_is_read_no_further_than_its_size(self, cache):
        server = Server(DATA * 64)
        with pytest.raises(PullFailed):
            fetch(cache, digest_of(DATA), len(DATA), server)
        assert server.given <= len(DATA) + CHUNK and server.closed

    def test_a_document_is_hashed_at_each_reading(self, cache):
        digest = keep(cache, b"{}")
        assert cache.document(digest) == b"{}"
        path = cache.path(digest)
        path.chmod(0o600)
        path.write_bytes(b"[]")
        assert cache.document(digest) is None
        assert not path.exists()

    def test_a_blob_that_rots_is_found_and_fetched_again(self, cache):
        server = Server()
        fetch(cache, digest_of(DATA), len(DATA), server).close()
        assert not cache.rotten(digest_of(DATA))
        path = cache.path(digest_of(DATA))
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.write(b"rot")
        assert cache.rotten(digest_of(DATA))
        with fetch(cache, digest_of(DATA), len(DATA), server) as file:
            assert file.read() == DATA
        assert server.offsets == [0, 0]

    def test_a_blob_that_a_crash_cut_off_is_not_given_out(self, cache):
        fetch(cache, digest_of(DATA), len(DATA), Server()).close()
        os.truncate(cache.path(digest_of(DATA)), 5)
        assert cache.open(digest_of(DATA), len(DATA)) is None
        assert not cache.path(digest_of(DATA)).exists()

    def test_a_symlink_in_a_blobs_place_is_not_followed(self, cache, tmp_path):
        (tmp_path / "outside").write_bytes(DATA)
        path = cache.path(digest_of(DATA))
        path.parent.mkdir(parents=True)
        path.symlink_to(tmp_path / "outside")
        with pytest.raises(Unavailable):
            cache.open(digest_of(DATA))


class TestWithoutADigest:
    """What an archive has under a name of its own."""

    def test_a_blob_gets_the_digest_that_it_has(self, cache):
        digest = take(cache, len(DATA), iter([DATA[:CHUNK], DATA[CHUNK:]]))
        assert digest == digest_of(DATA)
        with cache.open(digest, len(DATA)) as file:
            assert file.read() == DATA
        assert take(cache, len(DATA), iter([DATA])) == digest  # again
        assert [one.digest for one in cache.listing()] == [digest]

    def test_one_that_breaks_off_leaves_nothing(self, cache):
        def broken() -> Iterator[bytes]:
            yield DATA
            raise PullFailed("The archive broke.", reason="corrupt")

        with pytest.raises(PullFailed):
            take(cache, len(DATA), broken())
        assert list(cache.home.glob("*/*")) == []

    def test_one_that_is_being_written_is_not_swept(self, cache):
        def parts() -> Iterator[bytes]:
            yield DATA[:CHUNK]
            cache.sweep()
            yield DATA[CHUNK:]

        with cache.open(take(cache, len(DATA), parts())) as file:
            assert file.read() == DATA

    def test_what_a_killed_process_left_is_swept_and_what_one_writes_is_not(self, cache):
        cache.nameless.mkdir(parents=True)
        (cache.nameless / "left").write_bytes(DATA)
        with (cache.nameless / "written").open("wb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            cache.sweep()
            assert [path.name for path in cache.nameless.iterdir()] == ["written"]


class TestGoingOn:
    def test_a_broken_download_goes_on_where_it_broke(self, cache):
        server = Server(breaks_at=len(DATA) // 2)
        with pytest.raises(PullFailed, match="broke"):
            fetch(cache, digest_of(DATA), len(DATA), server)
        server.breaks_at = None
        incoming = Incoming(cache, digest_of(DATA), len(DATA), server)
        incoming.run()
        incoming.close()
        assert server.offsets == [0, len(DATA) // 2]
        assert server.given == len(DATA)
        assert (incoming.cached, incoming.fetched) == (len(DATA) // 2, len(DATA) // 2)

    @pytest.mark.parametrize("left", [b"\0" * CHUNK, DATA + b"more"])
    def test_what_was_left_is_not_believed(self, cache, left):
        path = cache.path(digest_of(DATA))
        path.parent.mkdir(parents=True)
        path.with_name(path.name + ".part").write_bytes(left)
        server = Server()
        with fetch(cache, digest_of(DATA), len(DATA), server) as file:
            assert file.read() == DATA
        assert max(server.offsets) < len(DATA) and server.offsets[-1] == 0

    def test_what_was_left_whole_needs_no_download(self, cache):
        path = cache.path(digest_of(DATA))
        path.parent.mkdir(parents=True)
        path.with_name(path.name + ".part").write_bytes(DATA)
        server = Server()
        fetch(cache, digest_of(DATA), len(DATA), server).close()
        assert server.offsets == []

    def test_nobody_reads_what_was_left_before_the_verdict(self, cache):
        """Old bytes may be wrong, and what was read cannot be taken back."""
        path = cache.path(digest_of(DATA))
        path.parent.mkdir(parents=True)
        path.with_name(path.name + ".part").write_bytes(b"\0" * CHUNK)
        incoming = Incoming(cache, digest_of(DATA), len(DATA), Server())
        with ThreadPoolExecutor() as pool:
            read = pool.submit(incoming.stream().readall)
            pool.submit(incoming.run).result(20)
            assert read.result(20) == DATA
        incoming.close()

    def test_a_killed_process_leaves_what_it_had(self, cache):
        """SIGKILL in the middle: the lock is free, the bytes are there, the rest is asked for."""
        program = (
            "import sys, time; from pathlib import Path;"
            "from templates_app.sources.native.cache import BlobCache;"
            "from templates_app.sources.native.incoming import fetch;"
            "from templates_app.names import Digest\n"
            "def slow(offset):\n"
            " yield bytes(range(256)) * 2048\n"
            " print('half', flush=True); time.sleep(60)\n"
            "fetch(BlobCache(Path(sys.argv[1]), 2**30, 5), Digest(sys.argv[2]), 2**20, slow)"
        )
        argv = [sys.executable, "-c", program, str(cache.home), digest_of(DATA).text]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"half\n"
            process.send_signal(signal.SIGKILL)
        server = Server()
        fetch(cache, digest_of(DATA), len(DATA), server).close()
        assert server.offsets == [len(DATA) // 2]


class TestReadingWhatComes:
    def test_bytes_are_read_as_they_come_and_the_end_after_the_verdict(self, cache):
        go_on = threading.Event()

        def slow(offset: int) -> Iterator[bytes]:
            yield DATA[:CHUNK]
            assert go_on.wait(20)
            yield DATA[CHUNK:]

        incoming = Incoming(cache, digest_of(DATA), len(DATA), slow)
        with ThreadPoolExecutor() as pool:
            running = pool.submit(incoming.run)
            stream = incoming.stream()
            assert stream.read(2 * CHUNK) == DATA[:CHUNK]
            assert not running.done()
            go_on.set()
            assert stream.readall() == DATA[CHUNK:]
            running.result(20)
        incoming.close()

    def test_wrong_bytes_never_come_to_an_end(self, cache):
        incoming = Incoming(cache, digest_of(DATA), len(DATA), Server(DATA[:-1] + b"x"))
        with pytest.raises(PullFailed):
            incoming.run()
        with pytest.raises(PullFailed):
            incoming.stream().readall()
        incoming.close()

    def test_cancelling_wakes_the_readers_and_keeps_what_came(self, cache):
        arrived = threading.Event()

        def slow(offset: int) -> Iterator[bytes]:
            for start in range(offset, len(DATA), CHUNK):
                yield DATA[start : start + CHUNK]
                arrived.set()
                time.sleep(0.05)

        incoming = Incoming(cache, digest_of(DATA), len(DATA), slow)
        with ThreadPoolExecutor() as pool:
            running = pool.submit(incoming.run)
            assert arrived.wait(20)
            read = pool.submit(incoming.stream().readall)
            incoming.cancel()
            for one in (running, read):
                with pytest.raises(Cancelled):
                    one.result(20)
        incoming.close()
        server = Server()
        fetch(cache, digest_of(DATA), len(DATA), server).close()
        assert server.offsets[0] >= CHUNK

    def test_one_that_never_ran_can_be_cancelled(self, cache):
        incoming = Incoming(cache, digest_of(DATA), len(DATA), Server())
        incoming.cancel()
        with pytest.raises(Cancelled):
            incoming.stream().readall()


class TestSeveralAtOnce:
    def test_one_downloads_and_the_others_find_it(self, cache):
        server = Server()

        def one(_: int) -> bytes:
            with fetch(cache, digest_of(DATA), len(DATA), server) as file:
                return file.read()

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(one, range(8))) == {DATA}
        assert server.offsets == [0]
        assert len(list(cache.home.glob("*/*"))) == 1

    def test_what_is_locked_is_what_the_name_says(self, cache, monkeypatch):
        """Between opening and locking `.part`, who had it may remove or rename it."""
        path = cache.path(digest_of(DATA))
        races = [path.with_name(path.name + ".part")]

        def flock(file: Any, how: int) -> None:
            if races:
                races.pop().unlink()
            real(file, how)

        real = fcntl.flock
        monkeypatch.setattr("templates_app.sources.native.incoming.fcntl.flock", flock)
        fetch(cache, digest_of(DATA), len(DATA), Server()).close()
        assert path.exists() and not races

    def test_when_the_first_breaks_the_next_goes_on(self, cache):
        arrived, break_now = threading.Event(), threading.Event()

        def first(offset: int) -> Iterator[bytes]:
            yield DATA[:CHUNK]
            arrived.set()
            assert break_now.wait(20)
            raise PullFailed("The connection broke.", reason="unreachable")

        seen: list[int] = []
        server = Server()
        with ThreadPoolExecutor() as pool:
            lost = pool.submit(fetch, cache, digest_of(DATA), len(DATA), first)
            assert arrived.wait(20)
            won = pool.submit(fetch, cache, digest_of(DATA), len(DATA), server, seen.append)
            while not seen:
                time.sleep(0.01)
            break_now.set()
            with pytest.raises(PullFailed):
                lost.result(20)
            won.result(20).close()
        assert server.offsets == [CHUNK]
        assert seen[0] == CHUNK and seen[-1] == len(DATA)  # who waits sees how far the other is

    def test_waiting_for_another_has_an_end(self, cache, tmp_path):
        path = cache.path(digest_of(DATA))
        path.parent.mkdir(parents=True)
        with path.with_name(path.name + ".part").open("wb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(ImportTimeout):
                fetch(BlobCache(cache.home, 2**30, 0.1), digest_of(DATA), len(DATA), Server())


#: Fetches, takes, evicts, sweeps and reads without end; a wrong byte ends it with a message.
RESTLESS = """
import random, sys
from pathlib import Path
from templates_app.names import Digest
from templates_app.sources.documents import sha256
from templates_app.sources.native.cache import BlobCache
from templates_app.sources.native.incoming import fetch, take
cache = BlobCache(Path(sys.argv[1]), 2_000_000, 30)
def part(data, offset):
    for at in range(offset, len(data), 50_000):
        yield data[at : at + 50_000]
print("begun", flush=True)
while True:
    data = bytes([random.randrange(6)]) * 900_000
    if random.random() < 0.3:
        digest = take(cache, len(data), part(data, 0))
    else:
        digest = sha256(data)
        with fetch(cache, digest, len(data), lambda offset: part(data, offset)) as file:
            assert file.read() == data, "wrong bytes"
    cache.sweep()
    if random.random() < 0.3:
        cache.evict(down_to=random.randrange(3_000_000))
"""


class TestKills:
    def test_whenever_processes_are_killed_what_has_a_name_is_whole(self, cache):
        dice = random.Random(7)
        running: list[subprocess.Popen[bytes]] = []
        named = 0
        try:
            for _ in range(12):
                argv = [sys.executable, "-c", RESTLESS, str(cache.home)]
                running.append(subprocess.Popen(argv, stdout=subprocess.PIPE))
                assert running[-1].stdout is not None
                assert running[-1].stdout.readline() == b"begun\n"
                time.sleep(dice.uniform(0.01, 0.3))
                named += sum(not one.partial for one in cache.listing())
                if len(running) > 2:
                    doomed = running[0]
                    assert doomed.poll() is None  # it met nothing that it did not expect
                    doomed.kill()
                    running.pop(0).communicate()
        finally:
            for one in running:
                one.kill()
                one.communicate()
        cache.sweep()
        assert list(cache.nameless.iterdir()) == []
        whole = [one for one in cache.listing() if not one.partial]
        assert named  # in the end all may just have been evicted
        assert [one for one in whole if cache.rotten(one.digest)] == []
        data = bytes(900_000)
        with fetch(cache, digest_of(data), len(data), Server(data)) as file:
            assert file.read() == data


class TestSpace:
    def fill(self, cache: BlobCache, count: int = 4) -> list[Digest]:
        """Blobs of 1000 bytes, the first used longest ago."""
        digests = []
        for number in range(count):
            data = bytes([number]) * 1000
            fetch(cache, digest_of(data), len(data), Server(data)).close()
            os.utime(cache.path(digest_of(data)), ns=(number, number))
            digests.append(digest_of(data))
        return digests

    def there(self, cache: BlobCache) -> set[Digest]:
        return {one.digest for one in cache.listing()}

    def test_what_was_used_least_recently_goes_first(self, cache):
        one, two, three, four = self.fill(cache)
        cache.open(one).close()  # used just now
        gone = cache.evict(down_to=2000)
        assert [kept.digest for kept in gone] == [two, three]
        assert self.there(cache) == {one, four}

    def test_what_is_in_use_stays(self, cache):
        one, two, *_ = self.fill(cache)
        with cache.open(one):
            os.utime(cache.path(one), ns=(0, 0))
            assert two in {kept.digest for kept in cache.evict(down_to=0)}
            assert self.there(cache) == {one}
        cache.evict(down_to=0)
        assert self.there(cache) == set()

    def test_one_that_comes_is_in_use_until_it_is_closed(self, cache):
        incoming = Incoming(cache, digest_of(DATA), len(DATA), Server())
        incoming.run()
        assert cache.evict(down_to=0) == []
        incoming.close()
        assert len(cache.evict(down_to=0)) == 1

    def test_a_partial_one_goes_unless_somebody_downloads_it(self, cache):
        with pytest.raises(PullFailed):
            fetch(cache, digest_of(DATA), len(DATA), Server(breaks_at=CHUNK))
        (kept,) = cache.listing()
        assert kept.partial and kept.size_bytes == CHUNK
        with kept.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert cache.evict(down_to=0) == []
        assert cache.evict(down_to=0) == [kept]
        assert cache.listing() == []

    def test_the_limit_is_kept_when_a_new_one_comes(self, cache):
        one, two, three, four = self.fill(cache)
        small = BlobCache(cache.home, limit_bytes=len(DATA) + 3500, patience=1)
        fetch(small, digest_of(DATA), len(DATA), Server()).close()
        assert self.there(cache) == {two, three, four, digest_of(DATA)}
        assert sum(kept.size_bytes for kept in cache.listing()) <= small.limit_bytes

    def test_one_larger_than_the_limit_is_brought_and_goes_at_the_end(self, cache):
        small = BlobCache(cache.home, limit_bytes=10, patience=1)
        with fetch(small, digest_of(DATA), len(DATA), Server()) as file:
            assert small.trim() == []
            assert file.read() == DATA
        assert len(small.trim()) == 1

    def test_a_dry_run_removes_nothing(self, cache):
        digests = self.fill(cache)
        assert len(cache.evict(down_to=0, dry_run=True)) == 4
        assert self.there(cache) == set(digests)

    def test_a_full_disk_is_said_before_a_byte_is_asked_for(self, cache, monkeypatch):
        self.fill(cache)
        server = Server()
        monkeypatch.setattr(BlobCache, "_free", lambda _: 100)
        with pytest.raises(OutOfSpace, match="state directory"):
            fetch(cache, digest_of(DATA), len(DATA), server)
        assert server.offsets == []

    def test_a_disk_that_fills_up_meanwhile_is_left_as_it_was(self, tmp_path, monkeypatch):
        """Half a blob on a full disk would be in the way of the database beside it."""
        place = tmp_path / "small"
        place.mkdir()
        sh("mount", "-t", "tmpfs", "-o", "size=512k", "small", place)
        try:
            cache = BlobCache(place / "blobs", limit_bytes=2**30, patience=1)
            monkeypatch.setattr(BlobCache, "_free", lambda _: 2**30)  # others write meanwhile
            with pytest.raises(OutOfSpace, match="state directory"):
                fetch(cache, digest_of(DATA), len(DATA), Server())
            assert cache.listing() == []
        finally:
            sh("umount", place)

    def test_what_is_not_ours_is_left_alone(self, cache):
        self.fill(cache)
        (cache.home / "sha256" / "notes").write_text("of an operator")
        cache.evict(down_to=0)
        assert [path.name for path in cache.home.glob("*/*")] == ["notes"]
