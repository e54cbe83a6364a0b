"""What an import left whose process died: programs that still run, a container, files on the way.

Called by start-up recovery, which knows which imports are dead. Every step can be repeated.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Set
from pathlib import Path

import psutil

from templates_app.errors import CoppiceError
from templates_app.run import IMPORT_MARK
from templates_app.sources.base import SourceContext
from templates_app.sources.buildah import container_name, remove_container
from templates_app.sources.native.cache import BlobCache
from templates_app.sources.programs import Programs

logger = logging.getLogger("coppice.leftovers")

#: Seconds that a process gets to be gone after SIGKILL; more only if it hangs in the kernel.
_DIE_SECONDS = 10
_IMPORT_ID = re.compile(r"[0-9a-f]{1,64}")


def clean(context: SourceContext, import_id: str) -> list[str]:
    """Undo what the dead import left; a sentence for each thing, also for what would not go."""
    programs = Programs(context)
    done = _end_processes(import_id)
    name = container_name(import_id)
    try:
        if remove_container(programs, name):
            done.append(f"removed the container {name}")
    except CoppiceError as error:
        logger.warning("%s: %s", name, error.private)
        done.append(f"could not remove the container {name}: {error.detail}")
    temporary = programs.temporary(import_id)
    if temporary.exists():
        shutil.rmtree(temporary)
        done.append(f"removed the temporary files of import {import_id}")
    return done


def clean_all(context: SourceContext, *, alive: Set[str]) -> list[str]:
    """Undo what every import left that is not among ``alive`` and whose lease nobody holds.

    A download that broke stays for a week: the next import of the image goes on with it.
    """
    programs = Programs(context)
    done: list[str] = []
    for import_id in sorted(_found(programs, done)):
        # Both are asked: an import may have begun after the caller read who is alive.
        if import_id not in alive and not _lease_held(context.state_dir, import_id):
            done += clean(context, import_id)
    for one in BlobCache.of(context).sweep():
        done.append(f"removed the unfinished download of {one.digest}")
    return done


def _found(programs: Programs, done: list[str]) -> set[str]:
    """Ids of the imports that have a container, a process or temporary files of this server."""
    found = {import_id for _, import_id in _marked(programs.context.state_dir)}
    if programs.temporary().exists():
        found |= {path.name for path in programs.temporary().iterdir()}
    if programs.storage.exists():
        try:
            listed = json.loads(programs.buildah("containers", "--json").stdout) or []
        except (CoppiceError, ValueError) as error:
            done.append(f"could not list the containers: {error}")
        else:
            prefix = container_name("")
            names = {one["containername"] for one in listed}
            found |= {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    return {one for one in found if _IMPORT_ID.fullmatch(one)}


def _end_processes(import_id: str) -> list[str]:
    marked = [process for process, found in _marked(None) if found == import_id]
    done = []
    for process in marked:
        try:
            name = process.name()
            process.kill()
        except psutil.NoSuchProcess:
            continue
        done.append(f"killed {name} of import {import_id}")
    _, left = psutil.wait_procs(marked, timeout=_DIE_SECONDS)
    return done + [f"process {process.pid} of import {import_id} does not end" for process in left]


def _marked(state_dir: Path | None) -> Iterator[tuple[psutil.Process, str]]:
    """Processes that an import started, with its id; with ``state_dir`` only those of that server.

    Several servers, with databases of their own, may run on one host: the mark alone says nothing
    of whose a process is. What an engine starts has its home below the state directory.
    """
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            environ = process.environ()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, OSError):
            continue
        ours = state_dir is None or environ.get("HOME", "").startswith(f"{state_dir}/")
        if (import_id := environ.get(IMPORT_MARK)) and ours:
            yield process, import_id


def _lease_held(state_dir: Path, import_id: str) -> bool:
    """Whether a living process runs the import: it holds a lock on the lease's file."""
    try:
        descriptor = os.open(state_dir / "leases" / import_id, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
