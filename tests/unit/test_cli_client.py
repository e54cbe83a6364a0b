"""Every trouble on the way to the server is one sentence, what to do next, and an exit status."""

from __future__ import annotations

import datetime
import gzip
import json
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from templates_app.cli import client
from templates_app.errors import GATE_CODES, Exit, GateRefused, every_error
from tests.cli import TOKEN, Answer, FakeApi, problem, run, template
from tests.ports import free_port


def test_it_sends_the_token_and_a_request_id_and_nothing_else_of_the_user(api: FakeApi):
    api.on("GET", "/templates", [])
    assert run(api.url, "tpl", "list").exit_code == 0
    (asked,) = api.asked
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert len(asked.headers["x-request-id"]) == 32
    assert "cookie" not in asked.headers


def test_an_address_with_a_path_is_kept(api: FakeApi):
    api.on("GET", "/coppice/templates", [template()])
    assert run(f"{api.url}/coppice/", "tpl", "list", "-H", "-o", "name").stdout == "fbsd14-min\n"


def test_a_server_that_is_not_there_is_said_in_a_sentence():
    url = f"http://127.0.0.1:{free_port()}"
    done = run(url, "tpl", "list")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert f"error: No connection to {url}: Connection refused." in done.stderr
    assert "next:  Is the server running, and COPPICE_URL right?" in done.stderr


def test_a_host_that_does_not_exist_is_said():
    done = run("http://nowhere.invalid", "tpl", "list")
    assert done.exit_code == 1
    assert "No connection to http://nowhere.invalid" in done.stderr


@pytest.fixture
def silent() -> str:
    """A listener that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_hangs_ends_the_command_in_time(silent: str, monkeypatch):
    monkeypatch.setattr(client, "READ", 0.3)
    monkeypatch.setattr(client.Api.get, "__kwdefaults__", {"read": 0.3})
    done = run(silent, "tpl", "list")
    assert done.exit_code == 1
    assert "did not answer in time. (server_timeout)" in done.stderr


def test_a_server_that_dribbles_does_not_hold_the_command_for_ever(api: FakeApi, monkeypatch):
    monkeypatch.setattr(client, "TOTAL", 0.5)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def dribble() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
                while not api.over.wait(0.1):
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return

        thread = threading.Thread(target=dribble)
        thread.start()
        done = run(f"http://127.0.0.1:{listener.getsockname()[1]}", "tpl", "list")
        api.over.set()
        thread.join()
    assert done.exit_code == 1
    assert "server_timeout" in done.stderr


def test_a_connection_that_breaks_is_said(api: FakeApi):
    api.on("GET", "/templates", Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[{"))
    done = run(api.url, "tpl", "list")
    assert done.exit_code == 1
    assert "broke before the answer was there" in done.stderr


HTML = "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(content=b"<h1>It works!</h1>", kind=HTML), "answered 200 with text/html"),
        (Answer(502, content=b"<h1>Bad gateway</h1>", kind=HTML), "answered 502 with text/html"),
        (Answer(401, content=b"no", kind="text/plain"), "answered 401 with text/plain"),
        (Answer(content=b"[{", kind="application/json"), "answered 200 with application/json"),
        (Answer(content=b"[" * 100_000), "answered 200 with application/json"),
        (Answer(content=b"\xff\xfe\xfd"), "answered 200 with application/json"),
        (Answer(json={"templates": []}), "JSON of another shape (dict)"),
        (Answer(500, json={"error": "other"}), "answered 500 with application/json"),
        (Answer(json=[], headers={"Content-Encoding": "gzip"}), "cannot be decoded"),
        (Answer(raw=b"SSH-2.0-OpenSSH_9.2p1\r\n"), "broke before the answer"),
    ],
)
def test_an_answer_that_is_not_coppices_is_said(api: FakeApi, answer: Answer, said: str):
    api.on("GET", "/templates", answer)
    done = run(api.url, "tpl", "list")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "next:" in done.stderr


def test_an_answer_without_end_is_cut_off(api: FakeApi, monkeypatch):
    monkeypatch.setattr(client, "MAX_ANSWER", 100_000)
    bomb = gzip.compress(b"[" + b" " * 10_000_000 + b"]")
    api.on("GET", "/templates", Answer(content=bomb, headers={"Content-Encoding": "gzip"}))
    done = run(api.url, "tpl", "list")
    assert done.exit_code == 1
    assert "with more than 100000 bytes" in done.stderr


def test_a_redirect_is_not_followed_so_that_the_token_goes_nowhere(api: FakeApi):
    other = FakeApi()
    try:
        api.on("GET", "/templates", Answer(302, json={}, headers={"Location": other.url}))
        done = run(api.url, "tpl", "list")
        assert other.asked == []
    finally:
        other.close()
    assert done.exit_code == 1
    assert f"redirects to '{other.url}'" in done.stderr


def test_a_proxy_of_the_environment_never_sees_what_goes_to_this_host(api: FakeApi):
    api.on("GET", "/templates", [])
    nowhere = f"http://127.0.0.1:{free_port()}"
    for host in ("127.0.0.1", "localhost"):
        url = api.url.replace("127.0.0.1", host)
        assert run(url, "tpl", "list", HTTP_PROXY=nowhere, http_proxy=nowhere).exit_code == 0


def test_a_proxy_that_cannot_be_one_is_said(api: FakeApi):
    done = run(api.url, "tpl", "list", HTTP_PROXY="socks9://x", http_proxy="socks9://x")
    assert done.exit_code == 1
    assert "Check HTTP_PROXY" in done.stderr


# --- who and where -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["fred", "ftp://host", "http://", "file:///etc", "http://h:99999999", "http://h\x1b[2J"]
)
def test_an_odd_address_is_refused(url: str):
    done = run(url, "tpl", "list")
    assert done.exit_code == 1
    assert "(bad_url)" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_password_in_the_address_is_refused_and_not_shown():
    done = run("http://alice:hunter2@127.0.0.1", "tpl", "list")
    assert done.exit_code == 1
    assert "hunter2" not in done.output


@pytest.mark.parametrize("token", [None, "", "   ", "zwei worte", "tökén", "a\x00b"])
def test_without_a_token_that_can_be_one_nothing_is_asked(api: FakeApi, token: str | None):
    if token and "\0" in token:
        token = token.replace("\0", "\x01")  # no environment can hold a NUL
    done = run(api.url, "tpl", "list", token=token)
    assert done.exit_code == 1
    assert "(no_token)" in done.stderr
    assert "manage.py create_token" in done.stderr
    assert api.asked == []


def test_a_token_is_never_shown(api: FakeApi):
    done = run(api.url, "tpl", "list", token="secret words")
    assert "secret" not in done.output


def test_the_token_can_come_from_a_file(api: FakeApi, tmp_path: Path):
    api.on("GET", "/templates", [])
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    file.chmod(0o600)
    done = run(api.url, "--token-file", str(file), "tpl", "list")
    assert done.exit_code == 0
    assert api.asked[0].headers["authorization"] == "Bearer from-a-file"
    assert "chmod" not in done.stderr
    file.chmod(0o640)
    assert "chmod 600" in run(api.url, "--token-file", str(file), "tpl", "list").stderr


def test_a_token_file_that_is_not_there_is_said(api: FakeApi):
    done = run(api.url, "--token-file", "/nonexistent/token", "tpl", "list")
    assert done.exit_code == 1
    assert "/nonexistent/token cannot be read: No such file or directory." in done.stderr


def test_no_option_takes_a_token_on_the_command_line(api: FakeApi):
    """It would be in the process list, for all to see."""
    assert run(api.url, "--token", "x", "tpl", "list").exit_code == 2


def test_a_wrong_token_is_said_with_what_to_do(api: FakeApi):
    api.on("GET", "/templates", problem(401, "not_authenticated", "Invalid token."))
    done = run(api.url, "tpl", "list")
    assert done.exit_code == 1
    assert "error: Invalid token. (not_authenticated, 401)" in done.stderr


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@pytest.fixture
def tls_url(api: FakeApi, certificate: Path) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    api._server.socket = context.wrap_socket(api._server.socket, server_side=True)
    api.on("GET", "/templates", [])
    return api.url.replace("http://127.0.0.1", "https://localhost")


def test_a_certificate_that_nobody_vouches_for_is_refused(tls_url: str):
    done = run(tls_url, "tpl", "list")
    assert done.exit_code == 1
    assert "(server_tls)" in done.stderr
    assert "SSL_CERT_FILE" in done.stderr


def test_a_ca_of_ones_own_is_named_by_ssl_cert_file(tls_url: str, certificate: Path):
    assert run(tls_url, "tpl", "list", SSL_CERT_FILE=str(certificate)).exit_code == 0


def test_https_to_a_server_without_tls_is_said(api: FakeApi):
    done = run(api.url.replace("http:", "https:"), "tpl", "list")
    assert done.exit_code == 1
    assert "(server_tls)" in done.stderr
    assert "Is it http://?" in done.stderr


# --- exit statuses -------------------------------------------------------------------------------


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.__name__)
def test_the_exit_status_is_that_of_the_problems_code(api: FakeApi, error: type):
    if error is GateRefused:
        return  # its code is the gate's, below
    api.on("GET", "/templates", problem(error.status, error.code))
    assert run(api.url, "tpl", "list").exit_code == int(error.exit_status)


@pytest.mark.parametrize("code", GATE_CODES)
def test_a_refusal_of_the_gate_is_5_whatever_its_code_is_elsewhere(code: str):
    assert client.exit_status(code, 403) == Exit.REFUSED


@pytest.mark.parametrize(
    ("status", "exit_status"), [(400, 2), (403, 1), (409, 4), (501, 3), (599, 1)]
)
def test_a_code_of_the_future_is_judged_by_its_http_status(
    api: FakeApi, status: int, exit_status: int
):
    api.on("GET", "/templates", problem(status, "something_new"))
    done = run(api.url, "tpl", "list")
    assert done.exit_code == exit_status
    assert f"error: It is so. (something_new, {status})" in done.stderr


def test_with_json_a_failure_is_the_problem_document_on_stderr(api: FakeApi):
    api.on("GET", "/templates", problem(409, "template_in_use", clones=["a", "b"]))
    done = run(api.url, "tpl", "list", "--json")
    assert done.exit_code == 4
    assert done.stdout == ""
    document = json.loads(done.stderr)
    assert (document["code"], document["clones"]) == ("template_in_use", ["a", "b"])


def test_with_json_a_failure_of_the_client_has_the_same_shape():
    done = run(f"http://127.0.0.1:{free_port()}", "tpl", "show", "x", "--json")
    document = json.loads(done.stderr)
    assert document["code"] == "server_unreachable"
    assert set(document) == {"type", "title", "status", "code", "detail", "nextStep"}


def test_with_json_a_malformed_name_is_json_too_wherever_the_option_stands():
    for words in (["tpl", "show", "--json", "NO"], ["tpl", "show", "NO", "--json"]):
        done = run("http://127.0.0.1:1", *words)
        assert done.exit_code == 2
        assert json.loads(done.stderr)["code"] == "malformed_name"


def test_what_the_server_adds_to_a_refusal_is_shown(api: FakeApi):
    wrong = {"name": ["It must be a str."], "body": ["No."]}
    api.on(
        "GET", "/templates", problem(400, "malformed_request", errors=wrong, nextStep="See /docs.")
    )
    done = run(api.url, "tpl", "list")
    assert done.exit_code == 2
    assert "  name: It must be a str.\n" in done.stderr
    assert "next:  See /docs.\n" in done.stderr


def test_a_fault_of_the_server_names_the_request_for_its_log(api: FakeApi):
    api.on("GET", "/templates", problem(503, "pool_unavailable"))
    assert "under request request-0001" in run(api.url, "tpl", "list").stderr


def test_all_codes_of_the_client_are_its_own():
    codes = {error.code for error in every_error()} | set(GATE_CODES)
    assert not codes & set(client.CODES)
