"""What a real registry holds about an image, and signatures as cosign makes them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from django.db import connection

from deploy import images
from templates_app import store
from templates_app.datasets.base import DatasetDriver
from templates_app.names import Digest
from templates_app.services import archive, attached, imports, provenance, queries
from templates_app.trust import cosign
from tests import house
from tests.registries import FaultProxy, Registry
from tests.services.conftest import WHO, types

EMPTY = images.canonical({})


def payload(digest: str, kind: str = "cosign container image signature") -> bytes:
    """As cosign's SIGNATURE_SPEC.md has it."""
    critical = {
        "identity": {"docker-reference": ""},
        "image": {"docker-manifest-digest": digest},
        "type": kind,
    }
    return json.dumps({"critical": critical, "optional": None}).encode()


def artifact(layers: list[tuple[bytes, str, dict[str, str]]], **members: object) -> images.Document:
    described = [
        {**images.describe(blob, media_type), "annotations": notes}
        for blob, media_type, notes in layers
    ]
    document = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "config": images.describe(EMPTY, "application/vnd.oci.empty.v1+json"),
        "layers": described,
        **members,
    }
    blobs = (EMPTY, *(blob for blob, _, _ in layers))
    return images.Document(images.canonical(document), images.OCI_MANIFEST, blobs=blobs)


@dataclass
class Shop:
    registry: Registry
    keys: Path
    digest: str
    signer: ec.EllipticCurvePrivateKey

    @property
    def tag(self) -> str:
        return self.digest.replace(":", "-")

    def trust(self, name: str, public: object) -> None:
        pem = public.public_bytes(  # type: ignore[attr-defined]
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (self.keys / f"{name}.pub").write_bytes(pem)

    def sign(self, text: bytes) -> str:
        return base64.b64encode(self.signer.sign(text, ec.ECDSA(hashes.SHA256()))).decode()

    def push_signatures(self, *pairs: tuple[bytes, str]) -> str:
        layers = [(text, cosign.PAYLOAD, {cosign.ANNOTATION: made}) for text, made in pairs]
        return self.registry.push("attached/x", f"{self.tag}.sig", artifact(layers))

    def import_it(self, host: str = "") -> None:
        source = f"oci:{host or self.registry.host}/attached/x:1"
        imports.import_template(name="web", source=source, force=True, context=WHO)


@pytest.fixture
def shop(
    dir_pool: DatasetDriver, any_database: str, settings, tmp_path: Path, registry: Registry
) -> Iterator[Shop]:
    keys = tmp_path / "cosign"
    keys.mkdir()
    settings.COPPICE_POOL = dir_pool.pool
    settings.COPPICE_STATE_DIR = tmp_path / "state"
    settings.COPPICE_STATE_DIR.mkdir()
    settings.COPPICE_NODE = "test"
    settings.COPPICE_DNS_NAMESERVER = ""
    settings.COPPICE_COSIGN_KEYS = keys
    settings.COPPICE_REGISTRIES_INSECURE = (registry.host,)
    # Another image for each test: what is attached to one stays in the registry.
    text = str(tmp_path)
    digest = registry.push(
        "attached/x", "1", images.image([images.layer([images.file("a", text)])])
    )
    yield Shop(registry, keys, digest, ec.generate_private_key(ec.SECP256R1()))
    connection.close()


def test_a_signature_counts_by_a_configured_key_over_this_image_alone(shop):
    shop.trust("release", shop.signer.public_key())
    shop.trust("other", ed25519.Ed25519PrivateKey.generate().public_key())
    good = payload(shop.digest)
    shop.push_signatures((good, shop.sign(good)))
    shop.import_it()
    assert types() == ["imported", "evidence-attached"]
    (found,) = attached.of("web", 1)
    assert (found.kind, found.verified_by, found.detail) == ("signature", ("release",), "")
    assert (found.subject, found.through) == (shop.digest, "tag")
    assert archive.archive().documents.get(found.kept[1]) == good
    assert queries.digest_facts(digest=shop.digest).attached == (found,)
    asked = provenance.parse_digest(found.digest)
    assert provenance.provenance(digest=asked).attached == (found,)

    # The same again is no news; less of it is. What is signed for another image is not for this.
    attached.fetch(name="web", context=WHO)
    assert types().count("evidence-attached") == 1
    other = payload("sha256:" + "0" * 64)
    shop.push_signatures(
        (other, shop.sign(other)), (good, shop.sign(other)), (good, "%%"),
        (b"no payload", shop.sign(b"no payload")),
        (payload(shop.digest, "atomic"), shop.sign(payload(shop.digest, "atomic"))),
    )  # fmt: skip
    (found,) = attached.fetch(name="web", context=WHO)
    assert found.verified_by == ()
    for why in ("another image", "has made the signature", "not base64", "no", "another type"):
        assert why in found.detail
    assert types().count("evidence-attached") == 2
    archive.forget_unnamed()
    assert all(archive.archive().documents.has(digest) for digest in found.kept)
    house.strange("template-praised", "{}", "web", digest=shop.digest)
    assert queries.digest_facts(digest=shop.digest).attached == (found,)


def test_an_ed25519_key_is_taken_and_no_other_kind(shop):
    secret = ed25519.Ed25519PrivateKey.generate()
    shop.trust("edwards", secret.public_key())
    good = payload(shop.digest)
    shop.push_signatures((good, base64.b64encode(secret.sign(good)).decode()))
    shop.import_it()
    assert attached.of("web", 1)[0].verified_by == ("edwards",)
    shop.trust("wrong", ec.generate_private_key(ec.SECP384R1()).public_key())
    shop.import_it()  # is done all the same; the log says that a key cannot be used
    assert types()[-1] == "imported"


def test_what_refers_to_the_image_is_listed_by_kind_and_kept_if_it_is_small(shop):
    subject = {"mediaType": images.OCI_MANIFEST, "digest": shop.digest, "size": 1}
    sbom = artifact([(b'{"spdxVersion":"2.3"}', "application/spdx+json", {})], subject=subject)
    large = artifact([(b"x" * (attached.ITEM_BYTES + 1), "application/x-any", {})], subject=subject)
    signed = artifact([(b"{}", "application/vnd.dsse.envelope.v1+json", {})])
    index = images.index([sbom, large])
    shop.registry.push("attached/x", shop.tag, index)  # this registry has no referrers API
    shop.registry.push("attached/x", f"{shop.tag}.att", signed)
    shop.import_it()
    items = {one.digest: one for one in attached.of("web", 1)}
    assert {one.kind for one in items.values()} == {"sbom", "attestation", "other"}
    assert items[sbom.digest].kind == "sbom" and len(items[sbom.digest].kept) == 2
    assert items[signed.digest].kind == "attestation"
    assert items[large.digest].kept == (large.digest,)
    assert "too large to be kept" in items[large.digest].detail
    assert not any(one.verified_by for one in items.values())


def test_the_referrers_api_is_read_page_by_page(shop, settings, faults: FaultProxy):
    settings.COPPICE_REGISTRIES_INSECURE += (faults.host,)
    one, two = (
        artifact([(text, "application/vnd.cyclonedx+json", {})]) for text in (b"[1]", b"[2]")
    )
    for number, made in enumerate((one, two)):
        shop.registry.push("attached/x", f"part-{number}", made)
    faults.on(r"/referrers/.*last=1", body=images.index([two]).data)
    faults.on(
        r"/referrers/",
        body=images.index([one]).data,
        headers={"Link": '<http://elsewhere.example/v2/?last=1>; rel="next"'},
    )
    shop.import_it(faults.host)
    assert {found.digest for found in attached.of("web", 1)} == {one.digest, two.digest}
    assert all(found.through == "referrers" for found in attached.of("web", 1))


def test_a_registry_that_fails_after_the_image_fails_no_import(shop, settings, faults: FaultProxy):
    settings.COPPICE_REGISTRIES_INSECURE += (faults.host,)
    faults.on(r"/referrers/", status=403)
    shop.import_it(faults.host)
    assert types() == ["imported", "evidence-attached"]
    event = store.at(2).event
    assert event.items == () and len(event.missing) == 1


def test_a_manifest_of_more_than_an_event_can_say_fails_no_import(shop):
    huge = [{**images.describe(b"x", "x/y"), "size": 2**40 - 1}] * 9000
    document = images.Document(
        images.canonical({
            "schemaVersion": 2, "mediaType": images.OCI_MANIFEST, "layers": huge,
            "config": images.describe(EMPTY, "application/vnd.oci.empty.v1+json"),
        }),
        images.OCI_MANIFEST,
    )  # fmt: skip
    look = attached._Look(keys=[])
    item = look._item(None, shop.digest, "tag", Digest.parse(document.digest), document.data, [])
    assert item.size_bytes == 2**53 - 1 and item.detail
    # 1.3 MB of manifest: too large to be kept, as any other part.
    assert (item.kept, look.bytes_left) == ((), attached.ALL_BYTES)


def test_what_can_be_kept_is_kept_within_all_bytes_and_the_time(shop, monkeypatch):
    texts = [b"x" * 1000, b"y" * 1000]
    digest = artifact([(text, "x/y", {}) for text in texts])
    asked = []

    class Blobs:
        def document(self, digest: Digest, size: int) -> bytes:
            asked.append(digest.text)
            return texts[len(asked) - 1]

    def item(look):
        asked.clear()
        return look._item(Blobs(), shop.digest, "tag", Digest.parse(digest.digest), digest.data, [])

    small = attached._Look(keys=[], bytes_left=len(digest.data) + 1500)
    assert len(item(small).kept) == 2 and small.bytes_left == 500
    smaller = attached._Look(keys=[], bytes_left=len(digest.data) - 1)
    assert item(smaller).kept == () and asked == []
    late = attached._Look(keys=[], until=0.0)
    assert item(late).detail == "There was no time for all parts." and asked == []
    late.at(None, [])
    late_registry = type("R", (), {"referrers": lambda self, of: iter([b"{}", b"{}"])})()
    late.at(late_registry, [shop.digest])  # no tag is asked for any more
    assert late.missing == ["There may be more than was looked at."]


def test_nothing_that_is_no_index_or_manifest_is_believed(shop):
    odd = replace(artifact([]), data=images.canonical({"schemaVersion": 2, "layers": [1, {}],
        "mediaType": images.OCI_MANIFEST, "config": images.describe(EMPTY, "x/y")}))  # fmt: skip
    assert attached._listed(b"[]") == attached._listed(b"no") == []
    assert attached._listed(b'{"manifests": [1, {"digest": "sha256:x"}]}') == []
    assert attached._many({"layers": {}}, "layers") == []
    assert attached._object(odd.data)["schemaVersion"] == 2
