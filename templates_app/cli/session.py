"""What all commands share: server, token, output, and the options that many of them take."""

from __future__ import annotations

import functools
import os
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from templates_app.cli.client import Api, Failure
from templates_app.cli.output import Column, Document, Output, clean
from templates_app.errors import MalformedName
from templates_app.names import Digest, TemplateName, quote

F = TypeVar("F", bound=Callable[..., Any])

MAX_FILE = 64 * 1024  # bytes of a key, a token or a signature: all are far smaller


class Session:
    def __init__(self, url: str, token: str, token_file: str | None) -> None:
        self.out = Output()
        self._url = url
        self._token = token
        self._token_file = token_file
        self._api: Api | None = None

    @property
    def api(self) -> Api:
        """Made at first use: what asks nothing needs no token."""
        if self._api is None:
            token = self._token
            if self._token_file is not None:
                token = self.read_secret(self._token_file, "token file")
            self._api = Api(self._url, token)
        return self._api

    def close(self) -> None:
        if self._api is not None:
            self._api.close()

    def read_secret(self, name: str, what: str) -> str:
        """A file's text, or that of stdin for ``-``; warns where others could read the file."""
        content, mode = read_file(name)
        if mode is not None and mode & (stat.S_IRWXG | stat.S_IRWXO):
            self.out.warn(f"the {what} {name} is open to others than its owner: chmod 600 it.")
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise Failure("file_unusable", f"{name} is not text.") from None


pass_session = click.make_pass_decorator(Session)


def read_file(name: str) -> tuple[bytes, int | None]:
    """A small file's bytes and mode bits (None where it is not a regular file); ``-`` is stdin."""
    try:
        if name == "-":
            content, mode = sys.stdin.buffer.read(MAX_FILE + 1), None
        else:
            with Path(name).open("rb") as file:
                found = os.fstat(file.fileno()).st_mode
                content, mode = file.read(MAX_FILE + 1), found if stat.S_ISREG(found) else None
    except OSError as error:
        raise Failure("file_unusable", f"{name} cannot be read: {error.strerror}.") from None
    if len(content) > MAX_FILE:
        raise Failure("file_unusable", f"{name} is larger than {MAX_FILE} bytes.")
    return content, mode


# --- arguments -----------------------------------------------------------------------------------


class TemplateType(click.ParamType[str]):
    """A template's name. The API's own rule, so that nothing odd becomes part of an address."""

    name = "name"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        return TemplateName.parse(value).text


@dataclass(frozen=True, slots=True)
class At:
    """A template's generation; ``number`` None is the current one."""

    name: str
    number: int | None

    def __str__(self) -> str:
        return self.name if self.number is None else f"{self.name}@{self.number}"


class GenerationType(click.ParamType[At]):
    """``NAME`` or ``NAME@NUMBER``."""

    name = "generation"

    def convert(self, value: Any, param: Any, ctx: Any) -> At:
        if isinstance(value, At):
            return value
        name, at, number = str(value).partition("@")
        parsed = TemplateName.parse(name).text
        if not at:
            return At(parsed, None)
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise MalformedName(
                f"{quote(value)} names no generation.", hint="Write NAME@NUMBER: fbsd14-min@2."
            )
        return At(parsed, int(number))


class SandboxType(click.ParamType[str]):
    name = "id"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        try:
            return TemplateName.parse(value).text
        except MalformedName as error:
            raise MalformedName(f"{quote(value)} is not a sandbox's id.") from error


class DigestType(click.ParamType[str]):
    """``sha256:…``, or its 64 digits alone."""

    name = "digest"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        bare = len(value) == 64 and ":" not in value
        return Digest.parse(f"sha256:{value}" if bare else value).text


NAME = TemplateType()
GENERATION = GenerationType()
SANDBOX = SandboxType()
DIGEST = DigestType()


# --- options -------------------------------------------------------------------------------------


def _set_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    session = ctx.find_object(Session)
    if value and session is not None:
        session.out.as_json = True


def json_option(function: F) -> F:
    """``--json``. Eager: an argument that is refused after it is already refused in JSON."""
    return click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_set_json,
        help="Print the API's JSON; failures are problem JSON on stderr.",
    )(function)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """How a table is wanted: ``-H``, ``-p``, ``-o``."""

    columns: list[Column]
    chosen: bool
    script: bool
    exact: bool

    def show(self, out: Output, rows: Sequence[Document]) -> None:
        out.table(self.columns, rows, script=self.script, exact=self.exact, chosen=self.chosen)


def listing(columns: Sequence[Column], default: Sequence[str]) -> Callable[[F], F]:
    """``-H``, ``-p``, ``-o`` as zfs(8) has them; the command gets them as ``listing``."""
    by_name = {column.name: column for column in columns}

    def chosen(_ctx: click.Context, _param: click.Parameter, value: str | None) -> list[str] | None:
        names = None if value is None else [part.strip() for part in value.split(",")]
        if unknown := [name for name in names or () if name not in by_name]:
            raise click.BadParameter(
                f"no column {clean(unknown[0])!r}; there are {', '.join(by_name)}."
            )
        return names

    def add(function: F) -> F:
        @functools.wraps(function)
        def with_listing(
            *args: Any, wanted: list[str] | None, script: bool, exact: bool, **rest: Any
        ) -> Any:
            how = Listing(
                columns=[by_name[name] for name in wanted or default],
                chosen=wanted is not None,
                script=script,
                exact=exact,
            )
            return function(*args, listing=how, **rest)

        add_columns = click.option(
            "-o",
            "wanted",
            metavar="COLUMN,…",
            callback=chosen,
            help=f"Columns: {', '.join(by_name)}. Default: {', '.join(default)}.",
        )
        add_exact = click.option(
            "-p", "exact", is_flag=True, help="Exact numbers, times and digests."
        )
        add_script = click.option(
            "-H", "script", is_flag=True, help="For scripts: no heading, one tab between columns."
        )
        return cast(F, add_script(add_exact(add_columns(with_listing))))

    return add
