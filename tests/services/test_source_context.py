"""What the settings say of registries reaches the sources."""

from __future__ import annotations

from pathlib import Path

from templates_app.services import common


def test_what_is_set_of_registries(settings):
    settings.COPPICE_REGISTRIES_ALLOWED = ("a.example",)
    settings.COPPICE_REGISTRIES_INSECURE = ("b.example",)
    settings.COPPICE_REGISTRY_AUTH_FILE = Path("/auth.json")
    settings.COPPICE_REGISTRY_MIRRORS = (("quay.io", ("m.example",)),)
    settings.COPPICE_REGISTRY_CA_FILE = Path("/ca.pem")
    found = common.source_context()
    assert (found.allowed, found.insecure) == (("a.example",), ("b.example",))
    assert (found.auth_file, found.ca_file) == (Path("/auth.json"), Path("/ca.pem"))
    assert found.mirrors == (("quay.io", ("m.example",)),)
