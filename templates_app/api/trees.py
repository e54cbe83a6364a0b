"""What is in a template's files, what two have otherwise, and whether they still are that."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers as s
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from templates_app import roles as may
from templates_app.api import serializers as shapes
from templates_app.api.openapi import NAME, problems, query, whole
from templates_app.api.shared import View, checked, number, who
from templates_app.services import trees, verifying
from templates_app.trust import compare

_MAX_NUMBER = 2**31 - 1
_MAX_SKIP = 2**31 - 1
_MAX_PATTERN = 1000  # characters
_MAX_PATH = 4 * 4096  # characters of a path in a manifest: each byte may be \ooo


GENERATION = query("generation", whole(_MAX_NUMBER), "The current one, where nothing is said.")


class _Which(s.Serializer[Any]):
    template = s.CharField(source="template_name")
    generation = s.IntegerField(source="number")
    treeDigest = s.CharField(source="tree_digest")


class Xattr(s.Serializer[Any]):
    name = s.CharField()
    sha256 = s.CharField(help_text="Of its value.")

    def to_representation(self, instance: Any) -> dict[str, Any]:
        name, sha256 = instance
        return {"name": name, "sha256": sha256}


class File(s.Serializer[Any]):
    """One entry of a tree manifest; what its type does not have is null."""

    path = s.CharField(
        help_text="As the manifest spells it: ./usr/bin/env, with \\ooo for odd bytes."
    )
    type = s.ChoiceField(choices=["file", "dir", "link", "fifo", "char", "block"])
    mode = s.SerializerMethodField()
    uid = s.IntegerField()
    gid = s.IntegerField()
    size = s.IntegerField(allow_null=True)
    sha256 = s.CharField(allow_null=True)
    link = s.CharField(allow_null=True, help_text="A link's target.")
    xattrs = Xattr(many=True)
    flags = s.CharField(allow_blank=True, help_text="FreeBSD's file flags.")
    hardlink = s.CharField(allow_blank=True, help_text="The first name of the same file.")

    def get_mode(self, entry: Any) -> str | None:
        return None if entry.mode is None else f"{entry.mode:04o}"


class FilesPage(_Which):
    files = File(many=True)
    after = s.CharField(allow_null=True, help_text="Ask on with this; null: these were the last.")


class Field(s.Serializer[Any]):
    name = s.CharField(help_text="mode, uid, gid, size, sha256, link, flags, xattr NAME …")
    before = s.CharField(allow_null=True)
    after = s.CharField(allow_null=True)


class Difference(s.Serializer[Any]):
    path = s.CharField()
    change = s.ChoiceField(choices=["added", "removed", "changed"])
    grave = s.ListField(
        child=s.ChoiceField(choices=compare.GRAVE), help_text="Why it stands first."
    )
    fields = Field(many=True)  # type: ignore[assignment] # the wire's word, not the class's fields


class Diff(s.Serializer[Any]):
    """All of it counted; one page of it told."""

    before = _Which()
    after = _Which()
    added = s.IntegerField(source="comparison.added")
    removed = s.IntegerField(source="comparison.removed")
    changed = s.IntegerField(source="comparison.changed")
    grave = s.IntegerField(source="comparison.grave", help_text="Of all these.")
    differences = Difference(source="comparison.differences", many=True)
    next = s.IntegerField(
        source="following", allow_null=True, help_text="Ask on with this `skip`; null: the last."
    )


class VerifyRequest(s.Serializer[Any]):
    generation = s.IntegerField(
        required=False,
        min_value=0,
        max_value=_MAX_NUMBER,
        help_text="The current one, where nothing is said.",
    )


class Verified(s.Serializer[Any]):
    """What the `verified` event says, and what to do about it."""

    template = s.CharField()
    generation = s.IntegerField()
    dataset = s.CharField()
    result = s.ChoiceField(choices=["matches", "differs", "unreadable"])
    detail = s.CharField(allow_blank=True)
    treeDigest = s.CharField(help_text="As it was recorded.")
    foundDigest = s.CharField(allow_null=True, help_text="Of the files as they are.")
    snapshotGuid = s.CharField(allow_null=True)
    excepted = s.ListField(
        child=s.ChoiceField(choices=tuple(compare.SKIPPED)),
        help_text="What the import could not bring over, and was passed over.",
    )
    entries = s.IntegerField()
    sizeBytes = s.IntegerField()
    added = s.IntegerField()
    removed = s.IntegerField()
    changed = s.IntegerField()
    grave = s.IntegerField(help_text="Of all these.")
    differences = Difference(many=True, help_text="The first 20, the grave ones first.")
    statementDigest = s.CharField()
    manifestDigest = s.CharField(allow_null=True)
    milliseconds = s.IntegerField()
    position = s.IntegerField(help_text="Of the event.")
    nextStep = s.CharField(allow_blank=True)


class Files(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="templates_files",
        parameters=[
            NAME,
            GENERATION,
            query(
                "pattern", help_text="As find(1) takes it: `*.so`, `etc/*`; stars match slashes."
            ),
            query(
                "after", help_text="Only what comes behind this path, as the manifest spells it."
            ),
            query(
                "limit", whole(trees.MOST_FILES), "At most this many; 500 where nothing is said."
            ),
        ],
        responses={200: FilesPage, **problems()},
    )
    def get(self, request: Request, name: str) -> Response:
        """A page of what a generation's tree manifest lists, also of a destroyed one."""
        found = trees.files(
            name=name,
            number=generation_of(request, "generation"),
            pattern=_text(request, "pattern", _MAX_PATTERN),
            after=_text(request, "after", _MAX_PATH),
            limit=number(request, "limit", 500, trees.MOST_FILES),
        )
        return Response(
            {
                **_Which(found.generation).data,
                "files": File(found.page.entries, many=True).data,
                "after": found.page.after,
            }
        )


class TreeDiff(View):
    needs = {"GET": may.VIEW}

    @extend_schema(
        operation_id="templates_diff",
        parameters=[
            NAME,
            GENERATION,
            query("other", shapes.NAME, "The name to compare with; the same, if nothing is said."),
            query("otherGeneration", whole(_MAX_NUMBER), "Its current one, if nothing is said."),
            query("skip", whole(_MAX_SKIP), "Differences that were told before."),
            query(
                "limit",
                whole(trees.MOST_DIFFERENCES),
                "At most this many; 100 where nothing is said.",
            ),
        ],
        responses={200: Diff, **problems()},
    )
    def get(self, request: Request, name: str) -> Response:
        """What another generation has otherwise: set-id, capabilities, owners, devices first."""
        found = trees.diff(
            name=name,
            number=generation_of(request, "generation"),
            other=request.query_params.get("other", name),
            other_number=generation_of(request, "otherGeneration"),
            skip=number(request, "skip", 0, _MAX_SKIP),
            limit=number(request, "limit", 100, trees.MOST_DIFFERENCES),
        )
        return Response(Diff(found).data)


class Verify(View):
    needs = {"POST": may.OPERATE}

    @extend_schema(
        operation_id="templates_verify",
        parameters=[NAME],
        request=VerifyRequest,
        responses={200: Verified, **problems(409, 415, 422, 507)},
    )
    def post(self, request: Request, name: str) -> Response:
        """Read the generation's files again; blocks. What differs stops launches from now on."""
        wanted = checked(VerifyRequest, request.data)
        recorded = verifying.verify(
            name=name, number=wanted.get("generation"), context=who(request)
        )
        return Response(verifying.explained(recorded))


def generation_of(request: Request, key: str) -> int | None:
    """Generation 0 is the hand-made one; nothing is said where the key is not there."""
    return None if key not in request.query_params else number(request, key, 0, _MAX_NUMBER)


def _text(request: Request, key: str, most: int) -> str:
    text = request.query_params.get(key, "")
    if len(text) > most or not text.isprintable():
        raise ValidationError({key: [f"It must be at most {most} printable characters."]})
    return text
