"""What the plain recipe (buildah pull, mount, rsync, plant, snapshot) gets wrong, and we do not.

Each trap on the real programs, with a test of its own:

 1. an unanchored exclude     test_only_the_images_own_dev_and_proc_are_left_empty
 2. split hard links          test_hard_links_stay_one_file_and_attributes_stay
 3. a planted symlink         test_nothing_is_written_outside_through_the_images_symlinks
 4. a transport in the name   test_no_reference_reaches_another_transport_than_a_registry
 5. a stale cache             test_a_forced_import_takes_what_the_tag_means_now
 6. destroy first             test_a_forced_import_never_costs_the_old_generation
 7. three digests             test_index_manifest_and_config_are_what_the_programs_call_them
 8. foreign programs          test_foreign_programs_are_known_without_being_run
 9. silent changes            test_what_was_changed_is_said_and_nothing_else_was
10. signing a name            test_a_signature_is_for_bytes_and_for_the_snapshot_that_has_them
11. an operand as an option   test_no_word_of_a_caller_can_become_an_option

More of the same: tests/e2e/test_fidelity.py (1, 2, 9), tests/unit/test_plant.py (3),
tests/unit/test_names.py (4, 11), tests/contract/test_sources.py (5, 7), tests/e2e/test_crash.py
(6), tests/unit/test_verdict.py (8), tests/e2e/test_the_way_of_a_template.py (10).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy import images
from templates_app import sources
from templates_app.datasets.base import DatasetDriver
from templates_app.errors import (
    MalformedReference,
    PlatformIncompatible,
    PullFailed,
    TemplateInUse,
    TreeRefused,
)
from tests import oracle
from tests.imports import a_context, cloned, imported, relative
from tests.pools import sh, stubbornly
from tests.registries import FaultProxy, Registry
from tests.servers import Installation, Keys, MakeServer
from tests.trees import ACL, CAP_NET_RAW


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def argvs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets the words of every buildah and rsync, one JSON array a line.

    The real programs run all the same: a script in front of each writes its words down.
    """
    log, place = tmp_path / "argvs", tmp_path / "bin"
    log.touch()
    place.mkdir()
    for name in ("buildah", "rsync"):
        script = place / name
        script.write_text(
            "#!/usr/bin/python3 -I\n"
            "import json, os, sys\n"
            f"with open({str(log)!r}, 'a') as log:\n"
            f"    log.write(json.dumps([{name!r}, *sys.argv[1:]]) + '\\n')\n"
            f"os.execv({shutil.which(name)!r}, [{name!r}, *sys.argv[1:]])\n"
        )
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return log


def words(argvs: Path, program: str = "") -> list[list[str]]:
    found = [json.loads(line) for line in argvs.read_text().splitlines()]
    return [one for one in found if program in ("", one[0])]


def an_image(text: str) -> images.Document:
    return images.image([images.layer([images.directory("etc"), images.file("etc/motd", text)])])


# --- 1 -------------------------------------------------------------------------------------------


def test_only_the_images_own_dev_and_proc_are_left_empty(
    pool: DatasetDriver, registry: Registry, state: Path
):
    kept = ["usr/include/dev/ad.h", "srv/node_modules/x/dev/index.js", "srv/proc/1", "developer/x"]
    entries = [images.file(path, path) for path in kept]
    entries += [
        images.directory("dev", 0o711, gid=5),
        images.directory("dev/shm", 0o1777),
        images.device("dev/null", 1, 3),
        images.directory("proc", 0o555),
        images.file("proc/cpuinfo", "of the machine that built it"),
    ]
    registry.push("traps/exclude", "1", images.image([images.layer(entries)]))
    made = imported(pool, "traps/exclude:1", registry, state)
    assert made.receipt.left_out == ("/dev/*", "/proc/*")
    with cloned(pool, made) as view:
        there = oracle.found(view)
    assert all(f"/{path}" in there for path in kept)
    assert [path for path in there if path.startswith(("/dev/", "/proc/"))] == []
    assert (there["/dev"].mode, there["/dev"].owner) == ("drwx--x--x", (0, 5))
    assert there["/proc"].mode == "dr-xr-xr-x"


# --- 2 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["native", "buildah"])
def test_hard_links_stay_one_file_and_attributes_stay(
    pool: DatasetDriver, registry: Registry, state: Path, engine: str
):
    """One file of 1 MB with five names is 1 MB, not five."""
    xattrs = {
        "user.note": b"\0\xff",
        "security.capability": CAP_NET_RAW,
        "system.posix_acl_access": ACL,
    }
    entries = [images.file("one", os.urandom(1_000_000), 0o644, xattrs=xattrs)]
    entries += [images.hardlink(f"name-{n}", "one", mode=0o644, xattrs=xattrs) for n in range(4)]
    registry.push("traps/links", "1", images.image([images.layer(entries)]))
    made = imported(pool, "traps/links:1", registry, state, engine=engine)
    if engine == "native":  # ACLs are the file system's, not the image's (L15)
        del xattrs["system.posix_acl_access"]
    assert 1_000_000 <= made.snapshot.size_bytes < 2_000_000
    clone = pool.clone(relative(pool, made), "sandbox-1").path
    for path in (clone / "one", clone / "name-3"):
        assert path.stat().st_nlink == 5
        assert path.stat().st_ino == (clone / "one").stat().st_ino
        assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == xattrs


# --- 3 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["etc", "etc/resolv.conf", "a hard link"])
def test_nothing_is_written_outside_through_the_images_symlinks(
    pool: DatasetDriver, registry: Registry, state: Path, tmp_path: Path, way: str
):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "resolv.conf").write_text("the host's")
    entries = {
        "etc": [images.symlink("etc", str(outside))],
        "etc/resolv.conf": [
            images.directory("etc"),
            images.symlink("etc/resolv.conf", str(outside / "resolv.conf")),
        ],
        "a hard link": [
            images.directory("etc"),
            images.symlink("innocent", str(outside / "resolv.conf")),
            images.hardlink("etc/resolv.conf", "innocent"),
        ],
    }[way]
    registry.push("traps/etc", "1", images.image([images.layer(entries)]))
    if way == "etc":
        with pytest.raises(TreeRefused):
            imported(pool, "traps/etc:1", registry, state)
        assert pool.find_all() == []
    else:
        made = imported(pool, "traps/etc:1", registry, state)
        with pool.reading(relative(pool, made)) as view:
            assert (view / "etc/resolv.conf").read_text().endswith("nameserver 10.78.0.1\n")
            assert not (view / "etc/resolv.conf").is_symlink()
    assert [path.name for path in outside.iterdir()] == ["resolv.conf"]
    assert (outside / "resolv.conf").read_text() == "the host's"


# --- 4 -------------------------------------------------------------------------------------------


def test_no_reference_reaches_another_transport_than_a_registry(
    dir_pool: DatasetDriver, registry: Registry, state: Path, argvs: Path, tmp_path: Path
):
    """buildah would take each of these as a path of the host, or an image of its own storage."""
    registry.push("traps/transport", "1", an_image("secret"))
    source = f"docker://{registry.host}/traps/transport:1"
    for kind in ("oci", "dir", "docker-archive", "oci-archive"):
        target = f"{kind}:{tmp_path}/{kind}"
        sh("skopeo", "copy", "--quiet", "--src-tls-verify=false", source, target)
    argvs.write_text("")
    context = a_context(registry, state)
    spellings = [
        f"{before}{kind}:{tmp_path}/{kind}"
        for kind in ("oci", "dir", "docker-archive", "oci-archive")
        for before in ("", "oci:", "docker://", "docker:")
    ]
    spellings += ["tarball:/etc/passwd", "containers-storage:x", "docker-daemon:x:1", source]
    spellings += [f"localhost:{tmp_path}/oci", f"localhost/../..{tmp_path}/oci"]
    for spelling in spellings:
        with pytest.raises(MalformedReference):
            sources.parse(f"oci:{spelling}", context)
    assert words(argvs) == []

    imported(dir_pool, "traps/transport:1", registry, state, engine="buildah")
    operands = [one[-1] for one in words(argvs) if {"pull", "from"} & set(one[:6])]
    assert len(operands) == 2
    assert all(one.startswith(f"docker://{registry.host}/traps/transport") for one in operands)


# --- 5 -------------------------------------------------------------------------------------------


def test_a_forced_import_takes_what_the_tag_means_now(
    pool: DatasetDriver, registry: Registry, state: Path, argvs: Path
):
    first, second = an_image("first"), an_image("second")
    registry.push("traps/moved", "1", first)
    one = imported(pool, "traps/moved:1", registry, state, engine="buildah")
    registry.push("traps/moved", "1", second)
    two = imported(pool, "traps/moved:1", registry, state, generation=2, engine="buildah")
    for made, text in ((one, "first"), (two, "second")):
        with pool.reading(relative(pool, made)) as view:
            assert (view / "etc/motd").read_text() == text
    assert (one.resolved.digests.manifest, two.resolved.digests.manifest) == (
        (first.digest, second.digest)
    )
    pulls = [words_ for words_ in words(argvs, "buildah") if "pull" in words_]
    assert [words_[-1].rpartition("@")[2] for words_ in pulls] == [first.digest, second.digest]
    assert all(words_[words_.index("--policy") + 1] == "always" for words_ in pulls)


# --- 6 -------------------------------------------------------------------------------------------


def test_a_forced_import_never_costs_the_old_generation(
    pool: DatasetDriver, registry: Registry, faults: FaultProxy, state: Path
):
    """Not while clones live, and not when the pull then fails."""
    registry.push("traps/force", "1", an_image("first"))
    one = relative(pool, imported(pool, "traps/force:1", faults, state))
    snapshot = pool.snapshot(one)
    pool.point("web-template", one)
    clone = pool.clone(one, "sandbox-1").path

    second = an_image("second")
    registry.push("traps/force", "1", second)
    faults.on(second.parsed()["layers"][0]["digest"], flip=30)
    with pytest.raises(PullFailed):
        imported(pool, "traps/force:1", faults, state, generation=2)
    assert pool.snapshot(one) == snapshot
    assert (clone / "etc/motd").read_text() == "first"
    assert [found.relative for found in pool.find_all()] == [
        one,
        "sandbox-1",
        "web-template",
    ]

    faults.faults.clear()
    two = relative(pool, imported(pool, "traps/force:1", faults, state, generation=2))
    pool.point("web-template", two)
    assert (clone / "etc/motd").read_text() == "first"
    if pool.kind == "zfs":  # a directory's clone is a copy: nothing depends on what it is of
        with pytest.raises(TemplateInUse):
            pool.destroy(one)
    pool.destroy("sandbox-1")
    pool.destroy(one)
    assert (pool.clone(two, "sandbox-2").path / "etc/motd").read_text() == "second"


# --- 7 -------------------------------------------------------------------------------------------


def test_index_manifest_and_config_are_what_the_programs_call_them(
    dir_pool: DatasetDriver, registry: Registry, state: Path, tmp_path: Path
):
    image = an_image("digests")
    index = images.index([images.image([], platform="freebsd/amd64"), image])
    registry.push("traps/digests", "1", index)
    digests = imported(dir_pool, "traps/digests:1", registry, state).resolved.digests

    reference = f"docker://{registry.host}/traps/digests:1"
    plain = ["skopeo", "inspect", "--tls-verify=false", "--override-arch=amd64"]
    said = json.loads(sh(*plain, "--override-os=linux", reference))
    assert said["Digest"] == digests.index == index.digest
    place = tmp_path / "plain"
    buildah = ["buildah", "--root", place / "storage", "--runroot", place / "run"]
    pulled = sh(*buildah, "pull", "--quiet", "--tls-verify=false", "--arch=amd64", reference)
    assert f"sha256:{pulled.strip()}" == digests.config
    container = sh(*buildah, "from", "--quiet", "--arch=amd64", pulled.strip()).strip()
    made = json.loads(sh(*buildah, "inspect", "--type", "container", container))
    assert made["FromImageDigest"] == digests.manifest == image.digest
    sh(*buildah, "rm", container)


# --- 8 -------------------------------------------------------------------------------------------


def test_foreign_programs_are_known_without_being_run(
    pool: DatasetDriver, registry: Registry, state: Path, tmp_path: Path
):
    """This machine's own programs in an image that says freebsd."""
    trace = tmp_path / "trace"
    entries = [
        images.directory("bin"),
        images.file("bin/true", Path("/bin/true").read_bytes(), 0o755),
        images.file("bin/sh", f"#!/bin/sh\necho ran >{trace}\n", 0o755),
    ]
    registry.push("traps/abi", "1", images.image([images.layer(entries)], platform="freebsd/amd64"))
    for_freebsd = {"platform": "freebsd/amd64", "registry": registry, "state": state}
    made = imported(pool, "traps/abi:1", **for_freebsd)
    assert made.verdict.result == "foreign"
    assert made.verdict.config_platform == "freebsd/amd64"
    assert made.verdict.abis == ("linux/amd64",)
    assert "Programs will fail at exec" in made.findings[-1]
    with pytest.raises(PlatformIncompatible):
        imported(pool, "traps/abi:1", **for_freebsd, generation=2, refuse_foreign=True)
    assert not trace.exists()
    assert [one.relative for one in pool.find_all()] == [relative(pool, made)]


# --- 9 -------------------------------------------------------------------------------------------


def test_what_was_changed_is_said_and_nothing_else_was(
    pool: DatasetDriver, registry: Registry, state: Path, tmp_path: Path
):
    entries = [
        images.directory("etc"),
        images.file("etc/resolv.conf", "nameserver 9.9.9.9\n", 0o600, uid=9),
        images.file("etc/motd", "hello"),
    ]
    registry.push("traps/deviations", "1", images.image([images.layer(entries)]))
    made = imported(pool, "traps/deviations:1", registry, state)
    (deviation,) = made.deviations
    assert deviation.path == "/etc/resolv.conf"
    assert deviation.reason == "names the resolver that clones use; replaces a file of the image"
    with cloned(pool, made) as view:
        content = (view / "etc/resolv.conf").read_bytes()
        there = oracle.found(view)
    assert hashlib.sha256(content).hexdigest() == deviation.sha256
    statement = json.loads(made.statement)
    assert deviation.sha256 in json.dumps(statement)
    wanted = oracle.expected(f"{registry.host}/traps/deviations:1", tmp_path)
    changed = [path for path in wanted.keys() | there.keys() if wanted.get(path) != there.get(path)]
    assert changed == ["/etc/resolv.conf"]

    plain = imported(pool, "traps/deviations:1", registry, state, generation=2, nameserver="")
    assert plain.deviations == ()
    assert plain.tree_digest != made.tree_digest
    with cloned(pool, plain) as view:
        assert oracle.differences(wanted, oracle.found(view)) == []


# --- 10 ------------------------------------------------------------------------------------------


def test_a_signature_is_for_bytes_and_for_the_snapshot_that_has_them(
    zfs_root: str,
    tmp_path: Path,
    registry: Registry,
    sqlite_url: str,
    keys: Keys,
    serve: MakeServer,
):
    """Verify A, run B: after other bytes under the name, and after a snapshot made anew."""
    installation = Installation(
        tmp_path / "state",
        pool=f"zfs:{zfs_root}",
        database_url=sqlite_url,
        COPPICE_REQUIRE_SIGNED_TEMPLATES="1",
        COPPICE_REGISTRIES_INSECURE=registry.host,
        COPPICE_PLATFORM="linux/amd64",
    )
    server = serve(installation)
    operator, signer, gateway = (server.api(role) for role in ("operator", "signer", "gateway"))
    secret = keys.trust("release", installation)
    body = {"name": "web", "from": f"oci:{registry.host}/traps/signed:1", "force": True}

    def made(text: str) -> dict[str, object]:
        registry.push("traps/signed", "1", an_image(text))
        answer = operator.post("/templates", json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def launched() -> tuple[int, str]:
        answer = gateway.post("/sandboxes", json={"template": "web"})
        return answer.status_code, answer.json().get("code", "")

    def sign() -> None:
        signature = keys.sign(secret, operator.get("/templates/web/statement").content)
        answer = signer.post("/templates/web/signatures", json={"signature": signature})
        assert answer.status_code == 201, answer.text

    made("A")
    sign()
    assert launched() == (201, "")
    b = made("B")
    assert launched() == (403, "template_unsigned")
    sign()
    assert launched() == (201, "")

    # Somebody with root on the host puts other bytes under the signed snapshot's name.
    for sandbox in operator.get("/sandboxes").json():
        assert gateway.delete(f"/sandboxes/{sandbox['id']}").status_code == 204
    origin = str(b["origin"])
    dataset = origin.removesuffix("@base")
    stubbornly("zfs", "destroy", "-R", origin)
    sh("zfs", "set", "canmount=on", dataset)
    sh("zfs", "mount", dataset)
    place = Path(sh("zfs", "get", "-H", "-o", "value", "mountpoint", dataset).strip())
    (place / "etc/motd").write_text("evil")
    stubbornly("zfs", "unmount", dataset)
    sh("zfs", "snapshot", origin)
    listed = ("zfs", "list", "-H", "-r", "-o", "name", origin.partition("/")[0])
    before = sh(*listed)
    assert launched() == (403, "statement_stale")
    assert sh(*listed) == before  # the clone that told it is gone again


# --- 11 ------------------------------------------------------------------------------------------


def test_no_word_of_a_caller_can_become_an_option(
    dir_pool: DatasetDriver, registry: Registry, state: Path, argvs: Path
):
    context = a_context(registry, state)
    for odd in ("--root=/", "-", "--help", "--authfile=/etc/shadow", "-q/x", "--tls-verify=false"):
        with pytest.raises(MalformedReference, match="like an option"):
            sources.parse(f"oci:{odd}", context)
    assert words(argvs) == []

    registry.push("traps/option", "1", an_image("option"))
    imported(dir_pool, "traps/option:1", registry, state)
    for argv in words(argvs):
        # What comes from outside stands behind `--`, where nothing is an option.
        assert "--" in argv, argv
        before = argv[: argv.index("--")]
        assert not any(registry.host in word for word in before if not word.startswith("/")), argv
    # And the program keeps to it: the same word there is a name that it does not find.
    done = subprocess.run(["buildah", "pull", "--", "--help"], capture_output=True, text=True)
    assert done.returncode != 0 and "Usage" not in done.stdout, done.stdout
