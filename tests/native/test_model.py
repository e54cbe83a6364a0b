"""The model of the tree: crafted stacks; what it promises to the engine beside their trees."""

from __future__ import annotations

import pytest

from templates_app.errors import TreeRefused
from templates_app.sources.native import rules
from tests.corpus.members import lines
from tests.corpus.stacks import STACKS, Stack
from tests.native.applied import apply


@pytest.mark.parametrize("restored", [False, True], ids=["at once", "from kept layers"])
@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.name)
def test_a_stack_makes_the_tree_that_it_must_or_is_refused(stack: Stack, restored: bool):
    if stack.rule:
        with pytest.raises(TreeRefused) as refusal:
            apply(stack.layers, restored=restored)
        assert refusal.value.extra["rule"] == stack.rule
        return
    done = apply(stack.layers, restored=restored)
    assert lines(done.manifest, stack.layers) == stack.tree
    if not restored:
        assert (stack.finding in " ".join(done.tree.findings)) and (
            bool(stack.finding) == bool(done.tree.findings)
        )


def test_the_stacks_have_names_of_their_own_and_cover_every_rule():
    assert len({stack.name for stack in STACKS}) == len(STACKS) >= 60
    of_limits = {"entries", "tree-bytes"}
    assert {stack.rule for stack in STACKS} - {""} == set(rules.RULES) - of_limits
