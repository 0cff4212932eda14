"""Pre-trained vectors that travel with a run: all their words, rounded to float16.

What `pack` leaves in a run folder, so that words never seen in training find their vectors on
a machine that has nothing else:

    sources.json   name, dimension and origin of each source, in order
    0.npy          float16 [N, D], every vector of source 0, or if they were too many those of
                   the corpus
    0.words.txt    its N words, UTF-8, one in a line; newline as \\n, backslash as \\\\
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from common.config import read_json
from common.errors import InputError
from text import vector_files
from text.embeddings import (
    Vectors,
    concatenate,
    fallback_forms,
    load_vectors,
    look_up,
    open_source,
)
from text.vector_files import Log

LookUp = Callable[[tuple[str, ...]], Vectors]

_ENTRY = {"name": str, "dimension": int, "origin": str, "whole": bool}  # of sources.json
PACK_LIMIT = 200_000_000  # bytes of float16 vectors of one source that a run folder may hold


def pack(sources: Sequence[str], folder: Path, words: Sequence[str], *, log: Log = print) -> None:
    """Copy every word of `sources` into `folder`; of one above PACK_LIMIT only `words`.

    Args:
        sources: as load_vectors takes them, in the order of their columns; may be empty.
        folder: is made if need be.
        words: of the corpus; their fallback forms are copied too.
        log: receives lines for the person.

    Raises:
        InputError: as load_vectors.
    """
    listing = folder / "sources.json"
    listing.unlink(missing_ok=True)  # it is written last: a folder that has it is complete
    opened_sources = [open_source(source, log) for source in sources]  # all, before any is copied
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, opened in enumerate(opened_sources):
        stem, limit = folder / str(number), PACK_LIMIT // (2 * opened.dimension)  # words
        whole = (opened.total or 0) <= limit and vector_files.write_packed(
            stem, opened.dimension, opened.read(None), limit
        )
        if not whole:
            forms = {form for word in words for form in fallback_forms(word)}
            vector_files.write_packed(stem, opened.dimension, opened.read(forms), len(forms))
            log(
                f"{opened.name} has more than {PACK_LIMIT / 1e6:.0f} MB of vectors: the run keeps "
                f"those of its own words; others are looked up in {opened.origin}"
            )
        entry = {"name": opened.name, "dimension": opened.dimension, "origin": opened.origin}
        entries.append(entry | {"whole": whole})
    listing.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class PackedVectors:
    """The packed sources of a run; the vectors stay on disk until a word asks for its own.

    Attributes:
        dimension: of all sources together.
    """

    dimension: int
    _parts: tuple[LookUp, ...]

    def lookup(self, words: Iterable[str]) -> Vectors:
        """The vectors of `words`, as `concatenate` of `load_vectors`, rounded to float16.

        A source too large to be packed is streamed when new words come: ask for all at once.
        Raises InputError if its file can no longer be used.
        """
        words = tuple(words)
        if not self._parts:
            zeros = np.zeros((len(words), self.dimension), np.float32)
            none = np.zeros(len(words), bool)
            return Vectors("random", words, zeros, none, none)
        return concatenate([part(words) for part in self._parts])


def open_packed(folder: Path, *, log: Log = print) -> PackedVectors:
    """Open what `pack` left in `folder`; `log` is told of a source that is not there.

    Raises:
        InputError: nothing was packed there, or it is damaged.
    """
    listing = folder / "sources.json"
    entries = read_json(listing, list)
    for entry in entries:
        if not isinstance(entry, dict) or {k: type(v) for k, v in entry.items()} != _ENTRY:
            raise InputError(f"{listing} is damaged: copy the whole run folder again")
    parts = tuple(
        _open_part(folder, number, **entry, log=log) for number, entry in enumerate(entries)
    )
    return PackedVectors(sum(entry["dimension"] for entry in entries), parts)


def _open_part(
    folder: Path, number: int, *, name: str, dimension: int, origin: str, whole: bool, log: Log
) -> LookUp:
    """The look-up in one packed source, and in its file if not all of it was packed."""
    words, table = vector_files.open_packed(folder / str(number), dimension)
    # Backwards, so that the first of a repeated word wins, as in load_vectors.
    rows = dict(zip(reversed(words), range(len(words) - 1, -1, -1), strict=True))
    packed = partial(look_up, name, rows=rows, table=table, dimension=dimension)
    if whole:
        return packed
    if not Path(origin).is_file():
        log(
            f"{name} was too large for the run folder and {origin} is not on this machine: "
            "words that are not in the run's corpus have no vector from it"
        )
        return packed

    return _PartlyPacked(packed, partial(_load_again, origin, dimension, log))


class _PartlyPacked:
    """A look-up in the run's own words, and for others in the source's file, once for each."""

    def __init__(self, packed: LookUp, read: LookUp):
        self._packed, self._read = packed, read
        self._known: dict[str, tuple[np.ndarray, bool, bool]] = {"": (np.zeros(1), False, False)}

    def __call__(self, words: tuple[str, ...]) -> Vectors:
        vectors = self._packed(words)
        open_places = np.flatnonzero(~vectors.found)
        asked = {words[place] for place in open_places} - self._known.keys()
        if asked:
            more = self._read(tuple(asked))
            entries = zip(more.matrix, more.found, more.exact, strict=True)
            self._known.update(zip(more.words, entries, strict=True))
        for place in open_places:
            row = self._known[words[place]]
            vectors.matrix[place], vectors.found[place], vectors.exact[place] = row
        return vectors


def _load_again(origin: str, dimension: int, log: Log, words: tuple[str, ...]) -> Vectors:
    """Look up in the file that was not packed, if it still has the run's dimension."""
    vectors = load_vectors(origin, words, log=log)
    if vectors.matrix.shape[1] != dimension:
        raise InputError(
            f"{origin} has {vectors.matrix.shape[1]} numbers a word, the run was trained with "
            f"{dimension}: put the old file back, or move this one away to do without"
        )
    return vectors
