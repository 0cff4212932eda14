"""Pre-trained vectors that travel with a run: all their words, rounded to float16.

What `pack` leaves in a run folder, so that words never seen in training find their vectors on
a machine that has nothing else:

    sources.json   name, dimension and origin of each source, in order
    0.npy          float16 [N, D], every vector of source 0, unless they were too many
    0.words.txt    its N words, UTF-8, one in a line; newline as \\n, backslash as \\\\
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from common.errors import InputError
from text import vector_files
from text.embeddings import Vectors, concatenate, load_vectors, look_up, open_source
from text.vector_files import Log

PACK_LIMIT = 200_000_000  # bytes of float16 vectors of one source that a run folder may hold


def pack(sources: Sequence[str], folder: Path, *, log: Log = print) -> None:
    """Copy every word of `sources` into `folder`; of one above PACK_LIMIT note only the path.

    Args:
        sources: as load_vectors takes them, in the order of their columns; may be empty.
        folder: is made if need be.
        log: receives lines for the person.

    Raises:
        InputError: as load_vectors.
    """
    opened_sources = [open_source(source, log) for source in sources]  # all, before any is copied
    folder.mkdir(parents=True, exist_ok=True)
    listing = folder / "sources.json"
    listing.unlink(missing_ok=True)  # it is written last: a folder that has it is complete
    entries = []
    for number, opened in enumerate(opened_sources):
        limit = PACK_LIMIT // (2 * opened.dimension)  # words
        packed = (opened.total or 0) <= limit and vector_files.write_packed(
            folder / str(number), opened.dimension, opened.read(None), limit
        )
        if not packed:
            log(
                f"{opened.name} has more than {PACK_LIMIT / 1e6:.0f} MB of vectors and is not "
                f"copied into the run; words new at prediction are looked up in {opened.origin}"
            )
        entry = {"name": opened.name, "dimension": opened.dimension, "origin": opened.origin}
        entries.append(entry | {"packed": packed})
    listing.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class PackedVectors:
    """The packed sources of a run; the vectors stay on disk until a word asks for its own.

    Attributes:
        dimension: of all sources together.
    """

    dimension: int
    _parts: tuple[Callable[[tuple[str, ...]], Vectors], ...]

    def lookup(self, words: Iterable[str]) -> Vectors:
        """The vectors of `words`, as `concatenate` of `load_vectors`, rounded to float16.

        A source too large to be packed is streamed at each call: ask for all words at once.
        Raises InputError if its file can no longer be used.
        """
        words = tuple(words)
        if not self._parts:
            empty = np.zeros((len(words), 0), np.float32)
            return Vectors("random", words, empty, np.zeros(len(words), bool))
        return concatenate([part(words) for part in self._parts])


def open_packed(folder: Path, *, log: Log = print) -> PackedVectors:
    """Open what `pack` left in `folder`; `log` is told of a source that is not there.

    Raises:
        InputError: nothing was packed there, or it is damaged.
    """
    listing = folder / "sources.json"
    try:
        entries = json.loads(listing.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{listing} is missing or damaged: copy the whole run folder again"
        ) from error
    parts = tuple(
        _open_part(folder, number, **entry, log=log) for number, entry in enumerate(entries)
    )
    return PackedVectors(sum(entry["dimension"] for entry in entries), parts)


def _open_part(
    folder: Path, number: int, *, name: str, dimension: int, origin: str, packed: bool, log: Log
) -> Callable[[tuple[str, ...]], Vectors]:
    """The look-up in one packed source, or in its file, or in nothing."""
    words: list[str] = []
    table = np.zeros((0, dimension), np.float16)
    if packed:
        words, table = vector_files.open_packed(folder / str(number), dimension)
    elif Path(origin).is_file():
        return partial(_load_again, origin, dimension, log)
    else:
        log(
            f"{name} was too large for the run folder and {origin} is not on this machine: "
            "words that were not seen in training have no vector from it"
        )
    # Backwards, so that the first of a repeated word wins, as in load_vectors.
    rows = dict(zip(reversed(words), range(len(words) - 1, -1, -1), strict=True))
    return partial(look_up, name, rows=rows, table=table, dimension=dimension)


def _load_again(origin: str, dimension: int, log: Log, words: tuple[str, ...]) -> Vectors:
    """Look up in the file that was not packed, if it still has the run's dimension."""
    vectors = load_vectors(origin, words, log=log)
    if vectors.matrix.shape[1] != dimension:
        raise InputError(
            f"{origin} has {vectors.matrix.shape[1]} numbers a word, the run was trained with "
            f"{dimension}: put the old file back, or move this one away to do without"
        )
    return vectors
