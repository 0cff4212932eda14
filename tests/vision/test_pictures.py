"""Test batches and mistakes: what is drawn, and that a PNG comes out."""

import numpy as np
import pytest
from PIL import Image

from vision.pictures import (
    batch_accuracies,
    batches_figure,
    confident_errors,
    mistakes_figure,
    plot_mistakes,
    plot_test_batches,
)

CLASSES = ["airplane", "automobile", "a_name_much_too_long_for_a_picture"]


def check_png(path, least: int) -> None:
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        assert min(image.size) >= least
        assert max(image.size) <= 4000
        assert len(image.convert("L").getcolors()) > 2


def test_batch_accuracies_by_hand():
    correct = np.array([1, 1, 0, 1, 0, 0, 1, 1], bool)
    accuracies, sizes = batch_accuracies(correct, 3)
    np.testing.assert_allclose(accuracies, [2 / 3, 1 / 3, 1])
    np.testing.assert_array_equal(sizes, [3, 3, 2])


@pytest.mark.parametrize(("count", "batch_size"), [(0, 5), (5, 0)])
def test_batch_accuracies_refuse_nothing(count, batch_size):
    with pytest.raises(ValueError, match="no batches"):
        batch_accuracies(np.ones(count, bool), batch_size)


def test_batches_figure_shows_each_batch_and_the_overall_accuracy():
    correct = np.random.default_rng(0).random(250) < 0.8
    figure = batches_figure(correct, 100)
    (axes,) = figure.axes
    drawn = {line.get_label(): line for line in axes.get_lines()}
    means = [correct[:100].mean(), correct[100:200].mean(), correct[200:].mean()]
    np.testing.assert_allclose(drawn["one batch"].get_ydata(), means)
    np.testing.assert_array_equal(drawn["one batch"].get_xdata(), [1, 2, 3])
    overall = drawn[f"all images: {correct.mean():.4f}"]
    np.testing.assert_allclose(overall.get_ydata(), correct.mean())
    assert axes.get_xlabel() == "test batch (100 images each, the last 50)"


def test_band_holds_95_per_cent_of_batches_that_differ_by_chance():
    rng = np.random.default_rng(1)
    correct = rng.random(200_000) < 0.9
    (axes,) = batches_figure(correct, 100).axes
    (band,) = axes.patches
    high, _, low = band.get_data()
    accuracies, _ = batch_accuracies(correct, 100)
    inside = np.mean((accuracies >= low) & (accuracies <= high))
    # Whole images make the interval a little wider than asked.
    assert 0.94 <= inside <= 0.98
    np.testing.assert_allclose(np.mean(high - low), 2 * 1.96 * np.sqrt(0.09 / 100), rtol=0.1)


def test_band_widens_for_a_smaller_last_batch():
    correct = np.random.default_rng(2).random(430) < 0.7
    high, _, low = batches_figure(correct, 100).axes[0].patches[0].get_data()
    assert (high - low)[4] > 1.3 * (high - low)[0]


@pytest.mark.parametrize(
    ("share", "count", "batch_size"),
    [(0.9, 64, 100), (0.9, 10_000, 50), (1.1, 100, 10), (-0.1, 100, 10), (0.5, 1, 1)],
)
def test_batches_file(tmp_path, share, count, batch_size):
    correct = np.random.default_rng(0).random(count) < share
    plot_test_batches(tmp_path / "b.png", correct, batch_size, title="cnn")
    check_png(tmp_path / "b.png", 500)


def example(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return images, rng.integers(0, 3, count), rng.dirichlet(np.ones(3), count)


def test_confident_errors_by_hand():
    labels = np.array([0, 1, 2, 0, 1])
    probabilities = np.array(
        [[0.9, 0.1, 0], [0.6, 0.4, 0], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0, 1, 0]]
    )
    # Wrong are 1 (said 0 at 0.6), 2 (said 1 at 0.8) and 3 (said 2 at 0.6); ties keep their order.
    np.testing.assert_array_equal(confident_errors(labels, probabilities), [2, 1, 3])


def test_mistakes_show_image_names_and_probability():
    images, labels, probabilities = example(40)
    labels[7], probabilities[7] = 0, [0.004, 0.991, 0.005]
    figure = mistakes_figure(images, labels, probabilities, CLASSES, count=4)
    first = figure.axes[0]
    np.testing.assert_array_equal(first.get_images()[0].get_array(), images[7])
    assert first.get_title("left") == "true: airplane\nsaid: automobile\nsure: 99.1 %"
    assert sum(bool(axes.get_images()) for axes in figure.axes) == 4
    wrong = int((probabilities.argmax(1) != labels).sum())
    assert figure.get_suptitle() == f"{wrong} of 40 images wrong; the 4 surest"


def test_no_mistakes_are_said_so(tmp_path):
    images, _, probabilities = example(9)
    labels = probabilities.argmax(1)
    figure = mistakes_figure(images, labels, probabilities, CLASSES)
    assert [text.get_text() for text in figure.texts][-1] == "no mistakes to show"
    assert figure.get_suptitle() == "0 of 9 images wrong"
    plot_mistakes(tmp_path / "m.png", images, labels, probabilities, CLASSES)
    check_png(tmp_path / "m.png", 250)


@pytest.mark.parametrize("errors", [1, 2, 5, 36])
def test_mistakes_file(tmp_path, errors):
    images, labels, probabilities = example(60)
    labels = probabilities.argmax(1)
    labels[:errors] = (labels[:errors] + 1) % 3
    plot_mistakes(tmp_path / "m.png", images, labels, probabilities, CLASSES, title="a$b$c")
    check_png(tmp_path / "m.png", 300)


def test_mistakes_do_not_print_over_each_other():
    images, labels, probabilities = example(60)
    figure = mistakes_figure(images, labels, probabilities, [CLASSES[2]] * 3)
    figure.draw_without_rendering()
    row = [axes._left_title.get_window_extent() for axes in figure.axes[:6]]
    assert all(one.x1 <= next_.x0 for one, next_ in zip(row, row[1:], strict=False))
