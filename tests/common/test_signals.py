"""Signals become requests; a second one insists; handlers are put back."""

import os
import signal
import time

import pytest

from common.errors import StopNow
from common.signals import ECHO, PATIENCE, StopRequest


@pytest.fixture(autouse=True)
def default_handlers():
    """Python's own, also where the tests run in the background, whose shell ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", StopRequest.SIGNALS)
def test_the_first_signal_is_a_request(number, capfd):
    with StopRequest("saving") as stop:
        assert stop.number is None
        os.kill(os.getpid(), number)
        assert stop.number == number
    assert f"{signal.Signals(number).name}: saving" in capfd.readouterr().err


def test_the_second_signal_stops_at_once():
    with StopRequest("saving") as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.number == signal.SIGTERM


def test_an_echo_of_the_first_signal_is_none_and_insisting_is(capfd):
    left = []
    with StopRequest("saving", lambda: "left", left.append) as stop:
        for _ in range(3):  # as timeout(1) does
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE + ECHO + 0.2)
        assert stop.number == signal.SIGTERM and not left
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE + 0.5)
    assert left == [128 + signal.SIGTERM]
    assert capfd.readouterr().err.count("saving") == 1


def test_what_can_be_done_again_is_left_at_the_first_signal():
    with StopRequest("saving") as stop:
        with pytest.raises(StopNow), stop.raising():
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopNow), stop.raising():
            raise AssertionError("the signal has come before")


def test_handlers_are_put_back_also_after_an_error():
    before = [signal.getsignal(number) for number in StopRequest.SIGNALS]
    with pytest.raises(ValueError), StopRequest("saving"):
        assert signal.getsignal(signal.SIGTERM) not in before
        raise ValueError
    assert [signal.getsignal(number) for number in StopRequest.SIGNALS] == before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
