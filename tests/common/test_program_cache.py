"""Compiled programs are kept where the user says, else with this processor's, or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from common.host import FIRST_WITH_ONEDNN, has_bfloat16
from common.program_cache import keep_programs

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import jax
from common.parallel import local_devices
from common.program_cache import keep_programs
devices = local_devices()
jax.jit(lambda x: x * 2 + 1)(1.0)
print(keep_programs(devices.on_cpu))
"""
WITH_ONEDNN = """
import jax, jax.numpy as jnp
from common.convolution import conv_nhwc
from common.parallel import local_devices

devices = local_devices({count})
shapes = (8, 8, 8, 64), (3, 3, 64, 64)
operands = devices.replicate([jnp.ones(shape, jnp.bfloat16) for shape in shapes])

def convolve(x, kernel):
    return conv_nhwc(x, kernel, 1, "SAME")

program = devices.compile(convolve)
least = "jax_persistent_cache_min_compile_time_secs"
jax.config.update(least, 1e9)
assert "__onednn$convolution" in program.lower(*operands).compile().as_text()
jax.config.update(least, 0)
print(program(*operands).shape)
try:
    program(no_such_argument=1)
except (TypeError, ValueError):
    pass
assert getattr(jax.config, least) == 0
"""


def start(program: str = PROGRAM, **environment: str) -> Path | None:
    """Run a program; where its compiled programs are kept."""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ
        | {
            "JAX_ENABLE_COMPILATION_CACHE": "true",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0 and not result.stderr, result.stderr
    told = result.stdout.strip()
    return None if told == "None" else Path(told)


def test_programs_are_kept_and_found_again_without_a_word(tmp_path):
    folder = start(ATHANOR_CACHE=str(tmp_path))
    assert folder is not None and folder.parent == tmp_path and folder.name.startswith("xla-cpu-")
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*-cache")}
    assert kept
    assert start(ATHANOR_CACHE=str(tmp_path)) == folder
    assert kept == {path.name: path.stat().st_mtime_ns for path in folder.glob("*-cache")}


@pytest.mark.parametrize("where", ["file/cache", "read_only"])
def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path, where):
    (tmp_path / "file").touch()
    (tmp_path / "read_only").mkdir(mode=0o500)
    if where == "read_only" and os.access(tmp_path / where, os.W_OK):
        pytest.skip("root may write anywhere")
    assert start(ATHANOR_CACHE=str(tmp_path / where)) is None


def test_a_users_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    settings = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": str(tmp_path / "file"),
    }
    before = {name: getattr(jax.config, name) for name in settings}
    keep_programs.cache_clear()
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        assert keep_programs(True) is None
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        keep_programs.cache_clear()
    assert capsys.readouterr().err == (
        f"JAX_COMPILATION_CACHE_DIR={tmp_path}/file cannot be written, so compiled programs are "
        "not kept: set it to a folder that can\n"
    )


def test_the_user_wins(tmp_path):
    assert start(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine")) == tmp_path / "mine"
    assert (tmp_path / "mine").is_dir()
    assert start(JAX_ENABLE_COMPILATION_CACHE="false", ATHANOR_CACHE=str(tmp_path / "c")) is None
    assert not (tmp_path / "c").exists()


@pytest.mark.skipif(not has_bfloat16(), reason="oneDNN leaves bfloat16 to XLA here")
@pytest.mark.skipif(jax.__version_info__[:2] < FIRST_WITH_ONEDNN, reason="XLA has no oneDNN")
@pytest.mark.parametrize("count", [1, 2])
def test_a_program_that_calls_onednn_is_not_written(tmp_path, count):
    """jaxlib 0.12 fails when it writes one down, or writes what it cannot read."""
    told = start(
        WITH_ONEDNN.format(count=count),
        ATHANOR_CACHE=str(tmp_path),
        JAX_RAISE_PERSISTENT_CACHE_ERRORS="true",
        XLA_FLAGS="",
    )
    assert str(told).endswith("8, 8, 8, 64)")
    kept = [path.name for path in tmp_path.glob("*/*-cache")]
    assert not [name for name in kept if "convolve" in name or "_fun" in name]  # jit's, pmap's
