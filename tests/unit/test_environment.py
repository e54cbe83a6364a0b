"""Settings from the environment: odd values stop the start with a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from coppice_site import environment, readers
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
        ("COPPICE_REGISTRY_CA_FILE", "ca.pem"),
        *[
            ("COPPICE_REGISTRY_MIRRORS", odd)
            for odd in (
                "quay.io",
                "quay.io=",
                "=m.example",
                "a.io,b.io=m.example",
                "a.io=http://m",
                "a.io=mirror",
            )
            + ("a.io=m.example:0", "a.io=-m.example", "a.io=[::1", "a=m.example", "a.io=m..example")
        ],
        ("COPPICE_REGISTRY_MIRRORS", "quay.io=m.example;quay.io=n.example"),
        ("COPPICE_ENGINE", "rsync"),
        ("COPPICE_NODE", "-n"),
        ("COPPICE_LOG_LEVEL", "loud"),
    ],
)
def test_an_odd_value_stops_the_start_and_names_the_variable(name, text):
    with pytest.raises(ImproperlyConfigured, match=name):
        environment.read({name: text})


def test_mirrors_are_in_the_order_in_which_they_are_asked():
    text = " docker.io=m.example , 10.0.0.7:5000 ; Quay.io=m.example;"
    assert environment.read({"COPPICE_REGISTRY_MIRRORS": text})["COPPICE_REGISTRY_MIRRORS"] == (
        ("docker.io", ("m.example", "10.0.0.7:5000")),
        ("quay.io", ("m.example",)),
    )
    assert environment.read({})["COPPICE_REGISTRY_MIRRORS"] == ()


@pytest.mark.parametrize(
    ("reader", "good", "odd"),
    [
        (readers.switch, {"yes": True, "OFF": False}, ["", "2", "yes ", "on\n", "oui"]),
        (readers.whole(1, 9), {"1": 1, "9": 9, "01": 1}, ["0", "10", "-1", "1.0", "", "１"]),
        (readers.one_of("a", "b"), {"a": "a"}, ["A", "", "ab", "a "]),
        (
            readers.absolute_path,
            {"": None, "/a/../b/": Path("/b")},
            ["a", "./a", "~/a", "/a\0b"],
        ),
        (
            readers.pool,
            {"zfs:zroot/jails": "zfs:zroot/jails", "dir:/a/./b": "dir:/a/b"},
            ["", "zfs:", "zfs:/a", "zfs:a//b", "zfs:a/", "zfs:a@b", "dir:", "dir:a", "ZFS:a", "a"],
        ),
        (
            readers.hosts,
            {"": (), "A.b:5000, [::1] ,": ("a.b:5000", "[::1]")},
            ["a/b", "http://a", "a b", "*", "user@a"],
        ),
        (
            readers.nameserver,
            {"": "", "10.78.0.1": "10.78.0.1", "fe80::1": "fe80::1"},
            ["a", "one.one.one.one", "1.1.1.1 ", "1.1.1.1\n", "1"],
        ),
        (readers.node, {"jail-1.example": "jail-1.example"}, ["-a", "a b", "a" * 64, "ü"]),
        (
            readers.platform,
            {"linux/arm64/v8": Platform("linux", "arm64", "v8")},
            ["linux", "linux/", "/amd64", "Linux/amd64", "a/b/c/d"],
        ),
    ],
)
def test_each_reader_takes_what_it_says_and_nothing_else(reader, good: dict, odd: list[str]):
    assert {text: reader(text) for text in good} == good
    for text in odd:
        with pytest.raises(readers.Odd) as refused:
            reader(text)
        assert str(refused.value).startswith("must be ")


def test_every_variable_of_the_server_refuses_something_or_takes_anything():
    """A reader that was forgotten would take all; those three may."""
    takes_all = {
        variable.name
        for variable in environment.VARIABLES
        if variable.of == "server" and _takes(variable, "\x01 odd\n")
    }
    assert takes_all == {"DATABASE_URL", "DJANGO_SECRET_KEY"}


def _takes(variable: environment.Variable, text: str) -> bool:
    try:
        variable.reader(text)
    except readers.Odd:
        return False
    return True


def test_the_defaults_are_all_well_formed():
    values = environment.read({})
    assert values["COPPICE_DNS_NAMESERVER"] == "10.78.0.1"
    assert values["COPPICE_REQUIRE_SIGNED_TEMPLATES"] == "off"
    assert str(values["COPPICE_PLATFORM"]) == readers.host_platform()


def test_another_platform_than_the_hosts_can_be_chosen():
    chosen = environment.read({"COPPICE_PLATFORM": "freebsd/amd64"})["COPPICE_PLATFORM"]
    assert chosen == Platform("freebsd", "amd64")


def start(tmp_path: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The real manage.py, with these settings and no other."""
    return subprocess.run(
        [sys.executable, "manage.py", *(words or ("check",))],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "COPPICE_STATE_DIR": str(tmp_path / "state"), **env},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        (
            {"COPPICE_REQUIRE_SIGNED_TEMPLATE": "1"},
            "COPPICE_REQUIRE_SIGNED_TEMPLATE is not a variable of Coppice.",
        ),
        (
            {"COPPICE_REQUIRE_SIGNED_TEMPLATES": "enabled"},
            "COPPICE_REQUIRE_SIGNED_TEMPLATES is 'enabled', but must be one of 1, true, yes, on, 0,"
            " false, no, off, warn.",
        ),
        ({"COPPICE_POOL": "zroot/jails"}, "COPPICE_POOL is 'zroot/jails', but must be zfs:DATASET"),
        ({"COPPICE_PRODUCTION": "on"}, "DJANGO_SECRET_KEY must be set where COPPICE_PRODUCTION"),
        ({"DATABASE_URL": "mysql://a@b/c"}, "DATABASE_URL must begin with postgres:// or sqlite"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_a_sentence(tmp_path, env: dict, sentence: str):
    done = start(tmp_path, **env)
    assert done.returncode != 0
    assert sentence in done.stderr.splitlines()[-1]


def test_the_start_does_not_fall_back_from_zfs_to_directories(tmp_path):
    code = (
        "from templates_app.services.common import driver; print(driver().kind); driver().check()"
    )
    done = start(tmp_path, "shell", "--no-imports", "-c", code, COPPICE_POOL="zfs:no-such-pool/x")
    assert done.returncode != 0 and done.stdout == "zfs\n"
    assert "PoolUnavailable" in done.stderr.splitlines()[-1] or "ProgramMissing" in done.stderr
    assert not (tmp_path / "state" / "pool").exists()


def test_the_secret_key_is_made_once_and_kept_to_its_owner(tmp_path):
    show = "from django.conf import settings; print(settings.SECRET_KEY)"
    keys = {start(tmp_path, "shell", "--no-imports", "-c", show).stdout for _ in range(2)}
    (key,) = keys
    assert len(key.strip()) > 50
    assert (tmp_path / "state" / "secret-key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_production_passes_djangos_deployment_checks(tmp_path):
    done = start(
        tmp_path,
        "check",
        "--deploy",
        "--fail-level",
        "WARNING",
        COPPICE_PRODUCTION="on",
        DJANGO_SECRET_KEY="0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    )
    assert done.returncode == 0, done.stderr


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
