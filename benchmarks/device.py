"""Both libraries on the same device: the GPU where there is one, else the CPU."""

import sys
from functools import cache

from benchmarks.process import call
from benchmarks.sides import SHARED_GPU
from common.host import has_bfloat16


@cache
def find_device() -> str:
    """The platform that both compute on: "cpu" or "gpu".

    Raises:
        SystemExit: one of them would compute on a GPU, the other on the CPU.
    """
    ours, theirs = (
        call(f"benchmarks.{side}_steps:platform", environment=SHARED_GPU).value
        for side in ("our", "torch")
    )
    if ours != theirs:
        raise SystemExit(
            f"benchmarks: jax computes on the {ours}, torch on the {theirs}: install both for the "
            "same device, or set CUDA_VISIBLE_DEVICES= and JAX_PLATFORMS=cpu"
        )
    return ours


@cache
def precisions() -> tuple[str, ...]:
    """What networks are timed in: bfloat16, too, unless the device is a CPU without units for it.

    Neither library gains by it there, and all questions would take longer than half an hour.
    """
    if find_device() == "cpu" and not has_bfloat16():
        print("this processor does not multiply bfloat16: float32 alone is timed", file=sys.stderr)
        return ("float32",)
    return ("float32", "bfloat16")
