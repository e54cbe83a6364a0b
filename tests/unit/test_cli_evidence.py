"""``coppice tpl evidence``: the very bytes in a file, which is never one that was there."""

from __future__ import annotations

import hashlib
import json

from tests.cli import Answer, FakeApi, run

TAR = b"a tar\0file\n"


def served(api: FakeApi) -> FakeApi:
    api.on("GET", "/templates/web/evidence", Answer(content=TAR, kind="application/x-tar"))
    return api


def test_the_bytes_become_a_file(api, tmp_path, monkeypatch):
    served(api)
    monkeypatch.chdir(tmp_path)
    done = run(api.url, "tpl", "evidence", "web@2")
    digest = f"sha256:{hashlib.sha256(TAR).hexdigest()}"
    assert (done.exit_code, done.stdout) == (0, f"web.evidence.tar\t{digest}\n")
    assert (tmp_path / "web.evidence.tar").read_bytes() == TAR
    assert api.asked[0].query == {"generation": "2"}
    said = run(api.url, "tpl", "evidence", "web", "-o", "other.tar", "--json").stdout
    assert json.loads(said) == {"file": "other.tar", "sizeBytes": len(TAR), "sha256": digest}
    assert api.asked[1].query == {}


def test_a_file_that_is_there_stays_as_it_is(api, tmp_path):
    place = tmp_path / "kept.tar"
    place.write_text("older evidence")
    done = run(served(api).url, "tpl", "evidence", "web", "-o", str(place))
    assert (done.exit_code, place.read_text()) == (1, "older evidence")
    assert "file_unusable" in done.stderr


def test_it_goes_to_a_pipe(api):
    assert run(served(api).url, "tpl", "evidence", "web", "-o", "-").stdout_bytes == TAR


def test_another_answer_is_none(api, tmp_path):
    api.on("GET", "/templates/web/evidence", {"tar": "no"})
    place = tmp_path / "it.tar"
    done = run(api.url, "tpl", "evidence", "web", "-o", str(place))
    assert (done.exit_code, place.exists()) == (1, False)
    assert "server_answer" in done.stderr
