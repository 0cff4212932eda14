"""Augmentation: every operation against a slow oracle, and the split over devices."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vision import augment, operations, warp
from vision.operations import OPERATIONS

K = 10
PAIRS = ("mixup", "cutmix")
ROOT = Path(__file__).parents[2]


def make_batch(size=64, shape=(32, 32, 3), seed=0, epoch=0):
    rng = np.random.default_rng(seed)
    return {
        "image": jnp.asarray(rng.integers(0, 256, (size, *shape), dtype=np.uint8)),
        "label": jnp.asarray(rng.integers(0, K, size), jnp.int32),
        "weight": jnp.ones(size),
        "index": jnp.asarray(rng.permutation(size), jnp.int32),
        "epoch": jnp.full(size, epoch, jnp.int32),
    }


@functools.cache
def compiled(spec):
    return jax.jit(augment.make_augment(spec, K))


def run(spec, batch, seed=0):
    out = compiled(spec)(jax.random.key(seed), batch)
    return {name: np.asarray(value) for name, value in out.items()}


def unit(batch):
    return np.asarray(batch["image"], np.float32) / np.float32(255)


def test_none_converts_and_one_hots():
    batch = make_batch()
    out = run("none", batch)
    np.testing.assert_allclose(out["image"], unit(batch), rtol=1e-6)
    np.testing.assert_array_equal(out["target"], np.eye(K)[np.asarray(batch["label"])])
    assert out["target"].dtype == out["image"].dtype == np.float32
    for name in ("label", "weight", "index", "epoch"):
        np.testing.assert_array_equal(out[name], batch[name])


@pytest.mark.parametrize("spec", ["report_b", *OPERATIONS])
def test_bytes_and_floats_give_the_same(spec):
    batch = make_batch(16)
    with jax.numpy_rank_promotion("raise"):
        of_bytes = run(spec, batch)
        of_floats = run(spec, batch | {"image": jnp.asarray(unit(batch))})
    assert of_bytes["image"].shape == (16, 32, 32, 3)
    assert of_bytes["image"].dtype == of_floats["image"].dtype == np.float32
    np.testing.assert_allclose(of_bytes["image"], of_floats["image"], atol=1e-6)
    np.testing.assert_allclose(of_bytes["target"].sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("spec", [name for name in OPERATIONS if name != "alternating_flip"])
def test_the_key_and_the_position_decide(spec):
    batch = make_batch(16)
    same = batch["image"].at[:].set(batch["image"][0])  # only the draws differ
    batch = batch | {"image": same if spec not in PAIRS else batch["image"]}
    first, again, other = run(spec, batch), run(spec, batch), run(spec, batch, seed=1)
    np.testing.assert_array_equal(first["image"], again["image"])
    assert np.abs(first["image"] - other["image"]).max() > 1e-3
    if spec not in PAIRS:
        assert len(np.unique(first["image"], axis=0)) > 1
        half = {name: value[:8] if value.ndim else value for name, value in batch.items()}
        np.testing.assert_allclose(run(spec, half)["image"], first["image"][:8], atol=1e-5)


def test_flip_mirrors_at_its_rate():
    batch = make_batch(2000, (4, 6, 3))
    image, mirror = unit(batch), unit(batch)[:, :, ::-1]
    out = run("flip", batch)["image"]
    flipped = np.abs(out - mirror).max((1, 2, 3)) < 1e-6
    kept = np.abs(out - image).max((1, 2, 3)) < 1e-6
    assert (flipped ^ kept).all()
    assert 0.45 < flipped.mean() < 0.55
    np.testing.assert_allclose(run("flip(1)", batch)["image"], mirror, atol=1e-6)
    np.testing.assert_allclose(run("flip(0)", batch)["image"], image, atol=1e-6)


def test_alternating_flip_alternates_by_index():
    epochs = [run("alternating_flip", make_batch(400, epoch=e), seed=e)["image"] for e in range(4)]
    image = unit(make_batch(400))
    flipped = np.abs(epochs[0] - image).max((1, 2, 3)) > 1e-6
    assert 0.4 < flipped.mean() < 0.6
    np.testing.assert_allclose(
        epochs[0], np.where(flipped[:, None, None, None], image[:, :, ::-1], image), atol=1e-6
    )
    np.testing.assert_array_equal(epochs[1], epochs[0][:, :, ::-1])
    np.testing.assert_array_equal(epochs[2], epochs[0])
    np.testing.assert_array_equal(epochs[3], epochs[1])
    # The index decides, not the place in the batch.
    order = np.random.default_rng(1).permutation(400)
    batch = make_batch(400)
    shuffled = batch | {"image": batch["image"][order], "index": batch["index"][order]}
    np.testing.assert_array_equal(run("alternating_flip", shuffled)["image"], epochs[0][order])


@pytest.mark.parametrize("fill,mode", [("zeros", "constant"), ("reflect", "reflect")])
def test_crop_cuts_a_uniform_window(fill, mode):
    batch = make_batch(400, (7, 9, 1))
    out = run(f"crop(2,{fill})", batch)["image"]
    count = np.zeros((5, 5), int)
    for image, cropped in zip(unit(batch), out, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode=mode)
        for row in range(5):
            for column in range(5):
                window = padded[row : row + 7, column : column + 9]
                count[row, column] += np.abs(window - cropped).max() < 1e-6
    assert count.sum() == 400
    assert count.min() > 3 and count.max() < 35  # 16 expected


def test_noise_has_its_deviation_and_is_not_clipped():
    batch = make_batch()
    added = run("noise(0.1)", batch)["image"] - unit(batch)
    assert abs(added.mean()) < 1e-3
    assert abs(added.std() - 0.1) < 1e-3
    assert run("noise(0.1)", batch)["image"].min() < 0
    assert abs(np.corrcoef(added[0].ravel(), added[1].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("size", [1, 5, 8])
def test_cutout_blanks_one_clipped_square(size):
    batch = make_batch(1500, (16, 20, 3))
    image, out = unit(batch), run(f"cutout({size}, fill=0.25)", batch)["image"]
    # How often each row of the image has blank pixels [H], if the centre is uniform.
    covered = (out == 0.25).all(-1).any(2).mean(0)
    assert abs(covered[0] - (size // 2 + 1) / 16) < 0.04
    assert abs(covered[-1] - (size + 1) // 2 / 16) < 0.04
    for before, after in zip(image, out, strict=True):
        blank = (after == 0.25).all(-1)
        np.testing.assert_allclose(after[~blank], before[~blank], atol=1e-6)
        rows, columns = np.flatnonzero(blank.any(1)), np.flatnonzero(blank.any(0))
        assert blank.sum() == len(rows) * len(columns)  # a rectangle
        assert np.ptp(rows) < size and np.ptp(columns) < size
        inside = 0 < rows[0] and rows[-1] < 15 and 0 < columns[0] and columns[-1] < 19
        assert not inside or len(rows) == len(columns) == size


def test_mixup_blends_image_and_target_with_the_next():
    batch = make_batch(256) | {"label": jnp.arange(256, dtype=jnp.int32) % K}
    out, image = run("mixup(0.4)", batch), unit(batch)
    label = np.asarray(batch["label"])
    share = out["target"][np.arange(256), np.roll(label, -1)][:, None, None, None]
    np.testing.assert_allclose(
        out["image"], (1 - share) * image + share * np.roll(image, -1, 0), atol=1e-5
    )
    np.testing.assert_allclose(out["target"].sum(1), 1, atol=1e-6)
    # The variance of Beta(a, a) is 1 / (4 (2a + 1)).
    assert abs(share.mean() - 0.5) < 0.07
    assert abs(share.var() - 1 / (4 * 1.8)) < 0.02


def test_cutmix_pastes_a_box_and_counts_it():
    batch = make_batch(256) | {"label": jnp.arange(256, dtype=jnp.int32) % K}
    out, image = run("cutmix", batch), unit(batch)
    other, label = np.roll(image, -1, 0), np.asarray(batch["label"])
    pasted = (np.abs(out["image"] - other) < 1e-6).all(-1)
    kept = (np.abs(out["image"] - image) < 1e-6).all(-1)
    assert (pasted | kept).all()
    box = pasted & ~kept
    for mask in box:
        assert mask.sum() == mask.any(0).sum() * mask.any(1).sum()
    share = out["target"][np.arange(256), np.roll(label, -1)]
    np.testing.assert_allclose(share, box.mean((1, 2)), atol=2e-3)  # few pixels are alike
    np.testing.assert_allclose(out["target"].sum(1), 1, atol=1e-6)
    assert share.min() < 0.05 and share.max() > 0.7


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 3.0])
def test_shares_are_beta(alpha):
    # Two images, black and white: the share of the white one is the colour.
    out = jax.vmap(
        lambda key: operations.mixup(key, jnp.zeros((1, 1, 1)), jnp.ones((1, 1, 1)), alpha=alpha)
    )(jax.random.split(jax.random.key(3), 5000))
    share = np.asarray(out[1], np.float64)
    np.testing.assert_allclose(out[0].ravel(), share)
    assert (share >= 0).all() and (share <= 1).all()
    # Below 1e-6 float32 cannot tell 1 - share from 1.
    share = np.clip(share, 1e-6, 1 - 1e-6)
    for point in (1e-6, 0.01, 0.1, 0.3, 0.5, 0.8, 0.99):
        expected = stats.beta(alpha, alpha).cdf(point)
        assert abs((share <= point).mean() - expected) < 0.025


@pytest.mark.parametrize("spec", PAIRS)
def test_a_row_of_weight_zero_is_no_partner(spec):
    batch = make_batch(16)
    batch = batch | {"weight": batch["weight"].at[14:].set(0)}
    out, plain = run(spec, batch), run("none", batch)
    changed = np.abs(out["image"] - plain["image"]).max((1, 2, 3)) > 1e-4
    assert changed[:13].sum() > 6
    assert not changed[13:15].any()
    np.testing.assert_array_equal(out["target"][13:15], plain["target"][13:15])


def test_affine_neighbours_are_one_warp_in_keras_order():
    batch = make_batch(8)
    forward = run("rotate+shift+shear+zoom(fill=wrap)", batch)["image"]
    np.testing.assert_array_equal(
        run("zoom+shear+shift(fill=wrap)+rotate", batch)["image"], forward
    )

    @jax.jit
    def expected(position, image):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), position), 0)
        keys = [jax.random.fold_in(key, number) for number in range(4)]
        matrices = [
            warp.rotate(keys[0], (32, 32), degrees=40.0),
            warp.shift(keys[1], (32, 32), fraction=0.2),
            warp.shear(keys[2], (32, 32), degrees=0.2),
            warp.zoom(keys[3], (32, 32), range=0.2),
        ]
        return warp.warp(image, warp.compose(matrices), "wrap")

    for position, image in enumerate(unit(batch)):
        np.testing.assert_allclose(forward[position], expected(position, image), atol=1e-4)


SPLIT = """
import jax, numpy as np
from tests.vision.test_augment import K, make_batch
from vision.augment import make_augment

assert jax.device_count() == 4
batch = make_batch(16, epoch=1)
batch["weight"] = batch["weight"].at[4].set(0)  # the first row of the second device
key = jax.random.key(5)
spec = "alternating_flip+crop+rotate+noise+cutout+mixup+cutmix"
whole = jax.jit(make_augment(spec, K))(key, batch)
parts = {k: v.reshape(4, 4, *v.shape[1:]) for k, v in batch.items()}
split = jax.pmap(make_augment(spec, K, axis_name="d"), axis_name="d", in_axes=(None, 0))
split = split(key, parts)
# A warp reads at positions up to 31 pixels, which float32 holds to 2e-6.
for name, limit in {"image": 1e-5, "target": 1e-6}.items():
    value = np.asarray(split[name]).reshape(whole[name].shape)
    np.testing.assert_allclose(value, whole[name], atol=limit)
"""


def test_four_devices_equal_one():
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-c", SPLIT],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
