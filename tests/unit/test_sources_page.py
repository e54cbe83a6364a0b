"""docs/reference/sources.md says all of what the sources know."""

from __future__ import annotations

import re
from pathlib import Path

from templates_app.errors import PULL_REASONS
from templates_app.sources import RESERVED, SCHEMES, buildah, documents

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reference/sources.md").read_text()


def test_every_scheme_is_there():
    assert [one for one in [*SCHEMES, *RESERVED] if f"`{one}:`" not in PAGE] == []


def test_every_reason_is_there():
    assert [one for one in PULL_REASONS if f"| `{one}` |" not in PAGE] == []


def test_every_rule_that_refuses_a_tree_is_there():
    rules = {
        rule
        for path in (ROOT / "templates_app/sources").glob("*.py")
        for rule in re.findall(r'"rule": "([a-z-]+)"', path.read_text())
    }
    assert len(rules) >= 6
    assert [rule for rule in sorted(rules) if f"| `{rule}` |" not in PAGE] == []


def test_every_verdict_is_there():
    assert all(f"`{word}`" in PAGE for word in ("native", "foreign", "mixed", "none"))


def test_limits_are_the_codes():
    assert documents.MAX_DEPTH == 3 and "nested three deep" in PAGE
    assert documents.MAX_DOCUMENT == 4 * 1024 * 1024 and "over 4 MB" in PAGE
    assert buildah.LEFT_OUT == ("/dev/*", "/proc/*") and "`/dev` and `/proc`" in PAGE
