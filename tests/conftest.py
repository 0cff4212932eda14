"""Set before jax starts: the CPU, as eight devices, compiled quickly."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
# The tests compile far more than they compute; this halves their time.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
