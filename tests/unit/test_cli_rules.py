"""The command's own rules: documented whole, light to start, HTTP only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from templates_app.cli import VERSION, client, events, sandbox, tpl
from templates_app.cli.main import cli
from tests.servers import ROOT

PAGE = (ROOT / "docs" / "reference" / "cli.md").read_text()
MODULES = sorted((ROOT / "templates_app" / "cli").glob("*.py"))


def commands(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    """All commands that do something, with their whole name."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


COMMANDS = dict(commands(cli, ("coppice",)))
SECTIONS = {
    heading.strip(): text
    for heading, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
}


def _options(command: click.Command) -> set[str]:
    return {
        name
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str):
    section = SECTIONS[name]
    mentioned = set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", section))
    options = _options(COMMANDS[name])
    assert options - mentioned == set()
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Argument):
            assert parameter.make_metavar(click.Context(COMMANDS[name])) in section


def test_no_command_is_documented_that_is_not_there():
    documented = {heading for heading in SECTIONS if heading.startswith("coppice ")}
    assert documented == set(COMMANDS)


def test_the_options_of_the_top_are_documented():
    assert {name for name in _options(cli) if f"`{name}`" not in PAGE} == set()


@pytest.mark.parametrize(
    ("command", "columns"),
    [
        ("coppice tpl list", tpl.COLUMNS),
        ("coppice events", events.COLUMNS),
        ("coppice sandbox list", sandbox.COLUMNS),
    ],
)
def test_every_column_is_documented(command: str, columns: tuple):
    assert [one.name for one in columns if f"`{one.name}`" not in SECTIONS[command]] == []


def test_every_code_of_the_client_is_documented():
    assert [code for code in client.CODES if f"| `{code}` |" not in PAGE] == []
    used = {
        code
        for path in MODULES
        for code in re.findall(r"Failure\(\s*\"([a-z_]+)\"", path.read_text())
    }
    assert used <= set(client.CODES)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example(name: str):
    words = name.split()[1:]
    shown = CliRunner().invoke(cli, [*words, "--help"], prog_name="coppice")
    assert shown.exit_code == 0
    assert re.search(rf"Example:\n +{name}", shown.stdout), shown.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json(name: str):
    assert "--json" in _options(COMMANDS[name])


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    assert CliRunner().invoke(cli, ["--version"]).stdout == f"coppice {VERSION}\n"


def test_it_knows_a_few_modules_of_the_project_and_no_more():
    """A list of what is allowed: a module that is new tomorrow is not in it."""
    known = ("signify", "succession", "log", "checkpoints")
    trust = {f"templates_app.trust.{name}" for name in known}
    allowed = {"templates_app.errors", "templates_app.names", *trust}
    packages = ("templates_app", "templates_app.trust")
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in packages:
                found |= {(path.name, f"{node.module}.{alias.name}") for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add((path.name, node.module))
            elif isinstance(node, ast.Import):
                found |= {(path.name, alias.name) for alias in node.names}
    ours = {
        one
        for one in found
        if one[1].split(".")[0] in ("templates_app", "coppice_site")
        and not one[1].startswith("templates_app.cli")
    }
    assert {one for one in ours if one[1] not in allowed} == set()


def test_it_starts_without_django_and_without_what_only_signing_needs():
    code = (
        "import sys; import templates_app.cli.main;"
        "print([m for m in ('django', 'rest_framework', 'cryptography', 'bcrypt')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr


def test_signing_needs_no_django():
    code = (
        "import sys; import templates_app.cli.main, templates_app.trust.signify;"
        "print('django' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "False\n", done.stderr
