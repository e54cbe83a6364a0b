"""The log as a Merkle tree, RFC 6962 section 2.1: root, proofs, and whether a proof holds.

Leaf = SHA-256(0x00 ‖ data), node = SHA-256(0x01 ‖ left ‖ right). Event 1 is leaf 0. Leaf hashes
come as a stream: of a tree of n leaves, log2(n) hashes are in memory.

A proof is a list of roots of ranges of leaves. Which ranges, only the sizes decide; so the maker
asks ``inclusion_ranges`` or ``consistency_ranges`` and hashes them, however it gets at its leaves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

HASH_BYTES = 32
EMPTY = hashlib.sha256(b"").digest()  # the root of a tree without leaves
Range = tuple[int, int]  # leaves first <= i < last, counted from 0
Node = tuple[int, int]  # (level, index): the full subtree of 2**level leaves from index * 2**level


class ProofWrong(ValueError):  # noqa: N818 # it says what is wrong: not an accident of ours
    """The proof does not show what it is said to show: the end of a sentence."""


_NOT_HASHED = ("eventId", "leafHash")
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def leaf_data(event: Mapping[str, Any]) -> bytes:
    """What the leaf hash of an event is over, of one of the lines that the log is exported in.

    RFC 8785: keys are ASCII and numbers whole, so that sorting and writing need no more than this.
    """
    hashed = {key: value for key, value in event.items() if key not in _NOT_HASHED}
    return _CANONICAL.encode(hashed).encode("utf-8", "surrogatepass")


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


class Frontier:
    """A tree that grows: the roots of its full subtrees, the largest first, one per bit of size."""

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """ValueError unless there are as many hashes as a tree of this size has full subtrees."""
        if size < 0 or len(hashes) != size.bit_count():
            raise ValueError(f"{len(hashes)} hashes are no frontier of {size} leaves")
        if any(len(one) != HASH_BYTES for one in hashes):
            raise ValueError("a frontier's hashes have 32 bytes each")
        self.size = size
        self.hashes = list(hashes)

    def append(self, leaf: bytes) -> None:
        hashes, full = self.hashes, self.size
        # Each bit that is set at the end is a subtree as large as the one just made.
        while full & 1:
            leaf = hashlib.sha256(b"\1" + hashes.pop() + leaf).digest()
            full >>= 1
        hashes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        if not self.hashes:
            return EMPTY
        *rest, root = self.hashes
        for left in reversed(rest):
            root = node_hash(left, root)
        return root


def root(leaves: Iterable[bytes]) -> bytes:
    """The root over these leaf hashes, in order."""
    tree = Frontier()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


def full_subtrees(span: Range) -> list[Node]:
    """What a range of leaves is made of, the largest first; of a range that a proof is about.

    Such a range begins where a full subtree of its size could.
    """
    first, last = span
    found = []
    while first < last:
        level = (last - first).bit_length() - 1
        found.append((level, first >> level))
        first += 1 << level
    return found


def subtrees(leaves: Iterable[bytes], wanted: Container[Node]) -> dict[Node, bytes]:
    """The roots of the ``wanted`` full subtrees over these leaf hashes, all in one reading."""
    found: dict[Node, bytes] = {}
    open_: list[bytes] = []
    for number, leaf in enumerate(leaves):
        level, index = 0, number
        if (0, index) in wanted:
            found[0, index] = leaf
        while index & 1:
            leaf = hashlib.sha256(b"\1" + open_.pop() + leaf).digest()
            level, index = level + 1, index >> 1
            if (level, index) in wanted:
                found[level, index] = leaf
        open_.append(leaf)
    return found


def range_root(span: Range, nodes: Mapping[Node, bytes]) -> bytes:
    """The root over a range, of what :func:`subtrees` found. KeyError where that is not all."""
    hashes = [nodes[one] for one in full_subtrees(span)]
    return Frontier(span[1] - span[0], hashes).root()


# --- proofs ------------------------------------------------------------------------------------


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """Whose roots are the proof that leaf ``index`` is in the tree of ``size`` leaves, in order.

    ValueError unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    first, last, found = 0, size, list[Range]()
    while last - first > 1:
        middle = first + _split(last - first)
        if index < middle:
            found.append((middle, last))
            last = middle
        else:
            found.append((first, middle))
            first = middle
    return found[::-1]


def consistency_ranges(first: int, second: int) -> list[Range]:
    """Whose roots are the proof that the tree of ``second`` leaves begins with that of ``first``.

    None where ``first`` is 0, or both are the same. ValueError unless 0 <= first <= second.
    """
    if not 0 <= first <= second:
        raise ValueError(f"a tree of {second} leaves does not begin with one of {first}")
    if first in (0, second):
        return []
    start, end, found = 0, second, list[Range]()
    while end != first:
        middle = start + _split(end - start)
        if first <= middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((start, middle))
            start = middle
    if start:  # else it is the first tree's root, which the verifier has
        found.append((start, end))
    return found[::-1]


def check_inclusion(
    leaf: bytes, index: int, size: int, root_hash: bytes, proof: Sequence[bytes]
) -> None:
    """Return if the proof shows leaf ``index`` in the tree (RFC 9162, 2.1.3.2). ProofWrong."""
    if not 0 <= index < size:
        raise ProofWrong(f"a tree of {size} leaves has no leaf {index}")
    at, last, found = index, size - 1, leaf
    for one in _hashes(proof):
        if last == 0:
            raise ProofWrong("it has too many hashes")
        if at & 1 or at == last:
            found = node_hash(one, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, one)
        at, last = at >> 1, last >> 1
    if last != 0:
        raise ProofWrong("it has too few hashes")
    if found != root_hash:
        raise ProofWrong("it leads to another root")


def check_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> None:
    """Return if the proof shows that the second tree begins with the first. ProofWrong.

    RFC 9162 section 2.1.4.2; with the two cases that it leaves out: an empty first tree, which
    every tree begins with, and twice the same size.
    """
    if not 0 <= first <= second:
        raise ProofWrong(f"a tree of {second} leaves does not begin with one of {first}")
    if first in (0, second):
        if proof:
            raise ProofWrong("it has too many hashes")
        if first_root != (second_root if first else EMPTY):
            raise ProofWrong("the roots of the same tree differ")
        return
    hashes = _hashes(proof)
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    # A first tree that is one full subtree is itself the start, and not in the proof.
    old = new = first_root if at == 0 else next(hashes, b"")
    for one in hashes:
        if last == 0:
            raise ProofWrong("it has too many hashes")
        if at & 1 or at == last:
            old, new = node_hash(one, old), node_hash(one, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = node_hash(new, one)
        at, last = at >> 1, last >> 1
    if last != 0:
        raise ProofWrong("it has too few hashes")
    if old != first_root:
        raise ProofWrong("it does not begin with the first tree")
    if new != second_root:
        raise ProofWrong("it leads to another root")


def _hashes(proof: Sequence[bytes]) -> Iterator[bytes]:
    for one in proof:
        if len(one) != HASH_BYTES:
            raise ProofWrong("a hash in it has not 32 bytes")
        yield one


def _split(size: int) -> int:
    """The largest power of two below ``size``, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1
