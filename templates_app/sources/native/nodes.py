"""What the model of the tree is made of: small, for there is one for each name of an image.

A file, symlink, device or fifo is a :class:`Node`, which is its first name and its inode at once;
each further hard link is a :class:`Link` to it. A node keeps its *description*, which is its part
of the manifest without the path (see trust/mtree.py): that of a kept layer is taken as it stands.
"""

from __future__ import annotations

from templates_app.sources.native.limits import MAX_COMPONENT, MAX_DEPTH, MAX_NAME
from templates_app.sources.native.operations import ROOT, Meta
from templates_app.trust import mtree

#: Of the root if no layer says, and of directories that are only implied (L17).
PLAIN: Meta = (0o755, 0, 0, None, (), ())
PLAIN_TEXT = mtree.directory(mtree.mode_and_owner(0o755, 0, 0))


class Node:
    __slots__ = ("layer", "text")

    def __init__(self, layer: int, text: bytes = b"") -> None:
        self.layer = layer  # that has this name
        self.text = text  # the description; empty until the contents are known

    @property
    def node(self) -> Node:
        return self

    @property
    def target(self) -> bytes | None:
        """Of a symlink."""
        return mtree.target_in(self.text)


class Link:
    __slots__ = ("layer", "node")

    def __init__(self, layer: int, node: Node) -> None:
        self.layer = layer
        self.node = node

    @property
    def target(self) -> bytes | None:
        return self.node.target


class Directory:
    __slots__ = (
        "children",
        "depth",
        "hidden",
        "layer",
        "length",
        "meta",
        "name",
        "number",
        "parent",
        "stated",
        "text",
    )

    def __init__(self, parent: Directory | None, name: bytes, layer: int) -> None:
        self.parent = parent  # None for the root, and for what is gone
        self.name = name
        self.layer = layer  # the last one that has an entry for it, or for anything below it
        self.stated = 0  # the last layer that says its attributes
        self.hidden = 0  # the last layer in which everything of lower layers was hidden
        self.depth: int = parent.depth + 1 if parent else 0
        self.length: int = parent.length + len(name) + 1 if parent else 0  # of its path and a slash
        self.children: dict[bytes, Child] = {}
        self.number: int | None = None if parent else ROOT  # None: the writer does not know it
        self.meta: Meta | None = PLAIN  # None: a kept layer's, of which only `text` is known
        self.text = PLAIN_TEXT

    @property
    def room(self) -> int:
        """How long a name in it may be at the most, in bytes."""
        return min(MAX_COMPONENT, MAX_NAME - self.length) if self.depth < MAX_DEPTH else 0

    def path_of(self, name: bytes) -> bytes:
        """The path of a name in it, from the root."""
        parts = [name]
        at = self
        while at.parent is not None:
            parts.append(at.name)
            at = at.parent
        return b"/".join(reversed(parts))

    def is_below(self, top: Child | None) -> bool:
        """Whether it is ``top``, or anywhere below."""
        at: Directory | None = self
        while at is not None and at is not top:
            at = at.parent
        return at is not None


Name = Node | Link
Child = Name | Directory
