"""Forked commands are the ones that ``manage.py`` would start; and they end as it would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fork_server


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "COPPICE_STATE_DIR": str(tmp_path / "state"),
        "COPPICE_LIMIT_STEP_SECONDS": "77",
        "COPPICE_PRODUCTION": "on",
        "DJANGO_SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyz",
        "DATABASE_URL": f"sqlite:///{tmp_path}/own.sqlite3",
    }


def python(env: dict[str, str], code: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return fork_server.run(["shell", "--no-imports", "-c", code], env, timeout)


@pytest.mark.parametrize("argv", [["settings"], ["reimport"]])
def test_a_command_says_and_ends_with_what_it_would(env: dict[str, str], argv: list[str]):
    really = subprocess.run(
        [sys.executable, "manage.py", *argv],
        env=env,
        cwd=fork_server.ROOT,
        capture_output=True,
        text=True,
    )
    forked = fork_server.run(argv, env, 60)
    assert (forked.returncode, forked.stdout) == (really.returncode, really.stdout)
    assert forked.stderr.splitlines()[-1:] == really.stderr.splitlines()[-1:]


def test_settings_are_those_of_its_own_environment(env: dict[str, str], tmp_path: Path):
    code = (
        "from django.conf import settings; from django.db import connection;"
        "from django_q.brokers.orm import Conf;"
        "print(settings.SECRET_KEY, settings.SESSION_COOKIE_SECURE, Conf.TIMEOUT, Conf.SECRET_KEY,"
        " connection.settings_dict['NAME'])"
    )
    said = python(env, code).stdout.split()
    key = env["DJANGO_SECRET_KEY"]
    assert said == [key, "True", "308", key, f"{tmp_path}/own.sqlite3"]
    env["COPPICE_LIMIT_STEP_SECONDS"] = "78"
    assert python(env, code).stdout.split()[2] == "312"


def test_it_is_told_how_a_process_ended(env: dict[str, str]):
    assert python(env, "raise SystemExit(7)").returncode == 7
    killed = python(env, "import os; print('so far', flush=True); os.kill(os.getpid(), 9)")
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "so far\n")
    assert "ZeroDivisionError" in python(env, "1 / 0").stderr


def test_a_process_that_takes_too_long_is_ended(env: dict[str, str], tmp_path: Path):
    file = str(tmp_path / "pid")
    code = f"import os, time; open({file!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(subprocess.TimeoutExpired):
        python(env, code, timeout=2)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
