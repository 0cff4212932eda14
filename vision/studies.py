"""The studies of `--task=cifar`: reports A's and B's comparisons, and those they point at.

Adding a study is adding an entry. `quick` is for a first look at the embedded digits, `cpu` for
CIFAR-10 on two cores (half an hour a study at most), `full` the report's own epochs. Behind the
`cpu` sizes stand the images that training takes in a CPU-second (bfloat16, a Xeon with AMX):
`cnn_b` 1,400, a quarter of `cnn` 1,900, an eighth of ResNet-18 620 and of `plain34` 370.
"""

from functools import partial
from typing import Any

from common.errors import InputError
from common.study import Budget, Study, Task
from common.training import program_of
from vision import models
from vision.augment import make_augment
from vision.config import VisionConfig, make_config

METRICS = {
    "test/accuracy": "test accuracy",
    "test/loss": "test loss",
    "test/ece": "test calibration error",
    "val/accuracy": "validation accuracy",
    "val/loss": "validation loss",
    "final/train/accuracy": "final training accuracy",
    "final/train/loss": "final training loss",
    "final/val/accuracy": "final validation accuracy",
    "final/val/loss": "final validation loss",
    "gap/accuracy": "final validation less training accuracy",
    "gap/loss": "final validation less training loss",
}


def check(settings: dict[str, Any]) -> VisionConfig:
    """The configuration; InputError for what `train` would refuse whatever the data."""
    config = make_config(settings)
    models.from_config(config, num_classes=10)
    make_augment(config.augment, 10)
    if config.dataset == "digits" and config.data_dir is not None:
        raise InputError("--data_dir is not used by --dataset=digits: leave it out")
    return config


TASK = Task(
    name="cifar",
    config=VisionConfig,
    check=check,
    metrics=METRICS,
    curves=(("loss", "loss"), ("accuracy", "accuracy")),
    program=program_of,
)

_DIGITS = {"dataset": "digits", "width": 0.25}
_study = partial(Study, task="cifar", metric="test/accuracy")
# `cnn`, which is report A's, on two cores.
_CPU_CNN = {"width": 0.25, "train_fraction": 0.4, "epochs": 8}
_NOTE_CNN = "A quarter of the width, 0.4 of the training images, 8 epochs of {}."
_SMALL_DIGITS = "Embedded digits and small networks: a first look, no answer to the question."


def _budgets(
    quick: dict[str, Any], cpu: dict[str, Any], note: str, full: dict[str, Any] | None = None
) -> dict[str, Budget]:
    """The three budgets from what each sets for all arms."""
    return {
        "quick": Budget(_DIGITS | quick, note=_SMALL_DIGITS, comparable=False),
        "cpu": Budget(cpu, note=note),
        "full": Budget(full or {}),
    }


_REPORT_A = [
    _study(
        name="A-bn",
        question="What does batch normalisation bring to report A's CNN?",
        source="report A",
        base={"config": "report_a_cnn"},
        arms={"with BN": {"batch_norm": True}, "without BN": {"batch_norm": False}},
        baseline="without BN",
        budgets=_budgets({"epochs": 4}, _CPU_CNN, _NOTE_CNN.format(80)),
        shown=("test/loss", "gap/accuracy"),
        note="The report says only: higher accuracy and lower loss with BN.",
    ),
    _study(
        name="A-batch",
        question="How does the batch size change report A's CNN, epochs being equal?",
        source="report A",
        base={"config": "report_a_cnn"},
        arms={f"batch {size}": {"batch_size": size} for size in (20, 50, 100)},
        baseline="batch 50",
        budgets=_budgets({"epochs": 4}, _CPU_CNN, _NOTE_CNN.format(80)),
        reported={"batch 20": 0.7789, "batch 50": 0.744, "batch 100": 0.7289},
    ),
    _study(
        name="A-optim",
        question="Which of Adam, SGD and SGD with momentum trains report A's CNN best?",
        source="report A",
        base={"config": "report_a_cnn"},
        arms={
            "SGD": {"optimizer": "sgd"},
            "SGD with momentum": {"optimizer": "momentum"},
            "Adam": {"optimizer": "adam", "learning_rate": 1e-3},
        },
        baseline="SGD",
        budgets=_budgets({"epochs": 4}, _CPU_CNN, _NOTE_CNN.format(80)),
        reported={"SGD": 0.64, "SGD with momentum": 0.7999, "Adam": 0.762},
        note="The report gives no learning rates: SGD has 0.01, with momentum or without, and "
        "Adam 0.001.",
    ),
    _study(
        name="A-resnet",
        question="Is ResNet-18 better than report A's CNN?",
        source="report A, head to head",
        arms={"CNN": {"config": "report_a_cnn"}, "ResNet-18": {"config": "report_a_resnet"}},
        baseline="CNN",
        budgets={
            "quick": Budget(
                _DIGITS | {"epochs": 3},
                {"ResNet-18": {"width": 0.125}},
                note=_SMALL_DIGITS,
                comparable=False,
            ),
            "cpu": Budget(
                {"width": 0.25, "epochs": 5},
                note="A quarter of the width, 5 epochs of 80 and 40.",
            ),
            "full": Budget(),
        },
        reported={"CNN": 0.8119, "ResNet-18": 0.89},
        note="Here both see all training images: with 0.4 of them and 12 epochs the ResNet learns "
        "its 18,000 by heart and is not ahead on others (0.636 against 0.650, 3 seeds). Nor was it "
        "at the report's own size, one seed on an H200: after 36 of 40 epochs it knew all images "
        "by heart and stood at 0.831 of the validation images, the CNN after 80 at 0.834 (0.826 of "
        "the test images). The report's 0.89 was not found without augmentation.",
    ),
]

_REPORT_B = [
    _study(
        name="B-cnn",
        question="What do dropout and augmentation bring to report B's CNN?",
        source="report B: B-cnn, B-dropout, B-aug",
        arms={
            "plain": {"config": "report_b_cnn"},
            "dropout": {"config": "report_b_dropout"},
            "augmentation": {"config": "report_b_aug"},
        },
        baseline="plain",
        budgets=_budgets(
            {"epochs": 6, "width": 0.5},
            {"epochs": 20, "train_fraction": 0.25},
            "A quarter of the training images, 20 epochs of 100.",
        ),
        reported={"plain": 0.7009, "dropout": 0.7112, "augmentation": 0.7295},
        shown=("test/loss", "final/train/accuracy", "gap/accuracy"),
        note="The gap is what overfitting opens; augmented images are harder than those of the "
        "validation, so that it can be positive. The report tested epochs 10, 20 and 20; here "
        "validation chooses.",
    ),
    _study(
        name="B-resnet",
        question="Do shortcuts and augmentation help report B's ResNet-18?",
        source="report B: B-resnet, B-plain, B-resnet-aug",
        arms={
            "residual": {"config": "report_b_resnet"},
            "plain": {"config": "report_b_plain"},
            "residual augmented": {"config": "report_b_resnet_aug"},
        },
        baseline="residual",
        metric="val/accuracy",
        budgets=_budgets(
            {"epochs": 3, "width": 0.125},
            {"epochs": 10, "width": 0.125, "train_fraction": 0.25},
            "An eighth of the width, a quarter of the training images, 10 epochs of 200.",
        ),
        reported={"residual": 0.80, "plain": 0.80, "residual augmented": 0.88},
        shown=("test/accuracy", "final/train/accuracy", "gap/accuracy"),
        note="The report has validation accuracy alone, and found the plain net about equal to "
        "the residual one: 18 layers are not deep enough to show what shortcuts are for; see the "
        "study depth.",
    ),
]

_RESNET = {"quick": {"epochs": 3, "width": 0.125}, "full": {}}
_OPERATIONS = {
    "none": "none",
    "flip": "flip",
    "crop": "crop(4)",
    "rotate": "rotate",
    "shift": "shift",
    "shear": "shear",
    "zoom": "zoom",
    "noise": "noise",
    "cutout": "cutout(8)",
    "mixup": "mixup",
    "flip and crop": "standard",
    "all of report B": "report_b",
}

_FURTHER = [
    _study(
        name="depth",
        question="Do plain nets get worse with depth, and residual nets not?",
        source="the degradation problem, He et al. 2016",
        arms={
            "plain 18": {"model": "plain18"},
            "plain 34": {"model": "plain34"},
            "residual 18": {"model": "resnet18"},
            "residual 34": {"model": "resnet34"},
        },
        baseline="plain 18",
        budgets=_budgets(
            _RESNET["quick"],
            {"epochs": 8, "width": 0.125, "train_fraction": 0.25},
            "An eighth of the width, a quarter of the training images, 8 epochs of 100.",
            {"epochs": 100},
        ),
        shown=("final/train/accuracy", "final/train/loss"),
        note="Degradation is a higher training error of the deeper net, so it shows in the "
        "training columns, not in overfitting.",
    ),
    _study(
        name="shortcuts",
        question="Which shortcut is best where the channels change?",
        source="options A and B of He et al. 2016",
        arms={
            "projection": {"model": "resnet18", "shortcut": "projection"},
            "zero padding": {"model": "resnet18", "shortcut": "zero_pad"},
            "none at all": {"model": "plain18"},
        },
        baseline="projection",
        budgets=_budgets(
            _RESNET["quick"],
            {"epochs": 8, "width": 0.125, "train_fraction": 0.25},
            "An eighth of the width, a quarter of the training images, 8 epochs of 30.",
        ),
    ),
    _study(
        name="augmentations",
        question="What does each augmentation bring by itself, and all together?",
        source="both reports list them",
        base={"model": "cnn_b"},
        arms={name: {"augment": grammar} for name, grammar in _OPERATIONS.items()},
        baseline="none",
        budgets=_budgets(
            {"epochs": 3},
            {"epochs": 10, "train_fraction": 0.25},
            "A quarter of the training images, 10 epochs of 100.",
            {"epochs": 100},
        ),
        shown=("gap/accuracy",),
        note="The gap shows what each does against overfitting; ten epochs are too few for the "
        "accuracy to gain by it.",
    ),
    _study(
        name="schedules",
        question="Which learning-rate schedule trains the CNN best?",
        source="what the reports' constant rates left out",
        base={"model": "cnn"},
        arms={
            "constant": {"schedule": "constant", "learning_rate": 0.02},
            "step": {"schedule": "step", "warmup_epochs": 0.5},
            "cosine": {"schedule": "cosine", "warmup_epochs": 0.5},
            "cosine at once": {"schedule": "cosine"},
            "one cycle": {"schedule": "one_cycle"},
        },
        baseline="constant",
        budgets=_budgets(
            {"epochs": 4},
            _CPU_CNN,
            _NOTE_CNN.format(30),
        ),
        note="The schedules that fall have a peak of 0.1, to which they rise for half an epoch, "
        "one cycle for longer and cosine at once not at all; the constant rate is 0.02: each would "
        "be at a disadvantage at the other's.",
    ),
    _study(
        name="pooling",
        question="Does the CNN pool better by the maximum or by the average?",
        source="both reports describe them",
        base={"model": "cnn"},
        arms={"max": {"pool": "max"}, "average": {"pool": "avg"}},
        baseline="max",
        budgets=_budgets(
            {"epochs": 4},
            _CPU_CNN,
            _NOTE_CNN.format(30),
        ),
    ),
    _study(
        name="train-images",
        question="How much do more training images bring?",
        source="what the reports did not ask",
        base={"model": "cnn"},
        arms={f"{share:.0%}": {"train_fraction": share} for share in (0.05, 0.2, 0.5, 1.0)},
        baseline="100%",
        budgets=_budgets(
            {"epochs": 4}, {"epochs": 8, "width": 0.25}, "A quarter of the width, 8 epochs of 30."
        ),
        shown=("gap/accuracy",),
        note="Epochs are equal, so that fewer images are fewer steps too.",
    ),
]

STUDIES = (*_REPORT_A, *_REPORT_B, *_FURTHER)
