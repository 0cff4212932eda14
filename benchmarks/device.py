"""Both libraries on the same device: the GPU where there is one, else the CPU."""

from functools import cache

from benchmarks.process import call
from benchmarks.sides import SHARED_GPU


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
