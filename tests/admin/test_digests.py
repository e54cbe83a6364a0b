"""Digests: pasted, listed, and where each came from."""

from __future__ import annotations

from templates_app import store
from templates_app.models import Generation
from tests.house import (
    SCRIPT,
    Story,
    auditor,
    imported,
    launched,
    meta,
    text,
)


def test_a_digest_shows_where_it_came_from_and_what_became_of_it(told_on_both: Story):
    client, event = auditor(), told_on_both.min2
    for kind, asked in {
        "index": event.digests.index,
        "manifest": event.digests.manifest,
        "config": event.digests.config,
        "tree": event.tree_digest,
        "statement": event.statement_digest,
    }.items():
        page = client.get(f"/admin/digests/{asked}/")
        found = page.context_data["provenance"]
        assert found.kinds == (kind,), kind
        assert found.names == ("fbsd14-min",)
        assert [one.pk for one in found.generations] == ["fbsd14-min@2"]
        assert [one.position for one in found.imports] == [8]
        assert [one.position for one in found.refusals] == [9], kind
        assert [(one.sandbox, one.live) for one in found.launches] == [("build-8", True)]
        assert f"{kind} digest" in text(page)


def test_a_destroyed_sandbox_and_a_failed_import_are_part_of_provenance(told: Story):
    client = auditor()
    found = client.get(f"/admin/digests/{told.min1.tree_digest}/").context_data["provenance"]
    assert [(one.sandbox, one.live) for one in found.launches] == [("build-7", False)]
    broken = client.get(f"/admin/digests/{told.broken.digest}/").context_data["provenance"]
    assert [one.type for one in broken.imports] == ["import-failed"]
    assert (broken.names, broken.kinds, broken.generations) == (("broken",), ("manifest",), ())


def test_a_reused_sandbox_id_is_live_only_in_its_last_launch(told: Story):
    store.append(launched("build-7", told.min2), meta=meta("gateway-1"))
    client = auditor()
    first = client.get(f"/admin/digests/{told.min1.tree_digest}/").context_data["provenance"]
    again = client.get(f"/admin/digests/{told.min2.tree_digest}/").context_data["provenance"]
    assert [(one.sandbox, one.live) for one in first.launches] == [("build-7", False)]
    assert ("build-7", True) in [(one.sandbox, one.live) for one in again.launches]


def test_a_signature_is_part_of_the_provenance_of_the_tree_that_it_signs(told: Story):
    tree = Generation.objects.get(pk="house@0").tree_digest
    found = auditor().get(f"/admin/digests/{tree}/").context_data["provenance"]
    assert [one.key_label for one in found.signatures] == ["release"]
    assert found.names == ("house",)


def test_a_digest_is_pasted_as_it_comes(told: Story):
    client, event = auditor(), told.min2
    manifest = event.digests.manifest
    for pasted in (manifest, manifest.removeprefix("sha256:"), f"  {manifest.upper()} "):
        answer = client.get("/admin/digests/", {"q": pasted})
        assert answer.url == f"/admin/digests/{manifest}/"
    for odd in ("abc", "sha512:" + "0" * 64, SCRIPT, "sha256:"):
        answer = client.get("/admin/digests/", {"q": odd})
        assert answer.status_code == 200
        assert "is not a sha256 digest" in text(answer)
    unknown = client.get(f"/admin/digests/sha256:{'0' * 64}/")
    assert unknown.status_code == 404
    assert "is not known here" in text(unknown)
    assert client.get("/admin/digests/abc/").status_code == 404


def test_every_manifest_digest_is_listed_with_its_names(told: Story):
    store.append(imported("twin", image="fbsd14-min 2"), meta=meta())
    rows = dict(auditor().get("/admin/digests/").context_data["rows"])
    assert [one.pk for one in rows[told.min2.digests.manifest]] == ["fbsd14-min@2", "twin@1"]
    assert len(rows) == 5
