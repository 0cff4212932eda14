"""Compiled programs kept between runs: JAX's compilation cache, on wherever it is sound.

A program for CPUs is machine code for the processor that compiled it. Loaded by another it is
refused with a line of error, or it crashes (jax issue 38445). XLA writes the processor's features
into each program; a folder for each list of features keeps unlike processors apart, on a
home folder that several hosts share, too.
"""

import hashlib
import os
import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import jax

from common import processes
from common.host import cache_root

FEATURES = re.compile(rb"[+-][a-z0-9][\w.-]*(?:,[+-][a-z0-9][\w.-]*)+")  # +aes,+avx,-sse4a,...


@cache
def keep_programs(on_cpu: bool) -> Path | None:
    """Let JAX keep what takes a second to compile; returns where, None if it does not.

    JAX_COMPILATION_CACHE_DIR and JAX_ENABLE_COMPILATION_CACHE are the user's, and win.
    """
    # With oneDNN's calls in it, a program cannot be stored (jaxlib 0.12: std::bad_alloc); one that
    # a killed process left incomplete cannot be read. Either is compiled again.
    warnings.filterwarnings("ignore", "Error (writing|reading) persistent compilation cache entry")
    config: Any = jax.config
    if not config.jax_enable_compilation_cache:
        return None
    if on_cpu and processes.process_count() > 1:  # nor can the collectives of CPUs
        return None
    if config.jax_compilation_cache_dir is not None:
        return Path(config.jax_compilation_cache_dir)
    name = cpu_folder() if on_cpu else "xla"
    if name is None:
        return None
    folder = cache_root() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


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
