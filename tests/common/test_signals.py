"""Signals become requests; a second one insists; handlers are put back."""

import os
import signal
import subprocess
import time

import pytest

from common import signals
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


@pytest.mark.parametrize("wait, number", [(0.0, signal.SIGINT), (3 * ECHO, signal.SIGTERM)])
def test_the_second_signal_stops_at_once(monkeypatch, wait, number):
    monkeypatch.setattr(signals, "PATIENCE", 60)  # the thread would end the tests
    with StopRequest("saving") as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(wait)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(5)
        assert stop.number == signal.SIGTERM


@pytest.mark.parametrize("busy", [False, True])
def test_an_echo_of_the_first_signal_is_none(capfd, busy):
    left: list[int] = []
    with StopRequest("saving", lambda: "left", left.append) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        echoes = "; ".join(["kill -TERM $PPID"] * 2)  # as of timeout(1)
        with subprocess.Popen(["sh", "-c", f"sleep 0.1; {echoes}"]):
            if busy:
                sum(range(50_000_000))  # a second, in which Python sees no signal
        time.sleep(PATIENCE + ECHO)
        assert stop.number == signal.SIGTERM
    assert not left and capfd.readouterr().err.count("saving") == 1


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
