"""What the host is told before JAX starts: how to keep memory, where to compute, which vectors and
libraries to use; and what the host tells: where caches are, what its processor can do."""

import ctypes
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

# Parameters of mallopt(3), from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
CPUINFO = Path("/proc/cpuinfo")
ONEDNN_FLAG = "--xla_cpu_experimental_onednn_custom_call"
# Earlier ones do not have oneDNN in their wheels.
FIRST_WITH_ONEDNN = (0, 12)
VECTOR_FLAG = "--xla_cpu_prefer_vector_width"
TRITON_FLAG = "--xla_gpu_enable_triton_gemm"


def prepare_host() -> None:
    """Call this before anything runs on a device: memory and libraries are chosen then.

    They change how fast programs are and how fast they compile, and no more than roundings else.
    """
    keep_freed_memory()
    compute_in_place()
    use_onednn()
    use_whole_vectors()
    use_cublas()


def keep_freed_memory() -> None:
    """Let glibc's malloc keep what the main thread frees; without effect elsewhere.

    On a CPU the arrays of a training step are allocated and freed in every step. By default
    malloc gives large ones back to the system, which maps fresh pages, one by one, when the
    next step touches them: 61,000 of them in a `cnn` step (batch 128), which so takes 0.41
    to 0.44 CPU-seconds instead of 0.32 with this and `compute_in_place` (two cores of a Xeon, jax
    0.12): other threads have arenas of their own, for which this does not hold.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def compute_in_place() -> None:
    """Let JAX run a CPU's programs in the thread that calls them, instead of handing them over.

    That holds for programs of one device; JAX hands those of several (`--devices`) over all the
    same. The thread's memory is then kept (`keep_freed_memory`). On two cores of a Xeon (jax 0.12,
    float32), against programs handed over and one arena for all threads, so that these kept memory
    too: steps take 3 to 8 % less time (`cnn`, ResNet-18, taggers), a classifier's process half to
    three quarters of the memory, and a start, in which threads that compile then waited for each
    other's malloc, a quarter to a third less time. The host has nothing else to do meanwhile, since
    it is the CPU.
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)


def use_onednn() -> None:
    """Let XLA call oneDNN for matrix products and convolutions on CPUs, where it has it.

    A choice already in XLA_FLAGS stands. A ResNet-18 step (float32, batch 64, one core of a
    Xeon) takes 2.1 CPU-seconds without and 1.6 with it; bfloat16 convolutions reach the
    processor's matrix units only so (see common/convolution.py).
    """
    if jaxlib_version() >= FIRST_WITH_ONEDNN:
        _ask_xla(ONEDNN_FLAG, "true")


def jaxlib_version() -> tuple[int, ...]:
    """Major and minor, without starting JAX."""
    return tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])


def use_whole_vectors(cpuinfo: Path = CPUINFO) -> None:
    """Let XLA's own CPU code fill the 512-bit vectors of AVX-512 instead of 256-bit ones.

    A choice already in XLA_FLAGS stands. XLA asks LLVM for 256 bits, whatever the processor, since
    512 lower the clock of the first that had AVX-512 (2017, not measured). What is not left to a
    library gains on later ones, a CRF and the gates of taggers above all. Two cores, jax 0.12, 256
    and 512 bits in turn, a CRF for 64 sentences of 80 steps and 3 tags, in us:

                                          Zen 5 (2024)     Cascade Lake (2019)
        loss and gradient                 216 and 184      680 and 540
        marginals                         121 and 84       380 and 360
        decoding                          16.9 and 15.2    70 and 60
        5 best paths                      880 and 625      4,650 and 2,360

    Taggers' epochs at batch 64 take 2 to 9 % and 7 to 10 % less, steps of `cnn` 2 % less and 1 %
    more, ResNet-18's the same. Lost: the gradient of a single sentence of 80 steps (54 and 76;
    120 and 190); of 16 sentences of 1,024 steps decoding on Zen 5 (8 %), the gradient on Cascade
    Lake (19 %).
    """
    # "vl": processors that have both widths to choose from.
    if _has_feature("avx512vl", cpuinfo):
        _ask_xla(VECTOR_FLAG, "512")


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


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


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


def onednn_is_fast(precision: str) -> bool:
    """Whether all of oneDNN's products in "float32" or "bfloat16" are fast on this processor.

    Without units for bfloat16 it makes some of them by loops: a.T @ b of two 512 x 512 matrices in
    3.3 s, XLA itself in 14 ms (a Xeon of 2019, jax 0.12).
    """
    return precision != "bfloat16" or has_bfloat16()


def onednn_is_used() -> bool:
    """Whether XLA calls oneDNN, as far as `prepare_host` or the environment asked for it."""
    return f"{ONEDNN_FLAG}=true" in os.environ.get("XLA_FLAGS", "")


def bfloat16_is_fast() -> bool:
    """Whether XLA multiplies bfloat16 on this processor in its units: oneDNN does that for it."""
    return has_bfloat16() and onednn_is_used()
