"""Corpora: the training, validation and test sentences of a run."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import InputError
from text.corpus_files import read
from text.readings import Log
from text.sentences import Sentence

DEMO = Path(__file__).parent / "demo"
_NAMES = {
    "train": {"train", "training"},
    "val": {"val", "valid", "validation", "dev"},
    "test": {"test"},
}

_NO_DATA = (
    "no --data_dir and no --train_file: using the embedded corpus, a small demonstration "
    "written for this project. The SemEval files are to be had at "
    "https://alt.qcri.org/semeval2014/task4/ (through META-SHARE) and "
    "https://alt.qcri.org/semeval2016/task5/"
)

Sentences = tuple[Sentence, ...]


@dataclass(frozen=True)
class Corpus:
    """A corpus ready for training.

    Attributes:
        name: of its folder, or of its training file.
        train: in the order of the file, less `val` if that was taken from it.
        val: empty with val_fraction=0 and no file.
        test: never used before the end.
        source: where it was read, for people.
        fingerprint: 16 hexadecimal digits of the texts and spans of the three splits.
    """

    name: str
    train: Sentences
    val: Sentences
    test: Sentences
    source: str
    fingerprint: str


def load(
    *,
    train_file: str | None = None,
    val_file: str | None = None,
    test_file: str | None = None,
    data_dir: str | None = None,
    val_fraction: float = 0.1,
    train_fraction: float = 1.0,
    seed: int = 0,
    columns: str | None = None,
    merge_repeated: bool = False,
    log: Log = print,
) -> Corpus:
    """Load a corpus from files in the formats of `corpus_files`.

    Without any file or folder it is the embedded demonstration corpus.

    Args:
        train_file, val_file, test_file: each goes before what `data_dir` has.
        data_dir: a folder with a train and a test file, perhaps a val or dev file: the word is
            a part of the name, as in train.xml, phone.test.conll or Laptop_Train_v2.xml.
        val_fraction: share of the training sentences held out, in [0, 1), if there is no
            validation file.
        train_fraction: share of the other training sentences that is kept, in (0, 1]; those of
            a smaller share are among those of a larger one.
        seed: chooses the sentences held out and kept; the test split never depends on it.
        columns, merge_repeated: see `corpus_files.read`.
        log: receives lines for the person at the terminal.

    Raises:
        InputError: a file is missing, ambiguous, damaged or without terms, or val_fraction
            is out of range.
    """
    if not 0 <= val_fraction < 1:
        raise InputError(f"--val_fraction={val_fraction} must be at least 0 and below 1")
    given = {"train": train_file, "val": val_file, "test": test_file}
    if data_dir is None and not any(given.values()):
        log(_NO_DATA)
        data_dir = str(DEMO)
    files = _find_files(given, data_dir)
    splits: dict[str, Sentences] = {}
    for split, path in files.items():
        reading = read(path, log=log, columns=columns, merge_repeated=merge_repeated)
        splits[split] = _with_terms(path, reading.sentences)
    train, test = splits["train"], splits["test"]
    if "val" in splits and not val_file and data_dir != str(DEMO):
        log(f"{files['val']} is the validation split: --val_fraction holds out nothing")
    train, val = (train, splits["val"]) if "val" in splits else hold_out(train, val_fraction, seed)
    train = thin(train, train_fraction, seed)
    _warn_of_leaks(train, val, test, log, repeated="val" not in splits and not merge_repeated)
    return Corpus(
        name=files["train"].stem if given["train"] else files["train"].parent.resolve().name,
        train=train,
        val=val,
        test=test,
        source=", ".join(str(path) for path in files.values()),
        fingerprint=_fingerprint(train, val, test),
    )


def load_test(
    *,
    test_file: str | None = None,
    data_dir: str | None = None,
    columns: str | None = None,
    merge_repeated: bool = False,
    log: Log = print,
) -> tuple[Path, Sentences]:
    """The test sentences alone, and their file; arguments and errors as of `load`."""
    folder = data_dir if test_file or data_dir else str(DEMO)
    path = _find_files({"test": test_file}, folder)["test"]
    reading = read(path, log=log, columns=columns, merge_repeated=merge_repeated)
    return path, _with_terms(path, reading.sentences)


def _with_terms(path: Path, sentences: Sentences) -> Sentences:
    """The sentences; InputError if none has a term."""
    if not any(sentence.spans for sentence in sentences):
        raise InputError(f"{path}: no sentence has a term: give a file with its gold terms")
    return sentences


def _find_files(given: dict[str, str | None], data_dir: str | None) -> dict[str, Path]:
    """The file of each split; there may be none for val."""
    files = {}
    for split, file in given.items():
        if file:
            files[split] = Path(file).expanduser()
        elif data_dir and (found := _find_in(Path(data_dir).expanduser(), split)):
            files[split] = found
        elif split != "val":
            where = f", and --data_dir={data_dir} has no file of that name" if data_dir else ""
            raise InputError(f"no {split} sentences{where}: give --{split}_file")
    return files


def _find_in(folder: Path, split: str) -> Path | None:
    """The file of the folder with the split's name between dots, dashes or underscores."""
    if not folder.is_dir():
        raise InputError(
            f"--data_dir={folder} is not a folder: give one with a train and a test file"
        )
    found = sorted(
        file
        for file in folder.iterdir()
        if file.is_file()
        and not file.name.startswith(".")
        and _NAMES[split] & set(re.split(r"[^a-z]+", file.name.lower()))
    )
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(
            f"--data_dir={folder} has several {split} files ({names}): choose by --{split}_file"
        )
    return found[0] if found else None


def hold_out(train: Sentences, val_fraction: float, seed: int) -> tuple[Sentences, Sentences]:
    """The training sentences as (train, validation), both in their order.

    Raises:
        InputError: the fraction, not 0, leaves one of them empty.
    """
    count = round(val_fraction * len(train))
    if val_fraction and not 0 < count < len(train):
        raise InputError(
            f"--val_fraction={val_fraction} holds out {count} of {len(train)} sentences: "
            "choose another, or 0 for no validation"
        )
    held = set(np.random.default_rng((seed, 0, 2)).permutation(len(train))[:count].tolist())
    kept = tuple(sentence for n, sentence in enumerate(train) if n not in held)
    return kept, tuple(train[n] for n in sorted(held))


def thin(train: Sentences, train_fraction: float, seed: int) -> Sentences:
    """The share of the sentences that is trained on, in their order.

    Raises:
        InputError: the fraction leaves none, or none with a term.
    """
    count = round(train_fraction * len(train))
    if count == len(train):
        return train
    rows = np.random.default_rng((seed, 0, 4)).permutation(len(train))[:count]
    kept = tuple(train[n] for n in sorted(rows.tolist()))
    if not any(sentence.spans for sentence in kept):
        raise InputError(
            f"--train_fraction={train_fraction} keeps {count} of {len(train)} sentences, and no "
            "term: raise it"
        )
    return kept


def leaks(train: Sentences, test: Sentences) -> int:
    """How many test sentences occur in `train`, whatever their case and white space."""
    seen = {_normalise(sentence.text) for sentence in train}
    return sum(_normalise(sentence.text) in seen for sentence in test)


def _normalise(text: str) -> str:
    return " ".join(text.casefold().split())


def _warn_of_leaks(
    train: Sentences, val: Sentences, test: Sentences, log: Log, *, repeated: bool
) -> None:
    """Warn of sentences in two splits; `repeated` if the validation may have repeated ones."""
    parts = {"training": train, "validation": val, "test": test}
    for one, other in (("training", "test"), ("validation", "test"), ("training", "validation")):
        remedy = ""
        if (one, other) == ("training", "validation") and repeated:
            remedy = " (--merge_repeated joins a sentence that a file repeats)"
        if found := leaks(parts[one], parts[other]):
            log(
                f"warning: {found} of {len(parts[other])} {other} sentences stand in the {one} "
                f"split too; more than a few short ones make the {other} score too good{remedy}"
            )


def _fingerprint(*splits: Sentences) -> str:
    rows = [[[sentence.text, sentence.spans] for sentence in split] for split in splits]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
