"""An auditor's own mtree(8), on a sandbox: silent on what was launched, loud on what became of it.

The manifest comes out of the template's evidence, the files out of an image by the native engine,
the sandbox out of POST /sandboxes. The tree and what is done to it are those of the unit tests.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy import images
from tests.e2e.test_the_way_of_a_template import mountpoint
from tests.registries import Registry
from tests.servers import Installation, MakeServer, Server
from tests.unit.trees import TAMPERING, UNSEEN_BY_MTREE, digest, mtree, odd_tree

_TYPES = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


def entries_of(top: Path) -> Iterator[images.Entry]:
    """The tree as a layer's entries: a directory before what is in it, names of one file linked."""
    first: dict[int, str] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        there = path.lstat()
        name = f"./{path.relative_to(top)}" if path != top else "./"
        kind = stat.S_IFMT(there.st_mode)
        if kind != stat.S_IFDIR and there.st_nlink > 1 and there.st_ino in first:
            yield images.hardlink(name, first[there.st_ino])
            continue
        first[there.st_ino] = name
        yield images.Entry(
            path=name,
            type=_TYPES[kind],
            mode=stat.S_IMODE(there.st_mode),
            uid=there.st_uid,
            gid=there.st_gid,
            content=path.read_bytes() if kind == stat.S_IFREG else b"",
            target=str(path.readlink()) if kind == stat.S_IFLNK else "",
            device=(os.major(there.st_rdev), os.minor(there.st_rdev)),
            xattrs={
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
            },
        )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = odd_tree(tmp_path / "tree", user_attributes=False)
    os.setxattr(made / "ping", "user.a", b"of the image")
    for twin in ("twin1", "twin2"):
        (made / twin).write_bytes(b"same")
    return made


@pytest.fixture(params=["zfs", "dir"])
def server(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    sqlite_url: str,
    registry: Registry,
    serve: MakeServer,
) -> Server:
    if request.param == "zfs":
        pool = f"zfs:{request.getfixturevalue('zfs_root')}"
    else:
        pool = f"dir:{tmp_path / 'pool'}"
    installation = Installation(
        tmp_path / "state",
        pool=pool,
        database_url=sqlite_url,
        COPPICE_ENGINE="native",
        COPPICE_REGISTRIES_INSECURE=registry.host,
        COPPICE_PLATFORM="linux/amd64",
    )
    return serve(installation)


Launched = Callable[[], contextlib.AbstractContextManager[Path]]


@pytest.fixture
def launched(server: Server) -> Launched:
    """``with launched() as root:`` a sandbox of its own, gone afterwards."""
    gateway = server.api("gateway")

    @contextlib.contextmanager
    def launch() -> Iterator[Path]:
        made = gateway.post("/sandboxes", json={"template": "web"})
        assert made.status_code == 201, made.text
        yield mountpoint(server.installation, made.json()["dataset"])
        gone = gateway.delete(f"/sandboxes/{made.json()['id']}")
        assert gone.status_code == 204, gone.text

    return launch


def manifest_of(server: Server) -> bytes:
    """``template.mtree`` of the evidence that an auditor takes away."""
    bundle = server.api("auditor").get("/templates/web/evidence")
    assert bundle.status_code == 200, bundle.text
    with tarfile.open(fileobj=io.BytesIO(bundle.content)) as archive:
        (member,) = [one for one in archive if one.name.endswith("/template.mtree")]
        return archive.extractfile(member).read()  # type: ignore[union-attr] # a file


@pytest.mark.slow
def test_mtree_accepts_a_sandbox_and_finds_whatever_is_done_to_it(
    server: Server, launched: Launched, tree: Path, registry: Registry
):
    registry.push("mtree/odd", "1", images.image([images.layer(entries_of(tree))]))
    operator = server.api("operator", timeout=300)
    made = operator.post(
        "/templates", json={"name": "web", "from": f"oci:{registry.host}/mtree/odd:1"}
    )
    assert made.status_code == 201, made.text
    template, manifest = made.json(), manifest_of(server)
    assert template["engine"] == "native"
    assert template["treeDigest"] == "sha256:" + hashlib.sha256(manifest).hexdigest()

    with launched() as root:
        assert mtree(manifest, root) == ""
        assert digest(root) == template["treeDigest"]
    unseen = []
    for what, tamper in TAMPERING.items():
        with launched() as root:
            tamper(root)
            if mtree(manifest, root) == "":
                unseen.append(f"mtree: {what}")
            if digest(root) == template["treeDigest"]:
                unseen.append(f"digest: {what}")
    for what, tamper in UNSEEN_BY_MTREE.items():
        with launched() as root:
            tamper(root)
            if digest(root) == template["treeDigest"]:
                unseen.append(f"digest: {what}")
    assert unseen == []

    # What was done to sandboxes was done to them alone.
    with launched() as root:
        assert mtree(manifest, root) == ""
    looked = operator.post("/templates/web/verify", json={}).json()
    assert (looked["result"], looked["foundDigest"]) == ("matches", template["treeDigest"])
