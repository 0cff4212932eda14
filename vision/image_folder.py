"""Images in class folders, and images one by one, as uint8 RGB of one size."""

import os
import re
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import InputError
from common.writer import say, warn
from vision.arrays import TEST_FRACTION, Arrays, Source, Split, take_test

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
# No other decoder of PIL's is tried: some run programs, such as Ghostscript.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
NO_IMAGES = f"files that are no {' '.join(SUFFIXES)}"
PROGRESS_SECONDS = 10.0  # between two lines that tell how many images are read
SHOWN = 20  # damaged files named in a message
_NO_NAME = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, bytes that are no UTF-8
Labelled = list[tuple[Path, int]]


def read_image(path: str | Path, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """Read one image as RGB of `size`, of an animation the first picture.

    Upright by its EXIF tag, transparency over white, the largest centred part of the right
    aspect, then PIL's bilinear resize (which averages when it shrinks). An image that has
    the size already keeps its pixels.

    Args:
        path: a file of any of FORMATS, whatever its name says.
        size: height and width in pixels.

    Returns:
        uint8 [H, W, 3].

    Raises:
        InputError: the file is missing, does not decode, or has more pixels (89 million) than
            PIL decodes without a warning.
    """
    found = _image_or_reason(path, size)
    if isinstance(found, str):
        raise InputError(f"{path} does not decode as an image ({found}): replace or remove it")
    return found


def _image_or_reason(path: str | Path, size: tuple[int, int]) -> np.ndarray | str:
    """What `read_image` returns, or why it cannot."""
    if not Path(path).is_file():  # a named pipe would be waited for without end
        return "no such file"
    try:
        with open_image(path) as opened:
            return _to_rgb(opened, size)
    except Exception as error:  # PIL's plugins raise nearly every kind
        return " ".join(str(error).split()) or type(error).__name__


def open_image(file: Any) -> Any:
    """A PIL image, not yet decoded, of a path or a binary file; errors as PIL raises them."""
    return _pillow().open(file, formats=FORMATS)


@cache
def _pillow() -> Any:
    """PIL's Image, made to refuse what has too many pixels and to be quiet about the rest."""
    from PIL import Image

    warnings.filterwarnings("ignore", module="PIL")  # odd metadata of an image that does decode
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    return Image


def _to_rgb(image: Any, size: tuple[int, int]) -> np.ndarray:
    """An open image as uint8 [H, W, 3]."""
    from PIL import Image, ImageOps

    height, width = size
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        kind = "floating-point numbers" if image.mode == "F" else "integers of 32 bits"
        raise ValueError(f"its pixels are {kind} of no known range")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits: PIL would cut, not scale
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return np.array(image)


def _to_8_bits(levels: np.ndarray) -> np.ndarray:
    """Grey levels of 16 bits as uint8: the high byte."""
    return np.clip(levels.astype(np.float32) / 257, 0, 255).round().astype(np.uint8)


def find_images(path: str | Path) -> list[Path]:
    """A file as itself; of a folder the images under it, sorted, with a warning of what is none.

    Raises:
        InputError: nothing there, or a folder without images.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        what = "is no regular file" if path.exists() else "does not exist"
        raise InputError(f"{path} {what}: give an image file or a folder of images")
    images, others = _images_and_others(path)
    if not images:
        raise InputError(f"{path} holds no images ({' '.join(SUFFIXES)})")
    _tell_others(path, NO_IMAGES, others)
    return images


def _tell_others(folder: Path, what: str, files: list[Path]) -> None:
    """Warn of files that are left out."""
    if files:
        more = ", ..." if len(files) > 1 else ""
        warn(f"{folder}: {len(files)} {what}: {files[0]}{more}")


def _images_and_others(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files under `folder`: those that are images by their names, and the rest."""
    files = _files_under(folder)
    return [f for f in files if _is_image(f)], [f for f in files if not _is_image(f)]


def _is_image(file: Path) -> bool:
    return file.name.lower().endswith(SUFFIXES)


def _files_under(folder: Path) -> list[Path]:
    """Sorted, without what begins with a dot, such as the ._photo.jpg of file managers."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted(found)


def find(path: Path, log: Callable[[str], None]) -> Source | None:
    """Class folders at `path`, under train/ and test/ or (to be split) directly; or None.

    Raises:
        InputError: train/ without test/ or the reverse, one class only, a class without
            images, a class in test/ that train/ lacks.
    """
    if not path.is_dir():
        return None
    parts = [path / part for part in ("train", "test") if (path / part).is_dir()]
    if len(parts) == 1:
        lacking = "test" if parts[0].name == "train" else "train"
        raise InputError(f"{path} has {parts[0].name}/ but no {lacking}/: add it")
    if not parts and not any(_images_and_others(each)[0] for each in _class_folders(path)):
        return None
    classes = [folder.name for folder in _class_folders(parts[0] if parts else path)]
    if len(classes) == 1:
        raise InputError(
            f"{parts[0] if parts else path} has one class folder, {classes[0]}: add a folder for "
            "each other class"
        )
    labelled = [_labelled(part, classes) for part in parts or [path]]
    if not parts:
        log(
            f"{path} has no train/ and test/: a fixed {TEST_FRACTION:.0%} of each class is the test"
        )
    files = tuple(file for part in labelled for file, _ in part)
    return Source(str(path.resolve()), files, lambda: read_class_folders(labelled, tuple(classes)))


def count_classes(folder: Path) -> int:
    """How many class folders `folder` has."""
    return len(_class_folders(folder))


def _class_folders(folder: Path) -> list[Path]:
    """The class folders by name; by number where all names are numbers."""
    folders = [each for each in folder.iterdir() if each.is_dir() and each.name[0] != "."]
    for each in folders:
        if _NO_NAME.search(each.name):
            raise InputError(f"{each} is no name for a class in pictures and tables: rename it")
    if all(each.name.isdecimal() for each in folders):
        return sorted(folders, key=lambda each: (int(each.name), each.name))
    return sorted(folders)


def _labelled(folder: Path, classes: list[str]) -> Labelled:
    """Every image under `folder` with its label, with a warning of what is left out."""
    labelled, others = [], []
    for each in _class_folders(folder):
        if each.name not in classes:
            raise InputError(
                f"{each} is a class that train/ lacks: add its images there, or remove it"
            )
        images, rest = _images_and_others(each)
        others += rest
        if not images:
            raise InputError(
                f"{each} holds no images ({' '.join(SUFFIXES)}): add some or remove it"
            )
        labelled += [(image, classes.index(each.name)) for image in images]
    if not labelled:
        raise InputError(f"{folder} has no class folders with images")
    _tell_others(folder, NO_IMAGES, others)
    loose = [file for file in sorted(folder.iterdir()) if file.is_file() and _is_image(file)]
    _tell_others(folder, "images beside the class folders", loose)
    return labelled


def read_class_folders(
    labelled: list[Labelled], classes: tuple[str, ...], size: tuple[int, int] = (32, 32)
) -> Arrays:
    """Decode the images of train and test, or of one list to be split by a fixed draw.

    Args:
        labelled: files and labels, of train and test or of all.
        classes: names by label.
        size: height and width in pixels.

    Raises:
        InputError: images that do not decode, all of them.
    """
    splits = [_read_labelled(part, size) for part in labelled]
    if len(splits) == 1:
        whole = splits[0]
        splits = list(take_test(whole))
        if len(splits[1].labels) == 0:
            raise InputError(
                f"{len(whole.labels)} images are too few to take a test split from: add test/"
            )
    return Arrays(splits[0], splits[1], classes)


def _read_labelled(labelled: Labelled, size: tuple[int, int]) -> Split:
    images = np.empty((len(labelled), *size, 3), np.uint8)
    damaged = []
    told = time.monotonic()
    with ThreadPoolExecutor() as pool:  # PIL decodes outside the interpreter lock
        found = pool.map(lambda pair: _image_or_reason(pair[0], size), labelled)
        for row, image in enumerate(found):
            if isinstance(image, str):
                damaged.append(f"{labelled[row][0]} ({image})")
            else:
                images[row] = image
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                say(f"{row + 1} of {len(labelled)} images are read")
    if damaged:
        more = f", and {len(damaged) - SHOWN} more" if len(damaged) > SHOWN else ""
        files = f"{len(damaged)} files do not decode as images"
        raise InputError(f"{files}: {', '.join(damaged[:SHOWN])}{more}: replace or remove them")
    return Split(images, np.array([label for _, label in labelled], np.int32))
