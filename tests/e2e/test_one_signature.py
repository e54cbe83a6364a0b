"""One image, on two kinds of pool, by both engines, in four installations: one statement, byte for
byte, and one signature of the real signify that launches it in each of them."""

from __future__ import annotations

import shutil
from pathlib import Path

from deploy import images
from templates_app.names import Platform
from templates_app.services import common, generations, imports, launches, signing
from tests.pools import sh
from tests.registries import Registry
from tests.servers import Keys
from tests.trees import CAP_NET_RAW

WHO = common.context(actor="olivia", source="command", request_id="r" * 8)


def image() -> images.Document:
    """With what pools and engines keep in different ways: links, owners, attributes, whiteouts."""
    return images.image(
        [
            images.layer(
                [
                    images.directory("etc/"),
                    images.file("etc/gone", "of the layer below"),
                    images.file("etc/su", "#!/bin/sh\n", mode=0o4755, uid=7, gid=8),
                    images.hardlink("etc/same", "etc/su", mode=0o4755, uid=7, gid=8),
                    images.symlink("etc/link", "../../../etc/passwd"),
                    images.file("etc/cap", "x", 0o755, xattrs={"security.capability": CAP_NET_RAW}),
                    images.fifo("etc/pipe", 0o622),
                ]
            ),
            images.layer([images.file("etc/.wh.gone", ""), images.file("etc/motd", "hello")]),
        ]
    )


def child_of(root: str, name: str) -> str:
    sh("zfs", "create", "--", f"{root}/{name}")
    return f"{root}/{name}"


def test_a_statement_is_the_same_everywhere_and_its_signature_launches_everywhere(
    zfs_root: str,
    sqlite_template: Path,
    swap_database,
    settings,
    registry: Registry,
    keys: Keys,
    tmp_path: Path,
):
    registry.push("one/signature", "1", image())
    secret, signature, statements = keys.make("release"), "", {}
    settings.COPPICE_REQUIRE_SIGNED_TEMPLATES = "on"
    settings.COPPICE_REGISTRIES_INSECURE = (registry.host,)
    settings.COPPICE_PLATFORM = Platform.parse("linux/amd64")
    settings.COPPICE_TRUSTED_KEYS = tmp_path / "trusted"
    settings.COPPICE_TRUSTED_KEYS.mkdir(mode=0o700)
    shutil.copy(secret.with_suffix(".pub"), settings.COPPICE_TRUSTED_KEYS)
    for kind in ("zfs", "dir"):
        for engine in ("native", "buildah"):
            place = tmp_path / f"{kind}-{engine}"
            (place / "pool").mkdir(parents=True)
            shutil.copy(sqlite_template, place / "db.sqlite3")
            settings.COPPICE_STATE_DIR = place / "state"
            settings.COPPICE_NODE = f"{kind}-{engine}"
            settings.COPPICE_ENGINE = engine
            # Two installations on one ZFS pool: each below a dataset of its own.
            settings.COPPICE_POOL = (
                f"zfs:{child_of(zfs_root, engine)}" if kind == "zfs" else f"dir:{place / 'pool'}"
            )
            with swap_database(f"sqlite:///{place}/db.sqlite3"):
                made = imports.import_template(
                    name="web",
                    source=f"oci:{registry.host}/one/signature:1",
                    force=False,
                    context=WHO,
                )
                assert made.event.engine == engine
                assert made.event.pool.startswith(f"{kind}:")
                statement = signing.statement(name="web")
                statements[kind, engine] = statement
                # Signed once, by the first; carried to the others.
                signature = signature or keys.sign(secret, statement)
                signing.sign(name="web", signature=signature, context=WHO)
                launched = launches.create_sandbox(template="web", name=None, context=WHO)
                assert launched.event.signed and launched.event.gate == "on"
                assert [row.signed for row in generations.generations(name="web")] == [True]
    assert len(statements) == 4
    assert len(set(statements.values())) == 1, statements
