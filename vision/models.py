"""CIFAR classifiers in flax linen: report A's and B's CNNs, ResNets and plain nets.

Every model is a function from images to logits:

    model.apply(variables, images, train=...) -> logits float32 [B, K]

with images float [B, H, W, C], normalised, channels last. BatchNorm keeps its running
statistics in the collection `batch_stats`; dropout draws from the rng stream `dropout`.
No softmax, loss or argmax lives here.

Sources: He et al. 2016, arXiv 1512.03385 (ResNet; the CIFAR stem is a 3x3 convolution
without pooling, the ImageNet stem 7x7 stride 2 and a max pool); reports A and B.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from common.config import check_choice
from common.errors import InputError
from common.layers import Dropout
from vision.airbench import AirBench
from vision.config import VisionConfig
from vision.layers import (
    CONVOLUTIONS,
    GlobalPool,
    Pool,
    ZeroPadShortcut,
    conv_norm_of,
    scaled,
)

POOLS = ("max", "avg")
SHORTCUTS = ("projection", "zero_pad")
STEMS = ("cifar", "imagenet")
CHOICES = {"pool": POOLS, "shortcut": SHORTCUTS, "stem": STEMS, "conv": tuple(CONVOLUTIONS)}


class CNN(nn.Module):
    """Report A's "vanilla CNN": conv-BN-ReLU blocks, pooling, a fully connected head.

    The report does not give its sizes. Each entry of `stages` lists the channels of one
    stage's 3x3 convolutions; a 2x2 pooling ends each stage.
    """

    num_classes: int
    stages: Sequence[Sequence[int]] = ((40,), (80, 80), (160, 160), (320,))
    hidden: int = 160
    width: float = 1.0
    batch_norm: bool = True
    dropout: float = 0.0
    pool: str = "max"
    conv: str = "auto"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        conv = conv_norm_of(self)
        x = x.astype(self.dtype)
        for s, stage in enumerate(self.stages, 1):
            for c, channels in enumerate(stage, 1):
                x = conv(scaled(channels, self.width), name=f"stage{s}_conv{c}")(x, train)
            x = Pool(self.pool, name=f"stage{s}_pool")(x)
        x = x.reshape(x.shape[0], -1)
        x = nn.Dense(scaled(self.hidden, self.width), dtype=self.dtype, name="hidden")(x)
        x = Dropout(self.dropout, self.axis_name, name="dropout")(nn.relu(x), train)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x).astype(jnp.float32)


class ReportBCNN(nn.Module):
    """Report B's CNN, layer by layer (B-cnn; with dropout=0.5 B-dropout).

    conv3x3 32 relu valid, pool 2, conv3x3 64 relu valid, pool 2, conv3x3 64 relu valid,
    flatten, dense 128-64-32 relu, dense K. Dropout acts after the first two dense layers.
    Kernels start Glorot uniform as in Keras.
    """

    num_classes: int
    width: float = 1.0
    batch_norm: bool = False
    dropout: float = 0.0
    pool: str = "max"
    conv: str = "auto"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        init = nn.initializers.glorot_uniform()
        x = x.astype(self.dtype)
        for i, channels in enumerate((32, 64, 64), 1):
            x = conv_norm_of(self)(
                scaled(channels, self.width), padding="VALID", kernel_init=init, name=f"conv{i}"
            )(x, train)
            if i < 3:
                x = Pool(self.pool, padding="VALID", name=f"pool{i}")(x)
        x = x.reshape(x.shape[0], -1)
        for i, units in enumerate((128, 64, 32), 1):
            size = scaled(units, self.width)
            x = nn.relu(nn.Dense(size, kernel_init=init, dtype=self.dtype, name=f"dense{i}")(x))
            if i < 3:
                x = Dropout(self.dropout, self.axis_name, name=f"dropout{i}")(x, train)
        head = nn.Dense(self.num_classes, kernel_init=init, dtype=self.dtype, name="head")
        return head(x).astype(jnp.float32)


class ResidualBlock(nn.Module):
    """Basic (two 3x3) or bottleneck (1x1, 3x3, 1x1 to four times the channels) block.

    Where the shape changes, the shortcut is a strided 1x1 convolution ("projection",
    option B of He et al.) or average pooling and zero channels ("zero_pad", option A).
    `shortcut=None` removes it: a plain block.
    """

    channels: int
    stride: int
    bottleneck: bool
    shortcut: str | None
    batch_norm: bool
    conv: str
    dtype: Any
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        out_channels = self.channels * (4 if self.bottleneck else 1)
        if self.bottleneck:
            convs = [(self.channels, 1, 1), (self.channels, 3, self.stride), (out_channels, 1, 1)]
        else:
            convs = [(self.channels, 3, self.stride), (out_channels, 3, 1)]
        conv = conv_norm_of(self)
        y = x
        for i, (channels, size, stride) in enumerate(convs, 1):
            # Explicit padding: "SAME" pads a strided convolution on one side only.
            y = conv(channels, size, stride, size // 2, relu=i < len(convs), name=f"conv{i}")(
                y, train
            )
        if self.shortcut is None:
            return nn.relu(y)
        if self.stride > 1 or x.shape[-1] != out_channels:
            if self.shortcut == "projection":
                project = conv(out_channels, 1, self.stride, 0, relu=False, name="shortcut")
                x = project(x, train)
            else:
                x = ZeroPadShortcut(out_channels, self.stride, name="shortcut")(x)
        return nn.relu(y + x)


class ResNet(nn.Module):
    """ResNet of He et al. 2016 for 32x32 images (or the ImageNet stem by `stem`).

    `shortcut=None` gives the plain net of the same depth. With `pool="max"` the head
    takes the maximum over the last map in place of the mean.
    """

    num_classes: int
    blocks: Sequence[int]
    bottleneck: bool = False
    stem: str = "cifar"
    shortcut: str | None = "projection"
    width: float = 1.0
    batch_norm: bool = True
    dropout: float = 0.0
    pool: str = "avg"
    conv: str = "auto"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        x = x.astype(self.dtype)
        channels = scaled(64, self.width)
        size, stride = {"cifar": (3, 1), "imagenet": (7, 2)}[self.stem]
        x = conv_norm_of(self)(channels, size, stride, size // 2, name="stem")(x, train)
        if self.stem == "imagenet":
            x = Pool("max", 3, 2, name="stem_pool")(x)
        for s, count in enumerate(self.blocks, 1):
            for b in range(1, count + 1):
                x = ResidualBlock(
                    channels * 2 ** (s - 1),
                    stride=2 if s > 1 and b == 1 else 1,
                    bottleneck=self.bottleneck,
                    shortcut=self.shortcut,
                    batch_norm=self.batch_norm,
                    conv=self.conv,
                    dtype=self.dtype,
                    axis_name=self.axis_name,
                    name=f"stage{s}_block{b}",
                )(x, train)
        x = GlobalPool(self.pool, name="pool")(x)
        x = Dropout(self.dropout, self.axis_name, name="dropout")(x, train)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x).astype(jnp.float32)


SIZES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}

MODELS: dict[str, Callable[..., nn.Module]] = {
    "cnn": CNN,
    "cnn_b": ReportBCNN,
    "airbench": AirBench,
    **{f"resnet{n}": partial(ResNet, blocks=b, bottleneck=n >= 50) for n, b in SIZES.items()},
    **{f"plain{n}": partial(ResNet, blocks=SIZES[n], shortcut=None) for n in (18, 34)},
}


def create(name: str, num_classes: int, **options: Any) -> nn.Module:
    """The model called `name`; options that are None keep the model's own default.

    Raises InputError for an unknown name, an option that the model does not have, and a
    pooling, shortcut or stem that does not exist.
    """
    constructor = MODELS[check_choice("--model", name, MODELS)]
    given = {k: v for k, v in options.items() if v is not None}
    family: Any = getattr(constructor, "func", constructor)
    fields = {field.name for field in dataclasses.fields(family)}
    for option, choices in CHOICES.items():
        if option in given:
            check_choice(f"--{option}", given[option], choices)
    fixed = getattr(constructor, "keywords", {})
    for option in given:
        if option not in fields or option in fixed:
            raise InputError(f"--{option} does not apply to --model={name}: leave it out")
    return constructor(num_classes=num_classes, **given)


def from_config(config: VisionConfig, num_classes: int, **options: Any) -> nn.Module:
    """The model that a configuration describes; `options` are its dtype and device axis."""
    names = ("batch_norm", "dropout", "pool", "shortcut", "stem", "width", "conv")
    settings = {name: getattr(config, name) for name in names}
    return create(config.model, num_classes, **settings, **options)
