"""A look at a clone that begins while zfs(8) still makes and mounts it: else both would be waited
for, one after the other.

A dataset is there some time before it is mounted. From then on the snapshot that it was cloned from
cannot be destroyed, so what is seen of both is as sure as it would be after the mount. A look that
did not see the clone proves nothing, and is repeated.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

from templates_app.errors import CoppiceError

Seen = dict[str, dict[str, str]]
#: Root -> seconds that its clones take, about.
_takes: dict[str, float] = {}
#: A look begins after so much of that time: zfs(8) takes as much to start, and the clone is there
#: after two thirds.
_WAITS = 0.3
_LOOKS = 2  # at most, while the clone is made


class EarlyLook:
    """``look`` at the clone ``name`` of ``base``, begun so that it is over when the clone is made.

    It must look at the clone first, then at ``base``. Only for a clone whose name was ``drawn`` for
    it: any other may be what stood there before. A context, within which the clone is made; on the
    way out no look is under way.
    """

    def __init__(self, root: str, name: str, base: str, look: Callable[[], Seen], *, drawn: bool):
        self._root, self._full, self._base, self._look = root, f"{root}/{name}", base, look
        self._waits = _takes[root] * _WAITS if drawn and root in _takes else None
        self._begun: float | None = None
        self._thread: threading.Thread | None = None
        self._looks = 0
        self._early: Seen = {}

    def step(self) -> None:
        """To be called again and again while the clone is made."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = now
        if self._waits is None or now < self._begun + self._waits or self._looks == _LOOKS:
            return
        if self._thread is None or not (self._thread.is_alive() or self._saw()):
            self._looks += 1
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()

    def _work(self) -> None:
        with contextlib.suppress(CoppiceError):  # the look afterwards meets it again, and says so
            self._early = self._look()

    def _saw(self) -> bool:
        seen = self._early
        return seen.get(self._full, {}).get("origin") == self._base and self._base in seen

    def seen(self) -> Seen:
        """What the look saw, or what it sees now if it came too early or did not begin."""
        if not self._saw():
            return self._look()
        found = self._early[self._full]
        if os.path.ismount(found["mountpoint"]):
            found["mounted"] = "yes"  # it is since
        return self._early

    def __enter__(self) -> EarlyLook:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._begun is not None:
            took = time.monotonic() - self._begun
            _takes[self._root] = (3 * _takes.get(self._root, took) + took) / 4
        if self._thread is not None:
            self._thread.join()
