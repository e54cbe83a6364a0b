"""import-oci and progress: the line for scripts, progress, and what became of an import."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from templates_app.cli import importing
from templates_app.cli.importing import source_of
from templates_app.cli.progress import amount
from templates_app.errors import (
    ImportInProgress,
    PullFailed,
    SchemeNotImplemented,
    TemplateExists,
)
from tests.cli import (
    NAME,
    Answer,
    Asked,
    FakeApi,
    event,
    in_terminal,
    interrupt,
    problem,
    problem_of,
    run,
    spawn,
    template,
)

LINE = f"template={NAME} snapshot=zroot/jails/{NAME}-template@base size=157.2M\n"
IMPORT = ("tpl", "import-oci", NAME, "quay.io/x/y:1")
STATUS = f"/templates/{NAME}/import"


class FakeImport:
    """The server's side of one import: POST waits until ``end`` is called, GET says how far."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.posted = threading.Event()
        self.ended = threading.Event()
        self.answer: Answer = Answer(201, json=template())
        self.status: Answer | None = None  # of GET …/import; None: nothing was ever imported
        self.request_id = ""
        api.on("POST", "/templates", self._post)
        api.on("GET", STATUS, self._look)
        api.on("GET", f"/templates/{NAME}", template())

    def _post(self, asked: Asked) -> Answer:
        self.request_id = asked.headers["x-request-id"]
        self.posted.set()
        while not (self.ended.wait(0.02) or self.api.over.is_set()):
            pass
        return self.answer

    def _look(self, _asked: Asked) -> Answer:
        return self.status or problem(404, "template_not_found")

    def running(self, stage: str = "pull", import_id: str = "3f2a9c01", **more: Any) -> None:
        self.status = Answer(
            json={
                "state": "running",
                "importId": import_id,
                "stage": stage,
                "done": 0,
                "total": None,
                "unit": "bytes",
                "startedAt": "2026-01-02T03:04:05Z",
                "actor": "alice",
                "event": None,
                **more,
            }
        )

    def over(
        self,
        state: str = "imported",
        import_id: str = "3f2a9c01",
        request_id: str = "",
        **data: Any,
    ) -> None:
        meta = {"actor": "alice", "requestId": request_id or self.request_id}
        made = event(
            4, "imported" if state == "imported" else "import-failed", meta=meta, data=data,
            sentence="It ended",
        )  # fmt: skip
        self.status = Answer(
            json={"state": state, "importId": import_id, "actor": "alice", "event": made}
        )

    def end(self, answer: Answer | None = None) -> None:
        self.answer = answer or self.answer
        self.ended.set()


@pytest.fixture
def fake(api: FakeApi) -> FakeImport:
    return FakeImport(api)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("PERIOD", 0.05), ("SETTLE", 0.4), ("LATE", 0.4), ("GONE", 1.0)):
        monkeypatch.setattr(importing, name, seconds)


@pytest.fixture
def later() -> Iterator[Any]:
    """``later(seconds, function)``, joined at the end of the test."""
    timers: list[threading.Timer] = []

    def start(seconds: float, function: Any, *args: Any) -> None:
        timer = threading.Timer(seconds, function, args)
        timers.append(timer)
        timer.start()

    yield start
    for timer in timers:
        timer.join()


# --- the plain way -------------------------------------------------------------------------------


def test_it_prints_exactly_one_line_on_stdout(fake: FakeImport):
    fake.end()
    done = run(fake.api.url, *IMPORT)
    assert (done.exit_code, done.stdout) == (0, LINE)
    assert f"Sign it: coppice tpl sign {NAME}" in done.stderr
    assert run(fake.api.url, *IMPORT, "--quiet").stderr == ""


def test_findings_are_said_on_stderr(fake: FakeImport):
    fake.end(Answer(201, json=template(findings=["Programs will fail at exec."], signed=True)))
    done = run(fake.api.url, *IMPORT)
    assert done.stdout == LINE
    assert done.stderr == "warning: Programs will fail at exec.\n"


def test_with_json_it_prints_the_template(fake: FakeImport):
    fake.end()
    assert json.loads(run(fake.api.url, *IMPORT, "--json").stdout) == template()


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("quay.io/x/y", "oci:quay.io/x/y"),
        ("oci:quay.io/x/y:1", "oci:quay.io/x/y:1"),
        ("localhost:5000/x@sha256:" + "ab" * 32, "oci:localhost:5000/x@sha256:" + "ab" * 32),
        ("dockerfile:./Dockerfile", "dockerfile:./Dockerfile"),
        ("git:https://example.org/x.git", "git:https://example.org/x.git"),
        ("oci-archive:/srv/a.txz:1", "oci-archive:/srv/a.txz:1"),
        ("docker-archive:/srv/a.tar:alpine:3", "docker-archive:/srv/a.tar:alpine:3"),
        ("oci:tarball:/etc/passwd", "oci:tarball:/etc/passwd"),
        ("short", "oci:short"),
        ("--", "oci:--"),
        ("", "oci:"),
    ],
)
def test_oci_may_be_left_out_and_all_else_is_the_servers_to_judge(given: str, sent: str):
    assert source_of(given) == sent


def test_the_body_is_what_was_asked_for(fake: FakeImport):
    fake.end()
    run(fake.api.url, *IMPORT)
    run(fake.api.url, *IMPORT, "--force")
    bodies = [one.body for one in fake.api.asked if one.method == "POST"]
    plain = {"name": NAME, "from": "oci:quay.io/x/y:1"}
    assert bodies == [plain, {**plain, "force": True}]


def test_an_image_file_is_imported_by_a_path_of_the_servers_host(fake: FakeImport):
    fake.end()
    done = run(fake.api.url, "tpl", "import", NAME, "oci-archive:/srv/a.txz", "--force")
    assert (done.exit_code, done.stdout) == (0, LINE)
    (body,) = [one.body for one in fake.api.asked if one.method == "POST"]
    assert body == {"name": NAME, "from": "oci-archive:/srv/a.txz", "force": True}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SchemeNotImplemented("dockerfile: is not built yet."), 3),
        (TemplateExists("It exists.", hint="Repeat with --force."), 4),
        (ImportInProgress("An import is running."), 4),
        (PullFailed("The registry refuses.", reason="denied"), 6),
    ],
    ids=lambda value: getattr(value, "code", value),
)
def test_a_refusal_has_the_exit_status_of_its_code(fake: FakeImport, error: Any, status: int):
    fake.end(problem_of(error))
    done = run(fake.api.url, *IMPORT)
    assert (done.exit_code, done.stdout) == (status, "")
    assert error.detail in done.stderr
    assert error.next_step in done.stderr


def test_an_answer_that_is_no_template_prints_no_line(fake: FakeImport):
    fake.end(Answer(201, json={"name": NAME}))
    done = run(fake.api.url, *IMPORT)
    assert (done.exit_code, done.stdout) == (1, "")


def test_a_wrong_token_is_told_before_anything_is_begun(fake: FakeImport):
    fake.status = problem(401, "not_authenticated")
    assert run(fake.api.url, *IMPORT).exit_code == 1
    assert fake.api.paths("POST") == []


# --- progress ------------------------------------------------------------------------------------


def test_without_a_terminal_each_stage_is_one_line(fake: FakeImport, fast: None, later: Any):
    def go_on() -> None:
        for stage in ("resolve", "pull", "copy"):
            fake.running(stage)
            time.sleep(0.2)
        fake.end(Answer(201, json=template(signed=True)))

    later(0.2, go_on)
    done = run(fake.api.url, *IMPORT)
    assert done.stdout == LINE
    assert done.stderr.splitlines() == [f"{NAME}: {stage}" for stage in ("resolve", "pull", "copy")]


def test_quiet_says_nothing_of_stages(fake: FakeImport, fast: None, later: Any):
    fake.running()
    later(0.3, fake.end)
    assert run(fake.api.url, *IMPORT, "-q").stderr == ""


@pytest.mark.parametrize("width", [40, 80])
def test_on_a_terminal_there_is_a_bar_that_is_gone_in_the_end(
    fake: FakeImport, later: Any, width: int
):
    def go_on() -> None:
        assert fake.posted.wait(10)
        for done in (10_000_000, 60_000_000, 100_000_000):
            fake.running("pull", done=done, total=164822016)
            time.sleep(0.7)
        fake.end()

    later(0, go_on)
    seen = in_terminal(fake.api.url, *IMPORT, width=width)
    assert seen.status == 0
    assert "57.2M/157.2M" in seen.text
    assert "━" in seen.text
    assert ("M/s" in seen.text) is (width == 80)
    # The last thing that touches the bar's line is its erasure; then comes the data.
    assert "\x1b[2K" in seen.text.partition("template=")[0]
    assert LINE.strip() in seen.text.replace("\n", "")


def layer(number: int, state: str, done: int, total: int, entries: int = 0) -> dict[str, Any]:
    return {
        "layer": number, "state": state, "bytes": done, "totalBytes": total, "entries": entries,
    }  # fmt: skip


LAYERS = [
    layer(1, "kept", 0, 10_000_000),
    layer(2, "copy", 30_000_000, 30_000_000, 4711),
    layer(3, "pull", 12_000_000, 48_000_000),
]


@pytest.mark.parametrize("width", [40, 80])
def test_on_a_terminal_every_layer_has_a_bar(fake: FakeImport, later: Any, width: int):
    def go_on() -> None:
        assert fake.posted.wait(10)
        fake.running("pull", done=42_000_000, total=78_000_000, layers=LAYERS)
        time.sleep(1.2)
        fake.end()

    later(0, go_on)
    seen = in_terminal(fake.api.url, *IMPORT, width=width)
    assert seen.status == 0
    bars = seen.text.partition("template=")[0]
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", bars)
    shown = {line.strip() for line in re.split(r"[\r\n]+", plain)}
    prefix, entries = ("layer ", " 4711 entries") if width == 80 else ("", "")
    line = re.compile(r"(?P<name>.*?) +━[━╸╺]* +(?P<rest>.*)")
    found = {m["name"]: m["rest"].strip() for m in map(line.fullmatch, shown) if m}
    assert found[f"{prefix}1/3"] == "kept"
    assert found[f"{prefix}2/3"] == f"28.6M/28.6M copy{entries}"
    assert found[f"{prefix}3/3"] == "11.4M/45.8M pull"
    assert LINE.strip() in seen.text.replace("\n", "")


def test_of_many_layers_those_are_shown_that_something_happens_to(fake: FakeImport, later: Any):
    many = [layer(n, "done", 5, 5, 1) for n in range(1, 31)]
    many += [layer(n, "waiting", 0, 5) for n in range(31, 60)] + [layer(60, "pull", 1, 5)]

    def go_on() -> None:
        assert fake.posted.wait(10)
        fake.running("pull", done=151, total=300, layers=many)
        time.sleep(1.2)
        fake.end()

    later(0, go_on)
    text = in_terminal(fake.api.url, *IMPORT).text
    assert "layer 60/60" in text and "layer 31/60" in text
    assert "layer 1/60" not in text and "layer 59/60" not in text
    assert "+49 more" in text and "30 done" in text


def test_without_a_terminal_each_layer_that_is_there_is_one_line(
    fake: FakeImport, fast: None, later: Any
):
    def go_on() -> None:
        assert fake.posted.wait(10)
        fake.running("pull", layers=LAYERS)
        time.sleep(0.3)
        made = layer(2, "done", 30_000_000, 30_000_000, 4800)
        fake.running("seal", layers=[LAYERS[0], made, LAYERS[2]])
        time.sleep(0.3)
        fake.end(Answer(201, json=template(signed=True)))

    later(0, go_on)
    assert run(fake.api.url, *IMPORT).stderr.splitlines() == [
        f"{NAME}: pull",
        f"{NAME}: layer 1/3 kept",
        f"{NAME}: seal",
        f"{NAME}: layer 2/3 done, 28.6M/28.6M, 4800 entries",
    ]


def test_a_dumb_terminal_gets_lines(fake: FakeImport, later: Any):
    def go_on() -> None:
        assert fake.posted.wait(10)
        fake.running("pull")
        time.sleep(1)
        fake.end()

    later(0, go_on)
    seen = in_terminal(fake.api.url, *IMPORT, TERM="dumb")
    assert f"{NAME}: pull\n" in seen.text
    assert "\x1b" not in seen.text


def test_the_progress_of_anothers_import_is_not_shown_as_ours(
    fake: FakeImport, fast: None, later: Any
):
    fake.running("copy", import_id="anothers")
    later(0.3, fake.end, problem_of(ImportInProgress("An import is running.")))
    done = run(fake.api.url, *IMPORT)
    assert done.exit_code == 4
    assert "copy" not in done.stderr


def test_progress_that_cannot_be_had_is_said_once_and_the_import_waited_for(
    fake: FakeImport, fast: None, later: Any
):
    def go_on() -> None:
        fake.status = problem(503, "database_unavailable", "The database does not answer.")
        time.sleep(0.5)
        fake.end(Answer(201, json=template(signed=True)))

    later(0.2, go_on)
    done = run(fake.api.url, *IMPORT)
    assert (done.exit_code, done.stdout) == (0, LINE)
    said = "How far it is cannot be said now: The database does not answer.\n"
    assert done.stderr == said


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ({"done": 12345678, "total": 164822016, "unit": "bytes"}, "11.8M/157.2M"),
        ({"done": 100, "total": None, "unit": "bytes"}, "100B"),
        ({"done": 4711, "total": None, "unit": "entries"}, "4711 entries"),
        ({"done": 1, "total": 2, "unit": "entries"}, "1/2 entries"),
        ({"done": 0, "total": None, "unit": "steps"}, ""),
        ({"done": None, "total": "x", "unit": "bytes"}, ""),
    ],
)
def test_an_amount_is_said_in_its_unit(status: dict[str, Any], text: str):
    assert amount(status) == text


# --- Ctrl-C --------------------------------------------------------------------------------------


def stop(process: subprocess.Popen[str], after: float = 0.0) -> tuple[str, str]:
    time.sleep(after)
    interrupt(process)
    try:
        return process.communicate(timeout=20)
    finally:
        process.kill()


def begun(fake: FakeImport, *more: str) -> subprocess.Popen[str]:
    process = spawn(fake.api.url, *IMPORT, *more)
    assert fake.posted.wait(20)
    return process


def test_ctrl_c_says_that_the_import_goes_on_and_how_to_follow_it(fake: FakeImport):
    process = begun(fake)
    fake.running("copy")
    out, err = stop(process, 0.7)
    assert (process.returncode, out) == (130, "")
    assert f"The import of {NAME} goes on on the server (now: copy)." in err
    assert f"coppice tpl progress {NAME} --follow" in err
    assert "Traceback" not in err


def test_ctrl_c_before_the_server_shows_the_import_waits_a_moment_for_it(
    fake: FakeImport, later: Any
):
    process = begun(fake)
    later(1.0, fake.running, "resolve")
    _out, err = stop(process)
    assert "goes on on the server (now: resolve)" in err


def test_ctrl_c_after_the_import_says_that_it_is_done(fake: FakeImport):
    process = begun(fake)
    fake.over("imported")
    _out, err = stop(process)
    assert process.returncode == 130
    assert f"The import of {NAME} is done." in err


def test_ctrl_c_after_a_failure_says_so(fake: FakeImport):
    process = begun(fake)
    fake.over("failed", code="out_of_space", detail="The pool is full.", stage="copy")
    _out, err = stop(process)
    assert process.returncode == 130
    assert f"The import of {NAME} failed: The pool is full. (copy)" in err


def test_ctrl_c_does_not_take_an_older_import_for_this_one(fake: FakeImport):
    fake.over("imported", import_id="older", request_id="older-request")
    process = begun(fake)
    _out, err = stop(process)
    assert process.returncode == 130
    assert f"The server shows no import of {NAME} that this command began." in err


def test_ctrl_c_with_a_server_that_is_gone_says_that_nothing_is_known(fake: FakeImport):
    process = begun(fake)
    fake.status = problem(503, "database_unavailable", "The database does not answer.")
    _out, err = stop(process)
    assert process.returncode == 130
    assert "is not known: The database does not answer." in err


def test_ctrl_c_with_json_is_json(fake: FakeImport):
    process = begun(fake, "--json")
    fake.running()
    _out, err = stop(process, 0.2)
    assert json.loads(err)["code"] == "stopped_waiting"


# --- the answer is lost, the import is not -------------------------------------------------------

GATEWAY = Answer(504, content=b"<h1>Gateway timeout</h1>", kind="text/html")
CUT = Answer(raw=b"")


@pytest.mark.parametrize("loss", [GATEWAY, CUT], ids=["proxy", "cut"])
def test_an_import_is_followed_to_its_end_where_its_answer_is_lost(
    fake: FakeImport, fast: None, later: Any, loss: Answer
):
    def go_on() -> None:
        fake.running("pull")
        time.sleep(0.3)
        fake.end(loss)
        time.sleep(0.6)
        fake.over("imported")

    later(0.2, go_on)
    done = run(fake.api.url, *IMPORT)
    assert (done.exit_code, done.stdout) == (0, LINE)
    assert "The import goes on; following it." in done.stderr


def test_the_failure_of_an_import_whose_answer_was_lost_has_its_exit_status(
    fake: FakeImport, fast: None, later: Any
):
    def go_on() -> None:
        fake.running("pull")
        time.sleep(0.3)
        fake.end(CUT)
        time.sleep(0.3)
        fake.over("failed", code="pull_failed", detail="Refused.", stage="pull")

    later(0.2, go_on)
    done = run(fake.api.url, *IMPORT)
    assert (done.exit_code, done.stdout) == (6, "")
    assert "error: Refused. (pull) (pull_failed)" in done.stderr


def test_an_import_that_a_restarted_server_undid_is_a_failure(
    fake: FakeImport, fast: None, later: Any
):
    """The server was killed: recovery wrote the end of the import under a request of its own."""

    def go_on() -> None:
        fake.running("pull")
        time.sleep(0.3)
        fake.over(
            "failed", request_id="recovery", code="interrupted", detail="It died.", stage="pull"
        )
        fake.end(CUT)

    later(0.2, go_on)
    done = run(fake.api.url, *IMPORT)
    assert done.exit_code == 1
    assert "It died." in done.stderr


def test_an_import_that_was_never_begun_is_the_failure_that_it_was(
    fake: FakeImport, fast: None, later: Any
):
    later(0.2, fake.end, GATEWAY)
    done = run(fake.api.url, *IMPORT)
    assert done.exit_code == 1
    assert "answered 504 with text/html" in done.stderr


def test_a_server_that_does_not_come_back_ends_the_waiting(
    fake: FakeImport, fast: None, later: Any
):
    def go_on() -> None:
        fake.running("pull")
        time.sleep(0.3)
        fake.status = Answer(raw=b"")
        fake.end(CUT)

    later(0.2, go_on)
    done = run(fake.api.url, *IMPORT)
    assert done.exit_code == 1
    assert f"What became of the import of {NAME} is not known" in done.stderr
    assert f"next:  When the server is back: coppice tpl progress {NAME}" in done.stderr


def test_an_answer_that_never_comes_is_not_waited_for_after_the_end(
    fake: FakeImport, fast: None, later: Any
):
    """A NAT that forgot the connection: no answer and no end, however long one waits."""

    def go_on() -> None:
        fake.running("pull")
        time.sleep(0.3)
        fake.over("imported")

    later(0.2, go_on)
    done = run(fake.api.url, *IMPORT)
    assert (done.exit_code, done.stdout) == (0, LINE)


# --- tpl progress --------------------------------------------------------------------------------


def test_progress_shows_a_running_import(fake: FakeImport):
    fake.running("pull", done=12345678, total=164822016)
    done = run(fake.api.url, "tpl", "progress", NAME)
    assert done.exit_code == 0
    assert "state     running" in done.stdout
    assert "stage     pull 11.8M/157.2M" in done.stdout


def test_progress_shows_each_layer(fake: FakeImport):
    fake.running("pull", done=42_000_000, total=78_000_000, layers=[*LAYERS, "junk"])
    lines = run(fake.api.url, "tpl", "progress", NAME).stdout.splitlines()
    assert lines[-3:] == [
        "layer 1/3  kept",
        "layer 2/3  copy, 28.6M/28.6M, 4711 entries",
        "layer 3/3  pull, 11.4M/45.8M",
    ]


def test_progress_shows_how_the_last_import_ended_and_exits_like_it(fake: FakeImport):
    fake.over("failed", code="pull_failed", detail="Refused.", stage="pull")
    done = run(fake.api.url, "tpl", "progress", NAME)
    assert done.exit_code == 6
    assert "detail    Refused." in done.stdout
    fake.over("imported")
    assert run(fake.api.url, "tpl", "progress", NAME).exit_code == 0


def test_progress_follows_to_the_end(fake: FakeImport, fast: None, later: Any):
    fake.running("pull")
    later(0.4, fake.over, "imported")
    done = run(fake.api.url, "tpl", "progress", NAME, "--follow")
    assert "state     imported" in done.stdout
    assert done.stderr == f"{NAME}: pull\n"


def test_progress_of_what_was_never_imported_is_not_found(fake: FakeImport):
    assert run(fake.api.url, "tpl", "progress", NAME).exit_code == 1
