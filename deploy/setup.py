#!/usr/bin/env python3
"""Set-up: a virtual environment, the pinned requirements, the programs of deploy/packages.txt.

    python3 deploy/setup.py run     what `make demo` and `make run` need
    python3 deploy/setup.py test    that, and what `make test` needs

Nothing is believed that can be looked at: each run asks which programs are there and whether every
file that pip installed still is, and does only what is missing. So it can be run again and again,
in any order, and a half-finished run is finished by the next. Needs the standard library alone.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "coppice-setup"
LOG = ROOT / "var" / "setup.log"
POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = "#!/bin/sh\n# Made by Coppice's set-up, which removes it when it is done.\nexit 101\n"
DEVELOPMENT = "# What only its development needs"  # the line of requirements.txt that parts it
OLDEST = (3, 11)


class SetupFailed(Exception):
    """The text is for the person who typed make."""


@dataclass(frozen=True)
class Package:
    purpose: str  # "run" or "test"
    program: str
    name: str
    service: str  # "-" where it has none

    def is_there(self) -> bool:
        if "/" in self.program:
            return bool(glob.glob(self.program))  # noqa: PTH207 - an absolute pattern
        return find(self.program) is not None


def find(program: str) -> str | None:
    # A plain user's PATH often lacks the directories of the administrator's programs.
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin")


def packages(purpose: str) -> list[Package]:
    lines = (ROOT / "deploy" / "packages.txt").read_text().splitlines()
    every = [Package(*line.split()) for line in lines if line and not line.startswith("#")]
    return [one for one in every if purpose == "test" or one.purpose == "run"]


def say(text: str) -> None:
    print(f"set-up: {text}", flush=True)


def logged(argv: Sequence[str], **environment: str) -> bool:
    """Run a program with its output in the log; whether it ended well."""
    with LOG.open("a") as log:
        log.write(f"\n$ {' '.join(argv)}\n")
        log.flush()
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
        try:
            process.wait()
        finally:
            # Interrupted or not: dpkg must not be cut off in the middle of a package, nor go on
            # without the policy below. (A Ctrl-C of the terminal has reached the program too.)
            status = process.wait()
            log.write(f"(status {status})\n")
    return status == 0


def failed(what: str) -> SetupFailed:
    tail = "\n".join(LOG.read_text(errors="replace").splitlines()[-25:])
    return SetupFailed(f"{what} failed. The end of {LOG.relative_to(ROOT)}:\n{tail}")


# --- Debian packages ---------------------------------------------------------------------------


@contextlib.contextmanager
def no_service_starts() -> Iterator[None]:
    """While this holds, packages that are installed start nothing.

    Debian's own switch for that is /usr/sbin/policy-rc.d (invoke-rc.d(8)). One that is there
    already is the operator's and stays; one that a killed set-up left is ours and goes.
    """
    left_by_us = POLICY.exists() and POLICY.read_text(errors="replace") == POLICY_TEXT
    if POLICY.exists() and not left_by_us:
        yield
        return
    POLICY.write_text(POLICY_TEXT)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def apt(*words: str) -> bool:
    return logged(
        [
            "apt-get",
            "--quiet",
            "--yes",
            "-o",
            "DPkg::Lock::Timeout=120",
            "-o",
            "Acquire::Retries=3",
            *words,
        ],
        DEBIAN_FRONTEND="noninteractive",
        LC_ALL="C.UTF-8",
    )


def install(names: Sequence[str]) -> None:
    """Install packages with apt-get; three tries, for mirrors and locks have bad moments."""
    say(f"installing {len(names)} Debian package(s): {' '.join(names)}")
    with no_service_starts():
        for wait in (0, 5, 15):
            time.sleep(wait)
            if wait:
                logged(["dpkg", "--configure", "-a"])  # a try that was cut off leaves work to dpkg
            # One broken source among several makes `update` fail although ours are fine: what
            # decides is whether the packages can be installed.
            apt("update")
            # --no-remove: what is installed on this machine is not ours to take away.
            if apt("install", "--no-install-recommends", "--no-remove", "--", *names):
                return
    raise failed("apt-get install")


def keep_from_booting(services: Sequence[str]) -> None:
    """What we brought is not started at boot either; what was there before is left alone."""
    for service in services:
        done = logged(["update-rc.d", service, "disable"])
        if shutil.which("systemctl"):
            done = logged(["systemctl", "disable", "--", f"{service}.service"]) and done
        if not done:
            say(f"could not keep the service {service} from starting at boot; see {LOG.name}")


def bring_programs(purpose: str) -> list[Package]:
    """Install what is missing; returns what is missing still, for want of root or of apt."""
    missing = [one for one in packages(purpose) if not one.is_there()]
    if find("zpool") and "zfs-fuse" in [one.name for one in missing]:
        say("zfs-fuse is left out: the ZFS that is installed here would have to make way for it")
        missing = [one for one in missing if one.name != "zfs-fuse"]
    if not missing:
        return []
    names = " ".join(one.name for one in missing)
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        can = "there is no apt-get here" if os.geteuid() == 0 else "only root can install them"
        say(f"missing, and {can}: {names}")
        return missing
    install([one.name for one in missing])
    keep_from_booting([one.service for one in missing if one.service != "-"])
    still = [one.program for one in missing if not one.is_there()]
    if still:
        raise SetupFailed(f"apt-get installed {names}, and yet there is no {' '.join(still)}.")
    return []


# --- the virtual environment -------------------------------------------------------------------


def requirements(purpose: str) -> str:
    text = (ROOT / "requirements.txt").read_text()
    product, parting, _ = text.partition(DEVELOPMENT)
    if not parting:
        raise SetupFailed(f"requirements.txt lacks its line {DEVELOPMENT!r}.")
    return text if purpose == "test" else product


def fingerprint(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def ground() -> str:
    """What it stands on: its scripts hold its path, its packages are for one Python.

    Not its patch level: installing python3-venv may upgrade the interpreter that runs this.
    """
    return fingerprint(str(sys.version_info[:2]), sys.base_prefix, str(VENV))


def whats_wrong(purpose: str) -> tuple[str, str]:
    """Called in the environment's own interpreter: what to do about it, and why.

    "keep" it, "complete" it (pip has work to do), or make it "anew".
    """
    stamps = STAMP.read_text().split() if STAMP.exists() else []
    if ground() not in stamps:
        return "anew", "it is unfinished, or of another place or Python"
    for distribution in metadata.distributions():
        for file in distribution.files or ():
            if file.suffix != ".pyc" and not os.path.lexists(str(distribution.locate_file(file))):
                return "anew", f"{distribution.name} lacks {file}"
    return ("keep" if fingerprint(requirements(purpose)) in stamps else "complete"), ""


def look_at_environment(purpose: str) -> str:
    if not os.path.lexists(VENV):
        return "anew"
    check = [str(PYTHON), "-I", __file__, "--check-environment", purpose]
    try:
        done = subprocess.run(
            check, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        verdict, _, why = done.stdout.strip().partition(":")
    except OSError as error:  # no interpreter in it, or one that is gone
        verdict, why = "anew", str(error)
    if verdict not in ("keep", "complete"):
        say(f"the virtual environment is made anew: {why.strip() or 'its interpreter fails'}")
        return "anew"
    return verdict


def bring_environment(purpose: str) -> None:
    verdict = look_at_environment(purpose)
    if verdict == "keep":
        return
    if verdict == "anew":
        ensure_venv_module()
        if not logged([sys.executable, "-m", "venv", "--clear", str(VENV)]):
            raise failed("python3 -m venv")
    STAMP.unlink(missing_ok=True)
    wanted = requirements(purpose)
    listed = VENV / "coppice-requirements.txt"
    listed.write_text(wanted)
    say(f"installing the pinned requirements into {VENV.name}")
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    pip += ["install", "--quiet", "--retries", "5", "--timeout", "60", "-r", str(listed)]
    if not logged(pip) and not logged(pip):
        raise failed("pip install")
    write_launcher()
    stamps = (ground(), fingerprint(requirements("run")), fingerprint(wanted))
    STAMP.write_text("\n".join(stamps) + "\n")
    if look_at_environment(purpose) != "keep":
        raise SetupFailed("The virtual environment is not whole; remove .venv and try again.")


def ensure_venv_module() -> None:
    """Debian keeps what `python3 -m venv` needs in a package of its own."""
    probe = [sys.executable, "-c", "import ensurepip, venv"]
    if logged(probe):
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise SetupFailed("Python lacks venv or ensurepip; as root: apt-get install python3-venv")
    install(["python3-venv"])
    if not logged(probe):
        raise SetupFailed(f"python3-venv is installed, but is not for {sys.executable}.")


def write_launcher() -> None:
    """`coppice` in the environment: no build step, and right while the sources change.

    The first two lines are a shell script that starts the interpreter, and a string to Python:
    a `#!` line breaks on a path with spaces or of more than 127 bytes.
    """
    launcher = VENV / "bin" / "coppice"
    launcher.write_text(
        "#!/bin/sh\n"
        f'\'\'\'exec\' "{PYTHON}" "$0" "$@"\n'
        "' '''\n"
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from templates_app.cli.main import main\n"
        "sys.exit(main())\n"
    )
    launcher.chmod(0o755)


# --- the packages that the demo's and the tests' image is made of -------------------------------


def bring_image(purpose: str) -> None:
    """Into var/cache, so that neither demo nor tests need the network."""
    which = "userland.SMALL" if purpose == "run" else "userland.SMALL + userland.MORE"
    code = f"from deploy import userland; userland.download(({which}).split())"
    fetch = ["env", "-C", str(ROOT), str(PYTHON), "-c", code]
    if logged(fetch):
        return
    # apt's lists are missing, or name versions that the mirror has replaced since.
    if os.geteuid() != 0 or not (apt("update") and logged(fetch)):
        say("the image's Debian packages could not be fetched; the demo and many tests need them")


# --- all of it -----------------------------------------------------------------------------------


def newer_python() -> None:
    """Go on in a newer interpreter where `python3` is too old and another one is installed."""
    if sys.version_info >= OLDEST:
        return
    for minor in range(14, OLDEST[1] - 1, -1):
        if found := shutil.which(f"python3.{minor}"):
            os.execv(found, [found, *sys.argv])  # noqa: S606 - an argument list, no shell
    raise SetupFailed(f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed; this is {sys.version}.")


def set_up(purpose: str) -> None:
    began = time.monotonic()
    LOG.parent.mkdir(exist_ok=True)
    with (LOG.parent / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would install over each other
        LOG.write_text("")
        missing = bring_programs(purpose)
        bring_environment(purpose)
        bring_image(purpose)
    state = "done, save for what is missing" if missing else "everything is there"
    say(f"{state} ({time.monotonic() - began:.1f} s)")


def interrupted(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)  # so that every `finally` runs


def main() -> int:
    parser = argparse.ArgumentParser(description="Install what Coppice needs.")
    parser.add_argument("purpose", choices=("run", "test"))
    parser.add_argument("--check-environment", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.check_environment:
        print(": ".join(whats_wrong(arguments.purpose)))
        return 0
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    try:
        newer_python()
        set_up(arguments.purpose)
    except SetupFailed as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
