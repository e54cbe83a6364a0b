"""The model of the tree: the authority on every name of an image while its layers are applied.

Entries go in, layer by layer; operations for the writer come out. Names are resolved here and
nowhere else: the writer is told of directories by number, so that no kernel ever resolves a path
that an image wrote. The rules are docs/reference/layers.md; L1 to L23 there are cited here.

* Names are normalised as text, inside the root, before anything else (L23).
* A directory that an entry lies in is made if it is missing (L17). What is no directory and comes
  from a lower layer gives way to one, as on an overlay; a symlink of the same layer is followed,
  inside the root.
* Whiteouts hide what lower layers have, wherever in their layer they stand (L6, L7); all else
  happens in the order of the archive, so the source of a hard link is what has the name then.
* What is left out (``/dev/*``) is there until its layer ends, for hard links; devices are not.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from templates_app.sources.native import manifest
from templates_app.sources.native.entry import Entry, Kind
from templates_app.sources.native.limits import MAX_COMPONENT, Limits
from templates_app.sources.native.nodes import Child, Directory, Link, Node
from templates_app.sources.native.operations import Do, Meta, Operation
from templates_app.sources.native.rules import MAX_TARGET, broken, split
from templates_app.sources.native.shape import Shape, bad_name
from templates_app.trust import mtree

_MAX_CACHED = 20_000
_WHITEOUT = b".wh."
_RESERVED = b".wh..wh."  # AUFS's own; but for the next it means nothing here (L9)
_OPAQUE = b".wh..wh..opq"
_FILE, _SYMLINK, _LINK, _NODE = int(Do.FILE), int(Do.SYMLINK), int(Do.LINK), int(Do.NODE)
_REGULAR, _DIRECTORY, _HARDLINK = Kind.FILE, Kind.DIRECTORY, Kind.HARDLINK
_SPECIAL = {Kind.FIFO: b"fifo", Kind.CHARACTER: b"char", Kind.BLOCK: b"block"}


@dataclass(slots=True)
class _Place:
    """Where the names of one directory of the archive lead to, in the layer at hand."""

    directory: Directory
    number: int
    room: int
    names: set[bytes]  # what the layer's entries are called there (L13)


class Tree:
    """``left_out`` has patterns of the form ``/NAME/*``.

    ``keeps_flags``: whether the system has file flags (L16). Where it has none the manifest has
    none either, as if it were read from the files; a finding says so.
    """

    def __init__(
        self,
        limits: Limits,
        left_out: Collection[str] = (),
        *,
        keeps_flags: bool = hasattr(os, "lchflags"),
    ) -> None:
        self.bytes = 0  # contents of regular files, of all layers so far
        self._limits = limits
        self._left_out = tuple(os.fsencode(_name_of(pattern)) for pattern in left_out)
        self._keeps_flags = keeps_flags
        self._shape = Shape(Directory(None, b"", 0), 0, limits.entries)
        self._seen = 0
        self._pending: tuple[Node, bytes, int, bytes] | None = None
        self._places: dict[bytes, _Place] = {}  # by the directory as entries have it
        self._turns = 0  # of the shape, when the places were right
        self._names: dict[bytes, set[bytes]] = {}  # by the directory, normalised
        self._owners: dict[tuple[int, int, int], bytes] = {}
        self._flagged = 0

    @classmethod
    def restore(
        cls, kept: bytes, limits: Limits, left_out: Collection[str] = (), **rest: bool
    ) -> Tree:
        """The tree of a kept layer, from its manifest, for further layers.

        The writer is told of its directories when they are needed. Times, which a manifest does not
        know, stay as they are where no layer says more. ValueError for what is no manifest.
        """
        tree = cls(limits, left_out, **rest)
        tree._shape = Shape(*manifest.read(kept), limits.entries)
        return tree

    @property
    def entries(self) -> int:
        """Names in the tree as it is, without the root."""
        return self._shape.entries

    @property
    def findings(self) -> tuple[str, ...]:
        """Sentences about what an operator should know; a bounded number of them."""
        said = [
            f"{path} was a symlink in a lower layer and became a directory:"
            " an upper layer has entries in it."
            for path in self._shape.became_directories
        ]
        if self._shape.more_became_directories:
            said.append(f"So did {self._shape.more_became_directories} other symlinks.")
        if self._flagged:
            said.append(f"{self._flagged} entries have file flags, which this system has not.")
        return tuple(said)

    def manifest(self) -> Iterator[bytes]:
        """The canonical manifest of the tree as it is between two layers, in pieces. TreeRefused.

        Each line has a whole path, so a small archive may have a large one; and it is the one thing
        of an image that the server takes into its own memory.
        """
        size = 0
        for piece in manifest.write(self._shape.root):
            size += len(piece)
            if size > self._limits.manifest_bytes:
                raise broken("manifest-bytes", b".")
            yield piece

    def begin(self) -> None:
        """The entries that come now are of the next layer."""
        self._shape.layer += 1
        self._places.clear()
        self._names.clear()

    def add(self, entry: Entry) -> list[Operation]:
        """What one entry does. If the last operation is FILE, its contents follow, and then
        :meth:`content` is to be called; contents of a file without it are for nobody.

        Raises TreeRefused (``extra``: ``path``, ``rule``).
        """
        shape = self._shape
        operations = shape.operations = []
        self._seen += 1
        if self._seen > 10 * self._limits.entries:
            raise broken("entries", entry.name)
        if shape.turns != self._turns:
            self._places.clear()
            self._turns = shape.turns
        above, _, name = entry.name.rpartition(b"/")
        place = self._places.get(above)
        if place is None or name[:1] in b".":  # or no name at all
            found = self._first_look(entry)
            if found is None:
                return operations
            place, name = found
        if name in place.names:
            raise broken("duplicate", entry.name)
        place.names.add(name)
        if len(name) > place.room:
            raise bad_name(place.directory, name)
        kind = entry.kind
        children = place.directory.children
        old = children.get(name)
        if kind == _REGULAR:
            meta, who = self._attributes(entry)
            if old is not None:
                shape.remove(place.directory, name, old)
            self._count(entry)
            node = children[name] = Node(shape.layer)
            comments = mtree.comments(meta[4], meta[5]) if meta[4] or meta[5] else b""
            self._pending = node, who, entry.size, comments
            operations.append((_FILE, place.number, name, meta, entry.size))
        elif kind == _DIRECTORY:
            if not isinstance(old, Directory):
                old = shape.make_directory(place.directory, name, old)
            self._state(old, entry)
        elif kind == _HARDLINK:
            self._hardlink(entry, place, name, old)
        else:
            self._other(entry, place, name, old)
        return operations

    def content(self, sha256: str) -> None:
        """The contents of the file that was added last: 64 hex digits."""
        if self._pending is None:
            raise ValueError("no file waits for its contents")
        node, who, size, comments = self._pending
        node.text = mtree.file(who, size, sha256.encode("ascii"), comments)
        self._pending = None

    def end(self) -> list[Operation]:
        """What is to be done when a layer has no more entries."""
        if self._pending is not None:
            raise ValueError("a file still waits for its contents")
        shape = self._shape
        operations = shape.operations = []
        for name in self._left_out:
            directory = shape.root.children.get(name)
            if isinstance(directory, Directory):
                for inner, child in list(directory.children.items()):
                    shape.remove(directory, inner, child)
        shape.settle()
        return operations

    # --- where an entry belongs ----------------------------------------------------------------

    def _first_look(self, entry: Entry) -> tuple[_Place, bytes] | None:
        """None if there is nothing more to do for it."""
        parts = split(entry.name)
        name = parts.pop() if parts else b""
        if any(part.startswith(_RESERVED) for part in parts):
            return None
        above = b"/".join(parts)
        names = self._names.setdefault(above, set())
        if name in names:
            raise broken("duplicate", entry.name)
        if not name:
            names.add(name)
            self._restate_root(entry)
            return None
        if name.startswith(_WHITEOUT):
            names.add(name)
            self._whiteout(entry, parts, name)
            return None
        place = self._places.get(above)
        if place is None:
            directory = self._shape.reach(parts)
            place = _Place(directory, self._shape.number(directory), directory.room, names)
        if len(self._places) >= _MAX_CACHED:
            self._places.clear()
        self._places[above] = place
        written, _, last = entry.name.rpartition(b"/")
        if last == name:
            self._places[written] = place
        return place, name

    def _whiteout(self, entry: Entry, parts: list[bytes], marker: bytes) -> None:
        """What is not there is not missed, and nothing is made for it (L4, L5)."""
        name = marker.removeprefix(_WHITEOUT)
        if name in (b"", b".", b"..") or len(marker) > MAX_COMPONENT:
            raise broken("whiteout", entry.name)
        if marker.startswith(_RESERVED) and marker != _OPAQUE:
            return
        parent = self._shape.find(parts)
        if parent is None:
            return
        if marker == _OPAQUE:
            self._shape.hide_below(parent)
        else:
            self._shape.hide(parent, name)

    def _restate_root(self, entry: Entry) -> None:
        if entry.kind != _DIRECTORY:
            raise broken("root", entry.name)  # L2
        self._state(self._shape.root, entry)

    # --- kinds of entries ----------------------------------------------------------------------

    def _count(self, entry: Entry) -> None:
        """One file more, and its contents."""
        self._shape.count(entry.name)
        self.bytes += entry.size
        if self.bytes > self._limits.tree_bytes:
            raise broken("tree-bytes", entry.name)

    def _attributes(self, entry: Entry) -> tuple[Meta, bytes]:
        """What the writer gives to a file or directory; how the manifest has mode and owner."""
        key = entry.mode & 0o7777, entry.uid, entry.gid
        who = self._owners.get(key)
        if who is None:
            if len(self._owners) >= _MAX_CACHED:
                self._owners.clear()
            who = self._owners[key] = mtree.mode_and_owner(*key)
        flags = entry.flags
        if flags and not self._keeps_flags:
            self._flagged += 1
            flags = ()
        # What is older than the epoch becomes that, as with buildah.
        return (*key, max(entry.mtime_ns, 0), entry.xattrs, flags), who

    def _state(self, directory: Directory, entry: Entry) -> None:
        """A layer says a directory's attributes: all of them, its extended ones too (L3)."""
        meta, who = self._attributes(entry)
        directory.meta = meta
        directory.text = mtree.directory(who, mtree.comments(meta[4], meta[5]))
        directory.stated = directory.layer = self._shape.layer
        self._shape.changed[directory] = None

    def _hardlink(self, entry: Entry, place: _Place, name: bytes, old: Child | None) -> None:
        """L10: one more name for what has the other one now; a symlink at its end is not followed.

        On the way there symlinks of any layer are, for this makes nothing.
        """
        shape = self._shape
        parts = split(entry.target)
        last = parts.pop() if parts else b""
        above = shape.find(parts, through_lower_links=True)
        source = above.children.get(last) if above else None
        if not above or source is None or isinstance(source, Directory):
            raise broken("hard-link", entry.name)
        if (above is place.directory and last == name) or above.is_below(old):
            raise broken("hard-link", entry.name)
        if old is not None:
            shape.remove(place.directory, name, old)
        shape.count(entry.name)
        place.directory.children[name] = Link(shape.layer, source.node)
        above_number = shape.number(above)
        shape.operations.append((_LINK, place.number, name, above_number, last))

    def _other(self, entry: Entry, place: _Place, name: bytes, old: Child | None) -> None:
        """A symlink, a fifo or a device."""
        shape = self._shape
        kind = entry.kind
        meta, who = self._attributes(entry)
        mode, uid, gid, when = meta[:4]
        if kind == Kind.SYMLINK:
            if len(entry.target) > MAX_TARGET:
                raise broken("target-length", entry.name)
            text = mtree.link(uid, gid, entry.target)
            made: Operation = (_SYMLINK, place.number, name, entry.target, uid, gid, when)
        else:
            text = mtree.special(_SPECIAL[kind], who)
            # Extended attributes and flags are for files and directories, as in the manifest.
            plain: Meta = (mode, uid, gid, when, (), ())
            made = (_NODE, place.number, name, int(kind), plain, entry.major, entry.minor)
        if old is not None:
            shape.remove(place.directory, name, old)
        if kind in (Kind.CHARACTER, Kind.BLOCK) and self._is_left_out(place.directory):
            return  # making it takes a privilege, and it would go when the layer ends
        shape.count(entry.name)
        place.directory.children[name] = Node(shape.layer, text)
        shape.operations.append(made)

    def _is_left_out(self, directory: Directory) -> bool:
        return directory.parent is not None and (
            directory.path_of(b"").split(b"/", 1)[0] in self._left_out
        )


def _name_of(pattern: str) -> str:
    name = pattern.removeprefix("/").removesuffix("/*")
    if not name or "/" in name or pattern != f"/{name}/*":
        raise ValueError(f"{pattern} is not of the form /NAME/*")
    return name
