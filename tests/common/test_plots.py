"""Curves and confusion matrix: what is drawn, and that a PNG comes out."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from common.plots import confusion_figure, curves_figure, plot_confusion, plot_curves, shorten

PANELS = (("loss", "loss"), ("accuracy", "accuracy"))


def history(epochs: int, *, validation: bool = True) -> list[dict]:
    rows = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "train/loss": 2 / epoch, "train/accuracy": 1 - 0.5 / epoch}
        if validation:
            row |= {"val/loss": 2.5 / epoch, "val/accuracy": 1 - 0.7 / epoch}
        rows.append(row | {"learning_rate": 0.1})
    return rows


def lines(axes) -> dict[str, tuple[list, list]]:
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in axes.get_lines()
    }


def legend(figure) -> list[str]:
    return [text.get_text() for found in figure.legends for text in found.get_texts()]


def check_png(path, least: int) -> None:
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        assert min(image.size) >= least
        assert max(image.size) <= 4000
        assert len(image.convert("L").getcolors()) > 2


@pytest.mark.parametrize("epochs", [1, 3, 100])
def test_curves_show_both_splits(epochs):
    rows = history(epochs)
    figure = curves_figure(rows, PANELS, best_epoch=1)
    for axes, name in zip(figure.axes, ("loss", "accuracy"), strict=True):
        drawn = lines(axes)
        for label, split in (("training", "train"), ("validation", "val")):
            assert drawn[label][0] == list(range(1, epochs + 1))
            assert drawn[label][1] == [row[f"{split}/{name}"] for row in rows]
        assert drawn["selected epoch 1"][0] == [1, 1]
        assert axes.get_xlabel() == "epoch"
        assert axes.get_ylabel() == name
    assert legend(figure) == ["training", "validation", "selected epoch 1"]


def test_curves_name_the_values_of_the_selected_epoch():
    figure = curves_figure(history(5), PANELS, best_epoch=2)
    assert figure.axes[0].get_title() == "epoch 2: training 1, validation 1.25"
    assert figure.axes[1].get_title() == "epoch 2: training 0.75, validation 0.65"


def test_curves_without_validation():
    figure = curves_figure(history(4, validation=False), PANELS)
    assert legend(figure) == ["training"]


def test_curves_of_a_metric_that_only_validation_has():
    rows = [{"epoch": 1, "val/f1": 0.4}, {"epoch": 2}, {"epoch": 3, "val/f1": 0.6}]
    (axes,) = curves_figure(rows, [("f1", "span F1")]).axes
    assert lines(axes)["validation"] == ([1, 3], [0.4, 0.6])
    assert axes.get_ylabel() == "span F1"


def test_curves_leave_out_what_is_not_finite():
    rows = [{"epoch": e, "train/loss": v} for e, v in ((1, 2.0), (2, np.inf), (3, np.nan))]
    (axes,) = curves_figure(rows, [("loss", "loss")]).axes
    np.testing.assert_array_equal(lines(axes)["training"][1], [2.0, np.nan, np.nan])


@pytest.mark.parametrize("rows", [[], history(1), history(100), history(30, validation=False)])
def test_curves_file(tmp_path, rows):
    plot_curves(tmp_path / "curves.png", rows, best_epoch=1, title="cnn, a$b$c")
    check_png(tmp_path / "curves.png", 500)


def counts_of(classes: int) -> np.ndarray:
    rng = np.random.default_rng(classes)
    return rng.poisson(15 / classes, (classes, classes)) + np.diag(rng.integers(20, 90, classes))


def test_confusion_colours_are_shares_of_the_true_class():
    counts = np.array([[8, 2, 0], [0, 0, 0], [1, 1, 2]])
    figure = confusion_figure(counts, ["cat", "dog", "frog"])
    axes = figure.axes[0]
    expected = [[0.8, 0.2, 0.0], [0.0, 0.0, 0.0], [0.25, 0.25, 0.5]]
    np.testing.assert_allclose(axes.get_images()[0].get_array(), expected)
    written = {text.get_position(): text.get_text() for text in axes.texts}
    # Position is (x, y): the predicted class across, the true one down.
    assert written == {(0, 0): "8", (1, 0): "2", (0, 2): "1", (1, 2): "1", (2, 2): "2"}
    assert figure.get_suptitle() == "10 of 14 correct, accuracy 0.7143"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "frog"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


@pytest.mark.parametrize("classes", [2, 10, 100, 300])
def test_confusion_file(tmp_path, classes):
    names = [f"class_{i}_of_a_name_that_is_long" for i in range(classes)]
    plot_confusion(tmp_path / "confusion.png", counts_of(classes), names, title="test")
    check_png(tmp_path / "confusion.png", 700)


@pytest.mark.parametrize("classes", [10, 100])
def test_confusion_names_do_not_overlap(classes):
    names = [f"aquarium_fish_{i}" for i in range(classes)]
    figure = confusion_figure(counts_of(classes), names)
    figure.draw_without_rendering()
    labels = figure.axes[0].get_yticklabels()
    boxes = [label.get_window_extent() for label in labels]
    assert len(boxes) == classes
    assert all(above.y0 >= below.y1 for above, below in zip(boxes, boxes[1:], strict=False))
    assert all(box.x0 >= 0 for box in boxes)


def test_confusion_takes_names_of_any_script(tmp_path):
    plot_confusion(tmp_path / "c.png", np.array([[3, 1], [0, 2]]), ["猫 $x", "$\\frac$"])
    check_png(tmp_path / "c.png", 700)


@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (3,)])
def test_confusion_refuses_counts_of_another_shape(shape):
    with pytest.raises(ValueError, match="do not fit 3 classes"):
        confusion_figure(np.ones(shape, int), ["a", "b", "c"])


def test_shorten():
    assert shorten("automobile", 10) == "automobile"
    assert shorten("automobiles", 10) == "automobil…"


def test_importing_imports_no_matplotlib_and_drawing_no_pyplot(tmp_path):
    script = (
        "import sys; from common.plots import plot_curves\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"plot_curves({str(tmp_path / 'x.png')!r}, [{{'epoch': 1, 'train/loss': 2.0}}])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_settings_of_the_caller_are_left_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    plot_confusion(tmp_path / "c.png", np.array([[3, 1], [0, 2]]), ["a", "b"])
    assert dict(matplotlib.rcParams) == before
