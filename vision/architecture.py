"""`--mode=describe`: the layer table of a model and its structure as a picture."""

import jax
import jax.numpy as jnp

from common.describe import describe
from common.structure import show_structure
from vision import models
from vision.config import VisionConfig
from vision.datasets import CLASS_COUNTS


def show(config: VisionConfig, workdir: str | None) -> None:
    """Print the table; write structure.txt and structure.png to `workdir` [runs/describe-MODEL].

    No data are read: a model for cifar100 has 100 classes, any other has 10.
    """
    classes = CLASS_COUNTS.get(config.dataset, 10)
    model = models.from_config(config, classes)
    rows = describe(model, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32), train=False)
    show_structure(rows, config.model, f"{classes} classes", workdir)
