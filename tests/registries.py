"""Registries for tests: Debian's docker-registry, and a proxy that misbehaves in front of it.

``registry``         one for the session of each xdist worker, on a free loopback port, no TLS
``locked_registry``  the same behind HTTP Basic authentication
``tls_registry``     that behind a certificate of an authority that nobody knows, too
``secure_registry``  TLS by an own authority and HTTP Basic; has what was pushed to ``registry``
``token_registry``   behind a token service; has what was pushed to ``registry``
``faults``           a proxy in front of ``registry``; what it should do wrong is said by the test
"""

from __future__ import annotations

import base64
import datetime
import http.client
import http.server
import ipaddress
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from deploy import images
from deploy.images import Document
from tests.ports import free_port

USER, PASSWORD = "operator", "correct horse"  # noqa: S105 - of a registry that lives for a test
STARTS_WITHIN = 30.0  # seconds


class Registry:
    """A running docker-registry. ``host`` is what stands at the front of a reference.

    With ``data`` of another one it has what was pushed there.
    """

    def __init__(
        self,
        place: Path,
        *,
        locked: bool = False,
        tls: bool = False,
        tokens: TokenService | None = None,
        data: Path | None = None,
    ) -> None:
        program = shutil.which("docker-registry")
        if program is None:
            raise AssertionError("docker-registry is not installed: run deploy/setup.py test")
        self.place = place
        self.data = data or place / "data"
        self.program = program
        self.auth = (USER, PASSWORD) if locked else None
        self.certificates = certificates(place) if tls else None
        self.tokens = tokens
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    def start(self) -> None:
        for _ in range(5):
            self.port = free_port()
            self._spawn()
            if self._answers():
                return
            self.stop()  # somebody else took the port just before
        raise AssertionError((self.place / "log").read_text()[-2000:])

    def _spawn(self) -> None:
        settings: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.data)},
                "delete": {"enabled": True},
            },
            "http": {"addr": f"127.0.0.1:{self.port}"},
        }
        if self.auth:
            hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
            (self.place / "htpasswd").write_text(f"{USER}:{hashed}\n")
            basic = {"realm": "test", "path": str(self.place / "htpasswd")}
            settings["auth"] = {"htpasswd": basic}
        if self.tokens:
            settings["auth"] = {
                "token": {
                    "realm": self.tokens.realm,
                    "service": self.tokens.service,
                    "issuer": self.tokens.issuer,
                    "rootcertbundle": str(self.tokens.certificates.authority),
                }
            }
        if found := self.certificates:
            settings["http"] = {
                "addr": f"127.0.0.1:{self.port}",
                "tls": {"certificate": str(found.certificate), "key": str(found.key)},
            }
        config = self.place / "config.yml"
        config.write_text(json.dumps(settings))  # JSON is YAML
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "serve", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        until = time.monotonic() + STARTS_WITHIN
        while self.process and self.process.poll() is None and time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return True
        return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
            self.process = None

    def push(self, repository: str, tag: str, document: Document) -> str:
        return images.push(self.host, repository, tag, document, auth=self.auth)

    def delete(self, repository: str, tag: str) -> None:
        """What the tag names is gone (distribution-spec: manifests are deleted by digest)."""
        place = f"http://{self.host}/v2/{repository}/manifests"
        accept = {"Accept": f"{images.OCI_MANIFEST}, {images.OCI_INDEX}"}
        with httpx.Client(auth=self.auth, trust_env=False) as client:
            found = client.head(f"{place}/{tag}", headers=accept).raise_for_status()
            digest = found.headers["Docker-Content-Digest"]
            client.delete(f"{place}/{digest}").raise_for_status()

    def credentials(self, place: Path, password: str = PASSWORD) -> Path:
        """A file as containers-auth.json(5) has it."""
        word = base64.b64encode(f"{USER}:{password}".encode()).decode()
        place.write_text(json.dumps({"auths": {self.host: {"auth": word}}}))
        return place


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files: an authority's certificate, and a server's key and certificate by it."""

    authority: Path
    key: Path
    certificate: Path


def certificates(place: Path, *names: str) -> Certificates:
    """An authority that nobody knows, and what it signed for localhost and other names."""
    own, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _certificate("Test Authority", own, own, "Test Authority", authority=True)
    leaf = _certificate("localhost", key, own, "Test Authority", names=names)
    found = Certificates(place / "ca.crt", place / "tls.key", place / "tls.crt")
    found.authority.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    found.certificate.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    found.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return found


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    issuer: str,
    *,
    names: tuple[str, ...] = (),
    authority: bool = False,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(_named(subject))
        .issuer_name(_named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        also = [x509.DNSName(name) for name in ("localhost", *names)]
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        made = made.add_extension(x509.SubjectAlternativeName([*also, address]), critical=False)
    return made.sign(signer, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


# --- the token service ---------------------------------------------------------------------------


class TokenService:
    """What a registry of `auth: token` sends to: tokens for its one user, or for pulls of `open/`.

    As docker-registry's documentation has it ("Token Authentication Specification"): a JWT that
    says what may be done, signed with a key whose certificate the registry knows.
    """

    service, issuer = "registry.test", "tokens.test"

    def __init__(self, made: Certificates, user: str, password: str) -> None:
        self.certificates, self.user, self.password = made, user, password
        self.asked: list[str] = []  # queries
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _token_handler(self))
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def host(self) -> str:
        return f"localhost:{self.server.server_port}"

    @property
    def realm(self) -> str:
        return f"http://{self.host}/token"

    def token(self, scopes: list[str]) -> str:
        key = serialization.load_pem_private_key(self.certificates.key.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("the key is another algorithm's")
        certificate = x509.load_pem_x509_certificate(self.certificates.certificate.read_bytes())
        der = certificate.public_bytes(serialization.Encoding.DER)
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        head = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            "iss": self.issuer,
            "sub": self.user,
            "aud": self.service,
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": str(now),
            "access": access,
        }
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (head, claims))
        numbers = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        signature = b"".join(number.to_bytes(32, "big") for number in numbers)
        return f"{signed}.{_base64url(signature)}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _token_handler(service: TokenService) -> type[http.server.BaseHTTPRequestHandler]:
    right = base64.b64encode(f"{service.user}:{service.password}".encode()).decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urllib.parse.urlsplit(self.path)
            service.asked.append(asked.query)
            scopes = urllib.parse.parse_qs(asked.query).get("scope", [])
            said = self.headers.get("Authorization")
            if said is not None and said != f"Basic {right}":
                self.send_error(401)
                return
            if said is None:
                scopes = [one for one in scopes if one.startswith("repository:open/")]
            body = json.dumps({"token": service.token(scopes), "expires_in": 300}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Silent: ``asked`` has it."""

    return Handler


# --- the proxy -----------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Fault:
    """What happens to requests whose path matches. Without anything said they pass unharmed."""

    path: str  # a regular expression, searched in the path
    status: int | None = None  # answered instead of asking the registry
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None  # instead of the registry's
    flip: int | None = None  # the byte at this offset is changed
    truncate: int | None = None  # so many bytes are sent, then the connection ends
    hang: bool = False  # nothing is answered until the proxy stops
    until: threading.Event | None = None  # nothing is answered before it is set


class FaultProxy:
    """An HTTP server that hands requests on to a registry, save where a fault says otherwise."""

    def __init__(self, upstream: str, tls: tuple[Path, Path] | None = None) -> None:
        self.upstream = upstream
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []  # (method, path)
        self.stopped = threading.Event()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls[1], tls[0])
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def host(self) -> str:
        return f"localhost:{self.server.server_port}"

    def on(self, path: str, **what: object) -> None:
        self.faults.append(Fault(path=path, **what))  # type: ignore[arg-type]

    def fault(self, path: str) -> Fault:
        found = (one for one in self.faults if re.search(one.path, path))
        return next(found, Fault(path=""))

    def paths(self) -> list[str]:
        return [path for _, path in self.requests]

    def stop(self) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def _handler(proxy: FaultProxy) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            proxy.requests.append((self.command, self.path))
            fault = proxy.fault(self.path)
            if fault.hang:
                proxy.stopped.wait()
                self.close_connection = True
                return
            while fault.until and not (fault.until.wait(0.05) or proxy.stopped.is_set()):
                pass
            status, headers, body = fault.status or 200, dict(fault.headers), fault.body or b""
            if fault.status is None and fault.body is None:
                status, passed, body = self._ask()
                headers = passed | headers
            if fault.flip is not None and body:
                changed = bytearray(body)
                changed[fault.flip] ^= 0x01
                body = bytes(changed)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                sent = body if fault.truncate is None else body[: fault.truncate]
                self.wfile.write(sent)
            if fault.truncate is not None:
                self.wfile.flush()
                self.close_connection = True

        do_HEAD = do_GET

        def _ask(self) -> tuple[int, dict[str, str], bytes]:
            host, _, port = proxy.upstream.partition(":")
            connection = http.client.HTTPConnection(host, int(port), timeout=60)
            # skopeo says each media type that it takes in a line of its own.
            said = {name: self.headers.get_all(name) for name in ("Accept", "Range")}
            accept = {name: ", ".join(lines) for name, lines in said.items() if lines}
            try:
                # GET for HEAD too: the length that we announce is that of the body.
                connection.request("GET", self.path, headers=accept)
                answer = connection.getresponse()
                kept = ("content-type", "docker-content-digest", "www-authenticate")
                headers = {n: v for n, v in answer.getheaders() if n.lower() in kept}
                return answer.status, headers, answer.read()
            finally:
                connection.close()

        def log_message(self, format: str, *args: object) -> None:
            """Silent: ``requests`` has it."""

    return Handler


# --- fixtures ------------------------------------------------------------------------------------


def _running(place: Path, **kind: Any) -> Iterator[Registry]:
    made = Registry(place, **kind)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    yield from _running(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="session")
def locked_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    yield from _running(tmp_path_factory.mktemp("locked"), locked=True)


@pytest.fixture(scope="session")
def tls_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    yield from _running(tmp_path_factory.mktemp("tls"), tls=True)


@pytest.fixture(scope="session")
def secure_registry(
    registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    yield from _running(
        tmp_path_factory.mktemp("secure"), locked=True, tls=True, data=registry.data
    )


@pytest.fixture(scope="session")
def token_registry(
    registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    service = TokenService(certificates(tmp_path_factory.mktemp("tokens")), USER, PASSWORD)
    try:
        yield from _running(tmp_path_factory.mktemp("by-token"), tokens=service, data=registry.data)
    finally:
        service.stop()


@pytest.fixture
def faults(registry: Registry) -> Iterator[FaultProxy]:
    proxy = FaultProxy(registry.host)
    try:
        yield proxy
    finally:
        proxy.stop()
