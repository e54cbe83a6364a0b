"""One repository of a registry, asked in the words of the distribution-spec.

What is asked by digest is compared with it; what a tag means is the registry's word. Mirrors are
asked first, under their own credentials, and the registry itself where they fail (D11).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar

from templates_app.errors import ImportTimeout, MalformedDigest, NotAnImage, PullFailed
from templates_app.names import Digest, Reference
from templates_app.sources import complaints, credentials, documents, hosts
from templates_app.sources.base import SourceContext
from templates_app.sources.native import blobs
from templates_app.sources.native.client import ATTEMPTS, Client, error_body, error_codes
from templates_app.sources.native.network import Deadline, Failure, TimeUp, TooLarge
from templates_app.sources.native.tokens import Authorizer
from templates_app.sources.native.transport import Answer, Transport, Url

logger = logging.getLogger("coppice.registry")

T = TypeVar("T")

#: Seconds for a question: documents are small, so a registry answers or is not there.
ASK_SECONDS = 120.0
#: The same for a mirror: there is another to ask.
MIRROR_SECONDS = 30.0
#: Schema 1 is not among them: it has no digests of layers that could be checked (D2).
ACCEPT = ", ".join(sorted(documents.INDEXES) + sorted(documents.MANIFESTS))

_OF_STATUS = {401: "unauthorized", 403: "denied", 404: "not_found", 429: "rate_limited"}
_OF_CODE = {
    "UNAUTHORIZED": "unauthorized",
    "DENIED": "denied",
    "NAME_UNKNOWN": "not_found",
    "NAME_INVALID": "not_found",
    "MANIFEST_UNKNOWN": "not_found",
    "BLOB_UNKNOWN": "not_found",
    "TAG_INVALID": "not_found",
    "TOOMANYREQUESTS": "rate_limited",
}


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index, its bytes hashed."""

    data: bytes
    media_type: str  # as the registry said, without parameters; empty where it said none
    digest: Digest


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a repository is asked for: the registry, or a mirror of it."""

    url: Url  # …/v2/<name>
    query: str
    authorizer: Authorizer
    mirror: bool

    def at(self, kind: str, what: str) -> Url:
        # A digest or a tag: both grammars have nothing that an address must escape.
        query = self.query.replace("?", "&") if "?" in what else self.query
        return self.url.join(f"{self.url.target}/{kind}/{what}{query}")


#: Pages of one list of referrers that are read.
_PAGES = 5
_NEXT = re.compile(r'<[^>?]*(\?[^>\s]*)>\s*;\s*rel="?next"?')


class Registry:
    """Threads may share it. Close it.

    Everything raises PullFailed with its reason, RegistryNotAllowed, and Unavailable for
    credentials or authorities that cannot be read.
    """

    def __init__(self, reference: Reference, context: SourceContext) -> None:
        self._reference, self._context = reference, context
        self._transport = Transport(
            allowed=context.allowed, insecure=context.insecure, ca_file=context.ca_file
        )
        self._client = Client(self._transport)
        self._silent: set[Url] = set()  # mirrors that failed
        self._given: set[Digest] = set()  # blobs that were given whole
        self._warned = False
        mirrors = dict(context.mirrors).get(reference.host, ())
        places = [self._place(host, mirror=True) for host in mirrors]
        self._places = [*places, self._place(reference.host, mirror=False)]

    def _place(self, host: str, *, mirror: bool) -> _Place:
        repository = self._reference.repository
        if self._reference.host in hosts.HUB and "/" not in repository:
            repository = f"library/{repository}"
        asked = hosts.asked(host)
        scheme = "http" if self._transport.plain(host) else "https"
        registry = Url.parse(f"{scheme}://{asked}/")
        return _Place(
            url=registry.join(f"/v2/{repository}"),
            query=f"?ns={self._reference.host}" if mirror else "",
            authorizer=Authorizer(
                self._client,
                registry,
                repository,
                credentials.find(self._context.auth_file, host, repository),
                (*self._context.allowed, *self._context.insecure),
            ),
            mirror=mirror,
        )

    # --- what is asked ---------------------------------------------------------------------------

    def head(self, what: Digest | str) -> Digest | None:
        """What a tag names now, as the registry says; None where it does not say (D3)."""

        def read(place: _Place, answer: Answer) -> Digest | None:
            if answer.status not in (200, 400, 405, 501):
                raise self._failure(place, answer)
            answer.discard()
            if answer.status != 200:
                return None  # no HEAD here; the GET that follows has a body that says why
            try:
                return Digest.parse(answer.header("Docker-Content-Digest"))
            except MalformedDigest:
                return None

        return self._first("HEAD", str(what), read)

    def standing(self, tag: str, known: Digest, *, seconds: float) -> Digest | None:
        """What a tag names now, by one HEAD in ``seconds``; None where the registry does not say.

        It is asked for what is not ``known``: a registry whose ETags are digests, as most have
        them (RFC 9110 section 13.1.2), then answers 304.
        """

        def read(place: _Place, answer: Answer) -> Digest | None:
            if answer.status not in (200, 304):
                raise self._failure(place, answer)
            answer.discard()
            if answer.status == 304:
                return known
            try:
                return Digest.parse(answer.header("Docker-Content-Digest"))
            except MalformedDigest:
                return None

        headers = {"If-None-Match": f'"{known}"'}
        return self._first("HEAD", tag, read, headers=headers, seconds=seconds, attempts=2)

    def manifest(self, what: Digest | str) -> Document:
        """By digest or tag. NotAnImage where it is too large to be one."""

        def read(place: _Place, answer: Answer) -> Document:
            if answer.status != 200:
                raise self._failure(place, answer)
            try:
                data = answer.read(documents.MAX_DOCUMENT)
            except TooLarge:
                raise NotAnImage(
                    f"The manifest is larger than {documents.MAX_DOCUMENT} bytes."
                ) from None
            answer.close()
            digest = documents.sha256(data)
            if isinstance(what, Digest) and digest != what:
                raise Failure("corrupt", f"{answer.url}: asked for {what}, got {digest}")
            media_type = answer.header("Content-Type").partition(";")[0].strip().lower()
            return Document(data, media_type, digest)

        return self._first("GET", str(what), read)

    def referrers(self, digest: Digest) -> list[bytes] | None:
        """Pages of the index of what refers to a manifest; None where there is no such list (I9).

        Of the address of a next page only its query counts: no registry sends us elsewhere.
        """

        def read(place: _Place, answer: Answer) -> tuple[bytes, str]:
            if answer.status != 200:
                raise self._failure(place, answer)
            found = _NEXT.search(answer.header("Link"))
            data = answer.read(documents.MAX_DOCUMENT)
            answer.close()
            return data, found[1] if found else ""

        pages: list[bytes] = []
        more = ""
        try:
            while not pages or (more and len(pages) < _PAGES):
                what = f"{digest}{more}"
                data, more = self._first("GET", what, read, kind="referrers", attempts=2)
                pages.append(data)
        except PullFailed as error:
            if pages or error.extra.get("reason") != "not_found":
                raise
            return None
        return pages

    def document(self, digest: Digest, size: int) -> bytes:
        """A small blob, such as a config, compared with its digest; in the time of a question."""
        if size > documents.MAX_DOCUMENT:
            raise ValueError("not a small blob")
        with self._told():
            data = b"".join(self._blob(digest, size, 0, self._seconds(ASK_SECONDS)))
            if documents.sha256(data) != digest:
                raise Failure("corrupt", f"not {digest}")
        return data

    def blob(self, digest: Digest, size: int, *, offset: int = 0) -> Iterator[bytes]:
        """The blob's bytes from ``offset`` on, as transferred; connections that break are resumed.

        Never a byte beyond ``size``; all of them, or PullFailed, or ImportTimeout. Whoever reads
        hashes them: one who finds another digest drops what it has and asks from 0, and then no
        mirror is asked. Read it to its end or close it.
        """
        with self._told(blob=True):
            yield from self._blob(digest, size, offset, self._context.step_seconds)

    def close(self) -> None:
        """From any thread: what others read from it fails at once, and nothing more is asked."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- questions -------------------------------------------------------------------------------

    def _first(
        self,
        method: str,
        what: str,
        read: Callable[[_Place, Answer], T],
        *,
        kind: str = "manifests",
        headers: Mapping[str, str] = MappingProxyType({}),
        seconds: float = ASK_SECONDS,
        attempts: int = ATTEMPTS,
    ) -> T:
        """What the first place that knows it says of a manifest."""
        with self._told():
            for place in self._living():
                with self._or_the_next(place):
                    return self._client.ask(
                        method,
                        place.at(kind, what),
                        Deadline(
                            self._seconds(min(seconds, MIRROR_SECONDS) if place.mirror else seconds)
                        ),
                        partial(self._heard, partial(read, place)),
                        headers={"Accept": ACCEPT, **headers},
                        authorize=place.authorizer.authorize,
                        attempts=1 if place.mirror else attempts,
                    )
        raise AssertionError("the registry itself is the last place")

    def _heard(self, read: Callable[[Answer], T], answer: Answer) -> T:
        """A registry's warnings are shown once, and never acted on (D10)."""
        for text in answer.headers("Warning"):
            if not self._warned and text.startswith("299 "):
                self._warned = True
                logger.warning("%s warns: %s", self._reference.host, ascii(text[:4096]))
        return read(answer)

    def _seconds(self, most: float) -> float:
        return min(most, self._context.step_seconds)

    def _living(self) -> Iterator[_Place]:
        return (one for one in self._places if one.url not in self._silent)

    @contextmanager
    def _or_the_next(self, place: _Place) -> Iterator[None]:
        """What a mirror fails in is asked elsewhere; what the registry fails in, is not."""
        try:
            yield
        except (Failure, PullFailed) as failure:  # PullFailed: its host has no address
            if not place.mirror:
                raise
            logger.info("mirror %s: %s, %s", place.url, failure.reason, failure)
            if failure.reason not in ("not_found", "corrupt"):
                self._silent.add(place.url)

    @contextmanager
    def _told(self, *, blob: bool = False) -> Iterator[None]:
        try:
            yield
        except Failure as failure:
            if blob and isinstance(failure, TimeUp):
                raise ImportTimeout(
                    f"A blob of {self._reference.canonical} did not arrive within"
                    f" {self._context.step_seconds} seconds."
                ) from None
            raise complaints.pull_failed(
                self._reference,
                failure.reason,
                failure.private,
                refused=failure.refused,
                kept_from=self._places[-1].authorizer.kept_from,
            ) from None

    def _failure(self, place: _Place, answer: Answer) -> Failure:
        """What an answer that is none stands for: its status first, then the codes in its body."""
        body = error_body(answer)
        codes = error_codes(body)
        reason = _OF_STATUS.get(answer.status)
        if answer.status == 400 and answer.url.scheme == "http" and b"HTTPS" in body:
            reason = "tls"  # what Go's and nginx's servers answer, in the clear, where TLS is meant
        elif reason is None and answer.status < 500:
            reason = next((_OF_CODE[code] for code in codes if code in _OF_CODE), None)
        said = f"{answer.url} answered {answer.status} {' '.join(codes[:5])}".rstrip()
        refused = place.authorizer.has_credentials
        return Failure(reason or "unreachable", said, refused=refused)

    # --- blobs -----------------------------------------------------------------------------------

    def _blob(self, digest: Digest, size: int, at: int, seconds: float) -> Iterator[bytes]:
        deadline = Deadline(seconds)
        # Asked again from the start: what was given is not what was wanted, and no mirror can be
        # told apart from the one that did it.
        again = at == 0 and digest in self._given
        for place in [one for one in self._living() if not (again and one.mirror)]:
            with self._or_the_next(place):
                for chunk in self._from(place, digest, size, at, deadline):
                    at += len(chunk)  # for the next place, should this one fail
                    yield chunk
                self._given.add(digest)
                return

    def _from(
        self, place: _Place, digest: Digest, size: int, at: int, deadline: Deadline
    ) -> Iterator[bytes]:
        attempts = 1 if place.mirror else ATTEMPTS

        def ask(headers: Mapping[str, str], then: Callable[[Answer], Answer]) -> Answer:
            return self._client.ask(
                "GET",
                place.at("blobs", str(digest)),
                deadline,
                partial(self._heard, then),
                headers=headers,
                authorize=place.authorizer.authorize,
                attempts=attempts,
            )

        return blobs.resumed(
            ask,
            partial(self._failure, place),
            partial(self._client.pause, deadline=deadline),
            size=size,
            at=at,
            attempts=attempts,
        )
