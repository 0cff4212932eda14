"""Image data sets by name: found, decoded once, cached, split; uint8 in memory.

`load` finds the files, decodes them (or maps what an earlier run decoded), takes a
validation part from the training split and computes the channel statistics of the rest.
"""

import hashlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import InputError
from vision import array_cache, cifar_archives, digits, download, image_folder, tfds_folder
from vision.arrays import Source, Split, channel_statistics, fingerprint, stratified

DATASETS = ("cifar10", "cifar100", "digits", "folder")
CLASS_COUNTS = {"cifar10": 10, "cifar100": 100}
READERS = "1"  # to be changed when a reader gives other pixels, so that no cache outlives it
_CIFAR_FORMS = (
    "a tensorflow-datasets folder, the original python or binary batches (folder or .tar.gz), "
    "or train/ and test/ with a folder of PNG or JPEG images per class"
)
FORMS = {
    "cifar10": _CIFAR_FORMS,
    "cifar100": _CIFAR_FORMS,
    "folder": "train/ and test/ with a folder of PNG or JPEG images per class",
}
Log = Callable[[str], None]


@dataclass(frozen=True)
class Dataset:
    """A data set ready for training.

    mean and std are those of train.images / 255; val has no rows with val_fraction=0.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    mean: np.ndarray  # float32 [C]
    std: np.ndarray  # float32 [C]
    source: str
    fingerprint: str


def load(
    name: str,
    *,
    data_dir: str | None = None,
    val_fraction: float = 0.1,
    train_fraction: float = 1.0,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> Dataset:
    """Load the data set `name` with its train/validation split.

    Args:
        name: one of DATASETS.
        data_dir: where to read cifar10, cifar100 or folder from.
        val_fraction: share of each training class held out for validation, in [0, 1).
        train_fraction: share of the rest of each class that is kept, in (0, 1]; the rows of a
            smaller share are among those of a larger one.
        seed: chooses the rows of both; the test split never depends on it.
        log: receives lines for the person at the terminal.

    Raises:
        InputError: unknown name, no data, damaged data, or a fraction that cannot be.
    """
    _check_arguments(name, data_dir, val_fraction, seed)
    source = _find(name, data_dir, log)
    cache = array_cache.folder(name, source.place)
    identity = _identity(source)
    cached = array_cache.read(cache, identity, log)
    if cached is None:
        log(f"{name}: reading {source.place}; decoded once, then kept in {cache}")
        arrays = source.read()
        digest = fingerprint(arrays)
        array_cache.write(cache, identity, arrays, digest, log)
    else:
        arrays, digest = cached
    train, val = _hold_out(arrays.train, val_fraction, seed)
    split_key = f"{float(val_fraction)!r}-{seed}"
    if train_fraction < 1:
        train = _thin(train, train_fraction, seed)
        split_key += f"-{float(train_fraction)!r}"
    statistics = array_cache.read_statistics(cache, split_key, digest)
    if statistics is None:
        statistics = channel_statistics(train.images)
        array_cache.write_statistics(cache, split_key, digest, statistics)
    test = Split(np.array(arrays.test.images), np.array(arrays.test.labels))
    return Dataset(
        name, arrays.classes, train, val, test, *statistics, source.place, fingerprint=digest
    )


def _check_arguments(name: str, data_dir: str | None, val_fraction: float, seed: int) -> None:
    if name not in DATASETS:
        raise InputError(f"--dataset={name} is unknown: choose one of {', '.join(DATASETS)}")
    if name == "digits" and data_dir is not None:
        raise InputError("--data_dir is not used by --dataset=digits: leave it out")
    if name == "folder" and data_dir is None:
        raise InputError(
            "--dataset=folder needs --data_dir with CLASS/ folders, or with train/CLASS/ and "
            "test/CLASS/"
        )
    if not 0 <= val_fraction < 1:
        raise InputError(f"--val_fraction={val_fraction} must be at least 0 and below 1")
    if seed < 0:
        raise InputError(f"--seed={seed} must not be negative")


def _hold_out(train: Split, val_fraction: float, seed: int) -> tuple[Split, Split]:
    """The training split as (train, validation)."""
    kept, held = stratified(train.labels, val_fraction, seed)
    if val_fraction and not len(held):
        raise InputError(
            f"--val_fraction={val_fraction} holds out no image: raise it, or give 0 for none"
        )
    if len(np.unique(train.labels[kept])) < len(np.unique(train.labels)):
        raise InputError(
            f"--val_fraction={val_fraction} leaves a class without a training image: lower it"
        )
    images, labels = train
    if not len(held):
        return Split(np.array(images), np.array(labels)), Split(images[held], labels[held])
    return Split(images[kept], labels[kept]), Split(images[held], labels[held])


def _thin(train: Split, train_fraction: float, seed: int) -> Split:
    """The share of each class's images that is trained on."""
    _, rows = stratified(train.labels, train_fraction, seed)
    if len(np.unique(train.labels[rows])) < len(np.unique(train.labels)):
        raise InputError(
            f"--train_fraction={train_fraction} leaves a class without a training image: raise it"
        )
    return Split(train.images[rows], train.labels[rows])


def _identity(source: Source) -> str:
    """A hash of the source's paths, sizes and modification times."""
    digest = hashlib.sha256(READERS.encode())
    for file in sorted(source.files):
        stat = file.stat()
        digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _find(name: str, data_dir: str | None, log: Log) -> Source:
    if name == "digits":
        return digits.find()
    if data_dir is None:
        return _find_default(name, log)
    path = Path(data_dir).expanduser()
    if not path.exists():
        raise InputError(f"--data_dir={data_dir} does not exist: give {FORMS[name]}")
    found = image_folder.find(path, log) if name == "folder" else _find_cifar(name, path, log)
    if found is None:
        other = {"cifar10": "cifar100", "cifar100": "cifar10"}.get(name)
        hint = f" but {other}" if other and _find_cifar(other, path, log) else ""
        raise InputError(f"--data_dir={data_dir} holds no {name}{hint}: give {FORMS[name]}")
    return found


def _find_cifar(name: str, path: Path, log: Log) -> Source | None:
    found = tfds_folder.find(name, path) or cifar_archives.find(name, path)
    if found is None and (path / "train").is_dir() and (path / "test").is_dir():
        found = image_folder.find(path, log)
        count = image_folder.count_classes(path / "train")
        if count != CLASS_COUNTS[name]:
            raise InputError(
                f"{path} has {count} class folders, {name} has {CLASS_COUNTS[name]}: "
                "--dataset=folder takes any"
            )
    return found


def _find_default(name: str, log: Log) -> Source:
    """Among prepared tensorflow-datasets, among downloaded archives, or from the network."""
    tfds_dir = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    archives = tfds_dir / "downloads" / "manual"  # where tensorflow-datasets looks, too
    found = tfds_folder.find(name, tfds_dir) or cifar_archives.find(name, archives)
    return found or _download(name, tfds_dir, archives, log)


def _download(name: str, tfds_dir: Path, archives: Path, log: Log) -> Source:
    import tensorflow_datasets as tfds

    [(url, registered)] = tfds.builder_cls(name).url_infos.items()
    archive = archives / registered.filename
    try:
        size = int(registered.size)
        download.fetch(url, archive, size=size, sha256=registered.checksum, log=log)
    except download.NoConnection as error:
        raise InputError(
            f"{name} is neither in {tfds_dir} nor in {archives}, and {url} is out of reach "
            f"({error}): give --data_dir with {FORMS[name]}, or use --dataset=digits, which is "
            "embedded and needs no download"
        ) from error
    if _has_tensorflow():
        try:
            _prepare(name, tfds_dir, archives)
        except Exception as error:  # a broken TensorFlow must not waste a download of hours
            log(f"tensorflow-datasets could not prepare {name} ({error}): reading {archive}")
    found = tfds_folder.find(name, tfds_dir) or cifar_archives.find(name, archive)
    if found is None:
        raise InputError(f"{archive} holds no {name}: remove it and start again")
    return found


def _has_tensorflow() -> bool:
    return importlib.util.find_spec("tensorflow") is not None


def _prepare(name: str, tfds_dir: Path, archives: Path) -> None:
    """Have tensorflow-datasets prepare the downloaded archive; this imports TensorFlow."""
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(manual_dir=archives, try_download_gcs=False)
    builder = tfds.builder(name, data_dir=tfds_dir, file_format="array_record")
    builder.download_and_prepare(download_config=config)
