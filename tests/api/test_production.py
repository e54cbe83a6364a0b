"""What COPPICE_PRODUCTION changes, on the real server behind what says it is a proxy."""

from __future__ import annotations

from pathlib import Path

from tests.servers import Installation, MakeServer

HTTPS = {"X-Forwarded-Proto": "https"}


def test_browsers_go_over_https_and_programs_are_not_redirected(
    tmp_path: Path, sqlite_url: str, serve: MakeServer
):
    server = serve(
        Installation(
            tmp_path / "state",
            pool=f"dir:{tmp_path / 'pool'}",
            database_url=sqlite_url,
            COPPICE_PRODUCTION="on",
            DJANGO_SECRET_KEY="0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
        ),
        forked=False,
    )
    nobody, auditor = server.api(None), server.api("auditor")
    sent = nobody.get("/admin/login/")
    assert (sent.status_code, sent.headers["Location"]) == (
        301,
        f"https://127.0.0.1:{server.port}/admin/login/",
    )
    assert nobody.get("/healthz").status_code == 200
    assert auditor.get("/templates").json() == []
    secure = nobody.get("/admin/login/", headers=HTTPS)
    assert secure.status_code == 200
    assert secure.headers["Strict-Transport-Security"] == "max-age=2592000"
    (cookie,) = secure.headers.get_list("Set-Cookie")
    assert cookie.startswith("csrftoken=") and "; Secure" in cookie
    assert "Strict-Transport-Security" not in nobody.get("/healthz").headers
