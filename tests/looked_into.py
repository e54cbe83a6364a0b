"""Import and verify as whoever runs this: ``python -m tests.looked_into PLACE LAYOUT``.

On a ``dir:`` pool and a database below PLACE, of the image ``1`` of an OCI layout. Prints, as JSON,
what the verification said of the files as they are, and after one was changed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import django


def main(place: Path, layout: Path) -> None:
    for name in ("pool", "state"):
        (place / name).mkdir()
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "coppice_site.settings",
        "COPPICE_POOL": f"dir:{place / 'pool'}",
        "COPPICE_STATE_DIR": str(place / "state"),
        "COPPICE_IMPORT_ROOTS": str(layout.parent),
        "COPPICE_PLATFORM": "linux/amd64",
        "COPPICE_NODE": "test",
        "HOME": str(place),
    }
    django.setup()
    from django.core.management import call_command

    from templates_app.services import common, imports, verifying

    call_command("migrate", verbosity=0)
    who = common.context(actor="tests", source="command", request_id="r" * 8)
    made = imports.import_template(name="web", source=f"oci-layout:{layout}:1", context=who)
    said = [verifying.verify(name="web", context=who).event]
    (Path(f"{made.event.dataset}@base") / "etc/motd").write_text("changed")
    said.append(verifying.verify(name="web", context=who).event)
    reasons = [one.reason for one in made.event.deviations]
    print(json.dumps({"reasons": reasons, "said": [event.to_json() for event in said]}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
