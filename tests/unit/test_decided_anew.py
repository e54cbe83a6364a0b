"""What is decided anew where somebody else's event came first, and how often."""

from __future__ import annotations

import pytest

from templates_app.errors import CoppiceError, EventConflict
from templates_app.services import common


class Decision:
    """Overtaken so many times; what it is asked for is answered then."""

    def __init__(self, overtaken: int, error: CoppiceError | None = None) -> None:
        self.overtaken, self.asked = overtaken, 0
        self.error = error or EventConflict("Somebody else was faster.")

    def __call__(self, name: str, *, of: str) -> str:
        self.asked += 1
        if self.asked <= self.overtaken:
            raise self.error
        return f"{name} of {of}"


def test_what_nobody_overtakes_is_decided_once():
    decision = Decision(0)
    assert common.decided_anew(decision)("web", of="house") == "web of house"
    assert decision.asked == 1


def test_what_is_overtaken_is_decided_anew_until_it_holds():
    decision = Decision(common.ATTEMPTS - 1)
    assert common.decided_anew(decision)("web", of="house") == "web of house"
    assert decision.asked == common.ATTEMPTS


def test_what_is_overtaken_every_time_is_the_conflict():
    decision = Decision(common.ATTEMPTS)
    with pytest.raises(EventConflict):
        common.decided_anew(decision)("web", of="house")
    assert decision.asked == common.ATTEMPTS


def test_any_other_error_is_raised_at_once():
    decision = Decision(1, CoppiceError("No."))
    with pytest.raises(CoppiceError, match="No"):
        common.decided_anew(decision)("web", of="house")
    assert decision.asked == 1
