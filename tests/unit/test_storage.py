"""What container storage says of an image: read as it is, and None where it is not as expected."""

from __future__ import annotations

import base64
import gzip
import json
import tarfile
from pathlib import Path

import pytest

from templates_app.sources import programs, storage

IMAGE = "a" * 64


def packed(text: bytes) -> bytes:
    """The same at any time: tests are told apart by their values."""
    return gzip.compress(text, mtime=0)


def split(*names, kind=tarfile.DIRTYPE, mode=0o750, prefix=b""):
    """A layer's tar-split: for each entry its header, then its name."""
    lines = []
    for name in names:
        member = tarfile.TarInfo(name)
        member.type, member.mode, member.uid, member.gid = kind, mode, 3, 4
        payload = base64.b64encode(prefix + member.tobuf()).decode()
        lines.append({"type": 2, "payload": payload, "position": 0})
        lines.append({"type": 1, "name": name, "payload": None, "position": 1})
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    return packed(text.encode())


@pytest.fixture
def place(tmp_path):
    """An image of two layers, as the overlay driver writes it down."""
    (tmp_path / "overlay-images").mkdir()
    (tmp_path / "overlay-layers").mkdir()
    records = [
        {"id": "base", "diff-digest": "sha256:1"},
        {"id": "top", "parent": "base", "diff-digest": "sha256:2"},
    ]
    (tmp_path / "overlay-images/images.json").write_text(
        json.dumps([{"id": "other"}, {"id": IMAGE, "layer": "top"}])
    )
    (tmp_path / "overlay-layers/layers.json").write_text(json.dumps(records))
    (tmp_path / "overlay-layers/base.tar-split.gz").write_bytes(split("./", "etc"))
    (tmp_path / "overlay-layers/top.tar-split.gz").write_bytes(split("etc", "usr"))
    return tmp_path


def test_the_digests_of_the_unpacked_layers_base_first(place):
    assert storage.layers(place, IMAGE) == ["sha256:1", "sha256:2"]


def test_an_image_without_layers_has_none(place):
    assert storage.layers(place, "other") == []


def test_the_topmost_layer_that_has_a_root_says_what_it_is(place):
    found = storage.root_entry(place, IMAGE)
    assert (found.mode, found.uid, found.gid) == (0o750, 3, 4)
    (place / "overlay-layers/top.tar-split.gz").write_bytes(split("./", mode=0o700))
    assert storage.root_entry(place, IMAGE).mode == 0o700


@pytest.mark.parametrize("name", [".", "./"])
def test_a_root_has_several_names(place, name):
    (place / "overlay-layers/top.tar-split.gz").write_bytes(split(name, mode=0o711))
    assert storage.root_entry(place, IMAGE).mode == 0o711


def test_extended_headers_before_it_do_not_matter(place):
    pax = bytes(3 * tarfile.BLOCKSIZE)
    (place / "overlay-layers/top.tar-split.gz").write_bytes(split("./", mode=0o711, prefix=pax))
    assert storage.root_entry(place, IMAGE).mode == 0o711


def test_a_root_that_is_no_directory_is_none(place):
    (place / "overlay-layers/base.tar-split.gz").write_bytes(split("./", kind=tarfile.SYMTYPE))
    assert storage.root_entry(place, IMAGE) is None


BROKEN = {
    "empty": b"",
    "no gzip": b"not gzip",
    "cut off": split("./")[:60],
    "no text": packed(b"\xff\xfe\n"),
    "no JSON": packed(b"{\n"),
    "no payload": packed(b'{"type":2}\n{"type":1,"name":"./"}\n'),
    "no header": packed(b'{"type":2,"payload":"AAAA"}\n{"type":1,"name":"./"}\n'),
    "no entry": packed(b'{"type":1,"name":"./"}\n'),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_no_answer(place, data):
    (place / "overlay-layers/base.tar-split.gz").write_bytes(data)
    assert storage.root_entry(place, IMAGE) is None


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("images/images.json", "{"),
        ("images/images.json", "{}"),
        ("images/images.json", "[]"),
        ("images/images.json", "[7, {}]"),
        ("layers/layers.json", "{"),
        ("layers/layers.json", "[]"),
        ("layers/layers.json", '[{"id": "top", "parent": "base"}]'),
        ("layers/layers.json", '[{"id": "top", "parent": "top", "diff-digest": "x"}]'),
        ("layers/layers.json", '[{"id": "top"}]'),
    ],
)
def test_records_that_are_not_as_expected_are_no_answer(place, file, text):
    (place / f"overlay-{file}").write_text(text)
    assert storage.layers(place, IMAGE) is None


def test_a_storage_that_is_not_there_is_no_answer(tmp_path):
    assert storage.layers(tmp_path / "no", IMAGE) is None
    assert storage.root_entry(tmp_path / "no", IMAGE) is None


# --- where the storage is ------------------------------------------------------------------------


def test_the_innermost_mount_is_the_file_system(tmp_path):
    assert programs.file_system(tmp_path) == programs.file_system(tmp_path / "not/made/yet")
    assert programs.file_system(Path("/proc/self")) == "proc"


@pytest.mark.parametrize(
    ("kind", "driver"),
    [("ext4", "overlay"), ("xfs", "overlay"), ("tmpfs", "overlay"), ("btrfs", "overlay")]
    + [("overlay", "vfs"), ("zfs", "vfs"), ("fuse-zfs", "vfs"), ("nfs4", "vfs")],
)
def test_overlay_is_used_where_it_works(tmp_path, monkeypatch, kind, driver):
    monkeypatch.setattr(programs, "file_system", lambda path: kind)
    assert programs.driver(tmp_path) == driver
    monkeypatch.setattr(programs.sys, "platform", "freebsd14")
    assert programs.driver(tmp_path) == ("zfs" if kind == "zfs" else "vfs")
