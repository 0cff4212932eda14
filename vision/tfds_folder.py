"""Data sets prepared by tensorflow-datasets, read without TensorFlow.

The folder is treated as untrusted: what its .json files say is checked before tensorflow-datasets
reads them, since they can name modules to import and any number of examples.
"""

import io
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from common.config import read_json
from common.errors import InputError
from vision import tfrecord
from vision.arrays import Arrays, Source, Split
from vision.image_folder import open_image

MAX_EXAMPLES = 60_000  # of a split; CIFAR has no more, and arrays are made for as many
_FEATURES = [
    f"tensorflow_datasets.core.features.{name}"
    for name in (
        "features_dict.FeaturesDict",
        "image_feature.Image",
        "class_label_feature.ClassLabel",
        "text_feature.Text",
    )
]
# As protobuf's JSON spells it, as its definition does, and as older versions did: all are read.
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")


def find(name: str, path: Path) -> Source | None:
    """`path` as tfds root, as the data set's folder, or as the folder of one version."""
    infos = [path / "dataset_info.json", *path.glob("*/dataset_info.json")]
    infos += path.glob(f"{name}/*/dataset_info.json")
    versions = []
    for info in infos:
        if not info.is_file() or "incomplete" in info.parent.name:
            continue
        noted = read_json(info)
        if noted.get("name") == name:
            numbers = [int(part) for part in re.findall(r"[0-9]{1,9}", str(noted.get("version")))]
            versions.append((numbers, info.parent.resolve()))
    if not versions:
        return None
    folder = max(versions)[1]
    files = tuple(file for file in folder.iterdir() if file.is_file())
    return Source(str(folder), files, lambda: _read(folder))


def _read(folder: Path) -> Arrays:
    """Both splits of a prepared data set, without TensorFlow."""
    _check_classes(folder)
    try:
        builder = _open(folder)
        train, test = (_read_split(builder, split) for split in ("train", "test"))
        return Arrays(train, test, tuple(builder.info.features["label"].names))
    except InputError:
        raise
    except Exception as error:  # tensorflow-datasets and protobuf have no error in common
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder} is damaged ({reason}): prepare the data set again") from error


def _check_classes(folder: Path) -> None:
    """InputError if tensorflow-datasets would import a module that is not its own."""
    for name in _class_names(read_json(folder / "features.json")):
        if name not in _FEATURES:
            raise InputError(
                f"{folder}/features.json names {str(name)[:80]!r}, which is no feature of CIFAR: "
                "prepare the data set again"
            )


def _open(folder: Path) -> Any:
    """The builder of a prepared data set, with what `_read_split` needs of it."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    if not builder.info.features["label"].names:
        raise ValueError("it has no class names")
    for split in ("train", "test"):
        if split not in builder.info.splits:
            raise ValueError(f"it has no {split} split")
        if builder.info.splits[split].num_examples > MAX_EXAMPLES:
            raise ValueError(f"its {split} split has more examples than CIFAR")
    return builder


def _class_names(features: Any) -> Iterator[Any]:
    """The classes that a features.json tells tensorflow-datasets to import."""
    inner = features.values() if isinstance(features, dict) else features
    if isinstance(features, dict | list):
        for each in inner:
            yield from _class_names(each)
    if isinstance(features, dict):
        yield from (features[key] for key in _CLASS_KEYS if key in features)


def _read_split(builder: Any, split: str) -> Split:
    info = builder.info.splits[split]
    classes = builder.info.features["label"].num_classes
    images = np.empty((info.num_examples, 32, 32, 3), np.uint8)
    labels = np.empty(info.num_examples, np.int32)
    row = 0
    for file, length in zip(info.filepaths, info.shard_lengths, strict=True):
        end = row + length
        try:
            for example in _examples(builder, split, file, range(row, end)):
                image, label = _decode(example["image"]), int(example["label"])
                if image.shape != (32, 32, 3) or not 0 <= label < classes:
                    raise ValueError(f"an image of shape {image.shape} with label {label}")
                images[row], labels[row] = image, label
                row += 1
        except InputError:
            raise
        except Exception as error:  # array_record, protobuf and PIL have no error in common
            reason = "no such file" if not Path(file).is_file() else " ".join(str(error).split())
            at = row - (end - length)
            raise InputError(
                f"{file} cannot be read at record {at} of {length} ({reason}): "
                "prepare the data set again"
            ) from error
        if row != end:
            raise InputError(f"{file} holds {row - end + length} records, expected {length}")
    return Split(images, labels)


def _examples(builder: Any, split: str, file: Path, rows: range) -> Iterator[dict[str, Any]]:
    """The examples of one shard, which holds these rows of the split; images still encoded."""
    import tensorflow_datasets as tfds

    decoders = {"image": tfds.decode.SkipDecoding()}
    if builder.info.file_format == tfds.core.FileFormat.TFRECORD:
        parse = builder.info.features.deserialize_example_np
        for record in islice(tfrecord.read_records(Path(file)), len(rows) + 1):
            yield parse(record, decoders=decoders)
    else:
        records = builder.as_data_source(split, decoders=decoders)
        for at in range(0, len(rows), 500):  # in blocks, which array_record prefers
            yield from records.__getitems__(list(rows[at : at + 500]))


def _decode(encoded: bytes) -> np.ndarray:
    return np.asarray(open_image(io.BytesIO(encoded)).convert("RGB"))
