"""A process of its own gives back what its function found, and its memory is not its parent's."""

import math

import pytest

from benchmarks.process import call, peak_memory, time_python


def test_a_function_is_called_in_another_process():
    outcome = call("math:dist", [0.0, 3.0], [4.0, 0.0])
    assert outcome.value == math.dist([0.0, 3.0], [4.0, 0.0]) == 5.0


def test_environment_is_that_of_the_call():
    assert call("os:getenv", "ATHANOR_TEST", environment={"ATHANOR_TEST": "yes"}).value == "yes"
    assert call("os:getenv", "ATHANOR_TEST").value is None


def test_peak_memory_of_a_process_is_its_own():
    ballast = bytearray(300 << 20)
    ballast[:: 1 << 12] = b"x" * len(ballast[:: 1 << 12])  # touched, so resident
    assert peak_memory() > len(ballast) > call("os:getpid").peak > 1 << 20


def test_a_failing_process_says_why():
    with pytest.raises(RuntimeError, match="division by zero|ZeroDivisionError"):
        call("operator:truediv", 1, 0)
    with pytest.raises(RuntimeError, match="ended with 3"):
        time_python(["-c", "raise SystemExit(3)"])
    assert time_python(["-c", "raise SystemExit(3)"], status=3) > 0
