"""Hand-made ``<name>-template@base`` datasets: read, so that they become templates."""

from __future__ import annotations

from templates_app.datasets.base import DatasetDriver, alias_name
from templates_app.errors import TemplateMissing
from templates_app.events import Adopted
from templates_app.services import archive
from templates_app.trust import statement


def adopted(driver: DatasetDriver, name: str) -> Adopted:
    """What stands under the name now, as generation 0 of it. What the pool and the files raise."""
    relative = alias_name(name)
    with driver.reading(relative) as path:
        made, _ = archive.scanned(path)
    snapshot = driver.snapshot(relative)
    if snapshot is None:
        raise TemplateMissing(f"{relative} vanished while it was read.")
    text = statement.build_adopted(template=name, tree_digest=made.digest)
    return Adopted(
        template=name,
        dataset=driver.full_name(relative),
        snapshot=snapshot.name,
        snapshot_guid=snapshot.guid,
        size_bytes=snapshot.size_bytes,
        entries=made.entries,
        tree_digest=made.digest,
        statement=text.decode("ascii"),
        statement_digest=statement.digest(text),
    )
