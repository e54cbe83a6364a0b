"""What an image's tree must be, by another way than the product's: skopeo's copy, tarfile's eyes.

``expected`` lets `skopeo copy` bring an image from a registry and applies the layers, as the image
specification says (layer.md), to a model in memory. ``found`` walks a directory. Both describe a
tree as path -> :class:`Fact`, so that two trees are the same exactly if they compare equal. Nothing
of the product is imported here.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

_KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.AREGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}
_XATTR = "SCHILY.xattr."


@dataclass(frozen=True, slots=True)
class Fact:
    """All that must be the same of one path. Times of directories are not an image's matter."""

    mode: str  # as ls writes it: kind and permissions
    owner: tuple[int, int]
    size: int | None = None  # of a file
    sha256: str | None = None
    target: str | None = None
    device: tuple[int, int] | None = None
    mtime: int | None = None  # of a file, in seconds
    links: tuple[str, ...] = ()  # all its names, where it has several
    xattrs: tuple[tuple[str, bytes], ...] = ()


Tree = dict[str, Fact]


def differences(one: Tree, other: Tree, limit: int = 20) -> list[str]:
    """Sentences about the first paths that differ; empty if the trees are the same."""
    odd = [path for path in sorted(one.keys() | other.keys()) if one.get(path) != other.get(path)]
    return [f"{path!r}: {one.get(path)} != {other.get(path)}" for path in odd[:limit]]


# --- from an image -------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Node:
    mode: int
    uid: int = 0
    gid: int = 0
    size: int | None = None
    sha256: str | None = None
    target: str | None = None
    device: tuple[int, int] | None = None
    mtime: int | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)
    children: dict[str, _Node] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


def expected(reference: str, work: Path) -> Tree:
    """The tree of the image that ``docker://reference`` names, in a registry without TLS."""
    layout = work / "oci"
    subprocess.run(
        ["skopeo", "copy", "--quiet", "--src-tls-verify=false"]
        + [f"docker://{reference}", f"oci:{layout}:image"],
        check=True,
        capture_output=True,
        timeout=300,
    )

    def blob(descriptor: dict[str, str]) -> Path:
        return layout / "blobs" / descriptor["digest"].replace(":", "/")

    (top,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    layers = json.loads(blob(top).read_bytes())["layers"]
    root = _Node(stat.S_IFDIR | 0o755)
    for layer in layers:
        _apply(root, blob(layer))
    return dict(_facts(root))


def _apply(root: _Node, layer: Path) -> None:
    """One layer on top of what is there: first what it hides, for that is of the layers below."""
    with gzip.open(layer) as plain, tarfile.open(fileobj=plain, mode="r:") as archive:  # type: ignore[arg-type]
        for member in archive:
            *above, name = _parts(member.name) or [""]
            if name == ".wh..wh..opq":
                if (node := _find(root, above)) is not None:
                    node.children.clear()
            elif name.startswith(".wh."):
                node = _find(root, above)
                if node is not None:
                    node.children.pop(name.removeprefix(".wh."), None)
    with gzip.open(layer) as plain, tarfile.open(fileobj=plain, mode="r:") as archive:  # type: ignore[arg-type]
        for member in archive:
            _put(root, member, archive)


def _put(root: _Node, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
    parts = _parts(member.name)
    if parts and parts[-1].startswith(".wh."):
        return
    if member.islnk():
        node = _find(root, _parts(member.linkname))
        assert node is not None, f"{member.name} is a hard link to nothing"
        # Programs differ in whether a link's own header counts, so an honest tar says it twice.
        same = (member.mode & 0o7777, member.uid, member.gid)
        assert node.target or same == (node.mode & 0o7777, node.uid, node.gid), member.name
    else:
        node = _node(member, archive)
    if not parts:
        node.children = root.children
        root.mode, root.uid, root.gid, root.xattrs = node.mode, node.uid, node.gid, node.xattrs
        return
    parent = root
    for part in parts[:-1]:
        parent = parent.children.setdefault(part, _Node(stat.S_IFDIR | 0o755))
        assert parent.is_directory, f"{member.name} leads through something else"
    old = parent.children.get(parts[-1])
    if old is not None and old.is_directory and node.is_directory:
        node.children = old.children
    parent.children[parts[-1]] = node


def _node(member: tarfile.TarInfo, archive: tarfile.TarFile) -> _Node:
    node = _Node(_KINDS[member.type] | member.mode & 0o7777, member.uid, member.gid)
    if member.issym():
        node.target = member.linkname
        node.mode = stat.S_IFLNK | 0o777  # a symlink has no permissions
    if member.isdev() and not member.isfifo():
        node.device = (member.devmajor, member.devminor)
    if member.isreg():
        stream = archive.extractfile(member)
        content = stream.read() if stream else b""
        node.size, node.sha256 = len(content), hashlib.sha256(content).hexdigest()
        node.mtime = int(member.mtime)
    node.xattrs = {
        key.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
        for key, value in member.pax_headers.items()
        if key.startswith(_XATTR)
    }
    return node


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    assert ".." not in parts
    return parts


def _find(root: _Node, parts: Iterable[str]) -> _Node | None:
    node: _Node | None = root
    for part in parts:
        node = node.children.get(part) if node else None
    return node


def _facts(root: _Node) -> Iterator[tuple[str, Fact]]:
    paths = [("", root)]
    names: dict[int, list[str]] = {}
    for path, node in paths:
        if not node.is_directory:
            names.setdefault(id(node), []).append(path)
        paths += [(f"{path}/{name}", child) for name, child in node.children.items()]
    for path, node in paths:
        links = sorted(names.get(id(node), ()))
        yield (
            path or "/",
            Fact(
                mode=stat.filemode(node.mode),
                owner=(node.uid, node.gid),
                size=node.size,
                sha256=node.sha256,
                target=node.target,
                device=node.device,
                mtime=node.mtime,
                links=tuple(links) if len(links) > 1 else (),
                xattrs=tuple(sorted(node.xattrs.items())),
            ),
        )


# --- what an import changes, as it says itself ---------------------------------------------------


def deviated(tree: Tree, left_out: Iterable[str], planted: dict[str, str]) -> Tree:
    """``tree`` without what patterns such as `/dev/*` name, and with fresh files, path -> sha256.

    A planted file is root's, 0644, with nothing else of what had the name before.
    """
    for pattern in left_out:
        assert pattern.endswith("/*"), pattern
    places = tuple(pattern.removesuffix("*") for pattern in left_out)
    kept = {path: fact for path, fact in tree.items() if not path.startswith(places)}
    for path, fact in kept.items():
        # Names that are gone are no names of a hard link any more.
        left = tuple(name for name in fact.links if name in kept and name not in planted)
        kept[path] = replace(fact, links=left if len(left) > 1 else ())
    for path, digest in planted.items():
        kept[path] = Fact(mode="-rw-r--r--", owner=(0, 0), sha256=digest)
    return kept


# --- from a directory ----------------------------------------------------------------------------


def found(top: Path) -> Tree:
    """The tree that lies in a directory. Follows nothing."""
    places = {"/": str(top)}
    for base, directories, files in os.walk(top):
        above = base.removeprefix(str(top))
        places |= {f"{above}/{name}": f"{base}/{name}" for name in directories + files}
    names: dict[int, list[str]] = {}
    stats = {path: os.lstat(place) for path, place in places.items()}
    for path, there in stats.items():
        if not stat.S_ISDIR(there.st_mode):
            names.setdefault(there.st_ino, []).append(path)
    tree = {}
    for path, place in places.items():
        there = stats[path]
        links = sorted(names.get(there.st_ino, ())) if not stat.S_ISDIR(there.st_mode) else []
        # More names than we see would be outside, and that is a difference too.
        assert stat.S_ISDIR(there.st_mode) or len(links) == there.st_nlink, path
        fact = Fact(
            mode=stat.filemode(there.st_mode),
            owner=(there.st_uid, there.st_gid),
            links=tuple(links) if len(links) > 1 else (),
            xattrs=_xattrs(place),
        )
        if stat.S_ISREG(there.st_mode):
            content = Path(place).read_bytes()
            fact = replace(
                fact,
                size=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                mtime=int(there.st_mtime),
            )
        elif stat.S_ISLNK(there.st_mode):
            target = os.readlink(place)  # noqa: PTH115 - pathlib drops a trailing slash
            fact = replace(fact, target=target, mode="lrwxrwxrwx")
        elif stat.S_ISCHR(there.st_mode) or stat.S_ISBLK(there.st_mode):
            device = (os.major(there.st_rdev), os.minor(there.st_rdev))
            fact = replace(fact, device=device)
        tree[path] = fact
    return tree


def _xattrs(place: str) -> tuple[tuple[str, bytes], ...]:
    if Path(place).is_symlink():
        # Linux has no user.* on them; and asking is harmful: at the first symlink zfs-fuse says
        # that it has no such call, and then the kernel asks it for no file of that mount any more.
        return ()
    return tuple((name, os.getxattr(place, name)) for name in sorted(os.listxattr(place)))
