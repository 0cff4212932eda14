"""Augmentation: random changes of training images, on the device, named by one string.

Batch in, any key that is not listed passes through:

    image   [B, H, W, C]  uint8, or float32 in [0, 1]
    label   [B]           int32
    weight  [B]           float32, 0 for a row that only fills the batch
    index   [B]           int32, row in the training set (alternating_flip alone needs it)
    epoch   [B]           int32, counted from 0 (alternating_flip alone needs it)

Batch out: image is float32 in [0, 1] (noise may leave the range), and there is

    target  [B, K]        float32, one-hot of label, mixed by mixup and cutmix

Every draw belongs to one image: its key is the batch key folded with the position of
the image in the global batch. One device and eight thus give the same numbers.
"""

import functools
import itertools
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp

from common.errors import InputError
from common.layers import example_keys
from vision import warp
from vision.operations import OPERATIONS

PRESETS: dict[str, str] = {
    "none": "",
    "standard": "flip+crop(4)",
    "report_b": "rotate(40)+shift(0.2)+shear(0.2)+zoom(0.2)+flip",
}

Batch = dict[str, jax.Array]
Element = tuple[str, dict[str, int | float | str]]
Spec = tuple[Element, ...]


def parse(spec: str) -> Spec:
    """Read an --augment string: operations joined by +, in the order they are applied.

    Args:
      spec: each element is NAME, NAME(value, ...) or NAME(key=value, ...), where NAME is
        an operation or (without arguments) a preset; "" is none.

    Returns:
      (name, arguments as given) of every operation, presets written out.

    Raises:
      InputError: names the bad part and what is valid.
    """
    elements: list[Element] = []
    parts = spec.split("+") if spec.strip() else []
    if len(parts) > 1 and "none" in map(str.strip, parts):
        raise InputError(f"--augment: '{spec}' joins none and others: leave none out")
    for text in parts:
        if text.strip() in PRESETS:
            elements += parse(PRESETS[text.strip()])
        else:
            elements.append(_element(text.strip()))
    names = [name for name, _ in elements]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--augment: '{spec}' has {name} twice (presets written out)")
    if {"flip", "alternating_flip"} <= set(names):
        raise InputError(
            f"--augment: '{spec}' has both flip and alternating_flip (standard holds flip);"
            " keep one, for example alternating_flip+crop(4)"
        )
    for group in _groups(tuple(elements)):
        _fill(group)
    return tuple(elements)


def _element(text: str) -> Element:
    """One operation of a spec."""
    match = re.fullmatch(r"(\w+)\s*(?:\((.*)\))?", text)
    name, inside = match.groups("") if match else (text, "")
    if name not in OPERATIONS:
        if text.count("(") > text.count(")"):
            raise InputError(f"--augment: the bracket of '{text}' is not closed")
        valid = ", ".join([*PRESETS, *(op.usage(key) for key, op in OPERATIONS.items())])
        raise InputError(f"--augment: unknown operation '{text}'; valid, joined by +: {valid}")
    operation = OPERATIONS[name]
    arguments = {argument.name: argument for argument in operation.arguments}
    given: dict[str, int | float | str] = {}
    named = False
    for place, part in enumerate(inside.split(",") if inside.strip() else []):
        key, _, value = part.rpartition("=")
        if named and part.strip() and not key.strip():
            raise InputError(
                f"--augment: '{part.strip()}' in '{text}' follows a named argument: name it too"
            )
        named = bool(key.strip())
        key = key.strip() or "".join(list(arguments)[place : place + 1])
        if key not in arguments or key in given:
            raise InputError(
                f"--augment: bad argument '{part.strip()}' in '{text}';"
                f" valid: {operation.usage(name)}"
            )
        try:
            given[key] = arguments[key].read(value.strip())
        except ValueError as expected:
            raise InputError(f"--augment: in '{text}', {key} must be {expected}") from None
    return name, given


def _groups(spec: Spec) -> list[Spec]:
    """Consecutive affine operations together, every other one alone."""
    groups = itertools.groupby(
        enumerate(spec), lambda item: -1 if OPERATIONS[item[1][0]].kind == "affine" else item[0]
    )
    return [tuple(element for _, element in group) for _, group in groups]


def _fill(group: Spec) -> str:
    """The fill of an affine group: the one that any of its operations names."""
    fills = {str(given["fill"]): name for name, given in group if "fill" in given}
    if len(fills) > 1:
        named = ", ".join(f"{name} has {fill}" for fill, name in fills.items())
        raise InputError(f"--augment: neighbouring affine operations share one fill, but {named}")
    return next(iter(fills), warp.FILLS[0])


def make_augment(
    spec: str, num_classes: int, *, axis_name: str | None = None
) -> Callable[[jax.Array, Batch], Batch]:
    """Build the function (key, batch) -> batch of an --augment string; see the head of this file.

    Args:
      spec: see parse.
      num_classes: K of target [B, K].
      axis_name: the pmap axis over which the batch is split, if it is.

    Raises:
      InputError: the spec is wrong.
    """
    stages = [_stage(group, axis_name) for group in _groups(parse(spec))]

    def augment(key: jax.Array, batch: Batch) -> Batch:
        keys = example_keys(key, batch["label"].shape[0], axis_name)
        batch = {**batch, "target": jax.nn.one_hot(batch["label"], num_classes)}
        for number, stage in enumerate(stages):
            batch = stage(jax.vmap(jax.random.fold_in, (0, None))(keys, number), batch)
        return {**batch, "image": _unit(batch["image"])}

    return augment


def _stage(group: Spec, axis_name: str | None) -> Callable[[jax.Array, Batch], Batch]:
    """The function (keys [B], batch) -> batch of one operation, or of one affine group."""
    name, given = group[0]
    operation = OPERATIONS[name]
    apply = functools.partial(operation.apply, **operation.defaults | given)

    def on_bytes(keys, batch):
        return batch | {"image": jax.vmap(apply)(keys, batch["image"])}

    def on_image(keys, batch):
        return batch | {"image": jax.vmap(apply)(keys, _unit(batch["image"]))}

    def on_indexed(keys, batch):
        flipped = jax.vmap(apply)(batch["index"], batch["epoch"], batch["image"])
        return batch | {"image": flipped}

    def on_affine(keys, batch):
        return batch | {"image": jax.vmap(_affine(group))(keys, _unit(batch["image"]))}

    def on_pair(keys, batch):
        # Each image is read twice; without the barrier XLA may also work it out twice.
        image = jax.lax.optimization_barrier(_unit(batch["image"]))
        target, weight = batch["target"], batch["weight"]
        other, other_target, other_weight = (
            _next(value, axis_name) for value in (image, target, weight)
        )
        mixed, share = jax.vmap(apply)(keys, image, other)
        # A row that only fills the batch is no partner.
        real = other_weight > 0
        share = jnp.where(real, share, 0)[:, None]
        return batch | {
            "image": jnp.where(real[:, None, None, None], mixed, image),
            "target": (1 - share) * target + share * other_target,
        }

    stages = {
        "bytes": on_bytes,
        "image": on_image,
        "indexed": on_indexed,
        "affine": on_affine,
        "pair": on_pair,
    }
    return stages[operation.kind]


def _affine(group: Spec) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(key, image) -> image of an affine group: one matrix, one interpolation."""
    fill = _fill(group)
    settings = {name: OPERATIONS[name].defaults | given for name, given in group}

    def apply(key, image):
        matrices = []
        for number, name in enumerate(warp.ORDER):
            if name in settings:
                limits = {k: v for k, v in settings[name].items() if k != "fill"}
                draw = OPERATIONS[name].apply
                matrices.append(draw(jax.random.fold_in(key, number), image.shape[:2], **limits))
        return warp.warp(image, warp.compose(matrices), fill)

    return apply


def _next(value: jax.Array, axis_name: str | None) -> jax.Array:
    """Row i + 1 of the global batch for every row i of value [B, ...]; the first after the last."""
    first = value[:1]
    if axis_name is not None:
        devices = jax.lax.axis_size(axis_name)
        first = jax.lax.ppermute(first, axis_name, [((i + 1) % devices, i) for i in range(devices)])
    return jnp.concatenate([value[1:], first])


def _unit(image: jax.Array) -> jax.Array:
    """uint8 as float32 in [0, 1]; floating point as it is."""
    return image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image
