"""Set before jax starts: the CPU, as eight devices, compiled quickly."""

import os
import socket
import sys

import pytest

from tests.compiling import XLA_FLAGS

os.environ["JAX_PLATFORMS"] = "cpu"
# Eight devices wait for one another in XLA's threads. With as many threads as two cores, work can
# be left that no thread is free to do, and XLA aborts after 40 s: so there are more, and patience.
os.environ["NPROC"] = "16"
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 "
    f"--xla_cpu_collective_call_terminate_timeout_seconds=600 {XLA_FLAGS}"
)
# The tests compile far more than they compute; this halves their time.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# They count compilations; and nothing of theirs stays behind (`kept_programs` is for some).
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

LOCAL = ("127.0.0.1", "::1", "localhost", "0.0.0.0", socket.gethostname(), "", None)


def _forbid_the_network(event: str, arguments: tuple) -> None:
    """An audit hook: whatever a test trains, loads or shows, it looks up and reaches no host."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    assert host in LOCAL, f"a test reached for {host}"  # no OSError, which would be handled


sys.addaudithook(_forbid_the_network)


@pytest.fixture(scope="module")
def kept_programs(tmp_path_factory):
    """From here on a file's tests compile each program once, which takes most of their time."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    from common.program_cache import keep_programs

    def use(settings: dict) -> None:
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        keep_programs.cache_clear()  # it says where they are kept

    settings = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("programs")),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    use(settings)
    yield
    use(before)
