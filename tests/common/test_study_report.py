"""The files of a study: complete, escaped, and the page in need of nothing else."""

import csv
from html.parser import HTMLParser

import pytest
from PIL import Image

from common.study_page import write_page
from common.study_plots import band, bars_figure, curves_figure
from common.study_report import make_report, write_csv, write_figures, write_markdown
from common.study_table import make_table
from tests.common.study_cases import STUDY, TASK, make_result, make_results

VOID = {"meta", "img", "br"}


@pytest.fixture(scope="module")
def report():
    arms = {arm: {"epochs": 2, "label": "</pre>", **own} for arm, own in STUDY.arms.items()}
    return make_report(
        STUDY, TASK, arms, budget="quick", notes=("small <data>", ""), results=make_results(),
        failures={}, command="python launch.py --study='<x>'", full_command="x --budget=full",
    )  # fmt: skip


class Page(HTMLParser):
    """Tags with their attributes, checked to be nested; and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_complete_escaped_and_alone(tmp_path, report):
    write_page(tmp_path / "study.html", report)
    source = (tmp_path / "study.html").read_text()
    page = Page(source)
    names = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "b", "x", "data", "t"} & set(names)
    assert "http" not in source.replace("http-equiv", "") and "url(" not in source
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            if name in attributes:
                assert attributes[name].startswith("data:image/svg+xml;base64,")
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img":
            assert len(attributes["alt"]) > 20
    assert names.count("img") == 6 and names.count("h1") == 1 and "lang" in dict(page.tags)["html"]
    assert {a.get("scope") for tag, a in page.tags if tag == "th"} == {"col", "row"}
    for said in (
        STUDY.question, report.answer, "two | 2", "small <data>", "report <T>", "</pre>",
        "--rate=1.0", report.command, report.full_command, "rate 2.0",
    ):  # fmt: skip
        assert said in page.text


def test_the_markdown_has_the_table_and_the_commands(tmp_path, report):
    write_markdown(tmp_path / "study.md", report)
    text = (tmp_path / "study.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 5 and len({row.replace("\\|", "").count("|") for row in rows}) == 1
    assert "| one &lt;b> | 0.6000 ± 0.0300 | +0.1000 |" in text and "| two \\| 2 | 0.4000 |" in text
    assert (
        "python launch.py --task=toy --epochs=2" in text
        and report.answer.replace("<", "&lt;") in text
    )
    assert report.full_command in text and report.method in text
    for word in ("Student", "bootstrap over the test examples", "not corrected"):
        assert word in report.method


def test_what_has_no_result_is_told():
    arms, results = dict(STUDY.arms), [r for r in make_results() if r.arm != "half"]
    del results[-1].values["test/accuracy"]
    report = make_report(
        STUDY, TASK, arms, budget="", notes=(), results=results, failures={}, command=""
    )
    for said in (
        "Without a result: half, two | 2.",
        "half is the baseline, so that nothing is compared.",
        "No test/accuracy in the summary of two | 2, seed 0.",
    ):
        assert said in report.answer
    assert "Student" not in report.method and "bootstrap" not in report.method


def test_the_csv_is_exact(tmp_path, report):
    write_csv(tmp_path / "study.csv", report)
    with (tmp_path / "study.csv").open(newline="") as file:
        half, one, two = csv.DictReader(file)
    row = make_table(STUDY, make_results())[1]
    assert (one["arm"], float(one["mean"]), float(one["p"])) == (
        row.arm,
        row.mean,
        row.comparison.p,
    )
    assert float(one["bootstrap_high"]) == row.comparison.bootstrap.high
    assert (half["difference"], two["p"], two["n"]) == ("", "", "1")
    assert one["scores"] == "0:0.6 1:0.63 2:0.57" and one["reported"] == "0.6"


def test_the_figures(tmp_path, report):
    write_figures(tmp_path, report)
    for name in ("bars.png", "curves.png"):
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG" and 400 < min(image.size) and max(image.size) < 4000
    scores, differences = bars_figure(STUDY, report.rows, "test accuracy").axes
    [reported] = [line for line in scores.get_lines() if line.get_label() == "reported"]
    assert list(reported.get_xdata()) == [0.55, 0.6] and list(reported.get_ydata()) == [0, 1]
    assert [bar.get_width() for bar in scores.patches] == pytest.approx([0.5, 0.6, 0.4])
    assert [label.get_text() for label in differences.get_yticklabels()] == ["one <b>", "two | 2"]
    panels = curves_figure(STUDY, report.results, TASK).axes
    assert [axes.get_title() for axes in panels] == [
        "loss in training", "accuracy in training", "loss in validation", "accuracy in validation"
    ]  # fmt: skip
    styles = {(line.get_color(), line.get_linestyle()) for line in panels[0].get_lines()}
    assert len(styles) == 3


def test_a_band_is_mean_and_deviation_over_seeds():
    results = [make_result("a", seed, score) for seed, score in enumerate((0.3, 0.6))]
    short = make_result("a", 2, 0.9, epochs=1)
    epochs, mean, deviation = band([*results, short], "train/accuracy")
    assert epochs.tolist() == [1, 2, 3]
    assert mean == pytest.approx([(0.1 + 0.2 + 0.9) / 3, 0.3, 0.45])
    assert deviation[1:] == pytest.approx([0.1414214, 0.2121320])
    assert band(results, "val/f1")[0].tolist() == []
