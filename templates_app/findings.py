"""Findings: what each code means, whether it stops launches, what ``--fix`` does, what to do.

The one table of them. docs/reference/findings.md has the same rows, and a test holds it to that.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """``to_do`` may name ``{template}`` and ``{subject}``. ``fix``: empty where nothing is safe."""

    says: str
    to_do: str
    blocks: bool = False  # launches of the generation that it touches
    fix: str = ""
    deep: bool = False  # only a look into the files finds it, so only such a look clears it


_AGAIN = "coppice tpl import-oci {template} REF --force"

KINDS: dict[str, Kind] = {
    "dataset_missing": Kind(
        says="The log has this generation, and its dataset is not on the pool.",
        blocks=True,
        to_do="Restore it (zfs receive), then: coppice tpl reload. Or import again: " + _AGAIN,
    ),
    "snapshot_missing": Kind(
        says="The dataset is there, its @base is not: nothing can be cloned from it.",
        blocks=True,
        to_do="Where you made it by hand, snapshot it as @base, then: coppice tpl reload."
        " A generation of Coppice's is imported again: " + _AGAIN,
    ),
    "guid_changed": Kind(
        says="@base was made anew: it is not the snapshot that was recorded.",
        blocks=True,
        to_do="Find out who replaced it, then import again: " + _AGAIN,
    ),
    "tree_changed": Kind(
        says="The files of @base are not those that the tree digest was made of.",
        blocks=True,
        deep=True,
        to_do="Find out who changed them, then import again: " + _AGAIN,
    ),
    "unknown_dataset": Kind(
        says="It has a name of Coppice's, but was made by somebody else and cannot be adopted.",
        to_do="Rename it or destroy it: as long as it is there, the name is taken.",
    ),
    "directory_not_dataset": Kind(
        says="A plain directory stands where a dataset should be: nothing can be cloned from it.",
        blocks=True,
        to_do="Move it away. What you made by hand as a template belongs in a dataset {subject}"
        " with a snapshot @base. Then: coppice tpl reload",
    ),
    "orphan_dataset": Kind(
        says="It lies among the generations, and neither the log nor a running import knows it.",
        fix="Removed where it is certainly Coppice's own and gone: the log has the generation as"
        " gone or its import as failed, and nothing is cloned from it.",
        to_do="Look at whose it is. If nobody needs it, destroy it; if the database is older than"
        " the pool, restore the newer one.",
    ),
    "orphan_sandbox": Kind(
        says="It is a clone of a generation, and the log knows no such sandbox.",
        to_do="Somebody cloned by hand, or the database is older than the pool. If nobody needs"
        " it: zfs destroy {subject}",
    ),
    "sandbox_missing": Kind(
        says="The log has this sandbox as live, and its dataset is not on the pool.",
        to_do="Somebody destroyed it by hand: say so to the log with: coppice sandbox destroy ID."
        " Or restore it.",
    ),
    "alias_stale": Kind(
        says="The alias does not lead to the current generation, or is not there; or its template"
        " is gone.",
        fix="Led to the current generation; removed where its template is gone.",
        to_do="Move it: coppice tpl reload --fix",
    ),
    "alias_has_clones": Kind(
        says="Somebody cloned from the alias by hand: what it was cloned from stays for it.",
        to_do="Nothing must be done. Destroy the clones that nobody needs, then the old generation"
        " can go.",
    ),
    "mountpoint_moved": Kind(
        says="It would be mounted elsewhere than in its place below the pool's root.",
        fix="Its mountpoint is inherited again.",
        to_do="Find out who moved it, then put it back: coppice tpl reload --fix",
    ),
    "not_adopted": Kind(
        says="It was made by hand as a template, and could not be read.",
        to_do="Mend what the finding says, then: coppice tpl reload",
    ),
    "not_verified": Kind(
        says="Its files could not be read to compare them.",
        deep=True,
        to_do="Mend what the finding says, then: coppice tpl reload --verify",
    ),
}

#: Codes of findings that stop launches of what they touch.
BLOCKING = tuple(code for code, kind in KINDS.items() if kind.blocks)
DEEP = tuple(code for code, kind in KINDS.items() if kind.deep)

_UNKNOWN = Kind(
    says="Another version of Coppice found it; this one does not know the code.",
    to_do="Look it up in the documentation of the version that found it.",
)


def kind(code: str) -> Kind:
    """What is known of a code; a code of another version is told to be one."""
    return KINDS.get(code, _UNKNOWN)


def stops(code: str, *, generation: int | None) -> bool:
    """Whether a finding stops launches: only of a generation that it touches."""
    return generation is not None and kind(code).blocks


def next_step(code: str, *, template: str | None, subject: str) -> str:
    """What to do about one finding, with its names filled in."""
    words = {"{template}": template or "NAME", "{subject}": subject}
    text = kind(code).to_do
    for word, value in words.items():
        text = text.replace(word, value)
    return text
