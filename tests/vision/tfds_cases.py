"""Small data sets as tensorflow-datasets prepares them."""

import io
import json
import struct

import numpy as np
from PIL import Image

from vision import tfrecord

CLASSES = [f"class_{label}" for label in range(10)]


def rows(count, seed):
    """Images and labels, each class as often as another."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return images, rng.permutation(np.arange(count) % 10)


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def example(image, label):
    from tensorflow_datasets.proto import tf_example_pb2

    message = tf_example_pb2.Example()
    message.features.feature["image"].bytes_list.value.append(image)
    message.features.feature["label"].int64_list.value.append(label)
    return message.SerializeToString()


def frame_records(records):
    """The content of a TFRecord file."""
    lengths = [struct.pack("<Q", len(record)) for record in records]
    checksums = [struct.pack("<I", tfrecord.masked_crc32c(length)) for length in lengths]
    parts = zip(lengths, checksums, records, strict=True)
    return b"".join(length + checksum + record + bytes(4) for length, checksum, record in parts)


def write_tfrecord(path, records):
    path.write_bytes(frame_records(records))


def write_array_record(path, records):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def write_tfds(folder, form="array_record", name="cifar10", seed=0, encode=png, counts=(100, 20)):
    """A prepared data set of `counts` rows in two shards each, with its json files."""
    folder.mkdir(parents=True)
    splits = []
    for split, count in zip(("train", "test"), counts, strict=True):
        images, labels = rows(count, seed + count)
        records = [example(encode(image), int(label)) for image, label in zip(images, labels)]  # noqa: B905
        write = write_tfrecord if form == "tfrecord" else write_array_record
        write(folder / f"{name}-{split}.{form}-00000-of-00002", records[: count // 4])
        write(folder / f"{name}-{split}.{form}-00001-of-00002", records[count // 4 :])
        splits.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(sum(map(len, records))),
                "shardLengths": [str(count // 4), str(count - count // 4)],
            }
        )
    info = {"fileFormat": form, "name": name, "splits": splits, "version": folder.name}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    package = "tensorflow_datasets.core.features"
    shape = {"dimensions": ["32", "32", "3"]}
    features = {
        "image": {
            "image": {"dtype": "uint8", "shape": shape},
            "pythonClassName": f"{package}.image_feature.Image",
        },
        "label": {
            "classLabel": {"numClasses": "10"},
            "pythonClassName": f"{package}.class_label_feature.ClassLabel",
        },
    }
    (folder / "features.json").write_text(
        json.dumps(
            {
                "featuresDict": {"features": features},
                "pythonClassName": f"{package}.features_dict.FeaturesDict",
            }
        )
    )
    (folder / "label.labels.txt").write_text("\n".join(CLASSES) + "\n")
    return folder
