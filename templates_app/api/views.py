"""One class per address: shape in, use case, shape out."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from templates_app import models
from templates_app import roles as may
from templates_app.api import serializers as shapes
from templates_app.api.errors import MEDIA_TYPE
from templates_app.api.openapi import (
    DIGEST,
    ETAG,
    IDEMPOTENCY_KEY,
    IF_MATCH,
    LOCATION,
    MAX_PAGE,
    MAX_POSITION,
    NAME,
    SANDBOX_ID,
    problems,
    query,
    whole,
)
from templates_app.api.shared import (
    View,
    checked,
    flag,
    idempotency_key,
    number,
    tagged,
    unless_changed,
    who,
)
from templates_app.services import (
    destroy,
    generations,
    idempotency,
    imports,
    launches,
    queries,
    signing,
)


class Templates(View):
    needs = {"GET": may.VIEW, "POST": may.OPERATE}

    @extend_schema(
        operation_id="templates_list",
        parameters=[
            query("signed", OpenApiTypes.BOOL),
            query("digest", shapes.DIGEST, "An index, manifest, config or tree digest."),
            query("name", shapes.NAME),
            query("platform", help_text="os/arch, for example freebsd/amd64."),
            *ETAG,
        ],
        responses={200: shapes.Template(many=True), 304: None, **problems()},
    )
    def get(self, request: Request) -> Response:
        rows = queries.templates(
            name=request.query_params.get("name"),
            digest=request.query_params.get("digest"),
            platform=request.query_params.get("platform"),
            signed=flag(request, "signed"),
        )
        return tagged(request, shapes.Template(rows, many=True).data)  # type: ignore[arg-type]

    @extend_schema(
        operation_id="templates_import",
        parameters=[LOCATION, IF_MATCH, IDEMPOTENCY_KEY],
        request=shapes.ImportRequest,
        responses={201: shapes.Template, **problems(409, 412, 415, 422, 500, 501, 502, 504, 507)},
    )
    def post(self, request: Request) -> Response:
        """Import an image; blocks until the template is there."""
        wanted = checked(shapes.ImportRequest, request.data)
        arguments: dict[str, Any] = {
            "name": wanted["name"],
            "source": wanted["from"],
            "force": wanted["force"],
            "context": who(request),
            "unless": lambda: unless_changed(request, wanted["name"]),
        }
        key = idempotency_key(request)
        if key is None:
            imports.import_template(**arguments)
            row = queries.template(name=wanted["name"])
        else:
            row = queries.outcome(idempotency.import_once(key=key, **arguments))
        return Response(
            shapes.Template(row).data,
            status=201,
            headers={"Location": f"/templates/{row.template.name}"},
        )


class Template(View):
    needs = {"GET": may.VIEW, "DELETE": may.OPERATE}

    @extend_schema(
        operation_id="templates_show",
        parameters=[NAME, *ETAG],
        responses={200: shapes.Template, 304: None, **problems()},
    )
    def get(self, request: Request, name: str) -> Response:
        return tagged(request, shapes.Template(queries.template(name=name)).data)

    @extend_schema(
        operation_id="templates_destroy",
        parameters=[
            NAME,
            query("dryRun", OpenApiTypes.BOOL, "Only say which datasets would go."),
            query(
                "retire",
                OpenApiTypes.BOOL,
                "Keep generations that something is cloned from, until"
                " nothing is; the name is free at once.",
            ),
            IF_MATCH,
        ],
        responses={200: shapes.Destroying, 204: None, **problems(409, 412, 507)},
    )
    def delete(self, request: Request, name: str) -> Response:
        """204; with `dryRun` 200 with what would go and what would stay, and nothing changes."""
        how: dict[str, Any] = {
            "name": name,
            "retire": flag(request, "retire") or False,
            "unless": lambda: unless_changed(request, name),
        }
        if flag(request, "dryRun"):
            return Response(shapes.Destroying(destroy.preview(**how)).data)
        destroy.destroy(context=who(request), **how)
        return Response(status=204)


class Statement(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="templates_statement",
        parameters=[NAME],
        responses={(200, "application/vnd.in-toto+json"): OpenApiTypes.OBJECT, **problems()},
    )
    def get(self, request: Request, name: str) -> HttpResponse:
        """The exact bytes to sign."""
        text = signing.statement(name=name)
        return HttpResponse(text, content_type="application/vnd.in-toto+json")


class Signatures(View):
    needs = {"GET": may.VIEW, "POST": may.SIGN}

    @extend_schema(
        operation_id="signatures_list",
        parameters=[NAME],
        responses={200: shapes.Signature(many=True), **problems()},
    )
    def get(self, request: Request, name: str) -> Response:
        """The signatures over the current generation's statement."""
        row = queries.template(name=name)
        rows = queries.signatures(statement_digest=row.template.current.statement_digest)
        return Response(shapes.Signature(rows, many=True).data)

    @extend_schema(
        operation_id="signatures_add",
        parameters=[NAME, IF_MATCH],
        request=shapes.SignatureRequest,
        responses={201: shapes.Signature, **problems(409, 412, 415, 422)},
    )
    def post(self, request: Request, name: str) -> Response:
        wanted = checked(shapes.SignatureRequest, request.data)
        recorded = signing.sign(
            name=name,
            signature=wanted["signature"],
            context=who(request),
            unless=lambda: unless_changed(request, name),
        )
        row = models.Signature.objects.get(pk=recorded.position)
        return Response(shapes.Signature(row).data, status=201)


class Generations(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="templates_generations",
        parameters=[NAME],
        responses={200: shapes.Generation(many=True), **problems()},
    )
    def get(self, request: Request, name: str) -> Response:
        """The generations that are on the pool, the newest first, with what is cloned from each."""
        rows = generations.generations(name=name)
        return Response(shapes.Generation(rows, many=True).data)  # type: ignore[arg-type]


class Rollback(View):
    needs = {"POST": may.OPERATE}

    @extend_schema(
        operation_id="templates_rollback",
        parameters=[NAME, IF_MATCH],
        request=shapes.RollbackRequest,
        responses={
            200: shapes.Template,
            **problems(409, 412, 415),
            (403, MEDIA_TYPE): shapes.LaunchRefused,
        },
    )
    def post(self, request: Request, name: str) -> Response:
        """Make an older generation current again, if the gate would let it be launched."""
        wanted = checked(shapes.RollbackRequest, request.data)
        generations.rollback(
            name=name,
            to=wanted.get("to"),
            context=who(request),
            unless=lambda: unless_changed(request, name),
        )
        return Response(shapes.Template(queries.template(name=name)).data)


class Gate(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="gate",
        parameters=[NAME],
        responses={200: shapes.GateDecision, **problems()},
    )
    def get(self, request: Request, name: str) -> Response:
        """What the gate would decide now, with every check; nothing is cloned."""
        return Response(launches.gate_decision(name=name).to_json())


class TemplateEvents(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="templates_events",
        parameters=[
            NAME,
            query("after", whole(MAX_POSITION), "Only events after this position."),
            query("limit", whole(MAX_PAGE), f"At most this many; {MAX_PAGE} if nothing is said."),
        ],
        responses={200: shapes.Event(many=True), **problems()},
    )
    def get(self, request: Request, name: str) -> Response:
        """The events about this name, oldest first; also of a destroyed one.

        Fewer than asked for: these were the last.
        """
        after = number(request, "after", 0, MAX_POSITION)
        limit = number(request, "limit", MAX_PAGE, MAX_PAGE)
        page = queries.history(name=name, after=after, limit=limit)
        return Response(shapes.Event(page, many=True).data)


class TemplateImport(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="templates_import_status",
        parameters=[NAME],
        responses={200: shapes.RunningImport, **problems()},
    )
    def get(self, request: Request, name: str) -> Response:
        """How far the running import is, or how the last one ended."""
        return Response(shapes.RunningImport(queries.import_status(name=name)).data)


class Events(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="events_list",
        parameters=[
            query("after", whole(MAX_POSITION), "Only events after this position."),
            query("limit", whole(MAX_PAGE), "At most this many; 100 where nothing is said."),
        ],
        responses={200: shapes.Feed, **problems()},
    )
    def get(self, request: Request) -> Response:
        """The log in commit order. Positions have no gaps: what was seen stays seen."""
        after = number(request, "after", 0, MAX_POSITION)
        limit = number(request, "limit", 100, MAX_PAGE)
        page = queries.feed(after=after, limit=limit)
        last = page[-1].position if page else after
        return Response({"events": shapes.Event(page, many=True).data, "after": last})


class Digest(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="digests_show",
        parameters=[DIGEST],
        responses={200: shapes.Provenance, **problems()},
    )
    def get(self, request: Request, digest: str) -> Response:
        """Everything known of a digest: generations, signatures, launches, events."""
        return Response(shapes.Provenance(queries.digest_facts(digest=digest)).data)


class Sandboxes(View):
    needs = {"GET": may.VIEW, "POST": may.LAUNCH}

    @extend_schema(
        operation_id="sandboxes_list",
        parameters=[query("template", shapes.NAME)],
        responses={200: shapes.Sandbox(many=True), **problems()},
    )
    def get(self, request: Request) -> Response:
        rows = queries.sandboxes(template=request.query_params.get("template"))
        return Response(shapes.Sandbox(rows, many=True).data)

    @extend_schema(
        operation_id="sandboxes_create",
        parameters=[LOCATION],
        request=shapes.SandboxRequest,
        responses={
            201: shapes.Sandbox,
            **problems(409, 415, 507),
            (403, MEDIA_TYPE): shapes.LaunchRefused,
        },
    )
    def post(self, request: Request) -> Response:
        """Clone a template through the gate. A refusal (403) has the decision as its body."""
        wanted = checked(shapes.SandboxRequest, request.data)
        recorded = launches.create_sandbox(
            template=wanted["template"], name=wanted.get("name"), context=who(request)
        )
        row = launches.launched(recorded)  # also if somebody was quick to destroy it
        return Response(
            shapes.Sandbox(row).data, status=201, headers={"Location": f"/sandboxes/{row.id}"}
        )


class Sandbox(View):
    needs = {"GET": may.VIEW, "DELETE": may.LAUNCH}

    @extend_schema(
        operation_id="sandboxes_show",
        parameters=[SANDBOX_ID],
        responses={200: shapes.Sandbox, **problems()},
    )
    def get(self, request: Request, sandbox_id: str) -> Response:
        return Response(shapes.Sandbox(queries.sandbox(sandbox_id=sandbox_id)).data)

    @extend_schema(
        operation_id="sandboxes_destroy",
        parameters=[SANDBOX_ID],
        responses={204: None, **problems(409)},
    )
    def delete(self, request: Request, sandbox_id: str) -> Response:
        launches.destroy_sandbox(sandbox_id=sandbox_id, context=who(request))
        return Response(status=204)
