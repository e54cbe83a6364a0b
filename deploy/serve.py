"""`make run`: serve what the demo left in var/demo, or else a fresh Coppice, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from deploy import local


def serve(queue: bool) -> None:
    more = ["--queue"] if queue else []
    kind = local.beside_a_zfs("deploy.serve", "--in", str(local.HOME), *more)
    log = f"{local.shown(local.HOME)}/log"
    with local.alone(), contextlib.ExitStack() as stack:
        here = local.reopen(kind) or local.make(kind)
        stack.enter_context(local.registry(here))
        server = stack.enter_context(local.server(here))
        print(f"Coppice serves at {here.url} (log: {log}/coppice.log)")
        print(f"  admin      {here.url}/admin/   login {here.login}, password {here.password}")
        print(f"  API        {here.url}/docs")
        print("  in another terminal:")
        print(f"    export COPPICE_URL={here.url} COPPICE_TOKEN={here.token}")
        print("    .venv/bin/coppice tpl list")
        if queue:
            stack.enter_context(local.queue_worker(here))
            print(f"  a queue worker runs beside it (log: {log}/qcluster.log)")
        print("Ctrl-C ends it.", flush=True)
        status = server.wait()
        raise local.Failed(f"the server ended (status {status}); see {log}/coppice.log")


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve Coppice from var/demo.")
    parser.add_argument("--queue", action="store_true", help="run a queue worker beside it")
    parser.add_argument("--in", type=Path, dest="directory", default=local.HOME)
    arguments = parser.parse_args()
    local.work_in(arguments.directory)
    return local.main(lambda: serve(arguments.queue))


if __name__ == "__main__":
    sys.exit(main())
