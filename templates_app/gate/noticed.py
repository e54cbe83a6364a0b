"""The check of findings: has a look at the pool noticed what speaks against a launch?"""

from __future__ import annotations

from collections.abc import Sequence

from templates_app import findings
from templates_app.events import Check
from templates_app.gate.base import OpenFinding, failed


def no_blocking_finding(template: str, noticed: Sequence[OpenFinding]) -> Check:
    name = "no_blocking_finding"
    blocking = [one for one in noticed if findings.kind(one.code).blocks]
    if not blocking:
        return Check(name=name, passed=True, reason="No finding that stops launches is open.")
    first, others = blocking[0], len(blocking) - 1
    more = f" And {others} more: coppice tpl findings {template}" if others else ""
    return failed(
        name,
        "finding_open",
        f"{first.code} ({first.subject}, found by event {first.position}): {first.detail}{more}",
        findings.next_step(first.code, template=template, subject=first.subject),
    )
