"""How far an import is: reports of layers, summed up as a lease's row has them."""

from __future__ import annotations

from templates_app.services.progress import Tally
from templates_app.sources.base import Progress


def pull(layer: int, done: int, total: int | None = 100, layers: int = 3) -> Progress:
    return Progress(stage="pull", done=done, total=total, layer=layer, layers=layers)


def copy(layer: int, done: int, total: int | None = None, layers: int = 3) -> Progress:
    return Progress(
        stage="copy", done=done, total=total, unit="entries", layer=layer, layers=layers
    )


def tally(*reports: Progress) -> Tally:
    made = Tally()
    for report in reports:
        made.take(report)
    return made


def states(made: Tally) -> list[str]:
    return [layer["state"] for layer in made.layers()]


def summed(made: Tally) -> tuple[str, int, int | None, str]:
    return made.stage, made.done, made.total, made.unit


def test_a_step_of_the_whole_work_is_what_it_says():
    made = tally(Progress(stage="digest", done=7, total=9, unit="entries"))
    assert summed(made) == ("digest", 7, 9, "entries")
    assert made.layers() == []


def test_every_layer_has_a_line_from_the_first_report_on():
    made = tally(pull(0, 40))
    assert made.layers() == [
        {"layer": 1, "state": "pull", "bytes": 40, "totalBytes": 100, "entries": 0},
        {"layer": 2, "state": "waiting", "bytes": 0, "totalBytes": None, "entries": 0},
        {"layer": 3, "state": "waiting", "bytes": 0, "totalBytes": None, "entries": 0},
    ]
    assert summed(made) == ("pull", 40, None, "bytes")


def test_what_is_below_the_first_layer_that_is_reported_was_kept_and_is_not_counted():
    made = tally(pull(1, 0), pull(2, 30))
    assert states(made) == ["kept", "waiting", "pull"]
    assert summed(made) == ("pull", 30, 200, "bytes")


def test_while_bytes_are_to_come_the_sum_is_of_bytes_although_writing_has_begun():
    made = tally(pull(0, 0), pull(1, 0), pull(2, 0), pull(0, 100), copy(0, 5), pull(1, 20))
    assert states(made) == ["copy", "pull", "waiting"]
    assert summed(made) == ("pull", 120, 300, "bytes")


def test_when_all_bytes_are_here_the_sum_is_of_entries():
    made = tally(pull(0, 100), pull(1, 100), pull(2, 100), copy(0, 50, 50), copy(1, 7))
    assert states(made) == ["done", "copy", "pull"]
    assert summed(made) == ("copy", 57, None, "entries")


def test_a_layer_below_one_that_is_written_is_done():
    made = tally(pull(0, 100), copy(0, 3), pull(1, 100), copy(1, 1))
    assert states(made) == ["done", "copy", "waiting"]


def test_bytes_that_come_while_a_layer_is_written_leave_it_being_written():
    made = tally(pull(0, 10), copy(0, 1), pull(0, 20))
    assert states(made)[0] == "copy"
    assert made.layers()[0]["bytes"] == 20


def test_after_the_layers_come_the_other_stages():
    made = tally(pull(1, 100), copy(1, 5, 5), copy(2, 1), Progress(stage="plant", unit="steps"))
    assert states(made) == ["kept", "done", "done"]
    assert made.stage == "plant"
