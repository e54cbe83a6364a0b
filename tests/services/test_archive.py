"""What events name by digest is kept, made again, and believed only if it is that."""

from __future__ import annotations

import hashlib

import pytest

from templates_app.errors import ManifestMissing, OutOfSpace
from templates_app.models import Generation
from templates_app.services import archive, destroy, reload
from templates_app.trust.manifests import Texts
from tests.services.conftest import WHO, forging, hand_make, import_it, standing, types

#: What the events do to the rows, tests/store has on both databases.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def sha256(text: bytes) -> str:
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


def the_file(digest: str):
    return archive.archive().manifests.place / f"{digest.removeprefix('sha256:')}.zst"


def test_an_import_keeps_its_manifest_and_what_the_registry_said(driver):
    event = import_it().event
    kept = archive.archive()
    text = kept.manifests.get(event.tree_digest)
    assert b"./etc/motd type=file" in text
    assert archive.manifest(Generation.objects.get()) == text
    assert sha256(kept.documents.get(event.digests.manifest)) == event.digests.manifest


@pytest.mark.parametrize("damaged", [False, True])
def test_a_manifest_that_is_gone_is_made_again(driver, damaged):
    digest = import_it().event.tree_digest
    file = the_file(digest)
    if damaged:
        file.write_bytes(file.read_bytes()[:-3])
    else:
        file.unlink()
    assert sha256(archive.manifest(Generation.objects.get())) == digest
    assert archive.archive().manifests.get(digest) is not None


def test_it_is_not_made_of_other_files(driver):
    event = import_it().event
    the_file(event.tree_digest).unlink()
    with forging(driver, event.dataset) as files:
        (files / "etc/motd").write_text("forged")
    with pytest.raises(ManifestMissing, match="lead to another one"):
        archive.manifest(Generation.objects.get())
    assert archive.archive().manifests.get(event.tree_digest) is None


def test_of_what_is_destroyed_only_what_is_kept_is_known(driver):
    digest = import_it().event.tree_digest
    destroy.destroy(name="web", context=WHO)
    assert sha256(archive.manifest(Generation.objects.get())) == digest
    the_file(digest).unlink()
    with pytest.raises(ManifestMissing, match="its dataset is gone"):
        archive.manifest(Generation.objects.get())


def test_what_is_adopted_is_kept_too(driver):
    hand_make(driver, "web")
    reload.reload(context=WHO)
    row = Generation.objects.get()
    assert archive.archive().manifests.get(row.tree_digest) == archive.manifest(row)


def test_an_import_whose_manifest_cannot_be_kept_leaves_nothing(driver, monkeypatch):
    def full(_self, _text):
        raise OutOfSpace("The state directory has no space left.")

    monkeypatch.setattr(Texts, "put", full)
    before = standing(driver)
    with pytest.raises(OutOfSpace):
        import_it()
    assert standing(driver) == before
    assert types() == ["import-failed"]
