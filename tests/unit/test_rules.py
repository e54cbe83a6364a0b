"""The rules of the house, held by tests: what exists is documented, and in its place."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command, load_command_class

from coppice_site.environment import OWN, VARIABLES
from templates_app import errors
from templates_app.events import EVENTS
from templates_app.findings import KINDS

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "templates_app"
MODULES = sorted(
    path
    for path in APP.rglob("*.py")
    if path.name != "__init__.py" and "migrations" not in path.parts
)


def reference(name: str) -> str:
    return (ROOT / "docs" / "reference" / name).read_text()


def test_every_module_stands_in_the_map():
    rooms = (APP / "README.md").read_text()
    # A room's module is named on its room's line; commands have a page of their own.
    missing = [
        str(path.relative_to(APP))
        for path in MODULES
        if "commands" not in path.parts
        and path.parent.name not in ("admin", "cli")
        and f"`{path.name}`" not in rooms
        and f"`{path.relative_to(APP)}`" not in rooms
    ]
    assert not missing


def test_every_setting_is_documented():
    text = reference("settings.md")
    assert [v.name for v in VARIABLES if f"| `{v.name}` |" not in text] == []
    known = {v.name for v in VARIABLES} | OWN
    assert set(re.findall(r"COPPICE_[A-Z_]*[A-Z]", text)) <= known


def test_settings_are_read_in_one_place():
    readers = [
        path.relative_to(ROOT)
        for path in [*MODULES, *(ROOT / "coppice_site").glob("*.py")]
        if re.search(r"\bos\.environ(\[|\.get\()|\bgetenv\b", path.read_text())
    ]
    client = {Path("templates_app/cli/client.py"), Path("templates_app/cli/main.py")}
    allowed = {
        Path("templates_app/run.py"),  # hands PATH and the like on to programs
        Path("templates_app/management/commands/settings.py"),  # shows what is set
        Path("coppice_site/environment.py"),
    }
    assert set(readers) - allowed - client == set()


def test_every_error_code_is_documented():
    text = reference("errors.md")
    codes = {error.code for error in errors.every_error()} - {errors.GateRefused.code}
    codes |= set(errors.GATE_CODES) | set(errors.PULL_REASONS)
    assert sorted(code for code in codes if f"| `{code}` |" not in text) == []


def test_every_error_in_the_documentation_says_what_the_class_says():
    text = reference("errors.md")
    for error in errors.every_error():
        row = f"| `{error.code}` | {error.status} | {int(error.exit_status)} |"
        if error is not errors.GateRefused:
            assert row in text, row


def test_every_finding_in_the_documentation_says_what_the_table_says():
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", reference("findings.md"), re.MULTILINE)
    assert [code for code, _ in rows] == list(KINDS)
    for code, row in rows:
        kind = KINDS[code]
        cells = ["yes" if kind.blocks else "no", kind.says, kind.fix or "–", kind.to_do]
        assert row == f" {' | '.join(cells)} ", code


def test_every_event_type_is_documented():
    text = reference("events.md")
    assert [type_ for type_ in EVENTS if f"`{type_}`" not in text] == []


def test_every_command_is_documented_and_tested():
    names = {path.stem for path in (APP / "management" / "commands").glob("[a-z]*.py")}
    text = reference("commands.md")
    assert sorted(name for name in names if f"## {name}" not in text) == []
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    assert sorted(name for name in names if f'"{name}"' not in tests) == []


def test_every_timer_runs_a_command_on_both_systems_and_is_told_of():
    units = ROOT / "deploy" / "systemd"
    cron = (ROOT / "deploy/cron.d/coppice").read_text()
    page, commands = (ROOT / "docs/howto/deploy.md").read_text(), reference("commands.md")
    timers = sorted(path.stem for path in units.glob("*.timer"))
    for timer in timers:
        unit = (units / f"{timer}.service").read_text()
        (words,) = re.findall(r"^ExecStart=\S+/python manage\.py (.+)$", unit, re.MULTILINE)
        name, *options = words.split()
        load_command_class("templates_app", name).create_parser("manage.py", name).parse_args(
            options
        )
        assert f" coppice manage {words}\n" in cron
        assert f"| `{timer}` | `{words}` |" in page
        assert f"{timer}.timer" in page.partition("What runs by the clock")[0]
        section = commands.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert f"`{timer}.timer`" in section
    assert cron.count(" coppice manage ") == len(timers) > 0


@pytest.mark.parametrize(
    "script", sorted((ROOT / "deploy" / "rc.d").iterdir()), ids=lambda p: p.name
)
def test_service_scripts_are_ones_that_a_shell_reads(script: Path):
    subprocess.run(["sh", "-n", str(script)], check=True, timeout=10)


def test_no_module_grows_beyond_a_sitting():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in MODULES
        if (lines := len(path.read_text().splitlines())) > 430
    }
    assert long == {}


def test_only_the_store_makes_events_and_only_projections_write_read_models():
    """Reading through the ORM is anybody's; what makes or changes rows has one home each."""
    writes = re.compile(
        r"\b(?P<model>Event|Mention|Generation|Template|Signature|Sandbox|Finding)"
        r"(?:\.objects|\._default_manager|\._base_manager)"
        r"[^\n]*\.?(?:create|bulk_create|update|update_or_create|get_or_create|delete)\("
    )
    found = [
        f"{path.name}: {match.group(0)}"
        for path in MODULES
        if path.name not in ("store.py", "projections.py", "projections_findings.py", "models.py")
        for match in writes.finditer(path.read_text())
    ]
    assert found == []


def test_no_program_is_started_but_by_the_runner():
    starters = [
        path.name
        for path in MODULES
        if re.search(r"\b(subprocess|os\.system|os\.popen|Popen)\b", path.read_text())
    ]
    # verify.py is not run here: an auditor runs it, on a machine without Coppice.
    assert sorted(starters) == ["run.py", "verify.py"]


def test_imports_go_one_way():
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.django_db
def test_no_migration_is_pending():
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_no_link_in_the_documentation_is_dead():
    dead = []
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), APP / "README.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                dead.append(f"{page.relative_to(ROOT)}: {target}")
    assert dead == []
