"""What buildah is told of registries."""

from __future__ import annotations

import tomllib
from pathlib import Path

from templates_app.names import Platform, Reference
from templates_app.sources.base import SourceContext
from templates_app.sources.programs import Programs, registries

REFERENCE = Reference.parse("quay.io/a/b:1")


def context(tmp_path, **more):
    return SourceContext(
        platform=Platform("linux", "amd64"),
        allowed=(),
        auth_file=None,
        step_seconds=60,
        state_dir=tmp_path,
        limit_image_bytes=2**30,
        **{"insecure": (), **more},
    )


def test_mirrors_in_their_order(tmp_path):
    mirrors = (("quay.io", ("m.example", "10.0.0.7:5000")), ("docker.io", ("m.example",)))
    found = tomllib.loads(registries(context(tmp_path, mirrors=mirrors, insecure=("m.example",))))
    assert found["unqualified-search-registries"] == []
    assert found["registry"] == [
        {
            "location": "quay.io",
            "mirror": [
                {"location": "m.example", "insecure": True},
                {"location": "10.0.0.7:5000", "insecure": False},
            ],
        },
        {"location": "docker.io", "mirror": [{"location": "m.example", "insecure": True}]},
    ]


def test_tls_is_left_out_only_where_it_was_said(tmp_path):
    assert Programs(context(tmp_path))._access(REFERENCE) == []
    plain = Programs(context(tmp_path, insecure=("quay.io",)))
    assert plain._access(REFERENCE) == ["--tls-verify=false"]


def test_authorities_are_where_buildah_looks_for_them(tmp_path):
    own = tmp_path / "own.pem"
    own.write_text("-----BEGIN CERTIFICATE-----\none\n")
    programs = Programs(context(tmp_path, ca_file=own))
    _, place = programs._access(REFERENCE)
    for text in ("one", "another"):
        own.write_text(f"-----BEGIN CERTIFICATE-----\n{text}\n")
        programs.prepare()
        assert [path.name for path in Path(place).iterdir()] == ["ca.crt"]
        assert (Path(place) / "ca.crt").read_text() == own.read_text()
