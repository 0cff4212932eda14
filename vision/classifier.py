"""A classifier and what goes with it: its first state, its logits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from common.batching import gather, padded_rows
from common.host import has_matrix_units, onednn_is_fast
from common.parallel import Devices, local_devices
from common.state import TrainState, create_state
from common.training import choose_dtype
from vision import models
from vision.config import VisionConfig
from vision.datasets import Split
from vision.views import average_logits

# Images scored in one call: bounds the memory, changes no score.
EVAL_BATCH = 500


@dataclass(frozen=True)
class Classifier:
    """A model bound to what it was made for."""

    model: nn.Module
    classes: tuple[str, ...]
    mean: np.ndarray  # float32 [C], of pixels in [0, 1]
    std: np.ndarray
    devices: Devices

    @property
    def precision(self) -> str:
        return jnp.dtype(self.model.dtype).name

    @property
    def pays_with_onednn(self) -> bool:
        """Whether its programs call oneDNN on CPUs, which are compiled anew at every start."""
        return onednn_is_fast(self.precision)

    def normalise(self, images: Array) -> Array:
        """Pixels in [0, 1], float [B, H, W, C], to zero mean and unit deviation."""
        return (images - self.mean) / self.std

    def logits_fn(self, tta: str) -> Callable[[dict, dict, dict], Array]:
        """Compiled (variables, data, rows) -> logits [B, K], on the classifier's devices."""

        def logits(variables: dict, data: dict, rows: dict) -> Array:
            images = gather(data, rows)["image"].astype(jnp.float32) / 255.0
            model = partial(self.model.apply, variables, train=False)
            return average_logits(cast(Any, model), self.normalise(images), tta)

        return self.devices.compile(logits, onednn=self.pays_with_onednn)


def make_classifier(
    config: VisionConfig, classes: tuple[str, ...], mean: np.ndarray, std: np.ndarray
) -> Classifier:
    """The classifier that `config` describes. Raises InputError for what cannot be."""
    devices = local_devices(config.devices)
    dtype = choose_dtype(config, devices, half_on_cpu=_pays_in_half(config))
    model = models.from_config(config, len(classes), dtype=dtype, axis_name=devices.axis_name)
    return Classifier(model, classes, mean, std, devices)


def _pays_in_half(config: VisionConfig) -> bool:
    """Whether bfloat16 is faster on a CPU that has it: with matrix units (AMX), or at full width.

    Of a training step in float32 (batch 128, two cores of an EPYC with AVX-512 and without AMX)
    bfloat16 takes 0.72 to 0.78 for ResNet-18 and 0.84 for `cnn`, at a quarter of the width 1.02 and
    1.09. Between them nothing was measured.
    """
    return has_matrix_units() or config.width >= 1


class Scorer:
    """Logits of a split, for any state; the split is put on the devices once.

    `tta` is the test-time augmentation, a key of `views.PLACES`.
    """

    def __init__(self, classifier: Classifier, tta: str = "none"):
        self._devices = classifier.devices
        self._logits = classifier.logits_fn(tta)

    def score_split(self, variables: Any, split: Split) -> np.ndarray:
        """Logits of a split by variables that are not yet on all devices."""
        data = self.place(split.images)
        return self.logits(self.replicate(variables), data, len(split.labels))

    def replicate(self, variables: Any) -> Any:
        """Variables on all devices."""
        return self._devices.replicate(variables)

    def place(self, images: np.ndarray) -> Any:
        """Images uint8 [N, H, W, C] on the devices."""
        return self._devices.replicate({"image": images})

    def logits(self, variables: Any, data: Any, size: int) -> np.ndarray:
        """Logits float32 [size, K] of the placed images, each scored once."""
        count = self._devices.count
        batch_size = -(-min(EVAL_BATCH, size) // count) * count
        batches = [
            self._logits(variables, data, self._devices.shard(rows))
            for rows in padded_rows(size, batch_size)
        ]
        return np.concatenate([self._devices.unshard(b) for b in batches])[:size]


def init_state(
    config: VisionConfig,
    classifier: Classifier,
    tx: optax.GradientTransformation,
    key: Array | None = None,
) -> TrainState:
    """A new state, made in one compiled call; without a key, only its shapes and types."""

    def init(key: Array) -> TrainState:
        variables = classifier.model.init(key, jnp.zeros((1, 32, 32, 3)), train=False)
        return create_state(dict(variables), tx, ema=config.ema > 0)

    if key is None:
        return jax.eval_shape(init, jax.random.key(0))
    # Run once, so not worth optimising: that took 6 s for `cnn` against 2 s, for the same bits.
    return jax.jit(init, compiler_options={"xla_backend_optimization_level": 1})(key)
