"""The manifest of a tree of nodes: written, and read back for a layer that was kept."""

from __future__ import annotations

from collections.abc import Iterator

from templates_app.sources.native.nodes import Directory, Link, Node
from templates_app.trust import mtree

_AT_ONCE = 1000  # lines


def write(root: Directory) -> Iterator[bytes]:
    """In pieces; in the order of whole paths, for which see :mod:`templates_app.trust.tree`."""
    first: dict[Node, bytes | None] = dict.fromkeys(_linked(root))
    lines = [mtree.FIRST_LINE, b". " + root.text]
    stack = [(root, b"./", iter(_items(root)))]
    while stack:
        directory, above, items = stack[-1]
        for item in items:
            child = directory.children.get(item)
            if child is None:  # an item with a slash: what is below a directory
                inner = directory.children[item[:-1]]
                if isinstance(inner, Directory):
                    stack.append((inner, above + mtree.escape(item), iter(_items(inner))))
                break
            path = above + mtree.escape(item)
            if isinstance(child, Directory):
                lines.append(b"%s %s" % (path, child.text))
            else:
                node = child.node
                lines.append(b"%s %s" % (path, node.text))
                if node in first:
                    if (name := first[node]) is not None:
                        lines.append(mtree.hardlink(name))
                    else:
                        first[node] = path
            if len(lines) >= _AT_ONCE:
                yield b"".join(lines)
                lines.clear()
        else:
            stack.pop()
    yield b"".join(lines)


def _linked(root: Directory) -> Iterator[Node]:
    """What has, or had, more names than one."""
    directories = [root]
    for directory in directories:
        for child in directory.children.values():
            if isinstance(child, Directory):
                directories.append(child)
            elif isinstance(child, Link):
                yield child.node


def _items(directory: Directory) -> list[bytes]:
    children = directory.children
    items = list(children)
    items += [name + b"/" for name, child in children.items() if type(child) is Directory]
    items.sort()
    return items


def read(manifest: bytes) -> tuple[Directory, int]:
    """The root of the nodes, and how many names are below it. ValueError for what is no manifest.

    Descriptions are taken as they stand, but for their type: an import waits for this.
    """
    lines = manifest.splitlines(keepends=True)
    if lines[:1] != [mtree.FIRST_LINE] or not lines[-1].endswith(b"\n") or len(lines) < 2:
        raise ValueError("not a tree manifest")
    path, _, text = lines[1].partition(b" ")
    if path != b".":
        raise ValueError("the first path of a tree manifest is not the root")
    root = Directory(None, b"", 0)
    root.meta, root.text = None, text
    node: Node | Directory = root
    directory, above, name = root, b".", b""
    entries = 0
    for line in lines[2:]:
        if line[0] == 35:  # "#": a comment, which belongs to the path before it
            if line.startswith(mtree.HARDLINK):
                first = _find(root, line[len(mtree.HARDLINK) : -1])
                directory.children[name] = Link(0, first)
            else:
                node.text += line
            continue
        path, _, text = line.partition(b" ")
        before, _, name = path.rpartition(b"/")
        if before != above:
            directory, above = _directory(root, before), before
        name = mtree.unescape(name)
        if text.startswith(b"type=dir "):
            node = Directory(directory, name, 0)
            node.meta, node.text = None, text
        else:
            node = Node(0, text)
        if not name or name in directory.children:
            raise ValueError("a path of a tree manifest is wrong, or comes twice")
        directory.children[name] = node
        entries += 1
    return root, entries


def _directory(root: Directory, path: bytes) -> Directory:
    at = root
    for part in path.split(b"/")[1:]:
        child = at.children.get(mtree.unescape(part))
        if not isinstance(child, Directory):
            raise ValueError("a path of a tree manifest is in no directory")
        at = child
    return at


def _find(root: Directory, path: bytes) -> Node:
    before, _, name = path.rpartition(b"/")
    found = _directory(root, before).children.get(mtree.unescape(name))
    if not isinstance(found, Node):
        raise ValueError("a hard link of a tree manifest is to no file")
    return found
