"""Blocks found in a layer table, and the picture drawn of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from PIL import Image

from common.blocks import fold
from common.describe import Row, describe
from common.structure import plot_structure, structure_figure

IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)


class Block(nn.Module):
    channels: int
    stride: int
    residual: bool

    @nn.compact
    def __call__(self, x):
        y = nn.Conv(self.channels, (3, 3), strides=self.stride, name="conv1")(x)
        y = nn.BatchNorm(use_running_average=True, name="norm1")(y)
        y = nn.Conv(self.channels, (3, 3), name="conv2")(nn.relu(y))
        if not self.residual:
            return y
        if x.shape != y.shape:
            x = nn.Conv(self.channels, (1, 1), strides=self.stride, name="shortcut_conv")(x)
        return x + y


class Net(nn.Module):
    """Three stages of `depth` blocks: the first of each changes the shape."""

    depth: int
    residual: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(16, (3, 3), name="stem")(x)
        for stage in (1, 2, 3):
            for block in range(1, self.depth + 1):
                name = f"stage{stage}_block{block}"
                x = Block(16 * 2**stage, 1 + (block == 1), self.residual, name=name)(x)
        return nn.Dense(10, name="head")(x.mean((1, 2)))


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def test_fold_finds_blocks_and_counts_equal_ones():
    units = fold(describe(Net(12), IMAGE))
    assert [unit.label for unit in units] == [
        "stem",
        "stage1_block1",
        "stage1_block2 to 12, x 11",
        "stage2_block1",
        "stage2_block2 to 12, x 11",
        "stage3_block1",
        "stage3_block2 to 12, x 11",
        "head",
    ]
    assert [unit.is_layer for unit in units] == [True] + 6 * [False] + [True]
    assert [unit.residual for unit in units] == [False] + 6 * [True] + [False]
    assert [len(unit.main) for unit in units] == [1] + 6 * [3] + [1]
    assert [len(unit.side) for unit in units] == [0, 1, 0, 1, 0, 1, 0, 0]


def test_fold_keeps_every_row():
    rows = describe(Net(5), IMAGE)
    units = fold(rows)
    assert sum(len(unit.names) * len(unit.main + unit.side) for unit in units) == len(rows)
    params = sum(
        len(unit.names) * sum(row.params for row in unit.main + unit.side) for unit in units
    )
    assert params == sum(row.params for row in rows)


def test_a_plain_net_has_no_shortcut():
    rows = describe(Net(3, residual=False), IMAGE)
    assert not any(unit.residual or unit.side for unit in fold(rows))
    assert "identity" not in texts(structure_figure(rows, "plain"))


def test_equal_layers_outside_blocks_are_counted_too():
    class Flat(nn.Module):
        @nn.compact
        def __call__(self, x):
            for i in range(9, 13):
                x = nn.Dense(3, name=f"dense{i}")(x)
            return x

    (unit,) = fold(describe(Flat(), IMAGE))
    assert unit.label == "dense9 to 12, x 4"
    assert not unit.is_layer


def test_label_does_not_cut_a_number():
    rows = [Row(f"block{i}/a", "Dense", (1, 3), (1, 3), 12, 18) for i in (10, 11, 12)]
    assert fold(rows)[0].label == "block10 to 12, x 3"


def test_figure_names_every_layer_once():
    rows = describe(Net(2), IMAGE)
    figure = structure_figure(rows, "a net")
    written = texts(figure)
    assert written[0] == "a net"
    total = sum(row.params for row in rows)
    assert written[1].startswith(f"{total:,} parameters")
    for row in rows:
        assert row.kind in written
        assert row.path.rpartition("/")[2] in written
    assert written.count("identity") == 3
    assert written.count("shortcut_conv") == 3
    assert written.count("conv1") == 6


@pytest.mark.parametrize("depth", [1, 2, 30])
def test_texts_do_not_overlap_and_lie_within(depth):
    figure = structure_figure(describe(Net(depth), IMAGE), "a net")
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    page = figure.bbox
    for n, box in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert not any(box.overlaps(other) for other in boxes[n + 1 :])


def test_long_names_are_cut():
    path = "a_very_long_name_of_a_block_indeed/and_of_a_layer_in_it/too"
    row = Row(path, "K" * 40, (1, 3), (1, 3), 123_456_789_012, 0)
    figure = structure_figure([row], "t" * 200)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[n + 1 :])


@pytest.mark.parametrize("depth", [1, 3, 50])
def test_file_stays_small_however_deep_the_net(tmp_path, depth):
    plot_structure(tmp_path / "s.png", describe(Net(depth), IMAGE), "a$b$ net")
    with Image.open(tmp_path / "s.png") as image:
        assert image.format == "PNG"
        image.load()
        width, height = image.size
        assert 500 < width < 3000 and 500 < height < 3000
        assert 0.7 < width / height < 2.8


def test_one_layer(tmp_path):
    plot_structure(tmp_path / "s.png", describe(nn.Dense(4), IMAGE), "one layer")
    assert (tmp_path / "s.png").stat().st_size > 1000
