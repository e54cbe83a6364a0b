"""What every error is."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, ClassVar


class Exit(IntEnum):
    """Exit statuses of ``coppice`` and of the management commands."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_IMPLEMENTED = 3
    CONFLICT = 4
    REFUSED = 5
    PULL_FAILED = 6


class CoppiceError(Exception):
    """Something went wrong that we have a name for.

    ``detail`` is one sentence for a person and must be fit for the caller's eyes: no stderr of a
    program, no host path, no credential. ``hint`` says what to do next. ``extra`` holds additional
    members of the problem document (camelCase keys). ``private`` is for our log alone.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    exit_status: ClassVar[Exit] = Exit.FAILURE
    permanent: ClassVar[bool] = True
    title: ClassVar[str] = "Coppice failed"
    hint: ClassVar[str] = ""

    def __init__(
        self,
        detail: str,
        *,
        hint: str | None = None,
        extra: Mapping[str, Any] | None = None,
        private: str = "",
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.next_step = self.hint if hint is None else hint
        self.extra = dict(extra or {})
        self.private = private
