"""Signals become requests; a second one insists; handlers are put back."""

import os
import signal

import pytest

from common.signals import StopRequest


@pytest.fixture(autouse=True)
def default_handlers():
    """Python's own, also where the tests run in the background, whose shell ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", StopRequest.SIGNALS)
def test_the_first_signal_is_a_request(number, capfd):
    with StopRequest() as stop:
        assert stop.number is None
        os.kill(os.getpid(), number)
        assert stop.number == number
    assert f"{signal.Signals(number).name}: stopping after this step" in capfd.readouterr().err


def test_the_second_signal_stops_at_once():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.number == signal.SIGTERM


def test_handlers_are_put_back_also_after_an_error():
    before = [signal.getsignal(number) for number in StopRequest.SIGNALS]
    with pytest.raises(ValueError), StopRequest():
        assert signal.getsignal(signal.SIGTERM) not in before
        raise ValueError
    assert [signal.getsignal(number) for number in StopRequest.SIGNALS] == before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
