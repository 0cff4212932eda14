"""Both libraries on the same device: the GPU where there is one, else the CPU."""

import torch

from benchmarks.torch_models import DEVICE
from common.parallel import local_devices


def prepare_both() -> None:
    """Start both libraries, each as fast as it goes.

    On a GPU, float32 products and convolutions are of TensorFloat-32 on both sides, which is
    JAX's default, and cuDNN tries its algorithms before PyTorch's first call of each shape.

    Raises:
        SystemExit: one of them would compute on a GPU, the other on the CPU.
    """
    ours = local_devices(1)
    if ours.on_cpu != (DEVICE.type == "cpu"):
        raise SystemExit(
            f"benchmarks: jax computes on {ours.describe()}, torch on {DEVICE.type}: install both "
            "for the same device, or set CUDA_VISIBLE_DEVICES= and JAX_PLATFORMS=cpu"
        )
    if not ours.on_cpu:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
