"""Settings from the environment: odd values stop the start with a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from coppice_site import environment
from templates_app.names import Platform

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        *[(text, "on") for text in ("1", "true", "yes", "on", "ON", "True")],
        *[(text, "off") for text in ("0", "false", "no", "off", "Off")],
        *[(text, "warn") for text in ("warn", "WARN")],
    ],
)
def test_the_gate_takes_exactly_these_words(text, mode):
    values = environment.read({"COPPICE_REQUIRE_SIGNED_TEMPLATES": text})
    assert values["COPPICE_REQUIRE_SIGNED_TEMPLATES"] == mode


@pytest.mark.parametrize("text", ["", " 1", "1 ", "enabled", "2", "y", "warning", "tru", "nо"])
def test_any_other_word_stops_the_start(text):
    with pytest.raises(ImproperlyConfigured, match="COPPICE_REQUIRE_SIGNED_TEMPLATES"):
        environment.read({"COPPICE_REQUIRE_SIGNED_TEMPLATES": text})


def test_an_unknown_variable_stops_the_start():
    with pytest.raises(ImproperlyConfigured, match="COPPICE_REQUIRE_SIGNED is not a variable"):
        environment.read({"COPPICE_REQUIRE_SIGNED": "1"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("COPPICE_POOL", "zroot/jails"),
        ("COPPICE_POOL", "zfs:"),
        ("COPPICE_POOL", "zfs:-o/x"),
        ("COPPICE_POOL", "zfs:a b"),
        ("COPPICE_POOL", "dir:relative"),
        ("COPPICE_POOL", "dir:/with@sign"),
        ("COPPICE_PLATFORM", "freebsd"),
        ("COPPICE_PLATFORM", "free bsd/amd64"),
        ("COPPICE_STATE_DIR", "relative/path"),
        ("COPPICE_DNS_NAMESERVER", "1.2.3.4\nnameserver 6.6.6.6"),
        ("COPPICE_LIMIT_ENTRIES", "-1"),
        ("COPPICE_LIMIT_ENTRIES", "1e6"),
        ("COPPICE_LIMIT_ENTRIES", "٣"),
        ("COPPICE_REGISTRIES_ALLOWED", "http://x"),
        ("COPPICE_ENGINE", "rsync"),
        ("COPPICE_NODE", "-n"),
        ("COPPICE_LOG_LEVEL", "loud"),
    ],
)
def test_an_odd_value_stops_the_start_and_names_the_variable(name, text):
    with pytest.raises(ImproperlyConfigured, match=name):
        environment.read({name: text})


def test_the_defaults_are_all_well_formed():
    values = environment.read({})
    assert values["COPPICE_DNS_NAMESERVER"] == "10.78.0.1"
    assert values["COPPICE_REQUIRE_SIGNED_TEMPLATES"] == "off"
    assert str(values["COPPICE_PLATFORM"]) == environment.host_platform()


def test_another_platform_than_the_hosts_can_be_chosen():
    chosen = environment.read({"COPPICE_PLATFORM": "freebsd/amd64"})["COPPICE_PLATFORM"]
    assert chosen == Platform("freebsd", "amd64")


def test_a_secret_is_not_quoted_in_an_error(monkeypatch, tmp_path):
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "COPPICE_STATE_DIR": str(tmp_path),
            "DATABASE_URL": "mysql://me:hunter2@localhost/x",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "DATABASE_URL" in done.stderr
    assert "hunter2" not in done.stderr.splitlines()[-1]


def test_settings_lists_every_variable_and_hides_secrets(tmp_path):
    done = subprocess.run(
        [sys.executable, "manage.py", "settings"],
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "COPPICE_STATE_DIR": str(tmp_path),
            "COPPICE_TOKEN": "hunter2",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "hunter2" not in done.stdout
    for variable in environment.VARIABLES:
        assert f"{variable.name}=" in done.stdout
