"""The log's key, and its checkpoints as files: in the state directory, and in one further away.

Files and not rows: who rewrites the database has not rewritten them. Three for each checkpoint of N
events: ``checkpoint-N`` the text, ``.sig`` signify's signature over it, ``.note`` both in one. The
note is written last: a checkpoint without one was not finished.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from templates_app.datasets import locks
from templates_app.errors import (
    CoppiceError,
    LogInconsistent,
    SignatureMalformed,
    SignatureRejected,
    Unavailable,
)
from templates_app.trust import checkpoints, signify
from templates_app.trust.checkpoints import Checkpoint
from templates_app.trust.log import Frontier

_LARGEST = 64 * 1024  # bytes of a note


def place() -> Path:
    return Path(settings.COPPICE_STATE_DIR) / "log"


def directories() -> list[Path]:
    further: Path | None = settings.COPPICE_CHECKPOINT_DIR
    return [place() / "checkpoints", *([further] if further else [])]


@contextlib.contextmanager
def locked(*, patience: float) -> Iterator[None]:
    """One writer at a time; locks.Taken after ``patience`` seconds, Unavailable."""
    with contextlib.ExitStack() as stack:
        with _files():
            place().mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.enter_context(locks.held(place() / "lock", patience=patience))
        yield


# --- the key ------------------------------------------------------------------------------------


def secret_key() -> signify.SecretKey:
    """The log's key, made where there is none. KeyMalformed, PassphraseWrong, Unavailable.

    Its public half is put beside, by its number: what an earlier key signed goes on to verify.
    """
    given: Path | None = settings.COPPICE_LOG_KEY
    path = given or place() / "log.sec"
    with _files():
        if given is None and not path.exists():
            _write(path, signify.generate("coppice log").secret.encode(), 0o600)
    key = signify.SecretKey.load(signify.read_secret(path), file_name=path.name)
    with _files():
        for name in ("log.pub", f"{key.public_key.key_id}.pub"):
            text = key.public_key.to_bytes()
            if not (place() / name).exists() or (place() / name).read_bytes() != text:
                _write(place() / name, text, 0o644)
    return key


def public_keys() -> list[signify.PublicKey]:
    """Those of the log, the present one and earlier ones. Unavailable, KeyMalformed."""
    with _files():
        texts = [path.read_bytes() for path in sorted(place().glob("*.pub"))]
    return [signify.PublicKey.parse(text) for text in texts]


# --- checkpoints --------------------------------------------------------------------------------


def kept() -> list[tuple[Checkpoint, Path]]:
    """All checkpoints of all directories, the smallest first, each with its note's file.

    There may be two of one size with different roots: the log is that of one of them at most.
    LogInconsistent where one is not a note that a key of this log signed; Unavailable.
    """
    return _read([path for directory in directories() for path in notes(directory)])


def newest() -> tuple[Checkpoint, Path] | None:
    """The last of ``kept``, without reading the others: after some years there are many.

    LogInconsistent also where two of one size have different roots.
    """
    found = _read([path for directory in directories() for path in notes(directory)[-1:]])
    for (one, path), (other, _) in itertools.pairwise(found):
        if one.size == other.size and one.root != other.root:
            raise LogInconsistent(
                f"There are two checkpoints of {one.size} events, with different roots.",
                hint="Run manage.py verify_log on the server.",
                extra={"checkpoint": path.name},
            )
    return found[-1] if found else None


def newest_written() -> tuple[int, datetime.datetime] | None:
    """(events, when it was written) of the newest one here, as its file says. Unavailable."""
    for path in notes(directories()[0])[-1:]:
        with _files():
            written = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
        return _size(path), written
    return None


def _size(path: Path) -> int:
    return int(path.stem.removeprefix("checkpoint-"))


def covering(position: int) -> Checkpoint | None:
    """The smallest checkpoint that is kept here and has the event at ``position``.

    Always the same one, however the log grows. LogInconsistent, Unavailable.
    """
    for path in notes(directories()[0]):
        if _size(path) >= position:
            return _read([path])[0][0]
    return None


def _read(paths: list[Path]) -> list[tuple[Checkpoint, Path]]:
    keys = public_keys()
    found = [(_verified(note(path), keys, path), path) for path in paths]
    found.sort(key=lambda one: one[0].size)
    return found


def notes(directory: Path) -> list[Path]:
    """The notes there, the smallest log first."""
    with _files():
        return sorted(directory.glob("checkpoint-*.note"))


def note(path: Path) -> bytes:
    with _files(), path.open("rb") as file:
        return file.read(_LARGEST)


def _verified(note: bytes, keys: list[signify.PublicKey], path: Path) -> Checkpoint:
    why = "there is no public key of this log"
    for key in keys:
        try:
            return checkpoints.verify(note, key)
        except (SignatureMalformed, SignatureRejected) as error:
            why = error.detail
    raise LogInconsistent(
        f"{path.name} is no checkpoint of this log: {why}", extra={"checkpoint": path.name}
    )


def keep(checkpoint: Checkpoint, key: signify.SecretKey) -> None:
    """Sign it, and write its files to each directory that has not got them. Unavailable."""
    note, signature = checkpoints.sign(checkpoint, key)
    stem = f"checkpoint-{checkpoint.size:012}"
    parts = ((stem, checkpoint.text()), (f"{stem}.sig", signature), (f"{stem}.note", note))
    with _files():
        directories()[0].mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in directories():
            for name, text in () if (directory / f"{stem}.note").exists() else parts:
                _write(directory / name, text, 0o644)


# --- how far it was read -------------------------------------------------------------------------


def frontier(checkpoint: Checkpoint) -> tuple[Frontier, str] | None:
    """The tree at this checkpoint, so that only what came since has to be read; and its last leaf.

    None where what is kept does not lead to the checkpoint's root: then all has to be read.
    """
    try:
        told = json.loads((place() / "frontier.json").read_text())
        tree = Frontier(told["size"], [bytes.fromhex(one) for one in told["hashes"]])
        last = str(told["last"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # absent or damaged: a cache, checked against what is signed
    if (tree.size, tree.root()) != (checkpoint.size, checkpoint.root):
        return None
    return tree, last


def sweep() -> list[str]:
    """Remove what a writer of checkpoints that was killed left; the files' names. Unavailable."""
    gone: list[str] = []
    if not place().is_dir():
        return gone
    with contextlib.suppress(locks.Taken), locked(patience=0), _files():
        for directory in directories():
            for part in sorted(directory.glob(".*.part")):
                part.unlink(missing_ok=True)
                gone.append(part.name)
    return gone


def keep_frontier(tree: Frontier, last: str) -> None:
    told = {"size": tree.size, "hashes": [one.hex() for one in tree.hashes], "last": last}
    with _files():
        _write(place() / "frontier.json", json.dumps(told).encode(), 0o600)


def _write(path: Path, text: bytes, mode: int) -> None:
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)  # else a power failure leaves an empty file under the right name
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _files() -> Iterator[None]:
    try:
        yield
    except CoppiceError:
        raise
    except OSError as error:
        raise Unavailable(
            "The log's key and checkpoints cannot be read or written.",
            hint="Look at the directory `log` of the state directory, and COPPICE_CHECKPOINT_DIR.",
            private=str(error),
        ) from error
