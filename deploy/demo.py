"""`make demo`: the main job on real input, from an image in a registry to a launch and its history.

Each run makes everything anew in var/demo (deploy/local.py; another directory with ``--in``); the
image's packages are kept in var/cache. The commands are shown as one would type them, each with
what it prints.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import subprocess
import sys
import time
from pathlib import Path

from deploy import images, local, userland
from templates_app.errors import Exit

TEMPLATE = "debian12-min"
REPOSITORY, TAG = "debian12-minimal", "latest"


def heading(text: str) -> None:
    print(f"\n== {text}", flush=True)


def coppice(here: local.Local, *words: str, status: int = 0, **more: str) -> None:
    """Run `coppice` as its user would; Failed unless it exits with ``status``."""
    shown = [f"{name}={local.shown(Path(value))}" for name, value in more.items()]
    print(f"$ {' '.join([*shown, 'coppice', *map(shlex.quote, words)])}", flush=True)
    done = subprocess.run(
        [str(local.COPPICE), *words],
        stdin=subprocess.DEVNULL,
        env=here.client_environment(**more),
        check=False,
    )
    if done.returncode != status:
        raise local.Failed(
            f"coppice {' '.join(words)} ended with status {done.returncode}, not {status};"
            f" the server's log is {local.shown(local.HOME)}/log/coppice.log."
        )


def push_image(here: local.Local) -> None:
    try:
        image = userland.small()
    except userland.DownloadFailed as failure:
        raise local.Failed(str(failure)) from None
    digest = images.push(here.registry, REPOSITORY, TAG, image)
    size = sum(map(len, image.blobs)) / 2**20
    print(f"{here.registry}/{REPOSITORY}:{TAG}, {size:.1f}M compressed, {digest}")


def demo() -> None:
    kind = local.beside_a_zfs("deploy.demo", "--in", str(local.HOME))
    began = time.monotonic()
    with local.alone(), contextlib.ExitStack() as stack:
        here = local.make(kind)
        stack.enter_context(local.registry(here))
        heading("A registry with a real image, assembled from Debian's packages")
        push_image(here)

        heading(f"Coppice at {here.url}, pool {here.pool}; what is not signed is not launched")
        stack.enter_context(local.server(here))
        coppice(here, "tpl", "import-oci", TEMPLATE, f"oci:{here.registry}/{REPOSITORY}:{TAG}")

        heading("Nobody has signed it: the gate refuses")
        coppice(here, "sandbox", "create", "--template", TEMPLATE, status=Exit.REFUSED)
        print(f"(exit status {int(Exit.REFUSED)}: refused by the gate)")

        heading("Signed with signify(1)'s key on the operator's side, it is launched")
        coppice(here, "tpl", "sign", TEMPLATE, COPPICE_SIGN_PRIVKEY=str(here.secret_key))
        coppice(here, "sandbox", "create", "--template", TEMPLATE)

        heading("All of it is in the log")
        coppice(here, "tpl", "history", TEMPLATE)
        coppice(here, "tpl", "list")

        heading(f"Done in {time.monotonic() - began:.0f} s; `make run` serves it again")
        print(f"admin     {here.url}/admin/")
        print(f"login     {here.login}")
        print(f"password  {here.password}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Show Coppice's main job on real input.")
    parser.add_argument("--in", type=Path, dest="directory", default=local.HOME)
    local.work_in(parser.parse_args().directory)
    return local.main(demo)


if __name__ == "__main__":
    sys.exit(main())
