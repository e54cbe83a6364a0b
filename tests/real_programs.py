"""A pytest plugin: the summary says which real programs the tests used, and nothing is skipped.

A test counts for a program if it ran it itself (an audit hook sees that), or if it used a fixture
that stands for it: servers and daemons run it in processes of their own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

#: Program as it is run -> Debian package, by which the summary calls it.
PACKAGES = {
    "zpool": "zfs-fuse",
    "zfs": "zfs-fuse",
    "buildah": "buildah",
    "skopeo": "skopeo",
    "rsync": "rsync",
    "docker-registry": "docker-registry",
    "signify-openbsd": "signify-openbsd",
    "mtree": "mtree-netbsd",
    "postgres": "postgresql",
    "chromium": "chromium",
}
#: Fixture -> programs that it brings.
FIXTURES = {
    "zpool": ("zpool",),
    "zfs_root": ("zpool",),
    "zfs_pool": ("zpool",),
    "tiny_zfs_pool": ("zpool",),
    "own_zfs_pool": ("zpool",),
    "registry": ("docker-registry",),
    "locked_registry": ("docker-registry",),
    "tls_registry": ("docker-registry",),
    "secure_registry": ("docker-registry",),
    "token_registry": ("docker-registry",),
    "cluster": ("postgres",),
    "postgres_url": ("postgres",),
    "keys": ("signify-openbsd",),
    "browser": ("chromium",),
}
_USED = "real program"

_now: set[str] = set()  # what the running test used so far


def _audit(event: str, args: tuple[object, ...]) -> None:
    if event == "subprocess.Popen":
        argv = args[1]
        first = argv[0] if isinstance(argv, (list, tuple)) and argv else argv
        name = Path(str(first)).name
        if name in PACKAGES:
            _now.add(name)


sys.addaudithook(_audit)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
    """For fixtures that a test asks for as it runs: its list of names does not have them."""
    _now.update(FIXTURES.get(fixturedef.argname, ()))
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _now.clear()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[object]:
    if call.when == "call":
        names = set(getattr(item, "fixturenames", ()))
        used = _now.union(*(FIXTURES.get(name, ()) for name in names))
        item.user_properties += [(_USED, package) for package in {PACKAGES[one] for one in used}]
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = terminalreporter.getreports("passed")
    counts = Counter(
        package
        for report in passed
        for name, package in getattr(report, "user_properties", ())
        if name == _USED and report.when == "call"
    )
    if counts:
        terminalreporter.section("real programs")
        for package, count in sorted(counts.items()):
            terminalreporter.line(f"{package} {_version(package)}: {count} test(s)")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A test that is skipped says that something is missing here: that is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped") and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _version(package: str) -> str:
    dpkg = shutil.which("dpkg-query")
    if dpkg is None:
        return "(version unknown)"
    argv = [dpkg, "--show", "--showformat=${Version}", package]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout or "(own build)"
