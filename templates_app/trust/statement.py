"""The statement: what a signature is made over. docs/reference/statement.md describes each field.

An in-toto Statement v1 with a SLSA provenance v1 predicate as canonical JSON (RFC 8785). It holds
nothing that differs between hosts, runs or engines: the same name, image and parameters give the
same bytes everywhere, so one signature serves a fleet, a rollback, a re-import of the same image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import rfc8785

from templates_app.errors import MalformedDigest, MalformedName, StatementMalformed
from templates_app.events import Deviation, Digests
from templates_app.names import Digest, TemplateName

STATEMENT = "https://in-toto.io/Statement/v1"  # in-toto attestation, spec/v1/statement.md
PROVENANCE = "https://slsa.dev/provenance/v1"  # SLSA build provenance, predicateType
# Names, not addresses: nothing is to be fetched from them. A change of what a template's bytes are
# made of, or of the manifest's format, makes a new version.
IMPORTED = "urn:coppice:build:image:v1"
ADOPTED = "urn:coppice:build:adopted:v1"
BUILDER = "urn:coppice:builder:v1"
MAX_BYTES = 1024 * 1024


def build(
    *,
    template: str,
    tree_digest: str,
    canonical_reference: str,
    platform: str,
    digests: Digests,
    exclusions: Iterable[str],
    deviations: Sequence[Deviation],
) -> bytes:
    """The statement of an imported generation.

    ``exclusions`` are paths or patterns that were left out, ``deviations`` the places that differ
    from the image on purpose; their order does not matter. A deviation's reason is not in it: it is
    for people, and a better sentence must not need a new signature.
    """
    image = {"index": digests.index, "manifest": digests.manifest, "config": digests.config}
    return _statement(
        template,
        tree_digest,
        {
            "buildType": IMPORTED,
            "externalParameters": {
                "name": template,
                "platform": platform,
                "reference": canonical_reference,
            },
            "internalParameters": {
                "deviations": sorted(
                    map(_deviation, deviations), key=lambda one: sorted(one.items())
                ),
                "exclusions": sorted(set(exclusions)),
            },
            "resolvedDependencies": [
                {"name": name, "digest": _digest_set(digest)}
                for name, digest in image.items()
                if digest is not None
            ],
        },
    )


def build_adopted(*, template: str, tree_digest: str) -> bytes:
    """The statement of a hand-made template: which files, and that their origin is not known."""
    adopted = {"buildType": ADOPTED, "externalParameters": {"name": template}}
    return _statement(template, tree_digest, adopted)


def digest(statement: bytes) -> str:
    return "sha256:" + hashlib.sha256(statement).hexdigest()


def subject(statement: bytes) -> tuple[str, str]:
    """(template's name, tree digest) that the statement binds. StatementMalformed.

    Only bytes that :func:`build` could have made are taken: canonical JSON (so that no two readers
    see two things in it) of our build types, about one template.
    """
    parsed = _parse(statement)
    try:
        if (parsed["_type"], parsed["predicateType"]) != (STATEMENT, PROVENANCE):
            _malformed("it is not an in-toto statement with SLSA provenance")
        ((name, found),) = [(one["name"], one["digest"]) for one in parsed["subject"]]
        definition = parsed["predicate"]["buildDefinition"]
        if definition["buildType"] not in (IMPORTED, ADOPTED):
            _malformed("its build type is not one that this version knows")
        if definition["externalParameters"]["name"] != name:
            _malformed("it names two templates")
        ((algorithm, value),) = found.items()
        tree_digest = Digest.parse(f"{algorithm}:{value}")
        return TemplateName.parse(name).text, tree_digest.text
    except (AttributeError, KeyError, TypeError, ValueError):
        _malformed("a field is missing or of another shape")
    except (MalformedDigest, MalformedName) as error:
        _malformed(error.detail.rstrip("."))


def _statement(template: str, tree_digest: str, definition: Mapping[str, Any]) -> bytes:
    return rfc8785.dumps(
        {
            "_type": STATEMENT,
            "predicateType": PROVENANCE,
            "subject": [{"name": template, "digest": _digest_set(tree_digest)}],
            "predicate": {
                "buildDefinition": dict(definition),
                "runDetails": {"builder": {"id": BUILDER}},
            },
        }
    )


def _digest_set(text: str) -> dict[str, str]:
    return {"sha256": Digest.parse(text).hex}


def _deviation(one: Deviation) -> dict[str, str]:
    found = {"path": one.path}
    if one.sha256 is not None:
        found["sha256"] = one.sha256.removeprefix("sha256:")
    return found


def _parse(statement: bytes) -> dict[str, Any]:
    if len(statement) > MAX_BYTES:
        _malformed(f"it is longer than {MAX_BYTES} bytes")
    try:
        parsed = json.loads(statement.decode("utf-8"))
        canonical = rfc8785.dumps(parsed)
    except (ValueError, RecursionError):  # of JSON, of UTF-8, of numbers beyond I-JSON, of depth
        _malformed("it is not JSON that RFC 8785 can write")
    if canonical != statement:
        _malformed("it is not canonical JSON (RFC 8785)")
    if not isinstance(parsed, dict):
        _malformed("it is not an object")
    return parsed


def _malformed(why: str) -> NoReturn:
    raise StatementMalformed(f"The statement is malformed: {why}.")
