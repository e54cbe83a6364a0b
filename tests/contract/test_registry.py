"""The registry client with real registries: an own authority, passwords, tokens; both engines.

What a registry may do wrong is in tests/unit/test_registry.py.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from deploy import images
from templates_app import sources
from templates_app.errors import PullFailed, Unavailable
from templates_app.names import Platform, Reference
from templates_app.sources.base import SourceContext
from templates_app.sources.native import network
from templates_app.sources.native.registry import Registry
from tests import registries
from tests.registries import FaultProxy

LAYER = images.layer([images.directory("etc"), images.file("etc/motd", "one")])
IMAGE = images.image([LAYER])


@pytest.fixture(params=["native", "buildah"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fetch(source, into: Path, engine: str) -> str:
    """The image's motd, when it was fetched."""
    into.mkdir()
    receipt = source.fetch(source.resolve(), into, lambda _: None, f"{os.getpid():08x}")
    assert receipt.engine == engine
    return (into / "etc/motd").read_text()


@pytest.fixture
def context(tmp_path: Path) -> SourceContext:
    (tmp_path / "state").mkdir()
    return SourceContext(
        platform=Platform("linux", "amd64"),
        allowed=(),
        insecure=(),
        auth_file=None,
        step_seconds=60,
        state_dir=tmp_path / "state",
        limit_image_bytes=2**30,
    )


def resolve(context, host, repository):
    return sources.parse(f"oci:{host}/{repository}:1", context).resolve()


def layer(context, host, repository) -> bytes:
    with Registry(Reference.parse(f"{host}/{repository}:1"), context) as it:
        (found,) = resolve(context, host, repository).layers
        return b"".join(it.blob(found.digest, found.size))


def reason(call, *args) -> tuple[str, str]:
    with pytest.raises(PullFailed) as failed:
        call(*args)
    return failed.value.reason, failed.value.detail


# --- an own authority, and a password ------------------------------------------------------------


@pytest.fixture
def secure(context, registry, secure_registry, tmp_path) -> SourceContext:
    registry.push("secure/x", "1", IMAGE)
    return replace(
        context,
        allowed=(secure_registry.host,),
        auth_file=secure_registry.credentials(tmp_path / "auth.json"),
        ca_file=secure_registry.certificates.authority,
    )


def test_an_own_authority_and_a_password(secure, secure_registry):
    found = resolve(secure, secure_registry.host, "secure/x")
    assert found.digests.manifest == IMAGE.digest
    assert layer(secure, secure_registry.host, "secure/x") == LAYER.blob


def test_both_engines_believe_the_same_authority(secure, secure_registry, tmp_path, engine):
    known = replace(secure, engine=engine)
    source = sources.parse(f"oci:{secure_registry.host}/secure/x:1", known)
    assert fetch(source, tmp_path / "into", engine) == "one"


def test_an_authority_that_nobody_knows(secure, secure_registry):
    unknown = replace(secure, ca_file=None)
    assert reason(resolve, unknown, secure_registry.host, "secure/x")[0] == "tls"


def test_the_authority_of_the_environment(secure, secure_registry, monkeypatch):
    """OpenSSL's own way to say it, in a process of its own: it is read once."""
    monkeypatch.setenv("SSL_CERT_FILE", str(secure_registry.certificates.authority))
    network.tls.cache_clear()
    try:
        resolve(replace(secure, ca_file=None), secure_registry.host, "secure/x")
    finally:
        network.tls.cache_clear()


def test_a_certificate_for_another_name(secure, secure_registry, names):
    names["other.example"] = ["127.0.0.1"]
    host = f"other.example:{secure_registry.port}"
    other = replace(secure, allowed=(host,))
    assert reason(resolve, other, host, "secure/x")[0] == "tls"


@pytest.mark.parametrize("text", ["nonsense", "-----BEGIN CERTIFICATE-----\nx\n", None])
def test_authorities_that_cannot_be_read(secure, secure_registry, tmp_path, text):
    place = tmp_path / "own.pem"
    if text is not None:
        place.write_text(text)
    with pytest.raises(Unavailable) as failed:
        resolve(replace(secure, ca_file=place), secure_registry.host, "secure/x")
    assert "COPPICE_REGISTRY_CA_FILE" in failed.value.next_step


def test_a_password_that_is_wrong_or_missing(secure, secure_registry, tmp_path):
    nobody = replace(secure, auth_file=None)
    word, said = reason(resolve, nobody, secure_registry.host, "secure/x")
    assert word == "unauthorized" and "asks for credentials" in said
    wrong = replace(
        secure, auth_file=secure_registry.credentials(tmp_path / "wrong.json", "guessed")
    )
    word, said = reason(resolve, wrong, secure_registry.host, "secure/x")
    assert word == "unauthorized" and "refuses the credentials" in said
    assert "guessed" not in said


def test_a_registry_with_tls_that_is_said_to_have_none(secure, secure_registry):
    """It answers 400, in the clear."""
    plain = replace(secure, insecure=(secure_registry.host,))
    assert reason(resolve, plain, secure_registry.host, "secure/x")[0] == "tls"


# --- tokens --------------------------------------------------------------------------------------


@pytest.fixture
def by_token(context, registry, token_registry) -> SourceContext:
    for repository in ("closed/x", "open/x"):
        registry.push(repository, "1", IMAGE)
    token_registry.tokens.asked.clear()
    return replace(context, insecure=(token_registry.host, token_registry.tokens.host))


def login(context, tmp_path, host, user=registries.USER, password=registries.PASSWORD):
    word = base64.b64encode(f"{user}:{password}".encode()).decode()
    place = tmp_path / "login.json"
    place.write_text(json.dumps({"auths": {host: {"auth": word}}}))
    return replace(context, auth_file=place)


def test_a_token_for_anybody(by_token, token_registry):
    assert layer(by_token, token_registry.host, "open/x") == LAYER.blob
    # One token serves the tag, the manifest, the config and the layer, of two connections.
    (asked,) = token_registry.tokens.asked
    assert asked == "service=registry.test&scope=repository%3Aopen%2Fx%3Apull"


def test_a_token_for_who_may(by_token, token_registry, tmp_path):
    host = token_registry.host
    word, said = reason(resolve, by_token, host, "closed/x")
    assert word == "unauthorized" and "asks for credentials" in said
    known = login(by_token, tmp_path, host)
    assert layer(known, host, "closed/x") == LAYER.blob
    assert token_registry.tokens.asked[-1].startswith(f"account={registries.USER}&service=")


def test_a_token_service_that_refuses(by_token, token_registry, tmp_path):
    wrong = login(by_token, tmp_path, token_registry.host, password="guessed")
    word, said = reason(resolve, wrong, token_registry.host, "closed/x")
    assert word == "unauthorized" and "refuses the credentials" in said


def test_both_engines_know_the_way(by_token, token_registry, tmp_path, engine):
    known = replace(login(by_token, tmp_path, token_registry.host), engine=engine)
    source = sources.parse(f"oci:{token_registry.host}/closed/x:1", known)
    assert fetch(source, tmp_path / "into", engine) == "one"


# --- what an import asks for ---------------------------------------------------------------------


def test_an_unchanged_tag_costs_one_head(context, registry, faults: FaultProxy):
    """Docker Hub counts GETs of manifests, so what is known is not asked for again."""
    index = images.index([images.image([LAYER], platform="linux/arm64"), IMAGE])
    registry.push("asked/x", "1", index)
    known = replace(context, insecure=(faults.host,))
    first = resolve(known, faults.host, "asked/x")
    assert [method for method, _ in faults.requests] == ["HEAD", "GET", "GET", "GET"]
    faults.requests.clear()
    assert resolve(known, faults.host, "asked/x") == first
    assert faults.requests == [("HEAD", "/v2/asked/x/manifests/1")]


def test_what_is_pinned_is_still_the_registrys_to_give(context, registry, faults: FaultProxy):
    registry.push("asked/pinned", "1", IMAGE)
    known = replace(context, insecure=(faults.host,))
    text = f"oci:{faults.host}/asked/pinned@{IMAGE.digest}"
    sources.parse(text, known).resolve()
    faults.on("manifests", status=403)
    assert reason(sources.parse(text, known).resolve)[0] == "denied"


def test_a_tag_that_moved_is_asked_for_again(context, registry, faults: FaultProxy):
    known = replace(context, insecure=(faults.host,))
    other = images.image([LAYER], config={"author": "somebody"})
    for image in (IMAGE, other):
        registry.push("asked/moved", "1", image)
        assert resolve(known, faults.host, "asked/moved").digests.manifest == image.digest


# --- mirrors -------------------------------------------------------------------------------------


def test_a_mirror_serves_both_engines(context, registry, faults: FaultProxy, tmp_path, engine):
    """The registry itself is not even there."""
    registry.push("mirrored/x", "1", IMAGE)
    host = "localhost:1"
    known = replace(
        context,
        insecure=(faults.host, host),
        mirrors=((host, (faults.host,)),),
        engine=engine,
    )
    source = sources.parse(f"oci:{host}/mirrored/x:1", known)
    assert source.resolve().canonical == f"{host}/mirrored/x:1"
    assert [path for _, path in faults.requests if not path.endswith(f"?ns={host}")] == []
    assert fetch(source, tmp_path / "into", engine) == "one"
