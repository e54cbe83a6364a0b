"""How the model's tree changes: what is found, made, hidden and removed, and what that costs.

Each change of the nodes is an operation for the writer, and nothing else is one.
"""

from __future__ import annotations

from collections.abc import Callable

from templates_app.errors import CoppiceError
from templates_app.sources.native.limits import MAX_COMPONENT, MAX_DEPTH, shown
from templates_app.sources.native.nodes import PLAIN, PLAIN_TEXT, Child, Directory, Name
from templates_app.sources.native.operations import ROOT, Do, Operation
from templates_app.sources.native.rules import MAX_HOPS, MAX_STEPS, broken

MAX_FINDINGS = 10  # sentences about single paths
_MKDIR, _KNOWN, _REMOVE, _SETTLE = int(Do.MKDIR), int(Do.KNOWN), int(Do.REMOVE), int(Do.SETTLE)


class _MissingError(Exception):
    """A path leads nowhere, and nothing is to be made."""


class Shape:
    """The nodes below ``root``. ``operations`` are what the caller has not taken yet."""

    def __init__(self, root: Directory, entries: int, limit_entries: int) -> None:
        self.root = root
        self.layer = 0
        self.entries = entries  # names, without the root
        self.operations: list[Operation] = []
        #: Directories to settle when the layer ends; a new root too, even if no layer says how.
        self.changed: dict[Directory, None] = {root: None} if root.meta else {}
        #: Counts up when a directory or a symlink goes: then paths may lead elsewhere than before.
        self.turns = 0
        self.became_directories: list[str] = []  # symlinks, as messages show them
        self.more_became_directories = 0
        self._limit = limit_entries
        self._last_number = ROOT

    def count(self, path: bytes) -> None:
        self.entries += 1
        if self.entries > self._limit:
            raise broken("entries", path)

    def number(self, directory: Directory) -> int:
        """The writer's number of a directory; it is told of a kept layer's when that is needed."""
        if directory.number is None:
            above = self.number(directory.parent or self.root)
            directory.number = self._new_number()
            self.operations.append((_KNOWN, above, directory.name, directory.number))
        return directory.number

    def _new_number(self) -> int:
        self._last_number += 1
        return self._last_number

    # --- finding -------------------------------------------------------------------------------

    def find(self, parts: list[bytes], *, through_lower_links: bool = False) -> Directory | None:
        """The directory that a path leads to; symlinks of this layer, or of all, are followed."""
        try:
            return self._walk(parts, _missing, through_lower_links)
        except _MissingError:
            return None

    def reach(self, parts: list[bytes]) -> Directory:
        """The directory that a path leads to, made where there is none, for an entry in it.

        Symlinks of this layer are followed. What is no directory and of a lower layer gives way to
        one, as on an overlay.
        """
        directory = self._walk(parts, self._imply, False)
        self.changed[directory] = None
        self._touch(directory)
        return directory

    def _touch(self, directory: Directory) -> None:
        """This layer has it: so it has all that is above."""
        at: Directory | None = directory
        while at is not None and at.layer != self.layer:
            at.layer = self.layer
            at = at.parent

    def _walk(
        self,
        parts: list[bytes],
        otherwise: Callable[[Directory, bytes, Name | None], Directory],
        through_lower_links: bool,
    ) -> Directory:
        at = self.root
        to_come = parts[::-1]
        hops = steps = 0
        while to_come:
            part = to_come.pop()
            if part == b"..":  # of a symlink's target: that has no parent above the root
                at = at.parent or at
                continue
            if part in (b"", b"."):
                continue
            child = at.children.get(part)
            if isinstance(child, Directory):
                at = child
                continue
            target = child.target if child else None
            if child and target and (through_lower_links or child.layer == self.layer):
                if target.startswith(b"/"):
                    at = self.root
                onward = target.split(b"/")[::-1]
                to_come += onward
                hops += 1
                steps += len(onward)
                if hops > MAX_HOPS or steps > MAX_STEPS:
                    raise broken("symlink-loop", b"/".join(parts))
            else:
                at = otherwise(at, part, child)
        return at

    def _imply(self, at: Directory, name: bytes, child: Name | None) -> Directory:
        """L17: a directory that no entry names."""
        if child is not None:
            path = at.path_of(name)
            if child.layer == self.layer:
                raise broken("no-directory", path)
            if child.target is not None:
                self._tell(path)
        return self.make_directory(at, name, child)

    def _tell(self, path: bytes) -> None:
        if len(self.became_directories) < MAX_FINDINGS:
            self.became_directories.append(shown(path))
        else:
            self.more_became_directories += 1

    # --- making and removing -------------------------------------------------------------------

    def make_directory(self, parent: Directory, name: bytes, old: Child | None) -> Directory:
        """A new one, in place of ``old``."""
        if len(name) > parent.room:
            raise bad_name(parent, name)
        above = self.number(parent)
        if old is not None:
            self.remove(parent, name, old)
        self._touch(parent)
        self.count(name)
        made = parent.children[name] = Directory(parent, name, self.layer)
        made.number = self._new_number()
        self.changed[parent] = self.changed[made] = None
        self.operations.append((_MKDIR, above, name, made.number))
        return made

    def remove(self, parent: Directory, name: bytes, child: Child) -> None:
        """A name goes, with all below it; other names of a file keep what they have (L12)."""
        above = self.number(parent)
        self.changed[parent] = None
        del parent.children[name]
        if isinstance(child, Directory):
            number = child.number or self._new_number()
            self.operations.append((_REMOVE, above, name, number))
            self._forget(child)
            self.turns += 1
        else:
            self.operations.append((_REMOVE, above, name, 0))
            self.entries -= 1
            if child.target is not None:
                self.turns += 1

    def _forget(self, top: Directory) -> None:
        """Count what was below, and leave no cycles for a garbage collector."""
        directories = [top]
        for directory in directories:
            self.entries -= 1
            directory.parent = None
            for child in directory.children.values():
                if isinstance(child, Directory):
                    directories.append(child)
                else:
                    self.entries -= 1
            directory.children.clear()

    # --- whiteouts -----------------------------------------------------------------------------

    def hide(self, parent: Directory, name: bytes) -> None:
        """Remove what lower layers have there. What this layer has there stays (L6)."""
        child = parent.children.get(name)
        if child is None:
            return
        if child.layer != self.layer:
            self.remove(parent, name, child)
        elif isinstance(child, Directory):
            self._unsay(child)
            self.hide_below(child)

    def hide_below(self, top: Directory) -> None:
        """The same for everything in a directory (L7)."""
        directories = [top]
        for directory in directories:
            if directory.hidden == self.layer:
                continue  # what is there now, came after
            directory.hidden = self.layer
            for name, child in list(directory.children.items()):
                if child.layer != self.layer:
                    self.remove(directory, name, child)
                elif isinstance(child, Directory):
                    self._unsay(child)
                    directories.append(child)

    def _unsay(self, directory: Directory) -> None:
        """A directory of lower layers is hidden: what this layer only implies there, is new."""
        if directory.stated != self.layer:
            directory.meta, directory.text = PLAIN, PLAIN_TEXT
            self.changed[directory] = None

    # --- the end of a layer --------------------------------------------------------------------

    def settle(self) -> None:
        """Directories get their attributes last, for what is put into one changes its time (L14).

        Deepest first: once it is settled, a directory may not be entered any more.
        """
        alive = [one for one in self.changed if one.parent is not None or one is self.root]
        alive.sort(key=_depth, reverse=True)
        numbered = [(_SETTLE, self.number(one), one.meta) for one in alive]
        self.operations += numbered
        self.changed.clear()


def bad_name(directory: Directory, name: bytes) -> CoppiceError:
    """Why a name has no room in a directory."""
    path = directory.path_of(name)
    if directory.depth >= MAX_DEPTH:
        return broken("depth", path)
    return broken("component-length" if len(name) > MAX_COMPONENT else "path-length", path)


def _missing(at: Directory, name: bytes, child: Name | None) -> Directory:
    raise _MissingError


def _depth(directory: Directory) -> int:
    return directory.depth
