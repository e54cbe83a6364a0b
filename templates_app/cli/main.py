"""``coppice``: the group that holds the nouns, and the one place where failures become words."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from typing import Any

import click

from templates_app.cli import VERSION
from templates_app.cli.client import INTERRUPTED, Failure
from templates_app.cli.digest import digest
from templates_app.cli.events import events
from templates_app.cli.key import key
from templates_app.cli.log import log
from templates_app.cli.output import Output, many, pick, shown
from templates_app.cli.sandbox import sandbox
from templates_app.cli.session import Session
from templates_app.cli.tpl import tpl
from templates_app.errors import CoppiceError


class Coppice(click.Group):
    """The top group. Commands raise; here it is said, and made an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Failure as failure:
            self._end(ctx, failure)
        except CoppiceError as error:
            self._end(ctx, Failure.of_error(error))
        except KeyboardInterrupt:
            self._end(ctx, _interrupted())
        except click.Abort as abort:
            # click makes one of both; only Ctrl-C is 130, the end of the input is a failure.
            if isinstance(abort.__context__, KeyboardInterrupt):
                self._end(ctx, _interrupted())
            self._end(ctx, Failure("stopped_waiting", "The input ended before the answer."))
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the reader has gone (`| head`): click ends quietly with 1
            self._end(
                ctx, Failure("file_unusable", f"The output cannot be written: {error.strerror}.")
            )
        finally:
            session = ctx.find_object(Session)
            if session is not None:
                session.close()

    @staticmethod
    def _end(ctx: click.Context, failure: Failure) -> None:
        session = ctx.find_object(Session)
        report(session.out if session is not None else Output(), failure)
        ctx.exit(failure.exit_status)


def _interrupted() -> Failure:
    return Failure(
        "stopped_waiting",
        "Interrupted. What the server was asked for, it may still do.",
        exit_status=INTERRUPTED,
    )


def report(out: Output, failure: Failure) -> None:
    """Say a failure on stderr: the sentence, what the server adds to it, what to do next."""
    document = failure.document
    if out.as_json:
        click.echo(json.dumps(document).replace("\x7f", "\\u007f"), err=True)
        return
    if failure.exit_status == INTERRUPTED:
        out.say(failure.detail)  # that is what was wanted: no error, and no code to look up
    else:
        code = failure.code + (f", {failure.status}" if failure.status else "")
        out.say(f"error: {failure.detail} ({code})", style="bold red")
    if many(document, "checks"):
        out.checks(document, talk=True)
    for clone in many(document, "clones"):
        out.say(f"  clone: {shown(clone)}")
    for member, wrong in _wrong_fields(document):
        out.say(f"  {member}: {wrong}")
    said = [pick(check, "nextStep") for check in many(document, "checks")]
    if failure.next_step and failure.next_step not in said:
        out.say(f"next:  {failure.next_step}")
    # 501 says all there is: the scheme has no code yet.
    if failure.status >= 500 and failure.status != 501 and (request := pick(document, "requestId")):
        out.say(f"The server's log has more under request {shown(request)}.")


def _wrong_fields(document: dict[str, Any]) -> list[tuple[str, str]]:
    """What a 400 says of the body's or the query's members."""
    wrong = document.get("errors")
    return [(str(k), shown(v)) for k, v in wrong.items()] if isinstance(wrong, dict) else []


@click.group(cls=Coppice, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="coppice", message="%(prog)s %(version)s")
@click.option(
    "--url",
    envvar="COPPICE_URL",
    default="http://127.0.0.1:8420",
    show_default=True,
    metavar="URL",
    help="The server's address (COPPICE_URL).",
)
@click.option(
    "--token-file",
    metavar="FILE",
    help="File with the API token. Without it: COPPICE_TOKEN.",
)
@click.pass_context
def cli(ctx: click.Context, url: str, token_file: str | None) -> None:
    """Signed, audited sandbox templates from container images.

    \b
    The way of a template:
      coppice tpl import-oci fbsd14-min quay.io/dougrabson/freebsd14-minimal
      coppice tpl sign fbsd14-min --key coppice.sec
      coppice sandbox create --template fbsd14-min

    COPPICE_URL says where the server is, COPPICE_TOKEN who you are. Data goes to stdout, talk to
    stderr. Exit status: 0 done, 1 failed, 2 wrong usage, 3 scheme not implemented, 4 conflict,
    5 refused by the gate, 6 image not pulled, 130 interrupted.
    """
    ctx.obj = Session(url, os.environ.get("COPPICE_TOKEN", ""), token_file)


for command in (tpl, sandbox, key, events, digest, log):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point. Ends the process with the exit status."""
    cli.main(args=None if arguments is None else list(arguments), prog_name="coppice")


if __name__ == "__main__":
    main()
