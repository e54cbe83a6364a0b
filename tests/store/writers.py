"""Eight processes that append as fast as they can, killed with SIGKILL at random and replaced.

``python -m tests.store.writers SECONDS SEED``, with DATABASE_URL. Prints how many were killed.
Forked from one process that has everything imported, so that a replacement writes at once.
"""

import itertools
import os
import random
import signal
import sys
import time
import uuid

import django

WRITERS = 8


class Undone(Exception):
    pass


def write_for_ever(seed: int) -> None:
    from django.db import transaction

    from templates_app import store
    from templates_app.errors import EventConflict
    from templates_app.events import Meta, SandboxCreated, SandboxDestroyed, SandboxRefused

    rng = random.Random(seed)
    meta = Meta(actor=f"writer {seed}", source="task", request_id=str(seed), node="n1")
    digest = "sha256:" + "a" * 64

    def refused():  # one statement on PostgreSQL: it changes no row of a read model
        return SandboxRefused(
            template=rng.choice(["web", "db"]),
            generation=1,
            code="template_unsigned",
            tree_digest=digest,
            statement_digest=digest,
            manifest_digest=None,
            checks=(),
        )

    def created(sandbox):  # a transaction: the sandbox's row is written too
        return SandboxCreated(
            sandbox=sandbox,
            template="web",
            generation=1,
            dataset=f"zroot/{sandbox}",
            origin="zroot/web@base",
            tree_digest=digest,
            statement_digest=digest,
            manifest_digest=None,
            gate="off",
            signed=False,
            key_id=None,
            failed_checks=(),
        )

    while True:
        match rng.randrange(5):
            case 0:
                store.append([refused() for _ in range(rng.randrange(1, 4))], meta=meta)
            case 1:
                sandbox = uuid.UUID(int=rng.getrandbits(128)).hex
                store.append(created(sandbox), meta=meta, expected={f"sandbox:{sandbox}": 0})
            case 2:  # two that race for the next version
                stream = "launches:web"
                try:
                    version = store.stream_version(stream)
                    event = refused()
                    store.append(
                        event, meta=meta, expected={stream: version, event.stream(): version}
                    )
                except EventConflict:
                    pass
            case 3:  # positions of what is rolled back are given out again
                try:
                    with transaction.atomic():
                        store.append([refused(), created("undone")], meta=meta)
                        raise Undone
                except Undone:
                    pass
            case 4:  # a redelivered task
                event, event_id = refused(), uuid.uuid4()
                first = store.append(event, meta=meta, event_ids=[event_id])
                again = store.append(event, meta=meta, event_ids=[event_id])
                if again != first:
                    raise AssertionError("the same id was appended twice")
                store.append(
                    SandboxDestroyed(sandbox="shared", template="web", dataset="d"), meta=meta
                )


def start(seed: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            write_for_ever(seed)
        except BaseException as error:  # noqa: BLE001 - a forked writer says it and ends
            os.write(2, f"writer {seed}: {error!r}\n".encode())
        finally:
            os._exit(1)
    return pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        sys.exit("a writer had ended by itself")


def main(seconds: float, seed: int) -> None:
    django.setup()
    rng = random.Random(seed)
    numbers = itertools.count(seed * 1000)
    writers = [start(next(numbers)) for _ in range(WRITERS)]
    killed = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(rng.uniform(0.02, 0.12))
        victim = rng.randrange(WRITERS)
        end(writers[victim])
        writers[victim] = start(next(numbers))
        killed += 1
    for pid in writers:
        end(pid)
        killed += 1
    print(killed)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
