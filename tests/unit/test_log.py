"""The Merkle tree against the definition of RFC 6962, and its public reference vectors."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates_app.trust import log
from tests import rfc9162

# certificate-transparency's merkletree_test: eight leaves, the roots over the first 1..8.
LEAVES = [
    log.leaf_hash(bytes.fromhex(one))
    for one in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
A = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
B = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
C = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
D = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
E = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
F = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"


def naive_root(leaves):
    """MTH of RFC 6962, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def inclusion(leaves, index):
    return [log.root(leaves[a:b]) for a, b in log.inclusion_ranges(index, len(leaves))]


def consistency(leaves, first):
    return [log.root(leaves[a:b]) for a, b in log.consistency_ranges(first, len(leaves))]


def some(count):
    return [log.leaf_hash(b"%d" % number) for number in range(count)]


@pytest.mark.parametrize("size", range(1, 9))
def test_the_reference_roots(size):
    assert log.root(LEAVES[:size]).hex() == ROOTS[size - 1]


def test_an_empty_tree_has_the_hash_of_nothing():
    assert log.root([]).hex() == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize(
    ("index", "size", "proof"),
    [
        (0, 1, []),
        (0, 8, [A, B, C]),
        (5, 8, [D, E, ROOTS[3]]),
        (2, 3, [ROOTS[1]]),
        (1, 5, [ROOTS[0], B, D]),
    ],
)
def test_the_reference_inclusion_proofs(index, size, proof):
    assert [one.hex() for one in inclusion(LEAVES[:size], index)] == proof
    root, hashes = bytes.fromhex(ROOTS[size - 1]), [bytes.fromhex(one) for one in proof]
    assert rfc9162.is_included(LEAVES[index], index, size, root, hashes)


@pytest.mark.parametrize(
    ("first", "second", "proof"),
    [(1, 1, []), (1, 8, [A, B, C]), (6, 8, [F, E, ROOTS[3]]), (2, 5, [B, D])],
)
def test_the_reference_consistency_proofs(first, second, proof):
    assert [one.hex() for one in consistency(LEAVES[:second], first)] == proof
    old, new = bytes.fromhex(ROOTS[first - 1]), bytes.fromhex(ROOTS[second - 1])
    hashes = [bytes.fromhex(one) for one in proof]
    assert first == second or rfc9162.is_consistent(first, second, old, new, hashes)


@given(st.integers(0, 150))
def test_the_root_is_that_of_the_definition(size):
    assert log.root(some(size)) == naive_root(some(size))


@given(st.data())
def test_a_frontier_that_was_kept_goes_on_as_if_it_had_not_been(data):
    size = data.draw(st.integers(0, 100))
    tree = log.Frontier()
    for leaf in some(size)[: data.draw(st.integers(0, size))]:
        tree.append(leaf)
    again = log.Frontier(tree.size, tree.hashes)
    for leaf in some(size)[tree.size :]:
        again.append(leaf)
    assert (again.size, again.root()) == (size, naive_root(some(size)))


@pytest.mark.parametrize(
    ("size", "hashes"), [(2, []), (3, [b"a" * 32]), (-1, []), (1, [b"a" * 31])]
)
def test_what_cannot_be_a_frontier_is_none(size, hashes):
    with pytest.raises(ValueError):  # noqa: PT011 # its own, whatever it says
        log.Frontier(size, hashes)


@given(st.data())
def test_inclusion_is_proven_and_of_nothing_else(data):
    size = data.draw(st.integers(1, 70))
    index = data.draw(st.integers(0, size - 1))
    leaves = some(size)
    proof, root = inclusion(leaves, index), log.root(leaves)
    log.check_inclusion(leaves[index], index, size, root, proof)
    other = data.draw(st.integers(0, size).filter(lambda n: n != index))
    forged = [
        (log.leaf_hash(b"forged"), index, size, root, proof),
        (leaves[index], other, size, root, proof),
        (leaves[index], index, size, log.leaf_hash(b"other"), proof),
        (leaves[index], index, size, root, [*proof, root]),
        (leaves[index], -1, size, root, proof),
    ]
    if proof:
        forged.append((leaves[index], index, size, root, proof[:-1]))
        forged.append((leaves[index], index, size, root, [*proof[:-1], b"short"]))
    for one in forged:
        with pytest.raises(log.ProofWrong):
            log.check_inclusion(*one)


@given(st.data())
def test_consistency_is_proven_and_of_nothing_else(data):
    second = data.draw(st.integers(1, 70))
    first = data.draw(st.integers(0, second))
    leaves = some(second)
    old, new, proof = log.root(leaves[:first]), log.root(leaves), consistency(leaves, first)
    log.check_consistency(first, second, old, new, proof)
    changed = log.leaf_hash(b"changed")
    forged = [
        (first, second, changed, new, proof),
        (first, second, old, new, [*proof, changed]),
        (second + 1, second, old, new, proof),
    ]
    if first:  # an empty log says nothing of what follows it
        forged.append((first, second, old, changed, proof))
    if proof:
        forged.append((first, second, old, new, proof[:-1]))
        forged.append((first, second, old, new, []))
        forged.append((first, second, old, new, [*proof[:-1], changed]))
    for one in forged:
        with pytest.raises(log.ProofWrong):
            log.check_consistency(*one)


@given(st.data())
def test_a_log_whose_past_was_rewritten_cannot_prove_consistency(data):
    second = data.draw(st.integers(2, 40))
    first = data.draw(st.integers(1, second))
    leaves = some(second)
    old = log.root(leaves[:first])
    leaves[data.draw(st.integers(0, first - 1))] = log.leaf_hash(b"rewritten")
    with pytest.raises(log.ProofWrong):
        log.check_consistency(first, second, old, log.root(leaves), consistency(leaves, first))


@pytest.mark.parametrize("call", [(1, 1), (-1, 1), (0, 0)])
def test_there_is_no_proof_of_a_leaf_that_is_not_there(call):
    with pytest.raises(ValueError, match="has no leaf"):
        log.inclusion_ranges(*call)


def test_a_log_does_not_begin_with_a_longer_one():
    with pytest.raises(ValueError, match="does not begin"):
        log.consistency_ranges(2, 1)


@pytest.mark.parametrize("size", range(1, 33))
def test_what_proofs_are_made_of_is_found_in_one_reading(size):
    leaves = [log.leaf_hash(bytes([number])) for number in range(size)]
    ranges = [(0, size)]
    for index in range(size):
        ranges += log.inclusion_ranges(index, size)
        ranges += log.consistency_ranges(index, size)
    wanted = {node for one in ranges for node in log.full_subtrees(one)}
    nodes = log.subtrees(iter(leaves), wanted)
    assert nodes.keys() == wanted
    for first, last in ranges:
        assert log.range_root((first, last), nodes) == log.root(leaves[first:last])
