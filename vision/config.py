"""The configuration of an image run, and named sets of defaults.

Every model has a recipe of its own name, used unless --config names another; a flag wins
over either. `report_*` repeat the set-ups of the two course reports.
"""

from dataclasses import dataclass
from typing import Any

from common.config import check_choice, check_range, override
from common.errors import InputError
from common.optim import DIRECTIONS, SCHEDULES, WITH_MOMENTUM
from vision.datasets import DATASETS

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class VisionConfig:
    """One training run. Options that are None keep the model's own default."""

    task: str = "cifar"
    config: str = "cnn"
    model: str = "cnn"
    batch_norm: bool | None = None
    dropout: float | None = None
    pool: str | None = None
    shortcut: str | None = None
    stem: str | None = None
    width: float = 1.0  # multiplies every layer's channels
    dataset: str = "cifar10"
    data_dir: str | None = None
    val_fraction: float = 0.1
    augment: str = "standard"
    epochs: int = 30
    batch_size: int = 128
    optimizer: str = "nesterov"
    learning_rate: float = 0.1
    schedule: str = "one_cycle"
    warmup_epochs: float = 0.0
    momentum: float | None = None  # of momentum and nesterov; None is 0.9
    weight_decay: float | None = None  # decoupled; None is the optimiser's own
    l2: float = 0.0  # l2 * sum(w^2) over convolution kernels, as Keras means it
    clip: float = 0.0  # largest global gradient norm, 0 is off
    label_smoothing: float = 0.0
    ema: float = 0.0  # decay per step of the weights' moving average, 0 is off
    patience: int = 0  # epochs without improvement before an early stop, 0 is off
    precision: str = "auto"
    conv: str = "auto"  # how convolutions are computed: auto (Winograd on CPUs) or xla
    seed: int = 0
    devices: int = 0  # 0 is all of this machine's
    checkpoint_minutes: float = 10.0


_SGD = {"optimizer": "nesterov", "schedule": "one_cycle", "l2": 2.5e-4}
_REPORT_A = {
    "batch_size": 50,
    "optimizer": "momentum",
    "learning_rate": 0.01,
    "schedule": "constant",
    "augment": "none",
}
_REPORT_B = {
    "batch_size": 64,
    "optimizer": "rmsprop",
    "learning_rate": 1e-3,
    "schedule": "constant",
    "augment": "none",
    "val_fraction": 0.2,
}
_REPORT_B_RESNET = _REPORT_B | {"optimizer": "adam", "l2": 1e-4, "epochs": 200}

CONFIGS: dict[str, dict[str, Any]] = {
    "cnn": _SGD | {"model": "cnn", "l2": 5e-4, "label_smoothing": 0.1, "dropout": 0.2},
    "cnn_b": {
        "model": "cnn_b",
        "optimizer": "adam",
        "learning_rate": 2e-3,
        "augment": "none",
        "val_fraction": 0.2,
        "epochs": 15,
    },
    **{
        name: _SGD | {"model": name, "learning_rate": 0.05}
        for name in (
            "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "plain18", "plain34"
        )
    },
    "report_a_cnn": _REPORT_A | {"model": "cnn", "epochs": 80},
    "report_a_resnet": _REPORT_A | {"model": "resnet18", "epochs": 40},
    "report_b_cnn": _REPORT_B | {"model": "cnn_b", "epochs": 100},
    "report_b_aug": _REPORT_B
    | {"model": "cnn_b", "epochs": 100, "batch_size": 128, "augment": "report_b"},
    "report_b_dropout": _REPORT_B | {"model": "cnn_b", "epochs": 100, "dropout": 0.5},
    "report_b_resnet": _REPORT_B_RESNET | {"model": "resnet18"},
    "report_b_plain": _REPORT_B_RESNET | {"model": "plain18"},
    "report_b_resnet_aug": _REPORT_B_RESNET | {"model": "resnet18", "augment": "report_b"},
}  # fmt: skip
MODEL_NAMES = tuple(name for name, settings in CONFIGS.items() if settings["model"] == name)

# The embedded data set is small, and a digit in a mirror is no digit.
DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"augment": "crop(4)", "epochs": 8, "batch_size": 64},
}


def make_config(flags: dict[str, Any]) -> VisionConfig:
    """The configuration that the given flags (None: not given) ask for.

    What wins: a flag, then a named --config, then the data set's defaults, then the
    recipe of the model.

    Raises InputError for an unknown name, a flag that vision lacks, or a value out of range.
    """
    if flags.get("config"):
        name = check_choice("--config", flags["config"], CONFIGS)
        defaults = DATASET_DEFAULTS.get(flags.get("dataset") or "", {}) | CONFIGS[name]
    else:
        name = check_choice("--model", flags.get("model") or "cnn", MODEL_NAMES)
        defaults = CONFIGS[name] | DATASET_DEFAULTS.get(flags.get("dataset") or "", {})
    defaults = defaults | {"config": name}
    config = override(override(VisionConfig(), defaults), flags)
    check_config(config)
    return config


def check_config(config: VisionConfig) -> None:
    """Raise an InputError for a number out of range or a name that does not exist."""
    for name in ("epochs", "batch_size"):
        check_range(f"--{name}", getattr(config, name), 1)
    for name in ("learning_rate", "width", "checkpoint_minutes"):
        check_range(f"--{name}", getattr(config, name), 0, open_low=True)
    for name in ("warmup_epochs", "l2", "clip", "patience", "devices"):
        check_range(f"--{name}", getattr(config, name), 0)
    check_range("--seed", config.seed, 0, 2**32 - 1)
    if config.weight_decay is not None:
        check_range("--weight_decay", config.weight_decay, 0)
    for name in ("momentum", "dropout", "label_smoothing", "ema"):
        value = getattr(config, name) or 0.0
        if not 0 <= value < 1:
            raise InputError(f"--{name}={value:g} is out of range: it must be in [0, 1)")
    if config.patience and config.val_fraction == 0:
        raise InputError("--patience needs validation data: give --val_fraction above 0")
    check_choice("--dataset", config.dataset, DATASETS)
    check_choice("--precision", config.precision, PRECISIONS)
    check_choice("--optimizer", config.optimizer, DIRECTIONS)
    check_choice("--schedule", config.schedule, SCHEDULES)
    if config.momentum is not None and config.optimizer not in WITH_MOMENTUM:
        raise InputError(
            f"--momentum does not apply to --optimizer={config.optimizer}: leave it out"
        )
