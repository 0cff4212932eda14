"""Signals become requests; a second one insists; handlers are put back."""

import os
import signal

import pytest

from common.errors import StopNow
from common.signals import StopRequest


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
