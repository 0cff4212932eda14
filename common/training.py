"""What the configurations of all tasks share: how a model is optimised, and where."""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
import optax

from common import optim
from common.config import check_choice, check_range
from common.errors import InputError
from common.parallel import Devices, fast_bfloat16

PRECISIONS = ("auto", "float32", "bfloat16")
# Settings that a training step is given as numbers rather than compiled for.
NUMBERS = ("learning_rate", "weight_decay", "label_smoothing")


@dataclass(frozen=True)
class TrainingConfig:
    """The settings of a training run; a task adds its own, and its own defaults."""

    task: str
    config: str
    model: str
    data_dir: str | None = None
    val_fraction: float = 0.1
    train_fraction: float = 1.0  # of what the validation part leaves
    epochs: int = 30
    batch_size: int = 128
    optimizer: str = "nesterov"
    learning_rate: float = 0.1
    schedule: str = "one_cycle"
    warmup_epochs: float | None = None
    momentum: float | None = None  # of momentum, nesterov and muon; None is 0.9
    kernel_rate: float = 1.0  # factor of the rate for dense and recurrent kernels
    bias_rate: float = 1.0  # the same for biases and scales
    weight_decay: float | None = None  # decoupled; None is the optimiser's own
    l2: float = 0.0  # l2 * sum(w^2) over convolution kernels, as Keras means it
    clip: float = 0.0  # largest global gradient norm, 0 is off
    ema: float = 0.0  # decay per step of the weights' moving average, 0 is off
    patience: int = 0  # epochs without improvement before an early stop, 0 is off
    dropout: float | None = None
    precision: str = "auto"
    seed: int = 0
    devices: int = 0  # 0 is all of this machine's
    checkpoint_minutes: float = 10.0

    @property
    def warmup(self) -> float:
        """Epochs of linear warm-up: `warmup_epochs`, or what None means for the task."""
        return self.warmup_epochs or 0.0


def check_training(config: TrainingConfig) -> None:
    """Raise an InputError for a number out of range or a name that does not exist."""
    for name in ("epochs", "batch_size"):
        check_range(f"--{name}", getattr(config, name), 1, 10**9)
    for name in ("learning_rate", "checkpoint_minutes"):
        check_range(f"--{name}", getattr(config, name), 0, open_low=True)
    for name in ("warmup_epochs", "l2", "clip", "patience", "devices", "kernel_rate", "bias_rate"):
        check_range(f"--{name}", getattr(config, name) or 0, 0)
    check_range("--train_fraction", config.train_fraction, 0, 1.0, open_low=True)
    check_range("--seed", config.seed, 0, 2**32 - 1)
    if config.weight_decay is not None:
        check_range("--weight_decay", config.weight_decay, 0)
    for name in ("momentum", "dropout", "ema", "val_fraction"):
        check_rate(name, getattr(config, name))
    check_choice("--precision", config.precision, PRECISIONS)
    check_choice("--optimizer", config.optimizer, optim.DIRECTIONS)
    check_choice("--schedule", config.schedule, optim.SCHEDULES)
    if config.momentum is not None and config.optimizer not in optim.WITH_MOMENTUM:
        raise InputError(
            f"--momentum does not apply to --optimizer={config.optimizer}: leave it out"
        )
    make_optimization(config, steps=1000)  # for what its parts find wrong together


Config = TypeVar("Config", bound=TrainingConfig)


def step_numbers(config: TrainingConfig) -> dict[str, np.ndarray]:
    """The values of `NUMBERS`, float32 [], for `with_numbers`; without those that are off, of which
    a step is compiled for doing nothing."""
    values = {name: getattr(config, name, None) for name in NUMBERS}
    return {name: np.array(value, np.float32) for name, value in values.items() if value}


def with_numbers(config: Config, numbers: dict[str, Any]) -> Config:
    """The configuration inside a compiled step, of which `numbers` are the step's arguments."""
    return replace(config, **numbers)


def program_of(config: Config) -> Config:
    """The same for configurations whose steps may be one program: all but the seed and the numbers.

    It is hashable, and of no other use.
    """
    alike: dict[str, Any] = dict.fromkeys(step_numbers(config), 1.0)
    return replace(config, seed=0, **alike)


def check_rate(name: str, value: float | None) -> None:
    """Raise an InputError unless a share is in [0, 1); None is the model's own."""
    if not 0 <= (value or 0.0) < 1:
        raise InputError(f"--{name}={value:g} is out of range: it must be in [0, 1)")


def make_optimization(
    config: TrainingConfig, steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Optimiser and learning rate by step, for epochs of `steps` steps."""
    schedule = optim.make_schedule(
        config.schedule,
        config.learning_rate,
        config.epochs * steps,
        warmup_steps=round(config.warmup * steps),
    )
    tx = optim.make_optimizer(
        config.optimizer,
        schedule,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        l2=config.l2,
        clip=config.clip,
        kernel_rate=config.kernel_rate,
        bias_rate=config.bias_rate,
    )
    return tx, schedule


def choose_dtype(config: TrainingConfig, devices: Devices, *, half_on_cpu: bool) -> Any:
    """What the model computes in: by `precision`, or by what the devices are fast at.

    Args:
        config: the run's.
        devices: those it runs on.
        half_on_cpu: whether the model was measured to be faster in bfloat16 on CPUs that have
            units for it.
    """
    automatic = fast_bfloat16(devices) and (half_on_cpu or not devices.on_cpu)
    half = config.precision == "bfloat16" or (config.precision == "auto" and automatic)
    return jnp.bfloat16 if half else jnp.float32
