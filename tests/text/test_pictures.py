"""The transition matrix: what is drawn, and that a PNG comes out."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from text.pictures import plot_transitions, transitions_figure

BIO = (
    np.array([[True, True, False], [True, True, True], [True, True, True]]),
    np.array([True, True, False]),
    np.array([True, True, True]),
)


def draw_params(num_tags: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    shapes = ((num_tags, num_tags), num_tags, num_tags)
    return tuple(rng.normal(0, 1.5, shape).astype(np.float32) for shape in shapes)


def written(axes) -> dict[tuple[int, int], str]:
    """The text of each cell by (row, column)."""
    return {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts}


def names(labels) -> list[str]:
    return [label.get_text() for label in labels]


@pytest.mark.parametrize("tags", [["O", "I"], ["O", "B", "I"], list("OBIES")])
def test_every_score_has_its_cell(tags):
    transitions, start, end = draw_params(len(tags))
    figure = transitions_figure(transitions, start, end, tags)
    axes = figure.axes[0]
    cells = written(axes)
    assert len(cells) == len(tags) ** 2 + 2 * len(tags)
    assert (0, len(tags)) not in cells
    drawn = axes.images[0].get_array()
    assert np.isnan(np.ma.filled(drawn, np.nan)[0, len(tags)])
    for i in range(len(tags)):
        assert cells[0, i] == f"{start[i]:.2f}" and drawn[0, i] == start[i]
        assert cells[i + 1, len(tags)] == f"{end[i]:.2f}" and drawn[i + 1, len(tags)] == end[i]
        for j in range(len(tags)):
            assert cells[i + 1, j] == f"{transitions[i, j]:.2f}"
            assert drawn[i + 1, j] == transitions[i, j]
    assert names(axes.get_yticklabels()) == ["start", *tags]
    assert names(axes.get_xticklabels()) == [*tags, "end"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("from", "to")
    assert not axes.patches and not figure.legends


def test_colours_are_centred_at_zero():
    transitions, start, end = draw_params(3)
    end[1] = -7
    low, high = transitions_figure(transitions, start, end, "OBI").axes[0].images[0].get_clim()
    assert (low, high) == (-7, 7)


def test_forbidden_steps_are_hatched_and_explained():
    figure = transitions_figure(*draw_params(3), ["O", "B", "I"], BIO)
    hatched = {(patch.get_y() + 0.5, patch.get_x() + 0.5) for patch in figure.axes[0].patches}
    assert hatched == {(0, 2), (1, 2)}  # start to I and O to I
    assert all(patch.get_hatch() for patch in figure.axes[0].patches)
    (legend,) = figure.legends
    assert names(legend.get_texts()) == ["forbidden: decoding never goes there"]


def test_an_allowed_start_to_end_is_not_hatched():
    everything = tuple(np.full_like(part, True) for part in BIO)
    figure = transitions_figure(*draw_params(3), ["O", "B", "I"], everything)
    assert not figure.axes[0].patches and not figure.legends


@pytest.mark.parametrize(
    "value, shown",
    [(0.0, "0.00"), (-0.001, "0.00"), (-1812.4, "-1812"), (-1e6, "-1e+06"), (np.nan, "nan")],
)
def test_unusual_scores_fit_their_cells(tmp_path, value, shown):
    transitions, start, end = np.zeros((2, 2)), np.zeros(2), np.array([value, 0.0])
    figure = transitions_figure(transitions, start, end, ["O", "I"])
    assert written(figure.axes[0])[1, 2] == shown
    (text,) = (t for t in figure.axes[0].texts if t.get_position() == (2, 1))
    assert text.get_color() == ("white" if abs(value) > 0 else "black")
    plot_transitions(tmp_path / "t.png", transitions, start, end, ["O", "I"])


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_file(tmp_path, as_array):
    params = [as_array(part) for part in draw_params(3)]
    allowed = tuple(as_array(part) for part in BIO)
    tags = ["$O$", "a_tag_much_too_long", "标签"]
    plot_transitions(tmp_path / "t.png", *params, tags, allowed=allowed, title="bilstm $crf")
    with Image.open(tmp_path / "t.png") as image:
        assert image.format == "PNG"
        image.load()
        assert 500 <= min(image.size) and max(image.size) <= 1500


@pytest.mark.parametrize("wrong", range(3))
@pytest.mark.parametrize("in_allowed", [False, True])
def test_shapes_must_fit_the_tags(wrong, in_allowed):
    params, allowed = list(draw_params(3)), list(BIO)
    target = allowed if in_allowed else params
    target[wrong] = target[wrong][:2]
    with pytest.raises(ValueError, match="do not fit 3 tags"):
        transitions_figure(*params, ["O", "B", "I"], allowed)
