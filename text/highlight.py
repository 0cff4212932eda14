"""Sentences as HTML, their terms marked: a page of its own, or part of a notebook.

HEADER, a paragraph of `mark` for each sentence, FOOTER. The page needs no network and no script,
and its style reaches nothing but its own text, so that it may be shown inside another page.
"""

import html
import re
from collections.abc import Iterable, Sequence

from text.sentences import Span

# Dark on light in every theme; the line below a term is there for who cannot tell the colours.
INK, PAPER, LINE = "#1A1A1A", "#FFE7A3", "#8A4500"
UNSURE = 0.5  # terms of a lower confidence have a broken line
CONTROL = re.compile(r"[\0-\x08\x0b\x0e-\x1f\x7f-\x9f]")  # which HTML does not allow

HEADER = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Aspect terms</title>
<style>
.athanor-terms {{ max-width: 46rem; margin: 1rem auto; padding: 0 1rem;
  font: 1rem/1.9 sans-serif; }}
.athanor-terms p {{ margin: 0.5rem 0; overflow-wrap: anywhere; }}
.athanor-terms .key {{ font-size: 0.875rem; line-height: 1.4; }}
.athanor-terms mark {{
  color: {INK}; background: {PAPER}; border-bottom: 3px solid {LINE};
  border-radius: 3px 3px 0 0; padding: 0.1em 0.25em;
}}
.athanor-terms mark.unsure {{ border-bottom-style: dashed; }}
.athanor-terms small {{ font-size: 0.75em; margin-inline-start: 0.25em; user-select: none; }}
.athanor-terms ul {{ margin: 0 0 0.9rem; font-size: 0.875rem; line-height: 1.4; }}
</style>
</head>
<body>
<div class="athanor-terms">
<p class="key">Terms are marked; the number behind one is the probability that it is a term, with
just these bounds. Below {UNSURE} the line is broken.</p>"""

FOOTER = "</div>\n</body>\n</html>"


def escape(text: str) -> str:
    """As HTML, a control character as the sign for what cannot be shown."""
    return html.escape(CONTROL.sub("\N{REPLACEMENT CHARACTER}", text))


def mark(text: str, marks: Iterable[tuple[Span, float]], alternatives: Sequence[str] = ()) -> str:
    """A paragraph of HTML, every character of the text escaped.

    Args:
        text: a sentence.
        marks: its terms in order, which do not overlap, and the confidence of each.
        alternatives: lines to list below it.
    """
    parts, done = [], 0
    for (start, end), confidence in marks:
        unsure = ' class="unsure"' if confidence < UNSURE else ""
        parts.append(escape(text[done:start]))
        parts.append(f"<mark{unsure}>{escape(text[start:end])}</mark>")
        parts.append(f"<small>{confidence:.2f}</small>")
        done = end
    parts.append(escape(text[done:]))
    # The language is not known, and the direction of the letters is their own.
    paragraph = f'<p lang="" dir="auto">{"".join(parts)}</p>'
    if not alternatives:
        return paragraph
    items = "".join(f'<li dir="auto">{escape(line)}</li>' for line in alternatives)
    return f"{paragraph}\n<ul>{items}</ul>"
