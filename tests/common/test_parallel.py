"""One device and eight: arrays there and back, the same step, errors that help."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import host, parallel
from common.batching import epoch_order, train_rows
from common.errors import InputError
from common.host import ONEDNN_FLAG
from common.parallel import Devices, fast_bfloat16, local_devices, tell_choices
from common.training import TrainingConfig, choose_dtype
from tests.toy import TX, assert_same, compiled_step, make_data, make_state

ROOT = Path(__file__).parents[2]
COUNTS = (1, 8)
KEY, ORDER = jax.random.key(0), epoch_order(1, 0, 40)


@pytest.mark.parametrize("count", COUNTS)
def test_replicate_and_back(count):
    devices = local_devices(count)
    tree = {"a": jnp.arange(6.0).reshape(2, 3), "b": {"c": np.int32(5)}, "none": None}
    assert_same(devices.unreplicate(devices.replicate(tree)), jax.tree.map(jnp.asarray, tree))


@pytest.mark.parametrize("count", COUNTS)
def test_keys_are_replicated(count):
    devices = local_devices(count)
    key = devices.unreplicate(devices.replicate(jax.random.key(3)))
    assert jax.random.key_data(key).tolist() == jax.random.key_data(jax.random.key(3)).tolist()


@pytest.mark.parametrize("count", COUNTS)
def test_shard_and_back(count):
    devices = local_devices(count)
    rows = np.random.default_rng(0).normal(size=(16, 3))
    np.testing.assert_array_equal(devices.unshard(devices.shard({"x": rows})["x"]), rows)


@pytest.mark.parametrize("count", COUNTS)
def test_every_device_sees_its_part(count):
    devices = local_devices(count)
    rows, scale = np.arange(16.0), devices.replicate(jnp.float32(2.0))
    double = devices.compile(lambda scale, batch: scale * batch["x"])
    np.testing.assert_array_equal(
        devices.unshard(double(scale, devices.shard({"x": rows}))), 2 * rows
    )
    assert len(scale.sharding.device_set) == count


@pytest.mark.parametrize("count", COUNTS)
def test_abstract_has_no_copies(count):
    devices = local_devices(count)
    like = devices.abstract({"x": jnp.ones((4, 2), jnp.bfloat16)})["x"]
    assert (like.shape, like.dtype) == ((4, 2), jnp.bfloat16)
    assert like.sharding.device_set == {devices.devices[0]}


def take_steps(count, steps):
    """Losses, first gradient and last state of a noisy, weighted run on `count` devices."""
    devices, step = local_devices(count), compiled_step(count)
    state = devices.replicate(make_state(TX, ema=True))
    data, key = devices.replicate(make_data()), devices.replicate(KEY)
    losses, gradient = [], None
    for number in range(steps):
        rows = train_rows(ORDER[16 * (number % 2) :][:16], 0)
        rows["weight"][-5:] = 0  # the devices' weights differ
        state, sums = step(state, data, devices.shard(rows), key)
        losses.append(float(devices.unreplicate(sums)["loss"]))
        if gradient is None:  # momentum starts as the gradient
            gradient = jax.device_get(devices.unreplicate(state.opt_state))
    return losses, gradient, state


@pytest.mark.parametrize("count", COUNTS)
def test_steps_are_compiled_once(count, caplog):
    devices, step, rows = local_devices(count), compiled_step(count), train_rows(ORDER[:16], 0)
    state, data, key = map(devices.replicate, (make_state(TX, ema=True), make_data(), KEY))
    state, _ = step(state, data, devices.shard(rows), key)
    with jax.log_compiles():
        for epoch in range(3):
            state, _ = step(state, data, devices.shard(train_rows(ORDER[16:32], epoch)), key)
    assert not [line for line in caplog.messages if "XLA compilation" in line]


def test_one_device_and_eight_take_the_same_steps():
    losses, gradient, state = take_steps(1, steps=20)
    losses_8, gradient_8, state_8 = take_steps(8, steps=20)
    np.testing.assert_allclose(losses, losses_8, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(gradient_8), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(state_8), strict=True):
        for copy in np.asarray(b):  # each device holds the same state
            np.testing.assert_allclose(a, copy, rtol=1e-5)


def test_more_devices_than_there_are():
    with pytest.raises(InputError, match="--devices=9: this machine has 8; 0 means all"):
        local_devices(9)
    assert local_devices(0).count == local_devices(8).count == 8


DIVIDE = """
import sys
import jax
import numpy as np
from common import parallel
from common.errors import InputError

parallel.cores = lambda: [0, 1, 2]
try:
    devices = parallel.local_devices(int(sys.argv[1]))
    batch = devices.shard({"x": np.arange(6.0)})
    total = lambda batch: jax.lax.psum(batch["x"].sum(), devices.axis_name or ())
    print(devices.describe(), float(devices.unreplicate(devices.compile(total)(batch))))
except InputError as error:
    print(error)
"""
CPU_IS_ONE = "--devices={}: a CPU is one device{}; leave --devices out, or give --devices=1"


@pytest.mark.parametrize(
    "count, flags, answer",
    [
        (0, "", "1 x cpu 15.0"),
        (3, "", "3 x cpu 15.0"),
        (4, "", CPU_IS_ONE.format(4, ", or up to 3 of a core each")),
        (2, "--xla_force_host_platform_device_count=1", CPU_IS_ONE.format(2, "")),
        (2, "--xla_force_host_platform_device_count=6", "2 x cpu 15.0"),
    ],
)
def test_a_cpu_is_divided_before_jax_starts(count, flags, answer):
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", DIVIDE, str(count)]
    found = subprocess.check_output(command, cwd=ROOT, env=environment, text=True)
    assert found.strip() == answer


def test_batch_that_does_not_divide():
    with pytest.raises(InputError, match="--batch_size=12 does not divide over 8 devices"):
        local_devices(8).check_batch(12)
    local_devices(8).check_batch(16)
    local_devices(1).check_batch(7)


def test_chunks_are_for_accelerators_and_leave_few_steps(monkeypatch):
    assert local_devices(1).chunk_steps(351) == local_devices(8).chunk_steps(351) == 1
    monkeypatch.setattr(Devices, "on_cpu", False)
    sizes = {steps: local_devices(1).chunk_steps(steps) for steps in (1, 22, 50, 51, 351)}
    assert sizes == {1: 1, 22: 22, 50: 50, 51: 25, 351: 43}


@pytest.mark.parametrize("count", COUNTS)
def test_shards_of_several_steps(count):
    devices = local_devices(count)
    batches = [{"x": np.arange(16) + 100 * step} for step in range(3)]
    stacked = devices.shard_steps(batches)["x"]
    for step, batch in enumerate(batches):
        part = stacked[step] if count == 1 else stacked[:, step]
        np.testing.assert_array_equal(part, devices.shard(batch)["x"])


def test_what_may_call_onednn_or_runs_on_several_cpus_is_not_kept(monkeypatch):
    one, eight = local_devices(1), local_devices(8)
    assert one.keeps() and not eight.keeps()
    monkeypatch.setenv("XLA_FLAGS", f"{ONEDNN_FLAG}=true")
    assert one.keeps(onednn=False) and not one.keeps(onednn=True)
    assert not eight.keeps(onednn=False)
    monkeypatch.setattr(Devices, "on_cpu", False)
    assert one.keeps(onednn=True) and eight.keeps()


def test_what_was_chosen_is_said_in_a_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(parallel, "unused_accelerator", lambda: "a GPU is here, but")
    tell_choices(local_devices(8), "float32")
    assert capsys.readouterr() == ("8 x cpu: float32\n", "a GPU is here, but\n")
    monkeypatch.setattr(Devices, "on_cpu", False)
    jax.config.update("jax_enable_compilation_cache", True)  # as a user has it
    jax.config.update("jax_compilation_cache_dir", f"{Path.home()}/.cache/athanor/xla")
    try:
        tell_choices(local_devices(8), "bfloat16", chunk_steps=43)
    finally:
        jax.config.update("jax_enable_compilation_cache", False)
        jax.config.update("jax_compilation_cache_dir", None)
    assert capsys.readouterr() == (
        "8 x cpu: bfloat16, steps in chunks of 43 on the device, compiled programs kept in "
        "~/.cache/athanor/xla\n",
        "",
    )


def test_description():
    assert local_devices(8).describe() == "8 x cpu"


@pytest.mark.parametrize("units", [False, True])
@pytest.mark.parametrize("onednn", [False, True])
def test_bfloat16_is_fast_on_a_cpu_with_units_and_a_library_for_it(monkeypatch, units, onednn):
    monkeypatch.setattr(host, "has_bfloat16", lambda: units)
    monkeypatch.setattr(host, "onednn_is_used", lambda: onednn)
    assert fast_bfloat16(local_devices(1)) == (units and onednn)
    config = TrainingConfig("task", "config", "model")
    for half_on_cpu in (False, True):
        chosen = choose_dtype(config, local_devices(1), half_on_cpu=half_on_cpu)
        assert (chosen == jnp.bfloat16) == (units and onednn and half_on_cpu)


@pytest.mark.parametrize("units", [False, True])
def test_bfloat16_where_it_is_slow_is_told(monkeypatch, capsys, units):
    monkeypatch.setattr(host, "has_bfloat16", lambda: units)
    monkeypatch.setattr(host, "onednn_is_used", lambda: True)
    monkeypatch.setattr(parallel, "unused_accelerator", lambda: None)
    for precision in ("float32", "bfloat16"):
        tell_choices(local_devices(1), precision)
        told = "float32 is as fast or faster" in capsys.readouterr().err
        assert told == (precision == "bfloat16" and not units)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("donate", [False, True])
def test_memory_of_the_first_argument_is_given_away_if_asked(count, donate):
    devices = local_devices(count)
    state, data = (devices.replicate(np.float32([n, 2, 3])) for n in (1, 4))
    add = devices.compile(lambda state, data: state + data, donate_first=donate)
    total = devices.unreplicate(add(state, data))
    assert total.tolist() == [5, 4, 6]
    assert (state.is_deleted(), data.is_deleted()) == (donate, False)
