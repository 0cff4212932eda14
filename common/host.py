"""What the host is told before JAX starts: how to keep memory, which libraries to use; and what
the host tells: where caches are, what its processor can do."""

import ctypes
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

# The parameters of mallopt(3), from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
ARENAS = 2
CPUINFO = Path("/proc/cpuinfo")
ONEDNN_FLAG = "--xla_cpu_experimental_onednn_custom_call"
# Earlier ones do not have oneDNN in their wheels.
FIRST_WITH_ONEDNN = (0, 12)
TRITON_FLAG = "--xla_gpu_enable_triton_gemm"


def prepare_host() -> None:
    """Call this before anything runs on a device: memory and libraries are chosen then.

    They change how fast programs are and how fast they compile, no more.
    """
    keep_freed_memory()
    use_onednn()
    use_cublas()


def keep_freed_memory() -> None:
    """Let glibc's malloc keep what is freed, for all threads; without effect elsewhere.

    On a CPU the arrays of a training step are allocated and freed in every step. By default
    malloc gives large ones back to the system, which maps fresh pages, one by one, when the
    next step touches them: a `cnn` step (batch 128, one core of a Xeon) takes 0.41 CPU-seconds
    so and 0.35 with this. To be called before JAX starts its threads: those that are there
    keep memory of their own.

    Of the arenas that threads take memory from there are two. With more of them, what one thread
    frees is seldom what another needs: `cnn` makes 470 images/s instead of 540 (glibc's own
    number; two cores). With one, the threads that compile wait for each other: a tagger's first
    run of three epochs takes 41 s instead of 26.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
        mallopt(M_ARENA_MAX, ARENAS)


def use_onednn() -> None:
    """Let XLA call oneDNN for matrix products and convolutions on CPUs, where it has it.

    A choice already in XLA_FLAGS stands. A ResNet-18 step (float32, batch 64, one core of a
    Xeon) takes 2.1 CPU-seconds without and 1.6 with it; bfloat16 convolutions reach the
    processor's matrix units only so (see common/convolution.py).
    """
    version = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])
    if version >= FIRST_WITH_ONEDNN:
        _ask_xla(ONEDNN_FLAG, "true")


def use_cublas(devices: Path = Path("/dev")) -> None:
    """Let XLA leave matrix products on NVIDIA GPUs to cuBLAS, without trying kernels of its own.

    A choice already in XLA_FLAGS stands. XLA compiles and times dozens of Triton kernels for each
    of a tagger's small products, in each of its buckets: a step (128 units, B 64, T 32, an H200)
    took 30 s to compile so and 9 with cuBLAS alone, and 3.1 and 3.3 ms to run.
    """
    if _has_nvidia(devices):
        _ask_xla(TRITON_FLAG, "false")


def _ask_xla(flag: str, value: str) -> None:
    """Add a flag to XLA_FLAGS unless it is there already."""
    flags = os.environ.get("XLA_FLAGS", "")
    if flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}={value}".strip()


def _has_nvidia(devices: Path) -> bool:
    return any(devices.glob("nvidia[0-9]*"))


def cache_root() -> Path:
    """$ATHANOR_CACHE, else $XDG_CACHE_HOME/athanor, else ~/.cache/athanor; anyone may empty it."""
    root = os.environ.get("ATHANOR_CACHE")
    if not root:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        root = str(Path(base) / "athanor")
    return Path(root).expanduser()


def unused_accelerator(devices: Path = Path("/dev")) -> str | None:
    """Why JAX, having found only CPUs, does not use an accelerator of this machine, and what to do.

    None if there is none, or if JAX_PLATFORMS says what to use. `devices` has the device files.
    """
    if os.environ.get("JAX_PLATFORMS"):
        return None
    kinds = {
        "an NVIDIA GPU": (_has_nvidia(devices), "jax_cuda", "requirements.txt"),
        "a TPU": (has_tpu(devices), "libtpu", "requirements-tpu.txt"),
    }
    installed = {
        str(found.metadata["Name"]).replace("-", "_") for found in metadata.distributions()
    }
    for name, (present, package, requirements) in kinds.items():
        if present and not any(other.startswith(package) for other in installed):
            return (
                f"{name} is here, but the installed jax cannot use it, for want of {package}: "
                f"pip install -r {requirements}"
            )
        if present:
            return (
                f"{name} is here, but JAX could not start it: another program may hold it, or its "
                f"driver may be too old for {package}; JAX_PLATFORMS=cpu says that CPUs are meant"
            )
    return None


def has_tpu(devices: Path = Path("/dev")) -> bool:
    """Whether this machine has a TPU, as its device files or its environment tell."""
    return any(devices.glob("accel[0-9]*")) or "TPU_ACCELERATOR_TYPE" in os.environ


def has_bfloat16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the processor multiplies bfloat16 numbers, in vectors or matrices, as Linux tells."""
    return has_matrix_units(cpuinfo) or _has_feature("avx512_bf16", cpuinfo)


def has_matrix_units(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the processor multiplies bfloat16 matrices in hardware (AMX), as Linux tells."""
    return _has_feature("amx_bf16", cpuinfo)


@cache
def _has_feature(name: str, cpuinfo: Path) -> bool:
    return cpuinfo.exists() and name in cpuinfo.read_text()


def onednn_is_used() -> bool:
    """Whether XLA calls oneDNN, as far as `prepare_host` or the environment asked for it."""
    return f"{ONEDNN_FLAG}=true" in os.environ.get("XLA_FLAGS", "")
