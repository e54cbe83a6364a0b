"""The runner: every program has an end, and what it says goes to the log alone."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from templates_app import run
from templates_app.errors import ImportTimeout, ProgramFailed, ProgramKilled, ProgramMissing


def sh(script, **rest):
    return run.run(["sh", "-c", script], **{"timeout": 20, **rest})


def left_of(mark):
    """Processes that carry the mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LEFT_OF") == mark and process.status() != "zombie":
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.fixture
def mark(tmp_path):
    """For the environment of what is run; whatever is still there at the end is a failure."""
    yield str(tmp_path)
    until = time.monotonic() + 30
    while (left := left_of(str(tmp_path))) and time.monotonic() < until:
        time.sleep(0.02)
    for process in left:
        process.kill()
    assert left == []


def test_what_a_program_printed():
    done = sh("echo out; echo err >&2")
    assert (done.status, done.stdout, done.stderr, done.raw) == (0, "out\n", "err\n", b"out\n")
    assert done.program == "sh"


def test_bytes_that_are_not_text_are_kept_for_hashing():
    done = sh(r"printf '\377\0x'")
    assert done.raw == b"\xff\0x"
    assert done.stdout == "\ufffd\0x"


@pytest.mark.parametrize("word", ["-n", "--help", "; echo no", "$(echo no)", "a b", "", "*", "\n"])
def test_a_word_is_a_word_and_never_shell(word):
    done = run.run(["printf", "%s", word], timeout=10)
    assert done.stdout == word


def test_a_program_sees_no_secret_of_ours(monkeypatch):
    monkeypatch.setenv("DJANGO_SECRET_KEY", "secret")
    monkeypatch.setenv("DATABASE_URL", "postgres://u:p@h/d")
    monkeypatch.setenv("COPPICE_TOKEN", "secret")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    lines = run.run(["env"], timeout=10, env={"OWN": "x"}).stdout.splitlines()
    names = {line.partition("=")[0] for line in lines}
    own = {"PATH", "HOME", "USER", "TMPDIR", "XDG_RUNTIME_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    assert names <= own | {"LC_ALL", "OWN", "_"}
    assert "LC_ALL=C" in lines and "OWN=x" in lines


def test_it_gets_no_input(tmp_path):
    (tmp_path / "typed").write_text("what somebody types at the server's terminal")
    kept = os.dup(0)
    try:
        with (tmp_path / "typed").open() as typed:
            os.dup2(typed.fileno(), 0)
        assert run.run(["cat"], timeout=10).stdout == ""
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_descriptors_of_ours_are_not_handed_on(tmp_path):
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        listed = run.run(["ls", "-l", "/proc/self/fd"], timeout=10).stdout
    assert str(tmp_path) not in listed


# --- failures ------------------------------------------------------------------------------------


def test_a_failure_keeps_what_the_program_said_for_the_log(caplog):
    with caplog.at_level(logging.WARNING), pytest.raises(ProgramFailed) as failed:
        sh("echo password=hunter2 >&2; exit 3")
    assert failed.value.detail == "sh ended with status 3."
    assert "hunter2" in failed.value.private
    assert "hunter2" not in failed.value.detail + failed.value.next_step + str(failed.value.extra)
    assert "hunter2" in caplog.text


def test_only_the_end_of_a_long_complaint_is_kept():
    with pytest.raises(ProgramFailed) as failed:
        sh("head -c 100000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 1")
    assert len(failed.value.private) == 4000
    assert failed.value.private.endswith("the end\n")


def test_a_status_can_be_an_answer(caplog):
    with caplog.at_level(logging.WARNING):
        assert sh("exit 3", check=False, log_failure=False).status == 3
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        assert sh("exit 3", check=False).status == 3
    assert "status 3" in caplog.text


def test_a_program_that_is_not_there():
    with pytest.raises(ProgramMissing, match="'no-such-program' is not installed"):
        run.run(["no-such-program", "x"], timeout=10)


def test_a_program_that_may_not_be_run(tmp_path):
    (tmp_path / "file").write_text("#!/bin/sh\n")
    with pytest.raises(ProgramMissing, match="may not be run"):
        run.run([str(tmp_path / "file")], timeout=10)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV"])
def test_one_that_somebody_kills(name, check):
    with pytest.raises(ProgramKilled, match=f"sh was killed by {name}") as killed:
        sh(f"echo before >&2; kill -{name[3:]} $$", check=check)
    assert killed.value.private == "before\n"
    assert killed.value.status == 503


@pytest.mark.parametrize("check", [True, False])
def test_one_that_a_real_time_signal_kills(check):
    """Signals above 31 have no name of their own in Python."""
    number = signal.SIGRTMIN + 5
    with pytest.raises(ProgramKilled, match=f"sh was killed by signal {number}"):
        sh(f"kill -{number} $$", check=check)


# --- time ----------------------------------------------------------------------------------------


@pytest.fixture(params=["told of the end", "asking"])
def how_it_ends(request, monkeypatch):
    """Linux tells when a program has ended; elsewhere it is asked again and again."""
    if request.param == "asking":
        monkeypatch.delattr(os, "pidfd_open")


def test_one_that_closes_its_pipes_is_waited_for(how_it_ends):
    assert sh("exec >&- 2>&-; sleep 0.3; exit 7", check=False).status == 7
    with pytest.raises(ImportTimeout):
        sh("exec >&- 2>&-; sleep 60", timeout=0.3)


def test_whatever_the_system_the_output_is_whole(how_it_ends):
    done = sh("head -c 300000 /dev/zero | tr '\\0' x; echo complaint >&2", on_tick=lambda: None)
    assert (len(done.stdout), done.stderr) == (300_000, "complaint\n")


WATCHED = pytest.mark.parametrize(
    "watched",
    [{}, {"on_line": lambda _: None}, {"on_tick": lambda: None}],
    ids=["not watched", "by lines", "by ticks"],
)


@WATCHED
def test_the_whole_process_group_ends_when_the_time_is_up(mark, watched):
    """Also a child that ignores the polite signal."""
    script = "trap '' TERM INT HUP; (trap '' TERM; sleep 60) & sleep 60; echo x"
    begun = time.monotonic()
    with pytest.raises(ImportTimeout, match=r"sh did not end within 0\.6 seconds") as expired:
        sh(script, timeout=0.6, env={"LEFT_OF": mark}, **watched)
    assert time.monotonic() - begun < 30
    assert "trap" in expired.value.private and "trap" not in expired.value.detail


@WATCHED
def test_a_child_that_keeps_the_pipe_ends_too(mark, watched):
    """The program itself is done, but a child of it holds stdout open."""
    begun = time.monotonic()
    with pytest.raises(ImportTimeout):
        sh("sleep 60 & echo done", timeout=0.6, env={"LEFT_OF": mark}, **watched)
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
@pytest.mark.parametrize("hook", ["on_line", "on_tick"])
def test_an_interrupt_ends_the_whole_process_group(mark, error, hook):
    def interrupt(*_):
        raise error

    begun = time.monotonic()
    with pytest.raises(error):
        sh("echo line; sleep 60", env={"LEFT_OF": mark}, **{hook: interrupt})
    assert time.monotonic() - begun < 30


def test_ticks_come_while_it_runs_and_in_our_thread():
    ticks = []
    done = sh("sleep 1.3; echo done", on_tick=lambda: ticks.append(threading.get_ident()))
    assert done.stdout == "done\n"
    assert 1 <= len(ticks) <= 3
    assert set(ticks) == {threading.get_ident()}


def test_ticks_come_as_often_as_they_are_wanted(how_it_ends):
    ticks = []
    sh("sleep 0.5", on_tick=lambda: ticks.append(1), tick=0.02)
    assert 4 <= len(ticks) <= 25


# --- output --------------------------------------------------------------------------------------


def test_lines_come_as_they_are_printed():
    lines = []
    done = sh("printf 'a\\rb\\nc\\n\\nd'; echo e >&2", on_line=lines.append)
    assert lines == ["a", "b", "c"]  # what has no end of line is no line
    assert (done.stdout, done.raw, done.stderr) == ("", b"", "e\n")


def test_a_line_without_end_is_not_kept_whole():
    lines = []
    sh("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end", on_line=lines.append)
    assert lines[-1] == "end"
    assert sum(map(len, lines)) < 200_000


@pytest.mark.parametrize("hook", [{}, {"on_line": lambda _: None}])
def test_a_flood_on_stderr_blocks_nothing_and_is_capped(hook):
    done = sh("head -c 3000000 /dev/zero | tr '\\0' x >&2; echo end", **hook)
    assert done.status == 0
    assert len(done.stderr) < 1_100_000 if hook else len(done.stderr) == 3_000_000


def test_more_text_than_anybody_reads_is_cut(monkeypatch):
    monkeypatch.setattr(run, "_MAX_STDOUT", 1000)
    assert len(sh("head -c 5000 /dev/zero | tr '\\0' x").stdout) == 1000


def test_nothing_stays_open():
    before = set(Path("/proc/self/fd").iterdir())
    sh("echo x; echo y >&2", on_line=lambda _: None)
    sh("echo x")
    with pytest.raises(ImportTimeout):
        sh("sleep 9", timeout=0.1)
    assert len(set(Path("/proc/self/fd").iterdir())) <= len(before)


def test_a_started_program_has_its_descriptors_and_is_ended_with_its_children():
    reads, writes = os.pipe()
    started = run.Started(
        ["sh", "-c", f"echo here > /dev/fd/{writes}; echo complaint >&2; sleep 60 & sleep 60"],
        env={"MARK": "x"},
        descriptors=[writes],
    )
    os.close(writes)
    assert os.read(reads, 100) == b"here\n"
    assert os.read(started.stderr, 100) == b"complaint\n"
    assert started.status(0.01) is None
    started.end()
    assert os.read(reads, 100) == b""  # nobody holds the other end any more
    assert started.status(0) == -9
    os.close(reads)
