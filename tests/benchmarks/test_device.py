"""What the benchmarks compute on, and in."""

import pytest

from benchmarks import device


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("units", [True, False])
def test_bfloat16_is_left_out_where_a_cpu_has_no_units_for_it(monkeypatch, capsys, platform, units):
    monkeypatch.setattr(device, "find_device", lambda: platform)
    monkeypatch.setattr(device, "has_bfloat16", lambda: units)
    left_out = platform == "cpu" and not units
    device.precisions.cache_clear()
    try:
        for _ in range(2):  # it is said once
            assert device.precisions() == ("float32", "bfloat16")[: 1 if left_out else 2]
    finally:
        device.precisions.cache_clear()
    assert capsys.readouterr().err.count("float32 alone is timed") == left_out
