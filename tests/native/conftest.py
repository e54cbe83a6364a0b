"""What tests of the engine change for a whole process is put back after each."""

from __future__ import annotations

import tempfile

import pytest


@pytest.fixture(autouse=True)
def temporary_files_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hostile cases put temporary files where they are looked for; later tests have no part."""
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
