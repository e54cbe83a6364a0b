"""Errors of the engine's processes, told to the server and raised there again."""

from __future__ import annotations

import errno
import traceback
from typing import Any

from templates_app.errors import (
    CoppiceError,
    OutOfSpace,
    PoolUnavailable,
    ProgramFailed,
    PullFailed,
    StorageReadOnly,
    TreeRefused,
)
from templates_app.sources.native.limits import shown

#: What a process may say that went wrong. Anything else is a fault of ours.
_KNOWN = {one.code: one for one in (TreeRefused, OutOfSpace, StorageReadOnly, PoolUnavailable)}
#: The rules by which an image is refused for what the system says of it (docs/reference/layers.md).
RULES = (ATTRIBUTES, FOLDED, LINKS, MEMORY, OWNERS) = (
    "attributes",
    "folded-names",
    "links",
    "memory",
    "owners",
)
_MAX_PRIVATE = 4000  # characters


def told(error: BaseException) -> dict[str, Any]:
    """An error as it goes to the server."""
    if isinstance(error, OSError):
        error = _of_storage(error)
    elif isinstance(error, MemoryError):
        error = TreeRefused(
            "The image needs more memory than one of the engine's processes may use.",
            hint="Raise COPPICE_LIMIT_MEMORY_BYTES if this image is meant to be imported.",
            extra={"rule": MEMORY},
        )
    private = "".join(traceback.format_exception(error))[-_MAX_PRIVATE:]
    if isinstance(error, CoppiceError):
        return {
            "code": error.code,
            "detail": error.detail,
            "hint": error.next_step,
            "extra": error.extra,
            "private": f"{error.private}\n{private}"[-_MAX_PRIVATE:],
        }
    return {"code": "", "private": private}


def again(who: str, said: dict[str, Any]) -> CoppiceError:
    """The error that a process told; ``who`` names the process."""
    code, private = said.get("code"), str(said.get("private", ""))
    detail, hint = str(said.get("detail", "")), str(said.get("hint", ""))
    extra = dict(said.get("extra") or {})
    if code == PullFailed.code and extra.get("reason") == "corrupt":
        return PullFailed(detail, reason="corrupt", hint=hint, private=private)
    if known := _KNOWN.get(str(code)):
        return known(detail, hint=hint, extra=extra, private=private)
    return ProgramFailed(f"The native engine's {who} failed.", private=private)


def attribute_too_large(name: bytes, size: int) -> TreeRefused:
    """The refusal of an entry of which the pool's file system does not keep all attributes."""
    return TreeRefused(
        f"The image has an extended attribute {shown(name)} of {size} bytes, and an entry with"
        " larger attributes than the pool's file system keeps.",
        hint="ext4 keeps 4 KB of them for a file, zfs-fuse some hundred bytes of one;"
        " OpenZFS keeps what an image may have.",
        extra={"rule": ATTRIBUTES},
    )


def folded(error: FileExistsError) -> TreeRefused:
    """The refusal of a name that the pool's file system takes for another one of the image."""
    found = error.filename2 or error.filename
    name = shown(found if isinstance(found, bytes) else b"")
    return TreeRefused(
        f"The image has {name} and a name that differs from it in case or in Unicode's form alone;"
        " for the pool's file system they are one.",
        hint="Use a pool that keeps names apart: casesensitivity=sensitive, normalization=none.",
        extra={"rule": FOLDED},
    )


def of_owner(error: OSError, uid: int, gid: int) -> Exception:
    """What chown(2) raised, or the refusal of an owner that does not exist on this pool."""
    if error.errno != errno.EINVAL:
        return error
    return TreeRefused(
        f"The image has an entry of the owner {uid}:{gid}, which the pool's file system, or the"
        " user namespace that the server is in, has not.",
        hint="Mend the image, or give the server's user namespace these owners.",
        extra={"rule": OWNERS},
    )


def _of_storage(error: OSError) -> BaseException:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace("The pool's file system is full, or a quota used up.")
    if error.errno == errno.EROFS:
        return StorageReadOnly("The pool's file system is read-only.")
    if error.errno == errno.EMLINK and error.filename2 is not None:  # of link(2)
        return TreeRefused(
            "A file of the image has more names than the pool's file system gives one.",
            hint="ext4 gives 65,000; a ZFS pool has no such limit.",
            extra={"rule": LINKS},
        )
    if error.errno in (errno.EEXIST, errno.ELOOP, errno.EMLINK, errno.ENOTDIR, errno.ENOENT):
        return error  # the disk is not as the model says it is: a fault of ours, or of another
    if error.errno is None:
        return error
    reason = error.strerror or f"error {error.errno}"
    raised = PoolUnavailable(f"The pool's file system does not take a file: {reason}.")
    raised.__cause__ = error
    return raised
