"""What is in a generation's files, and what two generations have otherwise: from kept manifests.

Nothing is read on the pool, so this holds for generations that are destroyed, too. Whether the
files still are what their manifest says, only a verification tells.
"""

from __future__ import annotations

from dataclasses import dataclass

from templates_app.errors import GenerationNotFound, MalformedRequest, ManifestMissing
from templates_app.models import Generation
from templates_app.names import TemplateName
from templates_app.services import archive, queries
from templates_app.trust import compare, entries

#: The most entries, and differences, of one page.
MOST_FILES = 2000
MOST_DIFFERENCES = 500


def generation(*, name: str, number: int | None) -> Generation:
    """The generation of that number, also a destroyed one; without a number the current one.

    MalformedName, TemplateNotFound, GenerationNotFound.
    """
    if number is None:
        return queries.template(name=name).template.current
    parsed = TemplateName.parse(name)
    row = Generation.objects.filter(template_name=parsed.text, number=number).first()
    if row is None:
        raise GenerationNotFound(f"The log has no generation {number} of {parsed}.")
    return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    generation: Generation
    page: entries.Page


def files(*, name: str, number: int | None, pattern: str, after: str, limit: int) -> Files:
    """A page of a generation's entries that ``pattern`` means (as find(1)), behind a path.

    MalformedRequest, ManifestMissing, and what :func:`generation` raises.
    """
    row = generation(name=name, number=number)
    manifest = archive.manifest(row)
    limit = min(max(limit, 1), MOST_FILES)
    try:
        page = entries.page(manifest, pattern=pattern, after=after, limit=limit)
    except entries.NotAManifest as error:
        if after:
            raise MalformedRequest(f"There is no page after {after[:200]}: {error}.") from error
        raise _unreadable(row, error) from error
    return Files(generation=row, page=page)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    before: Generation
    after: Generation
    comparison: compare.Comparison
    following: int | None  # what to skip for the next page; None: these were the last


def diff(
    *, name: str, number: int | None, other: str, other_number: int | None, skip: int, limit: int
) -> Diff:
    """What the ``other`` generation has otherwise, what matters most first; one page of it.

    ManifestMissing, and what :func:`generation` raises.
    """
    before = generation(name=name, number=number)
    after = generation(name=other, number=other_number)
    limit = min(max(limit, 1), MOST_DIFFERENCES)
    if before.tree_digest == after.tree_digest:
        return Diff(before=before, after=after, comparison=compare.Comparison(), following=None)
    texts = archive.manifest(before), archive.manifest(after)
    try:
        found = compare.compare(*texts, skip=skip, limit=limit)
    except entries.NotAManifest as error:
        raise _unreadable(before, error) from error
    told = skip + len(found.differences)
    following = told if told < found.total else None
    return Diff(before=before, after=after, comparison=found, following=following)


def _unreadable(row: Generation, error: entries.NotAManifest) -> ManifestMissing:
    what = f"{row.template_name} generation {row.number}"
    return ManifestMissing(f"The tree manifest of {what} cannot be read: {error}.")
