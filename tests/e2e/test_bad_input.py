"""Bad input: each kind a code of its own, an event where an import was asked, and nothing left."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from deploy import images
from templates_app.datasets.base import DatasetDriver
from tests.e2e.test_crash import containers, mounts_below
from tests.e2e.test_the_way_of_a_template import datasets
from tests.registries import FaultProxy, Registry
from tests.servers import Installation, MakeServer, Server


def tree(**more: object) -> images.Document:
    entries = [images.directory("etc/"), images.file("etc/motd", os.urandom(64).hex())]
    return images.image([images.layer(entries)], **more)


@pytest.fixture
def server(
    tmp_path: Path,
    registry: Registry,
    faults: FaultProxy,
    locked_registry: Registry,
    tls_registry: Registry,
    sqlite_url: str,
    serve: MakeServer,
) -> Server:
    return serve(
        Installation(
            tmp_path / "state",
            pool=f"dir:{tmp_path / 'pool'}",
            database_url=sqlite_url,
            COPPICE_REGISTRIES_INSECURE=f"{registry.host},{faults.host},{locked_registry.host}",
            COPPICE_REGISTRIES_ALLOWED=f"{tls_registry.host},localhost:1",
            COPPICE_PLATFORM="linux/amd64",
            COPPICE_LIMIT_STEP_SECONDS="20",
        )
    )


def nothing_is_left(server: Server) -> None:
    assert datasets(server.installation) == []
    if (server.installation.state / "containers").exists():
        assert containers(server.installation) == []
    assert mounts_below(server.installation.state) == []
    assert server.api("auditor").get("/templates").json() == []
    leases = "from templates_app.models import Lease; print(Lease.objects.count())"
    assert server.installation.manage("shell", "--no-imports", "-c", leases).stdout.strip() == "0"


def failed(server: Server) -> list[tuple[str, str | None]]:
    return [
        (event["data"]["code"], event["data"]["reason"])
        for event in server.installation.events()
        if event["type"] == "import-failed"
    ]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "Web", "from": "oci:quay.io/x/y"}, 400, "malformed_name"),
        ({"name": "a" * 64 + "b", "from": "oci:quay.io/x/y"}, 400, "malformed_request"),
        ({"name": "a" * 64, "from": "oci:quay.io/x/y"}, 400, "malformed_name"),
        ({"name": "-x", "from": "oci:quay.io/x/y"}, 400, "malformed_name"),
        ({"name": "../x", "from": "oci:quay.io/x/y"}, 400, "malformed_name"),
        ({"name": "web", "from": "quay.io/x/y"}, 400, "malformed_reference"),
        ({"name": "web", "from": "oci:freebsd"}, 400, "malformed_reference"),
        ({"name": "web", "from": "oci:dir:/etc"}, 400, "malformed_reference"),
        ({"name": "web", "from": "oci:docker://quay.io/x/y"}, 400, "malformed_reference"),
        ({"name": "web", "from": "oci:tarball:/x"}, 400, "malformed_reference"),
        ({"name": "web", "from": "oci:containers-storage:x"}, 400, "malformed_reference"),
        ({"name": "web", "from": "oci:oci:/var/lib"}, 400, "malformed_reference"),
        ({"name": "web", "from": "oci:--root=/x"}, 400, "malformed_reference"),
        (
            {"name": "web", "from": "oci:quay.io/x/y:1 --tls-verify=false"},
            400,
            "malformed_reference",
        ),
        ({"name": "web", "from": "oci:" + "a" * 64}, 400, "malformed_reference"),
        ({"name": "web", "from": "ftp:quay.io/x"}, 400, "malformed_reference"),
        ({"name": "web", "from": "dockerfile:."}, 501, "scheme_not_implemented"),
        ({"name": "web", "from": "git:https://x/y"}, 501, "scheme_not_implemented"),
        ({"name": "web", "from": "zfs-send:/x"}, 501, "scheme_not_implemented"),
        ({"name": "web"}, 400, "malformed_request"),
        ({"name": "web", "from": "oci:quay.io/x/y", "forced": True}, 400, "malformed_request"),
        ({"name": "web", "from": "oci:quay.io/x/y", "force": "yes"}, 400, "malformed_request"),
        ({"name": 7, "from": "oci:quay.io/x/y"}, 400, "malformed_request"),
        ([], 400, "malformed_request"),
        ("x", 400, "malformed_request"),
        (None, 400, "malformed_request"),
        ({"name": "web", "from": "oci:127.0.0.1:9/x/y"}, 403, "registry_not_allowed"),
        ({"name": "web", "from": "oci:169.254.169.254:80/x/y"}, 403, "registry_not_allowed"),
    ],
)
def test_malformed_requests(shared_server: Server, body: object, status: int, code: str):
    answer = shared_server.api("operator").post("/templates", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.json()["requestId"] == answer.headers["X-Request-Id"]


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory):
    """For requests that change nothing, one server is enough."""
    place = tmp_path_factory.mktemp("shared")
    server = Server(Installation(place / "state", pool=f"dir:{place / 'pool'}"))
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize(
    "content",
    [b"{", b"", b'{"name": "a", "name": "b"}', b"\xff\xfe", b"[" * 100_000, b"NaN"],
    ids=["cut off", "empty", "a key twice", "not UTF-8", "deep", "NaN"],
)
def test_bodies_that_are_not_json(shared_server: Server, content: bytes):
    answer = shared_server.api("operator").post(
        "/templates", content=content, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")


def test_a_large_body_is_not_read_to_its_end(shared_server: Server):
    answer = shared_server.api("operator").post(
        "/templates", content=b" " * 5_000_000, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")


def test_tokens(shared_server: Server):
    body = {"name": "web", "from": "oci:quay.io/x/y"}
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic eDp5"}):
        answer = shared_server.api(None).post("/templates", json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
        assert "Bearer" in answer.headers["WWW-Authenticate"]
    for role in ("auditor", "signer", "gateway"):
        answer = shared_server.api(role).post("/templates", json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    assert (
        shared_server.api("operator").post("/sandboxes", json={"template": "web"}).json()["code"]
        == "permission_denied"
    )
    assert shared_server.api("gateway").get("/nowhere").json()["code"] == "not_found"
    assert shared_server.api("gateway").put("/templates").json()["code"] == "method_not_allowed"


def test_what_a_registry_can_answer(
    server: Server,
    registry: Registry,
    faults: FaultProxy,
    locked_registry: Registry,
    tls_registry: Registry,
):
    registry.push("bad/x", "1", tree())
    locked_registry.push("bad/x", "1", tree())
    api = server.api("operator")

    def pulled(host: str, rest: str = "bad/x:1") -> tuple[int, str, str | None]:
        answer = api.post("/templates", json={"name": "web", "from": f"oci:{host}/{rest}"})
        problem = answer.json()
        assert "Traceback" not in answer.text and "/state/" not in answer.text
        return answer.status_code, problem["code"], problem.get("reason")

    assert pulled(registry.host, "bad/nothing:1") == (502, "pull_failed", "not_found")
    assert pulled(registry.host, "bad/x:nothing") == (502, "pull_failed", "not_found")
    assert pulled("localhost:1") == (502, "pull_failed", "unreachable")
    assert pulled(locked_registry.host) == (502, "pull_failed", "unauthorized")
    assert pulled(tls_registry.host) == (502, "pull_failed", "tls")
    faults.on("manifests", status=403)
    assert pulled(faults.host) == (502, "pull_failed", "denied")
    faults.faults.clear()
    faults.on("manifests", status=429, headers={"Retry-After": "1"})
    assert pulled(faults.host) == (502, "pull_failed", "rate_limited")
    faults.faults.clear()
    layer = registry_layer(registry)
    faults.on(layer, flip=20)
    assert pulled(faults.host) == (502, "pull_failed", "corrupt")
    reasons = [reason for _, reason in failed(server)]
    assert reasons == [
        "not_found",
        "not_found",
        "unreachable",
        "unauthorized",
        "tls",
        "denied",
        "rate_limited",
        "corrupt",
    ]
    nothing_is_left(server)


def registry_layer(registry: Registry) -> str:
    """The digest of the one layer of bad/x, as its blob's address has it."""
    import httpx

    accept = {"Accept": images.OCI_MANIFEST}
    manifest = httpx.get(f"http://{registry.host}/v2/bad/x/manifests/1", headers=accept).json()
    return str(manifest["layers"][0]["digest"])


def artifact() -> images.Document:
    """A manifest that is no image: what Helm charts, SBOMs and the like are stored as."""
    nothing = b"{}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "artifactType": "application/vnd.example.sbom",
        "config": images.describe(nothing, "application/vnd.oci.empty.v1+json"),
        "layers": [images.describe(nothing, "application/vnd.oci.empty.v1+json")],
    }
    return images.Document(images.canonical(manifest), images.OCI_MANIFEST, blobs=(nothing,))


def test_images_that_do_not_fit(server: Server, registry: Registry):
    freebsd = tree(platform="freebsd/amd64")
    registry.push("bad/freebsd", "1", images.index([freebsd]))
    registry.push("bad/artifact", "1", artifact())
    api = server.api("operator")
    other = api.post(
        "/templates", json={"name": "web", "from": f"oci:{registry.host}/bad/freebsd:1"}
    )
    assert (other.status_code, other.json()["code"]) == (422, "platform_incompatible")
    answer = api.post(
        "/templates", json={"name": "web", "from": f"oci:{registry.host}/bad/artifact:1"}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "not_an_image"), answer.text
    # An image that wants to write outside: etc leads to the host.
    sentinel = server.installation.state / "sentinel"
    sentinel.mkdir()
    registry.push(
        "bad/etc",
        "1",
        images.image(
            [
                images.layer(
                    [
                        images.symlink("etc", str(sentinel)),
                    ]
                )
            ]
        ),
    )
    hostile = api.post("/templates", json={"name": "web", "from": f"oci:{registry.host}/bad/etc:1"})
    assert (hostile.status_code, hostile.json()["code"]) == (422, "tree_refused")
    assert list(sentinel.iterdir()) == []
    assert [code for code, _ in failed(server)] == [
        "platform_incompatible",
        "not_an_image",
        "tree_refused",
    ]
    nothing_is_left(server)


def test_a_full_pool(
    tmp_path: Path,
    registry: Registry,
    sqlite_url: str,
    tiny_zfs_pool: DatasetDriver,
    serve: MakeServer,
):
    """The pool has 64 MB, the image 100 MB of what cannot be compressed."""
    entries = [images.directory("data/")]
    entries += [images.file(f"data/{n}", os.urandom(1_000_000)) for n in range(100)]
    registry.push("bad/large", "1", images.image([images.layer(entries, level=0)]))
    server = serve(
        Installation(
            tmp_path / "state",
            pool=tiny_zfs_pool.pool,
            database_url=sqlite_url,
            COPPICE_REGISTRIES_INSECURE=registry.host,
            COPPICE_PLATFORM="linux/amd64",
        )
    )
    answer = server.api("operator").post(
        "/templates", json={"name": "web", "from": f"oci:{registry.host}/bad/large:1"}
    )
    assert (answer.status_code, answer.json()["code"]) == (507, "out_of_space"), answer.text
    assert failed(server) == [("out_of_space", None)]
    nothing_is_left(server)


@pytest.mark.parametrize("program", ["buildah", "rsync"])
def test_a_missing_program(server: Server, registry: Registry, tmp_path: Path, program: str):
    registry.push("bad/x", "1", tree())
    server.stop()
    server.installation.env["PATH"] = path_without(program, tmp_path)
    server.installation.env["COPPICE_ENGINE"] = "buildah"
    server.start()
    answer = server.api("operator").post(
        "/templates", json={"name": "web", "from": f"oci:{registry.host}/bad/x:1"}
    )
    assert (answer.status_code, answer.json()["code"]) == (503, "program_missing"), answer.text
    assert program in answer.json()["detail"]
    assert failed(server) == [("program_missing", None)]
    server.installation.env["PATH"] = os.environ["PATH"]
    nothing_is_left(server)


def test_a_killed_buildah(server: Server, registry: Registry, tmp_path: Path):
    """The real buildah, started through a script that kills it as the kernel would."""
    registry.push("bad/x", "1", tree())
    place = tmp_path / "bin"
    place.mkdir()
    script = place / "buildah"
    script.write_text(
        '#!/bin/sh\ncase "$*" in *pull*) kill -9 $$;; esac\nexec /usr/bin/buildah "$@"\n'
    )
    script.chmod(0o755)
    server.stop()
    server.installation.env["PATH"] = f"{place}:{os.environ['PATH']}"
    server.installation.env["COPPICE_ENGINE"] = "buildah"
    server.start()
    answer = server.api("operator").post(
        "/templates", json={"name": "web", "from": f"oci:{registry.host}/bad/x:1"}
    )
    assert (answer.status_code, answer.json()["code"]) == (503, "program_killed"), answer.text
    assert failed(server) == [("program_killed", None)]
    nothing_is_left(server)


def test_a_read_only_pool(tmp_path: Path, registry: Registry, sqlite_url: str, serve: MakeServer):
    pool = tmp_path / "pool"
    pool.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(pool)], check=True)
    try:
        server = serve(
            Installation(
                tmp_path / "state",
                pool=f"dir:{pool}",
                database_url=sqlite_url,
                COPPICE_REGISTRIES_INSECURE=registry.host,
                COPPICE_PLATFORM="linux/amd64",
            )
        )
        assert server.api(None).get("/readyz").status_code == 200
        subprocess.run(["mount", "-o", "remount,ro", str(pool)], check=True)
        registry.push("bad/x", "1", tree())
        answer = server.api("operator").post(
            "/templates", json={"name": "web", "from": f"oci:{registry.host}/bad/x:1"}
        )
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_read_only")
        assert failed(server) == [("storage_read_only", None)]
        ready = server.api(None).get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["pool"] == "storage_read_only"
    finally:
        subprocess.run(["umount", "-l", str(pool)], check=True)


def path_without(program: str, tmp_path: Path) -> str:
    """A PATH with everything that is on ours but one program."""
    place = tmp_path / "bin-without"
    place.mkdir()
    for directory in reversed(os.environ["PATH"].split(":")):
        if Path(directory).is_dir():
            for found in Path(directory).iterdir():
                link = place / found.name
                link.unlink(missing_ok=True)
                if found.name != program:
                    link.symlink_to(found)
    return str(place)
