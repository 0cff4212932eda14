"""Devices: `jit` on one, `pmap` on several, the same numbers either way.

Nothing else in Athanor knows how many devices there are. The data set is copied to every
device once; a batch is then a few rows of indices, cut over the devices, and each device
gathers its own examples. Of several processes (common/processes.py) each holds and is given
what belongs to its own devices.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from common import processes
from common.errors import InputError
from common.host import (
    ONEDNN_FLAG,
    bfloat16_is_fast,
    cores,
    onednn_is_used,
    prepare_host,
    unused_accelerator,
)
from common.program_cache import Unkept, keep_programs
from common.writer import say, warn

AXIS = "devices"
# Steps of one program on an accelerator: they hide the host's work, and still end in seconds.
CHUNK = 50


@dataclass(frozen=True)
class Devices:
    """The devices of one run, of all its processes, in the order of these.

    Functions given to `compile` see the local part of arguments made by `shard`, and
    whole copies of arguments made by `replicate`; keys are replicated too.
    """

    devices: tuple[jax.Device, ...]

    @property
    def count(self) -> int:
        return len(self.devices)

    @property
    def local(self) -> tuple[jax.Device, ...]:
        """Those of this process."""
        return tuple(d for d in self.devices if d.process_index == jax.process_index())

    @property
    def on_cpu(self) -> bool:
        return self.devices[0].platform == "cpu"

    @property
    def axis_name(self) -> str | None:
        """Axis for collectives, None where there is nothing to collect."""
        return AXIS if self.count > 1 else None

    def compile(
        self, fn: Callable[..., Any], *, donate_first: bool = False, onednn: bool = True
    ) -> Callable[..., Any]:
        """The compiled form of `fn`.

        Args:
            fn: see the class.
            donate_first: gives its first argument's memory away.
            onednn: whether XLA may call oneDNN on a CPU, whose programs are not kept (`Unkept`);
                on several devices it does so as it likes.
        """
        donate = (0,) if donate_first else ()
        asked = self.on_cpu and onednn_is_used()
        program: Any
        if self.count == 1:
            options = {ONEDNN_FLAG.removeprefix("--"): False} if asked and not onednn else None
            program = jax.jit(fn, donate_argnums=donate, compiler_options=options)
        else:
            program = jax.pmap(fn, axis_name=AXIS, devices=self.devices, donate_argnums=donate)
        return Unkept(program) if asked and onednn else program

    def keeps(self, onednn: bool = True) -> bool:
        """Whether what `compile` makes, with or without `onednn`, may be kept for later runs."""
        return not self.on_cpu or (self.count == 1 and not (onednn and onednn_is_used()))

    def replicate(self, tree: Any) -> Any:
        """A copy of every array on every device."""
        if self.count == 1:
            return jax.device_put(tree, self.devices[0])
        local = self.local
        mesh = Mesh(np.array(local), (AXIS,))
        tree = jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))

        def stack(x: jax.Array) -> jax.Array:
            return jnp.broadcast_to(x, (len(local), *x.shape))

        split = NamedSharding(mesh, PartitionSpec(AXIS))
        return jax.jit(lambda t: jax.tree.map(stack, t), out_shardings=split)(tree)

    def abstract(self, tree: Any) -> Any:
        """Shapes and types of `tree`, to be restored to this process's first device."""
        place = SingleDeviceSharding(self.local[0])
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)

    def unreplicate(self, tree: Any) -> Any:
        """One copy of what is the same on every device."""
        return tree if self.count == 1 else jax.tree.map(lambda x: x[0], tree)

    def shard(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Cut [B, ...] into [devices, B / devices, ...]; of these, this process's part."""
        if self.count == 1:
            return batch
        mine = [place for place, device in enumerate(self.devices) if device in self.local]
        return {k: v.reshape(self.count, -1, *v.shape[1:])[mine] for k, v in batch.items()}

    def shard_steps(self, batches: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """`shard` for several steps: [S, B, ...], cut into [devices, S, B / devices, ...]."""
        parts = [self.shard(batch) for batch in batches]
        axis = 0 if self.count == 1 else 1
        return {name: np.stack([part[name] for part in parts], axis) for name in parts[0]}

    def chunk_steps(self, steps: int) -> int:
        """How many of an epoch's steps of one shape to make at a time, by `step.scan_steps`.

        An accelerator then never waits for the host. A CPU does not either, as the host is the
        CPU: there it is 1.
        """
        return 1 if self.on_cpu else steps // -(-steps // CHUNK)

    def unshard(self, array: Any) -> np.ndarray:
        """Undo `shard`, on the host of every process."""
        array = np.asarray(array)
        if self.count == 1:
            return array
        array = processes.gather(array) if processes.process_count() > 1 else array[None]
        return array.reshape(-1, *array.shape[3:])

    def check_batch(self, batch_size: int) -> None:
        """InputError unless the devices share the batch evenly."""
        if batch_size % self.count:
            raise InputError(
                f"--batch_size={batch_size} does not divide over {self.count} devices: use a "
                f"multiple of {self.count}, or fewer by --devices"
            )

    def describe(self) -> str:
        """Such as "1 x cpu" or "8 x TPU v4 (2 processes)"."""
        several = processes.process_count() > 1
        processed = f" ({processes.process_count()} processes)" if several else ""
        return f"{self.count} x {self.devices[0].device_kind}{processed}"


def local_devices(count: int = 0) -> Devices:
    """The first `count` devices of every process, all of them for 0.

    Called before anything runs on a device: JAX starts here, after `prepare_host`. A CPU is one
    device, or as many as are asked for (`_divide_cpu`).

    Raises:
        InputError: there are not so many.
    """
    prepare_host()
    most = _divide_cpu(count)
    found = jax.local_devices()
    if count < 0 or count > len(found):
        has = f"this machine has {len(found)}; 0 means all"
        if found[0].platform == "cpu" and len(found) == 1:
            parts = f", or up to {most} of a core each" if most > 1 else ""
            has = f"a CPU is one device{parts}; leave --devices out, or give --devices=1"
        raise InputError(f"--devices={count}: {has}")
    devices: list[jax.Device] = []
    for index in range(processes.process_count()):
        own = [device for device in jax.devices() if device.process_index == index]
        devices += own[: count or len(own)]
    keep_programs(found[0].platform == "cpu")
    return Devices(tuple(devices))


def _divide_cpu(count: int) -> int:
    """Let JAX make `count` devices of a CPU; returns how many it could be, one for each core.

    A choice already in XLA_FLAGS stands. Processes that were joined have one each: joining them
    started JAX.

    Each device computes in a thread of its own, and they wait for one another only where the
    batch is summed over; there are as many threads, so the last to come finds one. Two cores of an
    EPYC, laptop14, GloVe, batch 64: an epoch of a BiLSTM-CRF with 128 units takes 0.83 s on one
    device and 0.61 to 0.69 on two, with 32 units 0.16 to 0.18 and 0.14 to 0.15; with 512 units
    both take as long. With batch 16 and 32 units two take a third longer, a classifier's step half
    as long again to twice as long. And programs of several devices are compiled anew at every
    start: `pmap` cannot be told to do without oneDNN.
    """
    forced = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    most = 1 if forced or processes.process_count() > 1 else len(cores())
    if 1 < count <= most:
        with suppress(RuntimeError):  # JAX has started: there are the devices that there are
            jax.config.update("jax_num_cpu_devices", count)
    return most


def tell_choices(
    devices: Devices, precision: str, *, chunk_steps: int = 1, onednn: bool = True
) -> None:
    """Say in a line what the devices are and what was chosen for them; in another what is unused.

    Args:
        devices: of the run.
        precision: what the model computes in.
        chunk_steps: steps made at a time.
        onednn: as for `Devices.compile`, of the training step.
    """
    choices = [precision]
    if chunk_steps > 1:
        choices.append(f"steps in chunks of {chunk_steps} on the device")
    if devices.keeps(onednn) and (folder := keep_programs(devices.on_cpu)):
        home = str(Path.home())
        choices.append(f"compiled programs kept in {str(folder).replace(home, '~', 1)}")
    say(f"{devices.describe()}: {', '.join(choices)}")
    if devices.on_cpu and (unused := unused_accelerator()):
        warn(unused)
    if devices.on_cpu and precision == "bfloat16" and not fast_bfloat16(devices):
        warn("bfloat16: jax has no fast way to it on this CPU: float32 is as fast or faster")


def default_is_cpu() -> bool:
    """Whether programs run on CPUs unless told otherwise."""
    return jax.default_backend() == "cpu"


def fast_bfloat16(devices: Devices) -> bool:
    """Whether bfloat16 is worth having.

    TPUs, GPUs from Ampere (compute 8.0) on, CPUs that multiply it if XLA calls oneDNN.
    """
    device = devices.devices[0]
    if device.platform == "tpu":
        return True
    if devices.on_cpu:
        return bfloat16_is_fast()
    return float(getattr(device, "compute_capability", 0) or 0) >= 8.0
