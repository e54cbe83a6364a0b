"""Two tree manifests compared, what matters most first; and what an import could not bring over.

What matters most: programs that give another user's rights (set-id bits, capabilities), whose a
file is, and devices. Such a change of one file is easily lost among thousands of others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from templates_app.payload import FieldChange, TreeChange
from templates_app.trust import attributes
from templates_app.trust.entries import DEVICES, Entry, blocks, path_of, read

#: Why a change stands first, in this order.
GRAVE = ("set-id", "capability", "owner", "device")
_CAPABILITY = attributes.CAPABILITY.decode("ascii")

#: What of an image can be impossible to bring to a disk: the word for it, and how the import's
#: deviation begins. The manifest has it all the same, so the files differ from it in just that.
SKIPPED = {
    "owners": "owners are the server's: it does not run as root",
    "modes": "modes give the owner more: the server does not run as root",
    "devices": "devices are missing: the server does not run as root",
    "attributes": "capabilities are missing: the server does not run as root",
    "flags": "file flags are missing: this system has none",
    "unsupported": "extended attributes are missing: the pool keeps none",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All of it counted, a part of it told."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    grave: int = 0  # of all these
    differences: tuple[TreeChange, ...] = ()

    @property
    def total(self) -> int:
        return self.added + self.removed + self.changed


def compare(
    before: bytes, after: bytes, *, skip: int = 0, limit: int, excepted: Collection[str] = ()
) -> Comparison:
    """What ``after`` has otherwise than ``before``: of :data:`GRAVE` first, then by path.

    The ``limit`` differences behind the first ``skip`` are told, all are counted. ``excepted``
    (words of :data:`SKIPPED`) passes over what an import could not bring over. NotAManifest.
    """
    found: list[tuple[int, bytes | None, bytes | None]] = []
    added = removed = 0
    for old, new in _pairs(before, after):
        if excepted and _is_excepted(old, new, excepted):
            continue
        added += old is None
        removed += new is None
        found.append((_rank(old, new), old, new))
    ranked = sorted(found, key=lambda one: one[0])  # stable: within a rank it stays by path
    return Comparison(
        added=added,
        removed=removed,
        changed=len(found) - added - removed,
        grave=sum(rank < len(GRAVE) for rank, _, _ in found),
        differences=tuple(_difference(old, new) for _, old, new in ranked[skip : skip + limit]),
    )


def excepted_by(reasons: Iterable[str]) -> frozenset[str]:
    """The words of :data:`SKIPPED` that the deviations of an import say."""
    return frozenset(
        word for reason in reasons for word, text in SKIPPED.items() if reason.startswith(text)
    )


def _pairs(before: bytes, after: bytes) -> Iterator[tuple[bytes | None, bytes | None]]:
    """The blocks that are not the same on both sides; both are in the order of their paths."""
    left, right = blocks(before), blocks(after)
    old, new = next(left, None), next(right, None)
    while old is not None or new is not None:
        if old == new:
            old, new = next(left, None), next(right, None)
            continue
        old_path = None if old is None else path_of(old)
        new_path = None if new is None else path_of(new)
        if new_path is None or (old_path is not None and old_path < new_path):
            yield old, None
            old = next(left, None)
        elif old_path is None or new_path < old_path:
            yield None, new
            new = next(right, None)
        else:
            yield old, new
            old, new = next(left, None), next(right, None)


# --- one pair ----------------------------------------------------------------------------------


def _entries(old: bytes | None, new: bytes | None) -> tuple[Entry | None, Entry | None]:
    return (None if old is None else read(old)), (None if new is None else read(new))


def _rank(old: bytes | None, new: bytes | None) -> int:
    """The index of the gravest reason; one more than all where there is none."""
    graves = _grave(*_entries(old, new))
    return min(map(GRAVE.index, graves), default=len(GRAVE))


def _grave(old: Entry | None, new: Entry | None) -> tuple[str, ...]:
    sides = [one for one in (old, new) if one is not None]
    found = set()
    if any(one.set_id for one in sides):
        found.add("set-id")
    capabilities = [dict(one.xattrs).get(_CAPABILITY) for one in (old, new) if one is not None]
    if any(capabilities):  # also where it stays, and the program that has it is another one
        found.add("capability")
    if old is not None and new is not None and (old.uid, old.gid) != (new.uid, new.gid):
        found.add("owner")
    if any(one.type in DEVICES for one in sides):
        found.add("device")
    return tuple(word for word in GRAVE if word in found)


def _difference(old_block: bytes | None, new_block: bytes | None) -> TreeChange:
    old, new = _entries(old_block, new_block)
    either = old or new
    if either is None:
        raise ValueError("there is nothing to compare")
    said_before, said_after = _said(old), _said(new)
    return TreeChange(
        path=either.path,
        change="added" if old is None else "removed" if new is None else "changed",
        grave=_grave(old, new),
        fields=tuple(
            FieldChange(name=name, before=said_before.get(name), after=said_after.get(name))
            for name in dict.fromkeys((*said_before, *said_after))
            if said_before.get(name) != said_after.get(name)
        ),
    )


def _said(entry: Entry | None) -> dict[str, str]:
    if entry is None:
        return {}
    said = {
        "type": entry.type,
        "mode": None if entry.mode is None else f"{entry.mode:04o}",
        "uid": str(entry.uid),
        "gid": str(entry.gid),
        "size": None if entry.size is None else str(entry.size),
        "sha256": entry.sha256,
        "link": entry.link,
        "flags": entry.flags or None,
        "hardlink": entry.hardlink or None,
        **{f"xattr {name}": sha256 for name, sha256 in entry.xattrs},
    }
    return {name: value for name, value in said.items() if value is not None}


def _is_excepted(
    old_block: bytes | None, new_block: bytes | None, excepted: Collection[str]
) -> bool:
    """Whether the files (``new``) differ from the manifest in what could not be brought over."""
    old, new = _entries(old_block, new_block)
    if old is None:
        return False
    if new is None:
        return "devices" in excepted and old.type in DEVICES
    if "owners" in excepted:
        old = replace(old, uid=new.uid, gid=new.gid)
    more = (new.mode or 0) & 0o700  # what a server that is not root gives the owner
    if "modes" in excepted and old.mode is not None and new.mode == old.mode | more:
        old = replace(old, mode=new.mode)
    if "flags" in excepted and not new.flags:
        old = replace(old, flags="")
    there = dict(new.xattrs)
    stay = [
        (name, value)
        for name, value in old.xattrs
        if name in there
        or not ("unsupported" in excepted or ("attributes" in excepted and name == _CAPABILITY))
    ]
    old = replace(old, xattrs=tuple(stay))
    return old == new
