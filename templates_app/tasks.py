"""What the queue may call. Arguments are ids and names: payloads are pickles, keep them plain."""

from __future__ import annotations

import uuid

from templates_app.services import bulk, common


def reimport(name: str, job: str, force: bool) -> str:
    """Re-import ``name`` for ``job`` (a UUID as text). Safe to deliver more than once."""
    context = common.context(actor="queue", source="task", request_id=job)
    done = bulk.reimport(name=name, job=uuid.UUID(job), force=force, context=context)
    if isinstance(done, bulk.Item):
        return f"{done.action}: {done.code}" if done.code else done.action
    return f"imported, position {done.position}"
