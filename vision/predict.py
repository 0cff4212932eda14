"""`--mode=predict`: the classes of anyone's images, from a run folder alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from common.config import check_range
from common.writer import say
from vision import scoring
from vision.classifier import Scorer
from vision.evaluate import load_run
from vision.image_folder import find_images, read_image

# Images decoded and classified at a time, so that a folder of any size streams.
CHUNK = 256


def classify(scorer: Scorer, variables: Any, paths: list[Path], size: int) -> np.ndarray:
    """Probabilities float64 [N, K] of the images in `paths`, resized to 32x32.

    The batch is filled up to `size`, so that all batches are one compiled program.
    """
    images = np.stack([read_image(path) for path in paths])
    padding = np.zeros((size - len(images), *images.shape[1:]), images.dtype)
    logits = scorer.logits(variables, scorer.place(np.concatenate([images, padding])), size)
    return scoring.softmax(logits[: len(images)])


def predict(run: Path, inputs: list[Path], *, top: int, as_json: bool, devices: int) -> None:
    """Print the `top` classes of every image, as a table or a JSON line each.

    A JSON line is {"image": PATH, "classes": [{"class": NAME, "probability": P}, ...]}.

    Raises:
        InputError: no run, no image, an image that does not decode, or top below 1.
    """
    check_range("--top", top, 1)
    paths = [path for name in inputs for path in find_images(name)]
    trained = load_run(run, {"devices": devices})
    scorer = Scorer(trained.classifier)
    classes = trained.classifier.classes
    variables, size = scorer.replicate(trained.variables), min(CHUNK, len(paths))
    width = max(len(str(path)) for path in paths)
    for start in range(0, len(paths), size):
        chunk = paths[start : start + size]
        for path, row in zip(chunk, classify(scorer, variables, chunk, size), strict=True):
            best = [(classes[k], float(row[k])) for k in np.argsort(-row)[:top]]
            if as_json:
                found = [{"class": name, "probability": p} for name, p in best]
                say(json.dumps({"image": str(path), "classes": found}))
            else:
                say(f"{path!s:<{width}}  " + "  ".join(f"{name} {p:.4f}" for name, p in best))
