"""HTTP to the server: JSON in and out, every trouble as one :class:`Failure`.

A problem document (RFC 9457) becomes a Failure with the exit status of its ``code``. What never
was a problem document (no connection, a proxy's page, a redirect) becomes a Failure with a code of
our own, from :data:`CODES`.
"""

from __future__ import annotations

import json
import ssl
import time
import uuid
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import quote

import httpx

from templates_app.cli import VERSION
from templates_app.errors import GATE_CODES, CoppiceError, Exit, every_error

CONNECT = 10.0  # seconds until a connection must stand
READ = 30.0  # seconds of silence in an answer
TOTAL = 120.0  # seconds for a whole answer, unless the call is a patient one
MAX_ANSWER = 64 * 1024 * 1024  # bytes, after decompression: a listing is far below
MAX_FILE = 1024**3  # bytes of an evidence bundle: the manifest of a million files is a tenth

STATEMENT_TYPE = "application/vnd.in-toto+json"
INTERRUPTED = 130  # 128 + SIGINT, as shells count

#: Codes of failures that the client finds itself; docs/reference/cli.md lists them.
CODES = {
    "bad_url": "COPPICE_URL is not an address that can be asked.",
    "no_token": "There is no token, or it cannot be one.",
    "server_unreachable": "No connection to the server.",
    "server_timeout": "The server did not answer in time.",
    "server_tls": "The server's TLS certificate or protocol is not acceptable.",
    "server_lost": "The connection broke before the answer was there.",
    "server_answer": "The answer is not one of Coppice's: another server, or a proxy between.",
    "stopped_waiting": "The command was interrupted (Ctrl-C).",
    "file_unusable": "A file that was named cannot be read or written.",
    "statement_wrong": "The statement served is not about what was asked for.",
    "not_signed": "The check of a signature says no.",
    "log_differs": "The log is not the one that its checkpoints were signed for.",
}

_EXIT_OF = {error.code: int(error.exit_status) for error in every_error()}
_EXIT_OF_STATUS = {400: Exit.USAGE, 409: Exit.CONFLICT, 412: Exit.CONFLICT}


def exit_status(code: str, status: int) -> int:
    """The exit status for a problem's ``code``, or for its HTTP status where that is unknown."""
    # Some codes are both an error's and the gate's (template_missing): 403 is the gate speaking.
    if code in GATE_CODES and (status == 403 or code not in _EXIT_OF):
        return int(Exit.REFUSED)
    if code in _EXIT_OF:
        return _EXIT_OF[code]
    if status == 501:
        return int(Exit.NOT_IMPLEMENTED)
    return int(_EXIT_OF_STATUS.get(status, Exit.FAILURE))


class Failure(Exception):
    """Why the command fails: a sentence, what to do next, the exit status, the JSON form."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        next_step: str = "",
        status: int = 0,
        exit_status: int = int(Exit.FAILURE),
        title: str = "",
        document: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.next_step = next_step
        self.status = status  # HTTP's; 0 where the server did not say this
        self.exit_status = exit_status
        self.document: dict[str, Any] = dict(document or {}) or {
            "type": f"urn:coppice:error:{code}",
            "title": title or CODES.get(code, ""),
            "status": status,
            "code": code,
            "detail": detail,
            "nextStep": next_step,
        }

    @classmethod
    def of_error(cls, error: CoppiceError) -> Self:
        """An error that was found without asking the server: a malformed name, a bad key."""
        return cls(
            error.code,
            error.detail,
            next_step=error.next_step,
            exit_status=int(error.exit_status),
            title=error.title,
        )

    @classmethod
    def of_problem(cls, document: Mapping[str, Any], status: int) -> Self:
        code = str(document.get("code") or "")
        return cls(
            code,
            str(document.get("detail") or document.get("title") or f"HTTP {status}"),
            next_step=str(document.get("nextStep") or ""),
            status=status,
            exit_status=exit_status(code, status),
            document=document,
        )

    @property
    def outcome_unknown(self) -> bool:
        """Whether the server may have done what was asked although we have no answer."""
        proxy = self.code == "server_answer" and self.status in (502, 503, 504)
        return self.code in ("server_lost", "server_timeout") or proxy


def path(*parts: str) -> str:
    """An address below the server's; parts are quoted, so that none can lead elsewhere."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def server_url(text: str) -> str:
    """``text`` as a base address without a slash at its end. Failure ``bad_url``."""
    hint = "Set COPPICE_URL or --url to http://HOST:PORT or https://HOST."
    try:
        url = httpx.URL(text.strip())
    except (httpx.InvalidURL, ValueError):
        raise Failure("bad_url", f"{text[:80]!a} is not a URL.", next_step=hint) from None
    port = 1 if url.port is None else url.port
    if url.scheme not in ("http", "https") or not url.host or not 0 < port < 65536:
        raise Failure("bad_url", f"{text[:80]!a} is not an http(s) URL.", next_step=hint)
    if url.userinfo or url.query or url.fragment:
        # Not shown: userinfo can be a password. It would also replace the token's header.
        raise Failure("bad_url", "The URL has a user, a query or a fragment.", next_step=hint)
    return str(url).rstrip("/")


def checked_token(text: str) -> str:
    """``text`` if a header can carry it. Failure ``no_token``, which never shows the text."""
    token = text.strip()
    hint = "Set COPPICE_TOKEN, or give --token-file FILE. On the server: manage.py create_token"
    if not token:
        raise Failure("no_token", "There is no token.", next_step=hint)
    if any(not "!" <= char <= "~" for char in token):
        wrong = "The token has blanks, control or non-ASCII characters."
        raise Failure("no_token", wrong, next_step=hint)
    return token


class Api:
    """The server's API with one token. May be used by several threads at once."""

    def __init__(self, url: str, token: str) -> None:
        self.url = server_url(url)
        try:
            self._http = httpx.Client(
                headers={
                    "Authorization": f"Bearer {checked_token(token)}",
                    "Accept": f"application/json, {STATEMENT_TYPE}",
                    "User-Agent": f"coppice/{VERSION}",
                },
                # Loopback is never a proxy's business, and a proxy must not see its token.
                mounts={f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")},
                # A redirect is not followed: it would carry the token to another server.
                follow_redirects=False,
            )
        except (ValueError, OSError, ImportError) as error:
            # A proxy variable or SSL_CERT_FILE that httpx cannot use.
            wrong = f"The client cannot be set up: {error}"
            hint = "Check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE."
            raise Failure("bad_url", wrong, next_step=hint) from error

    def close(self) -> None:
        self._http.close()

    def get(self, where: str, kind: type = dict, *, read: float | None = READ, **query: Any) -> Any:
        """The answer's JSON, of type ``kind`` (dict or list)."""
        return self._json("GET", where, kind, query=query, read=read)

    def get_bytes(
        self, where: str, *, kind: str = STATEMENT_TYPE, patient: bool = False, **query: Any
    ) -> bytes:
        """The answer's exact bytes, of this media type: never parsed and written anew.

        ``patient``: it is a file, however long it takes, of at most MAX_FILE bytes.
        """
        asked = {key: value for key, value in query.items() if value is not None}
        read, most = (None, MAX_FILE) if patient else (READ, 0)
        response, content = self._ask("GET", where, asked, None, read, "", most=most)
        if _kind_of(response).partition(";")[0] != kind:
            raise self._foreign(response, _kind_of(response))
        return content

    def post(
        self,
        where: str,
        body: Any = None,
        kind: type = dict,
        *,
        patient: bool = False,
        request_id: str = "",
    ) -> Any:
        """The answer's JSON, of type ``kind``.

        ``patient``: however long the answer takes (an import, a reload).
        """
        read = None if patient else READ
        return self._json("POST", where, kind, body=body, read=read, request_id=request_id)

    def delete(self, where: str, **query: Any) -> Any:
        """The answer's JSON, or {} for 204. Patient: datasets can take long to destroy."""
        return self._json("DELETE", where, dict, query=query, read=None)

    def _json(
        self,
        method: str,
        where: str,
        kind: type,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        read: float | None = READ,
        request_id: str = "",
    ) -> Any:
        asked = {key: value for key, value in (query or {}).items() if value is not None}
        response, content = self._ask(method, where, asked, body, read, request_id)
        if response.status_code == 204:
            return {}
        document = _parsed(response, content)
        if document is None:
            raise self._foreign(response, _kind_of(response))
        if not isinstance(document, kind):
            raise self._foreign(response, f"JSON of another shape ({type(document).__name__})")
        return document

    def _ask(
        self,
        method: str,
        where: str,
        query: Mapping[str, Any],
        body: Any,
        read: float | None,
        request_id: str,
        *,
        most: int = 0,  # bytes; 0 is MAX_ANSWER
    ) -> tuple[httpx.Response, bytes]:
        """One exchange; anything but a 2xx is a Failure."""
        shown = {
            key: str(value).lower() if isinstance(value, bool) else value
            for key, value in query.items()
        }
        most = most or MAX_ANSWER
        deadline = None if read is None else time.monotonic() + TOTAL
        content = bytearray()
        try:
            with self._http.stream(
                method,
                self.url + where,
                params=shown or None,
                json=body,
                headers={"X-Request-Id": request_id or uuid.uuid4().hex},
                timeout=httpx.Timeout(READ, connect=CONNECT, read=read),
            ) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > most:
                        raise self._foreign(response, f"more than {most} bytes")
                    if deadline is not None and time.monotonic() > deadline:
                        raise httpx.ReadTimeout("the answer dribbles", request=response.request)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._trouble(error) from error
        if response.is_success:
            return response, bytes(content)
        raise self._problem(response, bytes(content))

    def _problem(self, response: httpx.Response, content: bytes) -> Failure:
        if response.is_redirect:
            to = response.headers.get("location", "")[:200]
            return Failure(
                "server_answer",
                f"{self.url} redirects to {to!a}.",
                next_step="If that is your server, set COPPICE_URL to it.",
                status=response.status_code,
            )
        document = _parsed(response, content)
        if not isinstance(document, dict) or not isinstance(document.get("code"), str):
            return self._foreign(response, _kind_of(response))
        return Failure.of_problem(document, response.status_code)

    def _foreign(self, response: httpx.Response, what: str) -> Failure:
        return Failure(
            "server_answer",
            f"{self.url} answered {response.status_code} with {what}: not an answer of Coppice.",
            next_step="Check COPPICE_URL, and what stands between (a proxy?).",
            status=response.status_code,
        )

    def _trouble(self, error: Exception) -> Failure:
        """What went wrong below HTTP, in one sentence."""
        if (tls := _in_chain(error, ssl.SSLError)) is not None:
            return Failure(
                "server_tls",
                f"TLS with {self.url} failed: {getattr(tls, 'reason', None) or tls}.",
                next_step="Is it http://? Where its CA is your own, set SSL_CERT_FILE to the CA.",
            )
        cause = _in_chain(error, OSError)
        why = getattr(cause, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, httpx.ConnectTimeout):
            why = f"no answer within {CONNECT:g} s"
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
            return Failure(
                "server_unreachable",
                f"No connection to {self.url}: {why}.",
                next_step="Is the server running, and COPPICE_URL right?",
            )
        if isinstance(error, httpx.TimeoutException):
            return Failure(
                "server_timeout",
                f"{self.url} took the connection, but did not answer in time.",
                next_step="Look at the server's log and load, then try again.",
            )
        if isinstance(error, httpx.DecodingError):
            return Failure(
                "server_answer",
                f"{self.url} answered with a body that cannot be decoded.",
                next_step="Check COPPICE_URL, and what stands between (a proxy?).",
            )
        return Failure(
            "server_lost",
            f"The connection to {self.url} broke before the answer was there: {why}.",
            next_step="Look at the present state before you try again.",
        )


def _kind_of(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "no content type"))[:80]


def _parsed(response: httpx.Response, content: bytes) -> Any:
    """The body as JSON; None where it is none."""
    kind = _kind_of(response).partition(";")[0].strip().lower()
    if not (kind == "application/json" or kind.endswith("+json")):
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _in_chain(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """The first of ``kind`` among an error and what it came from."""
    at: BaseException | None = error
    while at is not None and not isinstance(at, kind):
        at = at.__cause__ or at.__context__
    return at
