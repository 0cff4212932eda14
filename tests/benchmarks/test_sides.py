"""A side's functions run in its own process; what they return, and how they fail, reaches us."""

import os

import numpy as np
import pytest

from benchmarks.sides import Side, leaves, start, to_numpy, twins

MAKER = """
import os

class Tensor:  # as PyTorch's
    dtype = "torch.bfloat16"
    def detach(self): return self
    def cpu(self): return self
    def float(self): return np.float32([1, 2])

class Double(Tensor):
    dtype = "torch.float64"
    def __array__(self, dtype=None, copy=None): return np.float64([1 / 3])

import numpy as np

def make(start):
    def count(by=1, held=[start]):
        held[0] += by
        return held[0]
    return {"count": count, "pid": os.getpid, "tensor": lambda: (Tensor(), {"a": Double()}),
            "fail": lambda: 1 / 0}

def broken():
    raise SystemExit("no such library")
"""


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "made_up.py").write_text(MAKER)
    return {"PYTHONPATH": str(tmp_path)}


def test_functions_keep_their_state_between_calls_and_timings(environment):
    with Side("made_up:make", 5, environment=environment) as side:
        assert side.names == ("count", "pid", "tensor", "fail")
        assert side.call("pid") not in (os.getpid(), None)
        assert side.call("count") == 6
        assert side.call("count", 10) == 16
        assert side.timer("count")(4) > 0
        assert side.call("count") == 21


def test_sides_are_processes_apart(environment):
    makers = {"one": ("made_up:make", 0), "other": ("made_up:make", 7)}
    with start(makers, environment) as sides:
        assert [side.call("count") for side in sides.values()] == [1, 8]
        assert sides["one"].call("pid") != sides["other"].call("pid")


def test_tensors_come_back_as_numpy_arrays(environment):
    with Side("made_up:make", 0, environment=environment) as side:
        first, nested = side.call("tensor")
    assert isinstance(first, np.ndarray) and first.tolist() == [1, 2]
    assert nested["a"].tolist() == [1 / 3]
    assert [array.tolist() for array in leaves([first, [nested["a"]]])] == [[1, 2], [1 / 3]]
    assert to_numpy("a name") == "a name" and to_numpy(None) is None


def test_a_process_that_ends_is_told_apart(environment, capfd):
    with pytest.raises(RuntimeError, match="made_up:broken: its process ended with 1"):
        Side("made_up:broken", environment=environment)
    assert "no such library" in capfd.readouterr().err
    with Side("made_up:make", 0, environment=environment) as side:
        with pytest.raises(RuntimeError, match="made_up:make: its process ended with 1"):
            side.call("fail")
        assert "ZeroDivisionError" in capfd.readouterr().err


def test_twins_are_functions_of_both_sides_modules():
    assert twins("steps:load", 1) == {
        "athanor": ("benchmarks.our_steps:load", 1),
        "PyTorch": ("benchmarks.torch_steps:load", 1),
    }
