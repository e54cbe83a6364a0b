"""`manage.py recover`: finishes or undoes what a crash left."""

from django.utils import timezone

from templates_app import store
from templates_app.models import Lease
from templates_app.services import leases


def dead_import(shop) -> Lease:
    """What a process leaves that died in mid-import: a lease, a lock file, a half-made dataset."""
    now = timezone.now()
    lock = leases.lock_path("0a0b0c0d")
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    half = shop.pool / "coppice" / "web-g1-0a0b0c0d"
    half.mkdir(parents=True)
    (half / "motd").write_text("half")
    return Lease.objects.create(
        template_name="web",
        import_id="0a0b0c0d",
        node="test",
        reference="oci:quay.io/x/web:1",
        generation=1,
        dataset="coppice/web-g1-0a0b0c0d",
        actor="alice",
        started_at=now,
        updated_at=now,
        stage="copy",
    )


def test_nothing_to_do_is_said_and_done(shop):
    done = shop.run("recover")
    assert (done.status, done.out) == (0, "")
    assert "Nothing to recover." in done.err


def test_a_dead_import_is_ended_undone_and_recorded(shop):
    dead_import(shop)
    done = shop.run("recover")
    assert done.status == 0
    assert "ended the dead import 0a0b0c0d of web" in done.out
    assert not Lease.objects.exists()
    assert not (shop.pool / "coppice" / "web-g1-0a0b0c0d").exists()
    (event,) = store.about("template", "web")
    assert (event.type, event.event.code, event.event.stage) == (
        "import-failed",
        "interrupted",
        "copy",
    )
    assert event.meta.source == "command"
    again = shop.run("recover")
    assert (again.status, again.out) == (0, "")
    assert store.size() == 1


def test_a_dry_run_only_says_what_would_be_done(shop):
    dead_import(shop)
    done = shop.run("recover", "--dry-run")
    assert (done.status, done.out) == (0, "would end the dead import 0a0b0c0d of web\n")
    assert Lease.objects.exists() and store.size() == 0
    assert (shop.pool / "coppice" / "web-g1-0a0b0c0d" / "motd").exists()


def test_without_its_pool_it_fails_with_a_sentence(shop, settings):
    settings.COPPICE_POOL = "dir:/nonexistent/pool"
    done = shop.run("recover")
    assert done.status == 1
    assert "CommandError: pool_unavailable:" in done.err
    assert "COPPICE_POOL" in done.err  # what to do next
