"""What generations take of the disk, what they share; and whether an import can fit.

An import is refused before it begins where it cannot fit, never where it only might not: what its
layers have as transferred is the least that they unpack to (compressed files do not get smaller,
nor does ZFS's compression make less of them), unless the same image was here before and took a
known room. One that turns out larger runs into the end of the disk, and is undone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from templates_app.datasets.base import OURS, DatasetDriver, Usage
from templates_app.errors import OutOfSpace, TemplateNotFound, Unavailable
from templates_app.models import Generation, Template
from templates_app.names import TemplateName, human_size
from templates_app.services import common
from templates_app.sources.base import Resolved
from templates_app.sources.native.cache import BlobCache


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSpace:
    """One generation; in bytes on the disk."""

    template: str
    generation: int
    current: bool
    dataset: str
    referenced_bytes: int
    unique_bytes: int  # free without it and what is cloned from it
    origin: str | None  # the rest is shared with this snapshot: a layer state, as a rule
    clones: tuple[str, ...]  # full names: aliases, sandboxes, what is ready to be one
    clones_bytes: int  # what these have of their own

    @property
    def shared_bytes(self) -> int:
        return max(0, self.referenced_bytes - self.unique_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The pool and where blobs are kept; in bytes."""

    pool: str
    available_bytes: int
    used_bytes: int
    margin_bytes: int
    layers_bytes: int | None  # of layer states; None on a pool that has none
    cache_bytes: int  # of blobs
    cache_available_bytes: int
    generations: tuple[GenerationSpace, ...]


def report(*, name: str | None = None) -> Report:
    """All generations that are on the pool, or those of one template; by name and number.

    MalformedName, TemplateNotFound, and what the pool raises.
    """
    rows = Generation.objects.filter(destroyed_position__isnull=True)
    if name is not None:
        parsed = TemplateName.parse(name)
        rows = rows.filter(template_name=parsed.text)
        if not rows:
            raise TemplateNotFound(f"There is no template {parsed}.")
    driver = common.driver()
    now, used = driver.space(), {one.name: one for one in driver.usage()}
    current = set(Template.objects.values_list("current_id", flat=True))
    cache = BlobCache.of(common.source_context())
    layers = driver.layers
    return Report(
        pool=driver.pool,
        available_bytes=now.available_bytes,
        used_bytes=now.used_bytes,
        margin_bytes=settings.COPPICE_SPACE_MARGIN_BYTES,
        layers_bytes=None if layers is None else sum(one.used_bytes for one in layers.images()),
        cache_bytes=sum(one.size_bytes for one in cache.listing()),
        cache_available_bytes=_free(cache.home),
        generations=tuple(
            _generation(row, used[row.dataset], row.pk in current, used)
            for row in rows.defer("statement").order_by("template_name", "number")
            if row.dataset in used  # what is missing takes nothing; reload says so
        ),
    )


def _generation(
    row: Generation, own: Usage, current: bool, used: dict[str, Usage]
) -> GenerationSpace:
    clones = [one for one in used.values() if one.origin == row.origin]
    return GenerationSpace(
        template=row.template_name,
        generation=row.number,
        current=current,
        dataset=row.dataset,
        referenced_bytes=own.referenced_bytes,
        unique_bytes=own.unique_bytes,
        origin=own.origin,
        clones=tuple(sorted(one.name for one in clones)),
        clones_bytes=sum(one.unique_bytes for one in clones),
    )


def require(driver: DatasetDriver, resolved: Resolved, transferred: int) -> None:
    """Return if layers of ``transferred`` bytes can be unpacked on the pool, and kept as blobs.

    ``transferred`` are those that are not on the pool yet. OutOfSpace.
    """
    margin = settings.COPPICE_SPACE_MARGIN_BYTES
    unpacked = transferred
    if transferred == sum(layer.size for layer in resolved.layers):
        unpacked = max(unpacked, _known(driver, resolved))
    available = driver.space().available_bytes
    if transferred and unpacked + margin > available:
        raise _refusal("The pool", unpacked, available, margin)
    cache = BlobCache.of(common.source_context())
    missing = sum(layer.size for layer in resolved.layers if not cache.path(layer.digest).is_file())
    if transferred and missing and missing + margin > (free := _free(cache.home)):
        raise _refusal("The file system of the state directory", missing, free, margin)


def _known(driver: DatasetDriver, resolved: Resolved) -> int:
    """What the same image took on this pool before; 0 where it never was here."""
    rows = Generation.objects.filter(
        manifest_digest=resolved.digests.manifest, dataset__startswith=f"{driver.full_name(OURS)}/"
    )
    sizes = rows.order_by("size_bytes").values_list("size_bytes", flat=True)
    return sizes.first() or 0


def _refusal(where: str, needed: int, available: int, margin: int) -> OutOfSpace:
    return OutOfSpace(
        f"{where} has {human_size(available)} free; the image needs at least {human_size(needed)},"
        f" and {human_size(margin)} are to stay free.",
        hint="See what takes the space (coppice tpl df), free some, then try again;"
        " COPPICE_SPACE_MARGIN_BYTES is what stays free.",
        extra={"neededBytes": needed, "availableBytes": available, "marginBytes": margin},
    )


def _free(place: Path) -> int:
    """Bytes that may be written below a directory, which need not be there yet."""
    there = next(one for one in (place, *place.parents) if one.exists())
    try:
        now = os.statvfs(there)
    except OSError as error:
        raise Unavailable("The state directory does not answer.", private=str(error)) from error
    return now.f_bavail * now.f_frsize
