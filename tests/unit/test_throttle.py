"""When a registry may be asked again (rule D9)."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates_app.sources.native import throttle
from templates_app.sources.native.network import Deadline, Failure
from templates_app.sources.native.throttle import Throttle, backoff, retry_after

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


def never():
    return False


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("Tue, 24 Nov 2026 12:00:30 GMT", 30),
        ("Tue, 24 Nov 2026 12:00:30 -0000", 30),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0),
        ("Tue, 24 Nov 2026 13:00:30 +0100", 30),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("1e9", None),
        ("٣", None),
        ("9" * 400, None),
    ],
)
def test_retry_after(text, seconds):
    assert retry_after(text, NOW) == seconds


@given(
    st.text(max_size=40)
    | st.builds(
        "{}, {} Nov {} {}:0:0 {}{}".format,
        st.sampled_from(["Tue", "x"]),
        *[st.integers(-1, 10**20)] * 3,
        st.sampled_from(["+", "-", ""]),
        st.integers(0, 10**20),
    )
)
def test_no_text_crashes_it(text):
    found = retry_after(text, NOW)
    assert found is None or found >= 0


def test_without_a_clock_given_it_is_ours():
    soon = datetime.now(UTC) + timedelta(seconds=100)
    found = retry_after(soon.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    assert found is not None and 97 < found <= 100


def test_pauses_grow_are_random_and_end():
    assert all(1 <= backoff(0, 1) <= 1.5 and 4 <= backoff(2, 1) <= 6 for _ in range(100))
    assert len({backoff(0, 1) for _ in range(10)}) > 1
    assert backoff(60, 1) <= throttle.LONGEST * 1.5


def test_a_registry_that_never_said_anything_is_asked_at_once():
    held = Throttle()
    with held.turn(Deadline(1), never), held.turn(Deadline(1), never) as second:
        assert not second.probe


def test_after_a_limit_one_asks_and_the_others_wait_for_its_answer():
    held = Throttle()
    held.limit(0.1)
    begun = time.monotonic()
    seen: list[tuple[bool, float]] = []
    inside, most = [0], [0]
    lock = threading.Lock()

    def one():
        with held.turn(Deadline(10), never) as turn:
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                seen.append((turn.probe, time.monotonic() - begun))
            if turn.probe:
                time.sleep(0.3)  # the others would come in now
                with lock:
                    assert inside[0] == 1
                turn.answered()
            with lock:
                inside[0] -= 1

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [probe for probe, _ in seen] == [True] + [False] * 5
    assert seen[0][1] >= 0.1 and seen[1][1] >= 0.4


def test_a_probe_that_is_limited_again_leaves_the_others_waiting():
    held = Throttle()
    held.limit(0)
    with held.turn(Deadline(1), never) as turn:
        assert turn.probe
        turn.limited(0.2)
    begun = time.monotonic()
    with held.turn(Deadline(1), never) as turn:
        assert turn.probe and time.monotonic() - begun > 0.15


def test_a_probe_that_dies_gives_its_turn_on():
    held = Throttle()
    held.limit(0)
    with pytest.raises(ValueError), held.turn(Deadline(1), never):
        raise ValueError
    with held.turn(Deadline(1), never) as turn:
        assert turn.probe


def test_an_answer_to_what_was_asked_before_the_limit_lifts_nothing():
    held = Throttle()
    with held.turn(Deadline(1), never) as early:
        held.limit(0.1)
        early.answered()
    assert held.limited


def test_who_cannot_wait_so_long_is_told_at_once():
    held = Throttle()
    held.limit(20)
    begun = time.monotonic()
    with pytest.raises(Failure) as failed, held.turn(Deadline(5), never):
        pass
    assert failed.value.reason == "rate_limited" and time.monotonic() - begun < 4


def test_hours_are_not_believed():
    held = Throttle()
    held.limit(10**6)
    assert held._opens - time.monotonic() <= throttle.LONGEST


def test_who_has_given_up_does_not_wait():
    held = Throttle()
    held.limit(20)
    with pytest.raises(Failure) as failed, held.turn(Deadline(60), lambda: True):
        pass
    assert failed.value.reason == "unreachable"


def test_each_registry_has_its_own(monkeypatch):
    monkeypatch.setattr(throttle, "_throttles", {})
    monkeypatch.setattr(throttle, "_REMEMBERED", 3)
    limited = throttle.of("https://a")
    limited.limit(20)
    assert throttle.of("https://a") is limited
    for name in "bcdefg":
        assert throttle.of(f"https://{name}") is not limited
    assert len(throttle._throttles) <= 3 and throttle.of("https://a") is limited
