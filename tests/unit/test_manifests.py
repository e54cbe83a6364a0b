"""Texts kept by their sha256: whole or not at all, and never another one."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import threading
import time

import pytest
import zstandard

from templates_app.errors import MalformedDigest, OutOfSpace
from templates_app.trust.manifests import Damaged, Texts

TEXT = b"#mtree v2.0\n. type=dir mode=0755 uid=0 gid=0\n" * 500


@pytest.fixture
def texts(tmp_path):
    return Texts(tmp_path / "state" / "manifests")


def path_of(texts, digest):
    return texts.place / f"{digest.removeprefix('sha256:')}.zst"


def test_what_was_put_comes_out_under_its_sha256(texts):
    digest = texts.put(TEXT)
    assert digest == f"sha256:{hashlib.sha256(TEXT).hexdigest()}"
    assert texts.get(digest) == TEXT
    assert texts.digests() == {digest}
    assert path_of(texts, digest).stat().st_size < len(TEXT) / 10
    assert stat.S_IMODE(texts.place.stat().st_mode) == 0o700


def test_nothing_is_kept_is_told_from_empty(texts):
    nothing = "sha256:" + "0" * 64
    assert texts.get(nothing) is None
    assert texts.used(nothing) == 0
    assert texts.digests() == set()
    assert texts.get(texts.put(b"")) == b""


def test_an_operator_can_read_it_without_us(texts):
    path = path_of(texts, texts.put(TEXT))
    shown = subprocess.run(["zstdcat", "--", path], capture_output=True, check=True)
    assert shown.stdout == TEXT


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2] + b"\xff" + data[len(data) // 2 + 1 :],
        lambda data: zstandard.compress(b"another text"),
        lambda data: b"\x28\xb5\x2f\xfd\xc0" + b"\xff" * 8 + data,
    ],
    ids=["empty", "cut", "a bit of it", "another", "a huge length"],
)
def test_what_is_damaged_is_never_passed_on(texts, damage):
    digest = texts.put(TEXT)
    path = path_of(texts, digest)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Damaged):
        texts.get(digest)
    assert texts.put(TEXT) == digest
    assert texts.get(digest) == TEXT


def test_forgetting_twice_is_forgetting(texts):
    digest = texts.put(TEXT)
    texts.forget(digest)
    texts.forget(digest)
    assert texts.get(digest) is None


def test_a_use_is_remembered(texts):
    digest = texts.put(TEXT)
    os.utime(path_of(texts, digest), (1, 1))
    assert texts.used(digest) == 1
    texts.touch(digest)
    assert texts.used(digest) > time.time() - 60
    os.utime(path_of(texts, digest), (1, 1))
    texts.put(TEXT)
    assert texts.used(digest) > time.time() - 60


def test_a_digest_is_never_a_path(texts):
    for odd in ("../../etc/passwd", "sha256:../x", "sha256:" + "A" * 64):
        with pytest.raises(MalformedDigest):
            texts.get(odd)


def test_a_full_state_directory_is_said_to_be_full(texts, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfSpace):
        texts.put(TEXT)
    assert list(texts.place.iterdir()) == []


def test_what_a_killed_writer_left_is_swept_and_a_living_one_is_not(texts):
    texts.put(TEXT)
    old, new = texts.place / "aa.part", texts.place / "bb.part"
    for part in (old, new):
        part.write_bytes(b"x")
    os.utime(old, (1, 1))
    texts.sweep()
    assert (old.exists(), new.exists()) == (False, True)
    assert len(texts.digests()) == 1


def test_many_put_the_same_at_once(texts):
    threads = [threading.Thread(target=texts.put, args=(TEXT,)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.suffix for path in texts.place.iterdir()] == [".zst"]
    assert texts.get(texts.put(TEXT)) == TEXT
