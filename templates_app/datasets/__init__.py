"""Where datasets live: one driver for each kind of pool, behind the port in base.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from templates_app.datasets.base import DatasetDriver
from templates_app.datasets.directory import DirectoryDriver
from templates_app.datasets.zfs import ZfsDriver
from templates_app.errors import PoolUnavailable


class _Makes(Protocol):
    def __call__(self, root: str, *, step_seconds: float, state_dir: Path) -> DatasetDriver: ...


#: The word before the colon of COPPICE_POOL, and what it selects. There is no fallback.
DRIVERS: Mapping[str, _Makes] = {"zfs": ZfsDriver, "dir": DirectoryDriver}


def from_pool(
    pool: str, *, step_seconds: float, state_dir: Path, quota_bytes: int = 0
) -> DatasetDriver:
    """The driver for ``zfs:DATASET`` or ``dir:/PATH``. Touches nothing yet.

    ``step_seconds`` limits what moves data (a copy, the destruction of a large dataset);
    ``state_dir`` is where locks and the note of which pool this is are kept; ``quota_bytes`` is the
    most that the files of one dataset may take, which ``zfs:`` alone can hold to. PoolUnavailable.
    """
    kind, _, root = pool.partition(":")
    if kind not in DRIVERS or not root:
        raise PoolUnavailable(
            f"There is no kind of pool {kind!r}; there are: {', '.join(DRIVERS)}."
        )
    if quota_bytes:
        if kind != ZfsDriver.kind:
            raise PoolUnavailable(
                f"A pool of the kind {kind}: holds nobody to a quota.",
                hint="Take COPPICE_QUOTA_BYTES away, or use a zfs: pool.",
            )
        return ZfsDriver(
            root, step_seconds=step_seconds, state_dir=state_dir, quota_bytes=quota_bytes
        )
    return DRIVERS[kind](root, step_seconds=step_seconds, state_dir=state_dir)
