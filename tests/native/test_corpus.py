"""The corpora are complete: every attack and every clause of the grammar has its cases."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from templates_app.sources.native import grammar, rules
from tests.corpus.attacks import ATTACKS, GRAMMAR
from tests.corpus.stacks import STACKS
from tests.corpus.streams import STREAMS
from tests.hostile import CASES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/attacks.md"


def names_in(path: str) -> set[str]:
    """``test_x`` and ``TestY::test_x`` of a module."""
    found = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names = [one.name for one in node.body if isinstance(one, ast.FunctionDef)]
            found |= {f"{node.name}::{name}" for name in names}
    return found


def test_every_attack_and_every_clause_has_its_row_and_its_cases() -> None:
    attacks, _, clauses = PAGE.read_text().partition("\n## The archive's grammar")
    ids = re.compile(r"^\| `([a-z0-9-]+)` \|", re.MULTILINE)
    assert ids.findall(attacks) == list(ATTACKS)
    assert ids.findall(clauses) == list(GRAMMAR)
    assert all(ATTACKS.values()) and all(GRAMMAR.values())


def test_every_case_that_is_named_exists() -> None:
    named = {one for cases in ATTACKS.values() for one in cases}
    named |= {f"stream:{one}" for cases in GRAMMAR.values() for one in cases}
    of_modules = {one for one in named if one.startswith("tests/")}
    assert named - of_modules - CASES.keys() == set()
    for one in of_modules:
        path, _, name = one.partition("::")
        assert name in names_in(path), one


def test_the_corpora_are_as_large_as_they_are_said_to_be() -> None:
    assert len(STACKS) >= 150 and len(STREAMS) >= 150
    assert len(CASES) == len(STACKS) + len(STREAMS)
    refused = {case.rule for case in CASES.values()}
    limits = {"entries", "manifest-bytes", "tree-bytes"}  # of any image: tests/native/test_model.py
    assert refused >= (set(grammar.RULES) | set(rules.RULES)) - limits
