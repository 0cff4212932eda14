"""Compiled programs kept between runs: JAX's compilation cache, on wherever it is sound.

A program for CPUs is machine code for the processor that compiled it. Loaded by another it is
refused with a line of error, or it crashes (jax issue 38445). XLA writes the processor's features
into each program; a folder for each list of features keeps unlike processors apart, on a
home folder that several hosts share, too.
"""

import hashlib
import math
import os
import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import jax

from common import processes
from common.host import cache_root
from common.writer import warn

LEAST_SECONDS = "jax_persistent_cache_min_compile_time_secs"
FEATURES = re.compile(rb"[+-][a-z0-9][\w.-]*(?:,[+-][a-z0-9][\w.-]*)+")  # +aes,+avx,-sse4a,...


@cache
def keep_programs(on_cpu: bool) -> Path | None:
    """Let JAX keep what takes a second to compile; returns where, None if it does not.

    JAX_COMPILATION_CACHE_DIR and JAX_ENABLE_COMPILATION_CACHE are the user's, and win.
    """
    # What a killed process left incomplete cannot be read, what calls oneDNN after all cannot be
    # written (`Unkept`); either is compiled again.
    warnings.filterwarnings("ignore", "Error (writing|reading) persistent compilation cache entry")
    config: Any = jax.config
    if not config.jax_enable_compilation_cache:
        return None
    if on_cpu and processes.process_count() > 1:  # nor can the collectives of CPUs
        return None
    given = config.jax_compilation_cache_dir
    if given is not None:
        if "://" in given or _can_write(Path(given)):  # a bucket is JAX's affair
            return Path(given)
        warn(
            f"JAX_COMPILATION_CACHE_DIR={given} cannot be written, so compiled programs are not "
            "kept: set it to a folder that can"
        )
        return None
    name = cpu_folder() if on_cpu else "xla"
    if name is None:
        return None
    folder = cache_root() / name
    if not _can_write(folder):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def _can_write(folder: Path) -> bool:
    """Whether files can be put into the folder, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


class Unkept:
    """A jitted function whose programs may call oneDNN: those that calls compile are not kept.

    XLA cannot write a call of oneDNN down (jaxlib 0.12). It reads a string where there is none,
    and writes what it found, or takes an address for its length, asks for some 90 TB, and fails.
    glibc then turns the thread that got no memory to another arena, where what is freed goes back
    to the system whatever `host.keep_freed_memory` says, and every page of a large step is mapped
    anew. A training epoch with 512 units (laptop14, batch 64, two cores of an EPYC, a quiet host)
    took 3.5 instead of 3.1 s in float32, 2.1 instead of 1.9 in bfloat16.

    The setting is the process's: threads that compile other programs meanwhile keep none either.
    """

    def __init__(self, program: Any):
        """`program` is what `jax.jit` or `jax.pmap` returns, whose attributes this has, too."""
        self._program = program

    def __getattr__(self, name: str) -> Any:
        return getattr(self._program, name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        least = getattr(jax.config, LEAST_SECONDS)
        try:
            jax.config.update(LEAST_SECONDS, math.inf)  # half a microsecond
            return self._program(*arguments, **named)
        finally:
            jax.config.update(LEAST_SECONDS, least)


def cpu_folder() -> str | None:
    """A name for the features of this processor; None where a program does not tell them."""
    program: Any = jax.jit(lambda x: x + 1).lower(1.0).compile().runtime_executable()
    try:
        features = FEATURES.findall(program.serialize())
    except (AttributeError, RuntimeError):  # neither is promised by JAX
        return None
    if len(features) != 1:
        return None
    return f"xla-cpu-{hashlib.sha256(features[0]).hexdigest()[:12]}"
