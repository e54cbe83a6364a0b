"""Image files over the real server: imported, refused, imported again, and alike on every host."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import images
from tests import layouts
from tests.servers import Installation, MakeServer, Server


def an_image(text: str = "one") -> images.Document:
    return images.image([images.layer([images.directory("etc"), images.file("etc/motd", text)])])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "images"
    place.mkdir()
    return place


def host(serve: MakeServer, place: Path, root: Path, database_url: str = "") -> Server:
    """A server of its own, with its own database, pool and import root."""
    return serve(
        Installation(
            place / "state",
            pool=f"dir:{place / 'pool'}",
            database_url=database_url,
            COPPICE_ENGINE="native",
            COPPICE_IMPORT_ROOTS=str(root),
            COPPICE_PLATFORM="linux/amd64",
        )
    )


def test_the_same_file_is_the_same_statement_on_every_host(
    serve: MakeServer, root: Path, tmp_path: Path
):
    image = an_image()
    layouts.archive(layouts.write(tmp_path / "web", {"1": image}), root / "web.tar")
    other = tmp_path / "elsewhere" / "deep"
    other.mkdir(parents=True)
    (other / "web.tar").write_bytes((root / "web.tar").read_bytes())
    statements = []
    for number, path in enumerate((root / "web.tar", other / "web.tar")):
        place = tmp_path / f"host{number}"
        server = host(serve, place, path.parent)
        wanted = {"name": "web", "from": f"oci-archive:{path}:1"}
        made = server.api("operator").post("/templates", json=wanted)
        assert made.status_code == 201, made.text
        assert made.json()["digest"] == image.digest
        assert made.json()["reference"] == f"oci-archive:web.tar:1@{image.digest}"
        statements.append(server.api("auditor").get("/templates/web/statement").content)
        event = server.installation.events()[-1]["data"]
        assert (event["scheme"], event["referenceGiven"]) == ("oci-archive", f"{path}:1")
    assert statements[0] == statements[1]
    assert b"elsewhere" not in statements[0]


def test_what_is_refused_is_recorded_and_a_new_file_in_its_place_imported_again(
    serve: MakeServer, sqlite_url: str, root: Path, tmp_path: Path
):
    layouts.write(tmp_path / "outside", {"": an_image()})
    (root / "way").symlink_to(tmp_path / "outside")
    server = host(serve, tmp_path / "host", root, sqlite_url)
    api = server.api("operator")
    for path in (tmp_path / "outside", root / "way"):
        refused = api.post("/templates", json={"name": "web", "from": f"oci-layout:{path}"})
        assert (refused.status_code, refused.json()["code"]) == (403, "source_not_allowed")
    failed = [one["data"]["code"] for one in server.installation.events()]
    assert failed == ["source_not_allowed"] * 2

    layouts.write(root / "web", {"": an_image()})
    wanted = {"name": "web", "from": f"oci-layout:{root}/web"}
    assert api.post("/templates", json=wanted).status_code == 201
    layouts.write(root / "web", {"": an_image("two")})
    server.installation.manage("reimport", "--all")
    template = server.api("auditor").get("/templates/web").json()
    assert (template["generation"], template["digest"]) == (2, an_image("two").digest)
