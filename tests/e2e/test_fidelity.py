"""The tree that an import leaves is the image's: path by path, on a ZFS and on directories.

The image is a Debian userland of more than 5,000 files in three layers (deploy/userland.py), and a
fourth with what such a userland does not have. What it must look like is worked out another way, by
tests/oracle.py.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from deploy import images, userland
from templates_app.datasets.base import DatasetDriver
from tests import oracle
from tests.imports import cloned, imported
from tests.registries import Registry
from tests.trees import CAP_NET_RAW


def odds_and_ends() -> list[images.Entry]:
    """Names, depths, owners, links and changes of kind that imports are known to lose."""
    deep = "srv/odd/" + "/".join(["a-directory-with-a-name-of-some-length"] * 20)
    directories = [deep[:at] for at in range(9, len(deep)) if deep[at] == "/"] + [deep]
    capable = {"security.capability": CAP_NET_RAW}
    return [
        images.directory("srv/odd", 0o2775, uid=1000, gid=50),
        images.directory("srv/odd/closed", 0),
        images.directory("srv/odd/sticky", 0o1777, xattrs={"user.of": b"a directory\0\xff"}),
        *(images.directory(path) for path in directories),
        images.file(f"{deep}/{'n' * 255}", "as long as a name can be"),
        images.file("srv/odd/ leading and trailing ", ""),
        images.file("srv/odd/new\nline\ttab", "x"),
        images.file("srv/odd/back\\slash \"quotes\" 'and' $HOME `x` *", "x"),
        images.file("srv/odd/-rf", "x"),
        images.file("srv/odd/...", "x"),
        images.file("srv/odd/gr\u00fc\u00dfe \u4f60\u597d", "x"),
        images.file("srv/odd/latin-\udce4", "a name that is not UTF-8"),
        images.file("srv/odd/no-permissions", "x", 0),
        images.file("srv/odd/suid", "x", 0o4711, uid=1234, gid=5678),
        images.file("srv/odd/sgid", "x", 0o2755, uid=2**31 - 1, gid=2**31 - 2),
        images.file("srv/odd/capable", "x", 0o755, xattrs=capable),
        images.file("srv/odd/old", "x", mtime=1),
        images.file("srv/odd/sparse", bytes(5_000_000) + b"end"),
        images.hardlink("srv/odd/sticky/capable", "srv/odd/capable", mode=0o755, xattrs=capable),
        images.hardlink("srv/odd/sticky/suid", "srv/odd/suid", mode=0o4711, uid=1234, gid=5678),
        images.symlink("srv/odd/link", "../../../../../etc/passwd", uid=7, gid=8),
        images.symlink("srv/odd/nowhere", "/nonexistent/\udce4"),
        images.symlink("srv/odd/long", "x/" * 500),
        images.hardlink("srv/odd/sticky/nowhere", "srv/odd/nowhere"),
        images.device("srv/odd/null", 1, 3),
        images.Entry(path="srv/odd/disk", type=tarfile.BLKTYPE, device=(259, 70_000), mode=0o640),
        images.fifo("srv/odd/pipe", 0o622),
        # Kinds that change: a directory with files, a symlink, a file of the layers below.
        images.file("usr/share/doc/dash", "a directory of the layers below"),
        images.directory("usr/bin/yes"),
        images.file("usr/bin/yes/inside", "where there was a program"),
        images.directory("usr/share/zoneinfo/Europe/Vienna"),
        images.file("usr/share/zoneinfo/Europe/Vienna/inside", "where there was a symlink"),
        # One of three names of one file is replaced, one hidden; and an anchored dev/ that stays.
        images.file("srv/app/one-of-three", "on its own now"),
        images.whiteout("srv/app/two-of-three"),
        images.directory("usr/include/dev"),
        images.file("usr/include/dev/kept.h", "kept"),
        images.file("proc/version", "left out"),
    ]


@pytest.mark.slow
def test_the_tree_is_what_the_layers_say(
    registry: Registry, tmp_path: Path, zfs_pool: DatasetDriver, dir_pool: DatasetDriver
):
    whole = images.image([*userland.large_layers(), images.layer(odds_and_ends())])
    registry.push("fidelity/large", "1", whole)

    plain = oracle.expected(f"{registry.host}/fidelity/large:1", tmp_path)
    kinds = [fact.mode[0] for fact in plain.values()]
    assert kinds.count("-") >= 5000 and {"d", "l", "p", "c", "b"} <= set(kinds)
    assert any("s" in fact.mode for fact in plain.values())
    assert sum(1 for fact in plain.values() if fact.links) >= 6
    capable = [path for path, fact in plain.items() if fact.xattrs]
    assert "/usr/bin/ping" in capable

    made = {
        (engine, pool.kind): imported(
            pool,
            "fidelity/large:1",
            registry,
            tmp_path / "state",
            name=engine,
            engine=engine,
        )
        for engine in ("native", "buildah")
        for pool in (zfs_pool, dir_pool)
    }
    for (engine, kind), done in made.items():
        assert done.receipt.engine == engine
        pool = zfs_pool if kind == "zfs" else dir_pool
        planted = {one.path: one.sha256 for one in done.deviations}
        assert list(planted) == ["/etc/resolv.conf"]
        wanted = oracle.deviated(plain, done.receipt.left_out, planted)
        with cloned(pool, done) as view:
            there = oracle.found(view)
        # The one file that is not the image's, as far as the event says what it is.
        resolv = there["/etc/resolv.conf"]
        there["/etc/resolv.conf"] = oracle.Fact(resolv.mode, resolv.owner, sha256=resolv.sha256)
        odd = oracle.differences(wanted, there)
        assert not odd, "\n".join(odd)
        assert done.entries == len(there) - 1  # the root is not counted
        assert done.receipt.findings == ()
    # However it came there, and wherever it lies: the same digest, so the same is signed.
    assert len({done.tree_digest for done in made.values()}) == 1
    for engine in ("native", "buildah"):
        assert made[engine, "zfs"].statement == made[engine, "dir"].statement
