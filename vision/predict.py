"""`--mode=predict`: the classes of anyone's images, from a run folder alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from common.config import check_range
from common.errors import InputError, one_line
from common.writer import say
from vision import scoring
from vision.classifier import Scorer
from vision.evaluate import load_run
from vision.image_folder import find_images, read_image

# Images decoded and classified at a time, so that a folder of any size streams.
CHUNK = 256


def classify(scorer: Scorer, variables: Any, images: list[np.ndarray], size: int) -> np.ndarray:
    """Probabilities float64 [N, K] of N images uint8 [32, 32, 3].

    The batch is filled up to `size`, so that all batches are one compiled program.
    """
    batch = np.zeros((size, 32, 32, 3), np.uint8)
    batch[: len(images)] = images
    return scoring.softmax(scorer.logits(variables, scorer.place(batch), size)[: len(images)])


def predict(
    run: Path, inputs: list[Path], *, top: int, as_json: bool, changes: dict[str, Any]
) -> None:
    """Print the `top` classes of every image, as a table or a JSON line each.

    `changes` are settings that may differ from the run's. A JSON line is
    {"image": PATH, "classes": [{"class": NAME, "probability": P}, ...]}.

    Raises:
        InputError: no run, no image, top below 1, or, after all others are classified, images
            that do not decode.
    """
    check_range("--top", top, 1)
    paths = [path for name in inputs for path in find_images(name)]
    trained = load_run(run, changes)
    scorer = Scorer(trained.classifier, trained.config.tta)
    classes = trained.classifier.classes
    variables, size = scorer.replicate(trained.variables), min(CHUNK, len(paths))
    width = max(len(one_line(path)) for path in paths)
    failed: dict[Path, InputError] = {}
    for start in range(0, len(paths), size):
        read: list[tuple[Path, np.ndarray]] = []
        for path in paths[start : start + size]:
            try:
                read.append((path, read_image(path)))
            except InputError as error:
                failed[path] = error
        if not read:
            continue
        probabilities = classify(scorer, variables, [image for _, image in read], size)
        for (path, _), row in zip(read, probabilities, strict=True):
            best = [(classes[k], float(row[k])) for k in np.argsort(-row)[:top]]
            if as_json:
                found = [{"class": name, "probability": p} for name, p in best]
                say(json.dumps({"image": str(path), "classes": found}))
            else:
                say(
                    f"{one_line(path):<{width}}  "
                    + "  ".join(f"{name} {p:.4f}" for name, p in best)
                )
    if failed:
        first, *others = failed
        more = f"; likewise {', '.join(map(str, others))}" if others else ""
        raise InputError(f"{failed[first]}{more}")
