"""resolv.conf in a hostile tree: nothing outside is ever touched, and what was done is said."""

from __future__ import annotations

import hashlib
import os
import stat

import pytest

from templates_app.errors import OutOfSpace, StorageReadOnly, TreeRefused
from templates_app.sources.plant import plant_resolv_conf
from tests.pools import sh

DNS = "10.78.0.1"
TEXT = b"# written by coppice at import\nnameserver 10.78.0.1\n"


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "root"
    place.mkdir()
    return place


@pytest.fixture
def outside(tmp_path):
    """A directory of the host, with a file that must stay as it is."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "resolv.conf").write_text("the host's")
    return place


def untouched(outside):
    return [(p.name, p.read_text()) for p in outside.iterdir()] == [("resolv.conf", "the host's")]


def test_a_fresh_file_names_the_resolver(root):
    (root / "etc").mkdir()
    done = plant_resolv_conf(root, DNS)
    planted = root / "etc/resolv.conf"
    assert planted.read_bytes() == TEXT
    assert stat.filemode(planted.lstat().st_mode) == "-rw-r--r--"
    assert (planted.stat().st_uid, planted.stat().st_gid) == (os.geteuid(), os.getegid())
    assert done.path == "/etc/resolv.conf"
    assert done.reason == "names the resolver that clones use"
    assert done.sha256 == hashlib.sha256(TEXT).hexdigest()


def test_nothing_is_planted_where_no_resolver_is_set(root):
    assert plant_resolv_conf(root, "") is None
    assert list(root.iterdir()) == []


def test_an_image_without_etc_gets_one(root):
    old = os.umask(0o077)
    try:
        done = plant_resolv_conf(root, DNS)
    finally:
        os.umask(old)
    assert stat.filemode((root / "etc").stat().st_mode) == "drwxr-xr-x"
    assert stat.filemode((root / "etc/resolv.conf").stat().st_mode) == "-rw-r--r--"
    assert done.reason.endswith("the image had no /etc")


def test_a_file_is_replaced_with_a_fresh_one(root):
    (root / "etc").mkdir()
    old = root / "etc/resolv.conf"
    old.write_text("nameserver 9.9.9.9\n")
    old.chmod(0o600)
    os.setxattr(old, "user.note", b"the image's")
    done = plant_resolv_conf(root, DNS)
    assert old.read_bytes() == TEXT
    assert stat.filemode(old.stat().st_mode) == "-rw-r--r--"
    assert os.listxattr(old) == []
    assert done.reason.endswith("replaces a file of the image")


@pytest.mark.parametrize("way", ["absolute", "relative", "dangling"])
def test_a_symlink_to_a_file_is_replaced_and_not_followed(root, outside, way):
    (root / "etc").mkdir()
    link = root / "etc/resolv.conf"
    target = {
        "absolute": str(outside / "resolv.conf"),
        "relative": "../../outside/resolv.conf",
        "dangling": str(outside / "new"),
    }[way]
    link.symlink_to(target)
    done = plant_resolv_conf(root, DNS)
    assert not link.is_symlink() and link.read_bytes() == TEXT
    assert untouched(outside)
    assert done.reason.endswith("replaces a symlink of the image")


@pytest.mark.parametrize("target", ["absolute", "relative", "inside", "dangling", "loop"])
def test_an_etc_that_is_a_symlink_is_refused(root, outside, target):
    """etc -> /host/directory would be written to as root on the host."""
    (root / "usr").mkdir()
    places = {
        "absolute": str(outside),
        "relative": "../outside",
        "inside": "usr",
        "dangling": str(outside / "no"),
        "loop": "etc",
    }
    (root / "etc").symlink_to(places[target])
    with pytest.raises(TreeRefused) as refused:
        plant_resolv_conf(root, DNS)
    assert refused.value.extra == {"rule": "etc-not-a-directory"}
    assert untouched(outside)
    assert list((root / "usr").iterdir()) == []
    assert (root / "etc").is_symlink()


def test_an_etc_that_is_a_file_is_refused(root):
    (root / "etc").write_text("a file")
    with pytest.raises(TreeRefused) as refused:
        plant_resolv_conf(root, DNS)
    assert refused.value.extra == {"rule": "etc-not-a-directory"}
    assert (root / "etc").read_text() == "a file"


def test_an_etc_that_is_a_fifo_is_refused_and_not_waited_for(root):
    os.mkfifo(root / "etc")
    with pytest.raises(TreeRefused):
        plant_resolv_conf(root, DNS)


def test_a_resolv_conf_that_is_a_directory_is_refused(root):
    (root / "etc/resolv.conf").mkdir(parents=True)
    (root / "etc/resolv.conf/kept").write_text("kept")
    with pytest.raises(TreeRefused) as refused:
        plant_resolv_conf(root, DNS)
    assert refused.value.extra == {"rule": "resolv-conf-is-a-directory"}
    assert (root / "etc/resolv.conf/kept").read_text() == "kept"


def test_a_fifo_is_replaced_and_not_waited_for(root):
    (root / "etc").mkdir()
    os.mkfifo(root / "etc/resolv.conf")
    done = plant_resolv_conf(root, DNS)
    assert (root / "etc/resolv.conf").read_bytes() == TEXT
    assert done.reason.endswith("replaces a special file of the image")


def test_a_device_is_replaced_and_not_written_to(root):
    (root / "etc").mkdir()
    os.mknod(root / "etc/resolv.conf", stat.S_IFCHR | 0o666, os.makedev(1, 7))  # /dev/full
    plant_resolv_conf(root, DNS)
    assert (root / "etc/resolv.conf").read_bytes() == TEXT


def test_the_other_names_of_a_hard_link_keep_their_content(root):
    (root / "etc").mkdir()
    (root / "bin").mkdir()
    (root / "bin/tool").write_text("a tool")
    os.link(root / "bin/tool", root / "etc/resolv.conf")
    plant_resolv_conf(root, DNS)
    assert (root / "bin/tool").read_text() == "a tool"
    assert (root / "bin/tool").stat().st_nlink == 1


def test_a_root_that_is_a_symlink_is_not_followed(tmp_path, outside):
    (tmp_path / "root").symlink_to(outside)
    with pytest.raises(NotADirectoryError):
        plant_resolv_conf(tmp_path / "root", DNS)
    assert untouched(outside)


def test_the_same_bytes_are_planted_every_time(root, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    assert plant_resolv_conf(root, DNS) == plant_resolv_conf(other, DNS)


@pytest.fixture
def small_file_system(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=4", "small", place)
    yield place
    sh("umount", "--lazy", place)


def test_a_read_only_file_system_is_said(small_file_system):
    sh("mount", "-o", "remount,ro", small_file_system)
    with pytest.raises(StorageReadOnly):
        plant_resolv_conf(small_file_system, DNS)


def test_a_full_file_system_is_said(small_file_system):
    for number in range(3):
        (small_file_system / str(number)).touch()
    with pytest.raises(OutOfSpace):
        plant_resolv_conf(small_file_system, DNS)
