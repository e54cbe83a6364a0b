"""Both engines make the same tree of the same image, on both kinds of pool.

One image has everything: the crafted stacks that overlayfs can hold, each below a directory of its
own, and random ones. What buildah does otherwise is what ``Stack.overlay`` says; a layer may also
not be said twice, and a hard link's source is in its own layer, or buildah fails.
"""

from __future__ import annotations

import difflib
import io
import random
from dataclasses import replace
from pathlib import Path

from deploy import images
from templates_app.datasets.base import DatasetDriver
from templates_app.sources.native.limits import MAX_DEPTH
from templates_app.sources.plant import described
from templates_app.trust import tree
from templates_app.trust.amend import amend
from tests.corpus.members import (
    Member,
    archive,
    device,
    directory,
    fifo,
    file,
    symlink,
)
from tests.corpus.stacks import LEFT_OUT, STACKS, Stack
from tests.imports import cloned, imported
from tests.registries import Registry

RANDOM = 30
#: buildah gives a file the attributes of a hard link's entry (L10).
OTHERWISE = {"own-attributes-do-not-count", "to-a-fifo"}
NAMES = [b"a", b"b", b"c", b"dd"]


def can_be_moved(stack: Stack) -> bool:
    """Whether it means the same below a directory, and overlayfs holds it."""
    members = [member for layer in stack.layers for member in layer]
    plain = all(
        not name.startswith(b"/")
        and b".." not in name.split(b"/")
        and name.strip(b"./") != b""
        and len(name) < 1000
        and name.count(b"/") < MAX_DEPTH - 1
        for member in members
        for name in [member.name, *([member.target] if member.kind == b"1" else [])]
    )
    small = all(max(one.uid, one.gid) < 2**31 for one in members)  # zfs-fuse takes no others
    # Where there is nothing below, overlayfs shows the whiteout itself.
    hidden = any(b".wh." in member.name for member in stack.layers[0])
    absolute = any(one.kind == b"2" and one.target.startswith(b"/") for one in members)
    return stack.name not in OTHERWISE and (
        plain
        and small
        and not (hidden or absolute or stack.rule or stack.overlay or stack in LEFT_OUT)
    )


def moved(member: Member, below: bytes) -> Member:
    target = below + member.target if member.kind == b"1" else member.target
    return replace(member, name=below + member.name, target=target)


def random_stack(dice: random.Random) -> list[list[Member]]:
    there: set[bytes] = {b""}  # what lower layers have, directories with a slash
    return [random_layer(dice, there) for _ in range(dice.randint(2, 4))]


def random_layer(dice: random.Random, there: set[bytes]) -> list[Member]:
    """Whatever is in it comes once, each directory before what is in it.

    Nothing is hidden that is not there: overlayfs then shows the whiteout itself.
    """
    members: list[Member] = []
    files: list[Member] = []
    below = frozenset(there)

    def hide(path: bytes) -> None:
        there.difference_update(
            {one for one in there if one == path or one.startswith(path + b"/")}
        )

    def fill(above: bytes, depth: int) -> None:
        merged = above in below
        if merged and above and dice.random() < 0.15:
            members.append(file(above + b".wh..wh..opq"))
            there.difference_update(
                {one for one in there if one != above and one.startswith(above)}
            )
            merged = False
        for name in NAMES:
            path = above + name
            owner = {"uid": dice.choice([0, 0, 7, 70000]), "gid": dice.choice([0, 0, 8, 2**31 - 1])}
            mode = dice.choice([0o644, 0o755, 0, 0o4755, 0o2711, 0o1777])
            xattrs = dice.choice([(), (), ((b"user.x", b"%d" % dice.randint(0, 9)),)])
            made: Member | None = None
            match dice.randint(0, 11):
                case 0 | 1:
                    text = dice.choice([b"", b"one", b"two" * 1000])
                    made = file(path, text, mode, xattrs=xattrs, **owner)
                    files.append(made)
                case 2 | 3 | 4:
                    if depth < 3:
                        members.append(directory(path + b"/", mode, xattrs=xattrs, **owner))
                        there.discard(path)
                        there.add(path + b"/")
                        fill(path + b"/", depth + 1)
                case 5:
                    made = symlink(path, dice.choice([b"a", b"../b", b"nowhere"]), **owner)
                case 6:
                    if files:  # with the attributes of what it links to, as archivers write it
                        first = dice.choice(files)
                        made = replace(first, kind=b"1", name=path, content=b"", target=first.name)
                case 7:
                    made = dice.choice([fifo(path), device(path), device(path, b"4")])
                case 8 | 9:
                    if merged and (path in below or path + b"/" in below):
                        members.append(file(above + b".wh." + name))
                        hide(path)
            if made:
                members.append(made)
                hide(path)
                there.add(path)

    fill(b"", 0)
    return members


def everything() -> list[list[Member]]:
    layers: list[list[Member]] = [[] for _ in range(6)]
    stacks = [(stack.name.encode(), stack.layers) for stack in STACKS if can_be_moved(stack)]
    assert len(stacks) > 30
    stacks += [(b"r%d" % seed, random_stack(random.Random(seed))) for seed in range(RANDOM)]
    for name, its in stacks:
        layers[0].append(directory(name + b"/"))
        for number, layer in enumerate(its):
            layers[number] += [moved(member, name + b"/") for member in layer]
    return [layer for layer in layers if layer]


def test_both_engines_make_the_same_tree_on_both_kinds_of_pool(
    registry: Registry, tmp_path: Path, zfs_pool: DatasetDriver, dir_pool: DatasetDriver
):
    layers = [images.layer_of(archive(layer)) for layer in everything()]
    registry.push("parity/all", "1", images.image(layers))
    found: dict[tuple[str, str], bytes] = {}
    for pool in (zfs_pool, dir_pool):
        for engine in ("native", "buildah"):
            made = imported(
                pool, "parity/all:1", registry, tmp_path / "state", name=engine, engine=engine
            )
            scanned = io.BytesIO()
            with cloned(pool, made) as view:
                tree.scan(view, limit_entries=100_000, into=scanned)
            found[engine, pool.kind] = scanned.getvalue()
            if made.receipt.manifest is not None:
                found[engine, "manifest"] = amend(made.receipt.manifest, described("10.78.0.1"))
            assert (
                tree.digest(found.get((engine, "manifest"), scanned.getvalue())) == made.tree_digest
            )
    native = found["native", "manifest"].decode().splitlines()
    assert len(native) > 500
    for where, text in found.items():
        odd = list(difflib.unified_diff(native, text.decode().splitlines(), n=0, lineterm=""))
        assert not odd, f"{where}:\n" + "\n".join(odd[:40])
