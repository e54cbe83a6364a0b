"""System checks: what must hold before the server starts, each with a hint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error


def quota_is_held(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """Nobody relies on a quota that the pool does not know."""
    if not settings.COPPICE_QUOTA_BYTES or settings.COPPICE_POOL.startswith("zfs:"):
        return []
    return [
        Error(
            f"COPPICE_QUOTA_BYTES is set, but {settings.COPPICE_POOL} holds nobody to a quota.",
            hint="Take COPPICE_QUOTA_BYTES away, or use a zfs: pool.",
            id="templates_app.E003",
        )
    ]


def queue_retry(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """The queue's retry clock starts when a task is taken into memory, behind others.

    A retry that is due before those ahead of it are done runs a task twice at once; the lease would
    stop the second, but only by making it fail.
    """
    queue: dict[str, Any] = settings.Q_CLUSTER
    ahead = math.ceil((queue["queue_limit"] + queue["bulk"]) / queue["workers"]) + 1
    least = queue["timeout"] * ahead + 5
    if queue["retry"] > least:
        return []
    return [
        Error(
            f"Q_CLUSTER's retry is {queue['retry']}; it must be more than {least}.",
            hint="retry > timeout * (ceil((queue_limit + bulk) / workers) + 1) + 5",
            id="templates_app.E002",
        )
    ]
