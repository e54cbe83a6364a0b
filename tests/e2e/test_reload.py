"""Reload: hand-made datasets become templates, vanished ones are marked, one event says all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy import images
from tests.pools import sh, stubbornly
from tests.registries import Registry
from tests.servers import Installation, Keys, MakeServer, Server


@pytest.fixture
def server(
    tmp_path: Path, registry: Registry, sqlite_url: str, zfs_root: str, serve: MakeServer
) -> Server:
    registry.push(
        "reload/x",
        "1",
        images.image(
            [
                images.layer(
                    [
                        images.directory("etc/"),
                        images.file("etc/motd", "imported"),
                    ]
                )
            ]
        ),
    )
    return serve(
        Installation(
            tmp_path / "state",
            pool=f"zfs:{zfs_root}",
            database_url=sqlite_url,
            COPPICE_REGISTRIES_INSECURE=registry.host,
            COPPICE_PLATFORM="linux/amd64",
            COPPICE_REQUIRE_SIGNED_TEMPLATES="on",
        )
    )


def hand_made(zfs_root: str, name: str, text: str) -> str:
    """What an operator does without Coppice; the dataset's name."""
    dataset = f"{zfs_root}/{name}-template"
    sh("zfs", "create", dataset)
    place = Path(sh("zfs", "get", "-Hp", "-o", "value", "mountpoint", dataset).strip())
    (place / "etc").mkdir()
    (place / "etc" / "motd").write_text(text)
    sh("zfs", "snapshot", f"{dataset}@base")
    return dataset


def test_a_hand_made_template_is_adopted_signed_launched_and_replaced(
    server: Server, zfs_root: str, registry: Registry, keys: Keys
):
    operator, auditor = server.api("operator"), server.api("auditor")
    dataset = hand_made(zfs_root, "house", "by hand")
    found = operator.post("/templates/reload").json()
    assert [a["template"] for a in found["added"]] == ["house"]
    (template,) = auditor.get("/templates").json()
    assert (template["name"], template["generation"], template["adopted"]) == ("house", 0, True)
    assert template["snapshot"] == f"{dataset}@base"
    assert template["digest"] is None and template["blocked"]

    # It can be signed and launched like any other.
    secret = keys.trust("release", server.installation)
    signature = keys.sign(secret, auditor.get("/templates/house/statement").content)
    answer = server.api("signer").post("/templates/house/signatures", json={"signature": signature})
    assert answer.status_code == 201, answer.text
    gateway = server.api("gateway")
    launched = gateway.post("/sandboxes", json={"template": "house", "name": "one"})
    assert launched.status_code == 201, launched.text

    # Nothing changed: the next reload says so. Made anew by hand: another tree, unsigned again.
    again = operator.post("/templates/reload").json()
    assert all(again[what] == [] for what in ("added", "changed", "missing", "returned"))
    assert gateway.delete("/sandboxes/one").status_code == 204
    stubbornly("zfs", "destroy", "-r", dataset)
    hand_made(zfs_root, "house", "by hand, anew")
    stale = gateway.post("/sandboxes", json={"template": "house"})
    assert (stale.status_code, stale.json()["code"]) == (403, "statement_stale")
    changed = operator.post("/templates/reload").json()
    assert [a["template"] for a in changed["changed"]] == ["house"]
    assert gateway.post("/sandboxes", json={"template": "house"}).json()["code"] == (
        "template_unsigned"
    )

    # An import under its name moves it aside, as generation 0, and takes the alias.
    refused = operator.post(
        "/templates", json={"name": "house", "from": f"oci:{registry.host}/reload/x:1"}
    )
    assert (refused.status_code, refused.json()["code"]) == (409, "template_exists")
    taken = operator.post(
        "/templates",
        json={"name": "house", "from": f"oci:{registry.host}/reload/x:1", "force": True},
    )
    assert taken.status_code == 201, taken.text
    assert taken.json()["generation"] == 1
    datasets = sh("zfs", "list", "-H", "-o", "name", "-r", zfs_root).split()
    assert any("/coppice/house-g0-" in name for name in datasets)
    assert operator.delete("/templates/house").status_code == 204
    left = sh("zfs", "list", "-H", "-o", "name", "-r", zfs_root).split()
    # The states of the image's layers stay, for whoever imports it next.
    left = [name for name in left if not name.startswith(f"{zfs_root}/coppice-layers")]
    assert left == [zfs_root, f"{zfs_root}/coppice"]


def test_a_hand_made_template_that_cannot_move_is_in_the_way(
    server: Server, zfs_root: str, registry: Registry
):
    operator = server.api("operator")
    dataset = hand_made(zfs_root, "busy", "by hand")
    operator.post("/templates/reload")
    sh("zfs", "clone", f"{dataset}@base", f"{zfs_root}/made-by-hand")
    body = {"name": "busy", "from": f"oci:{registry.host}/reload/x:1", "force": True}
    answer = operator.post("/templates", json=body)
    if answer.status_code == 201:  # a ZFS that can rename below mounted clones
        return
    assert (answer.status_code, answer.json()["code"]) == (409, "adopted_in_the_way"), answer.text
    assert server.api("auditor").get("/templates/busy").json()["generation"] == 0
    assert sh("zfs", "list", "-H", "-o", "name", dataset).strip() == dataset


def test_vanished_templates_are_marked_and_return(
    server: Server, zfs_root: str, registry: Registry
):
    operator, auditor = server.api("operator"), server.api("auditor")
    made = operator.post(
        "/templates", json={"name": "web", "from": f"oci:{registry.host}/reload/x:1"}
    ).json()
    dataset = made["origin"].removesuffix("@base")
    stubbornly("zfs", "rename", dataset, f"{zfs_root}/hidden")
    found = operator.post("/templates/reload").json()
    assert found["missing"] == ["web"]
    assert auditor.get("/templates/web").json()["missing"] is True
    assert auditor.get("/templates/web/gate").json()["code"] == "template_missing"
    stubbornly("zfs", "rename", f"{zfs_root}/hidden", dataset)
    assert operator.post("/templates/reload").json()["returned"] == ["web"]
    assert auditor.get("/templates/web").json()["missing"] is False


def test_what_an_operator_should_see_is_a_finding(
    server: Server, zfs_root: str, registry: Registry
):
    operator = server.api("operator")
    operator.post("/templates", json={"name": "web", "from": f"oci:{registry.host}/reload/x:1"})
    sh("zfs", "create", f"{zfs_root}/no-base-template")
    sh("zfs", "create", f"{zfs_root}/coppice/stranger")
    place = Path(sh("zfs", "get", "-Hp", "-o", "value", "mountpoint", zfs_root).strip())
    (place / "plain-template").mkdir()
    (place / "plain-template" / "motd").write_text("in no dataset of its own")
    found = operator.post("/templates/reload").json()["findings"]
    assert {(f["code"], f["subject"].rpartition("/")[2]) for f in found} == {
        ("snapshot_missing", "no-base-template"),
        ("orphan_dataset", "stranger"),
        ("directory_not_dataset", "plain-template"),
    }


def test_a_lost_alias_is_made_again(server: Server, zfs_root: str, registry: Registry):
    operator = server.api("operator")
    operator.post("/templates", json={"name": "web", "from": f"oci:{registry.host}/reload/x:1"})
    stubbornly("zfs", "destroy", "-r", f"{zfs_root}/web-template")
    (stale,) = operator.post("/templates/reload").json()["findings"]
    assert (stale["code"], stale["template"], stale["blocks"]) == ("alias_stale", "web", False)
    would = operator.post("/templates/reload", json={"fix": True, "dryRun": True}).json()
    assert (would["position"], would["findings"]) == (None, [])
    assert [one["done"] for one in would["fixed"]] == ["Would lead it to the current generation."]
    done = operator.post("/templates/reload", json={"fix": True}).json()
    assert [one["done"] for one in done["fixed"]] == ["Led to the current one."]
    assert done["findings"] == [] and operator.get("/findings").json() == []
    sh("zfs", "list", "-t", "snapshot", f"{zfs_root}/web-template@base")


def test_the_command_does_the_same_and_prints_it(server: Server, zfs_root: str):
    hand_made(zfs_root, "house", "by hand")
    done = server.installation.manage("reload_templates")
    assert done.stdout.startswith("added\thouse\t")
    data = json.loads(server.installation.manage("reload_templates", "--json").stdout)
    assert data["added"] == []
    events = [e for e in server.installation.events() if e["type"] == "reloaded"]
    assert len(events) == 2
    assert events[0]["meta"]["source"] == "command"


def test_recover_is_quiet_where_nothing_happened_and_dry_where_asked(server: Server):
    done = server.installation.manage("recover", "--dry-run")
    assert done.stdout == "" and "Nothing to recover" in done.stderr
