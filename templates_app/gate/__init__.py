"""The gate: may this template be cloned? Every check has a name, a result, a reason, a next step.

The same decision is the body of a refusal (403), of ``GET /templates/{name}/gate``, and what the
log keeps. Nothing here is cached: a key that is withdrawn counts from the next call on.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from templates_app.datasets.base import Snapshot
from templates_app.gate.base import Decision as Decision
from templates_app.gate.base import OpenFinding as OpenFinding
from templates_app.gate.base import Policy as Policy
from templates_app.gate.base import StoredSignature as StoredSignature
from templates_app.gate.files import present, statement_matches, unchanged
from templates_app.gate.noticed import no_blocking_finding
from templates_app.gate.signatures import signatures_hold
from templates_app.lifecycle import GenerationState
from templates_app.trust.keyring import KnownKey


def decide(
    *,
    name: str,
    generation: GenerationState,
    live: Snapshot | None,
    signatures: Sequence[StoredSignature],
    keys: Sequence[KnownKey],
    noticed: Sequence[OpenFinding],
    importer: str,
    policy: Policy,
    now: datetime.datetime,
) -> Decision:
    """Judge one generation as it is now. ``live`` is its @base on the pool, None if not there;
    ``keys``: those of the signatures that are known here, at the least; ``noticed``: findings that
    touch it and are open; ``importer``: whose generation it is, for a policy of two persons."""
    checks = [
        present(generation, live),
        unchanged(name, generation, live),
        statement_matches(name, generation),
        # Before signatures: whoever reads the first failure must not go and sign a changed tree.
        no_blocking_finding(name, noticed),
    ]
    signature_checks, vouchers = signatures_hold(
        name, generation, signatures, keys, importer=importer, policy=policy, now=now
    )
    checks += signature_checks
    key = vouchers[0].key if vouchers else None
    mode = policy.mode_for(name)
    signed = all(check.passed for check in checks)
    return Decision(
        template=name,
        generation=generation.number,
        mode=mode,
        exempt=policy.exempts(name),
        allowed=signed or (mode in ("off", "warn") and checks[0].passed),
        signed=signed,
        key_id=key.public_key.key_id if key else None,
        key_label=key.label if key else None,
        statement_digest=generation.statement_digest,
        tree_digest=generation.tree_digest,
        checks=tuple(checks),
    )
