"""study.html: the study as one file, which needs no network, no script and no other file."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from common.study_plots import Panel, page_panels
from common.study_report import Report, table_cells

CSS = Path(__file__).with_name("study_page.css")


def write_page(path: Path, report: Report) -> None:
    """Write the page; every text in it is escaped."""
    panels = page_panels(report.study, report.rows, report.results, report.task)
    body = "\n".join([*_head(report), *_figures(panels), *_table(report), *_arms(report)])
    title = f"{report.study.name}: {report.study.question}"
    path.write_text(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{CSS.read_text()}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n",
        encoding="utf-8",
    )


def _head(report: Report) -> Iterable[str]:
    yield f'<p class="name">{escape(report.study.name)}</p>'
    yield f"<h1>{escape(report.study.question)}</h1>"
    yield f'<p class="answer">{escape(report.answer)}</p>'
    yield f'<p class="soft">{escape(report.setting)}</p>'
    for note in report.notes:
        yield f"<p>{escape(note)}</p>"


def _figures(panels: Sequence[Panel]) -> Iterable[str]:
    yield '<h2>Figures</h2>\n<div class="figures">'
    for panel in panels:
        yield f'<figure><img alt="{escape(panel.alt)}" src="{embed(panel)}"></figure>'
    yield "</div>"


def embed(panel: Panel) -> str:
    """A figure as an SVG data URI. Its letters are outlines, so that no font is needed."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "athanor", "svg.fonttype": "path"}):
        panel.figure.savefig(file, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def _table(report: Report) -> Iterable[str]:
    header, rows = table_cells(report)
    yield "<h2>Table</h2>"
    yield '<div class="scroll" tabindex="0" role="region" aria-label="Table of the arms"><table>'
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    yield f"<thead><tr>{columns}</tr></thead>\n<tbody>"
    for arm, *cells in rows:
        values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        yield f'<tr><th scope="row">{escape(arm)}</th>{values}</tr>'
    yield "</tbody></table></div>"
    yield f'<p class="soft">{escape(report.method)}</p>'
    if report.failures:
        yield "<h2>Failed runs</h2>\n<ul>"
        for run, reason in report.failures.items():
            yield f"<li><strong>{escape(run.title)}</strong>: {escape(reason)}</li>"
        yield "</ul>"


def _arms(report: Report) -> Iterable[str]:
    yield "<h2>Arms</h2>"
    yield f"<p>All arms have {escape(_settings(report.shared))}.</p>"
    yield '<div class="arms">'
    for arm in report.arms:
        yield f'<section class="arm"><h3>{escape(arm)}</h3>'
        yield f"<p>{escape(_settings(report.differences(arm)))}</p>"
        yield f"<pre>{escape(report.arm_command(arm))}</pre></section>"
    yield "</div>"
    yield f"<h2>Repeat</h2>\n<pre>{escape(report.command)}</pre>"
    if report.full_command:
        yield f"<p>At the report's own size:</p>\n<pre>{escape(report.full_command)}</pre>"


def _settings(settings: dict) -> str:
    """ "epochs 3, width 0.5" """
    return (
        ", ".join(f"{name} {value}" for name, value in settings.items()) or "nothing of their own"
    )
