"""Signals whose exception is lost or changed on its way, as compiled modules do while they are imported."""

from __future__ import annotations

import signal
import time
from contextlib import suppress

import pytest

from robustgen_cli.interruption import Interrupted, Interruption

SOON = 0.02


def lose() -> None:
    with suppress(Interrupted):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_raised_at_once(number: signal.Signals) -> None:
    with pytest.raises(Interrupted), Interruption(60.0) as interruption:
        assert not interruption.asked
        signal.raise_signal(number)
    assert interruption.asked


def test_what_is_lost_is_raised_anew_as_often_as_needed() -> None:
    times = 0
    with pytest.raises(Interrupted), Interruption(SOON):
        lose()
        for _ in range(2):
            with suppress(Interrupted):
                time.sleep(30)
            times += 1
        time.sleep(30)
    assert times == 2


def test_clearing_up_is_not_disturbed_whatever_comes_up_in_it() -> None:
    cleared = []
    with pytest.raises(Interrupted), Interruption(SOON):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            try:
                raise FileNotFoundError
            except FileNotFoundError:
                time.sleep(10 * SOON)
            time.sleep(10 * SOON)
            cleared.append("all")
    assert cleared == ["all"]


def test_a_second_signal_of_the_user_ends_the_clearing_up() -> None:
    with pytest.raises(Interrupted), Interruption(60.0):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it went on")


def test_what_became_another_error_was_still_asked_for() -> None:
    with pytest.raises(ImportError), Interruption(60.0) as interruption:
        try:
            signal.raise_signal(signal.SIGTERM)
        except Interrupted:
            raise ImportError("initialization failed") from None
    assert interruption.asked


def test_afterwards_signals_are_as_they_were() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interruption(SOON):
        lose()
    time.sleep(5 * SOON)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
