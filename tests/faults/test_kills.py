"""SIGKILL at random moments; `python -m tests.kill_often` does it 50 times."""

from tests.kill_often import train_and_kill


def test_a_run_killed_three_times_ends_as_if_nothing_had_happened(tmp_path):
    train_and_kill(tmp_path, kills=3, seed=0)
