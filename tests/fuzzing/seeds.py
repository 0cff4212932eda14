"""Small valid files of every kind that the program reads, which tests damage."""

import gzip
import io
import json
import pickle
import tarfile
import tempfile
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.vision.tfds_cases import frame_records, write_tfds
from text import config as text_config
from vision import cifar_archives
from vision import config as vision_config
from vision.arrays import Arrays, Split, fingerprint


def images() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 4), dtype=np.uint8)
    rgb, clear = Image.fromarray(pixels[..., :3]), Image.fromarray(pixels)
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: list[tuple[Any, dict[str, Any]]] = [
        *((rgb, {"format": form}) for form in ("png", "bmp", "tiff", "webp")),
        (rgb, {"format": "jpeg", "exif": exif}),
        (rgb.convert("CMYK"), {"format": "jpeg"}),
        (rgb.convert("CMYK"), {"format": "tiff", "compression": "tiff_lzw"}),
        (rgb, {"format": "gif", "save_all": True, "append_images": [rgb.rotate(90)]}),
        (rgb.quantize(16), {"format": "png", "transparency": bytes(range(16))}),
        (clear, {"format": "webp", "lossless": True}),
        *((deep, {"format": form}) for form in ("png", "tiff")),
    ]
    found = []
    for image, options in kinds:
        image.save(stream := io.BytesIO(), **options)
        found.append(stream.getvalue())
    return found


def batch(rows: int = 3) -> dict[bytes, Any]:
    pixels = np.random.default_rng(1).integers(0, 256, (rows, 3072), dtype=np.uint8)
    return {b"batch_label": b"a batch", b"data": pixels, b"labels": [*range(rows)]}


def pickles() -> list[bytes]:
    names = {b"label_names": [b"cat", b"dog"], b"num_vis": 3072}
    return [pickle.dumps(each, protocol=p) for p in (2, 3, 4) for each in (batch(), names)]


def tars() -> list[bytes]:
    layout = cifar_archives.LAYOUTS["cifar10"][1]
    row = bytes([3]) + bytes(range(256)) * 12
    contents = dict.fromkeys((*layout.train, *layout.test), row) | {layout.meta: b"a\n" * 10}
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(fileobj=(stream := io.BytesIO()), mode="w", format=form) as tar:
            for name, content in contents.items():
                info = tarfile.TarInfo(f"{layout.folder}/{name}")
                info.size = len(content)
                info.pax_headers = {"comment": "x" * 120}
                tar.addfile(info, io.BytesIO(content))
        found.append(stream.getvalue())
    return [*found, gzip.compress(found[0], mtime=0)]


def records() -> list[bytes]:
    return [frame_records([b"", b"record", bytes(300)]), frame_records([])]


@cache
def tfds_files() -> dict[str, bytes]:
    """A prepared data set, by file name."""
    with tempfile.TemporaryDirectory() as parent:
        folder = write_tfds(Path(parent, "3.0.2"), "tfrecord", counts=(4, 4))
        return {file.name: file.read_bytes() for file in folder.iterdir()}


def corpora(form: str) -> list[bytes]:
    by_form = {
        "xml": [
            '<?xml version="1.0" encoding="UTF-8"?><sentences><sentence id="a"><text>Der \u05d0 '
            'b&#228;&amp;</text><aspectTerms><aspectTerm term="b" from="6" to="7"/></aspectTerms>'
            "</sentence></sentences>".encode(),
            b'<Reviews><Review><sentences><sentence id="1"><text>Good food</text><Opinions>'
            b'<Opinion target="food" category="F" from="5" to="9"/><Opinion target="NULL"/>'
            b"</Opinions></sentence></sentences></Review></Reviews>",
            '<?xml version="1.0" encoding="UTF-16"?><s><sentence><text>x</text></sentence></s>'
            .encode("utf-16"),
        ],
        "conll": [
            b"Good\tO\nfood\tB-ASP\n\nNo O\n".replace(b" ", b"\t"),
            "\u9664 NN O\n\u4e86 NN B\n\n\u5c4f NN I\r\n".encode(),
        ],
        "jsonl": [
            b'{"text": "Good food", "terms": [[5, 9]]}\n{"text": "No", "id": 7, "terms": []}\n',
            b'\xef\xbb\xbf{"text": "a \\ud83d\\ude00 b", "terms": [{"from": 4, "to": 5, '
            b'"term": "b"}]}\r{"text": "\\u05d0\\u0301"}',
        ],
        "txt": ["One.\r\nTwo\u2028is one\rthree\x0b\x0c\x85\n\n\u05d0\u0301".encode()],
    }  # fmt: skip
    return by_form[form]


def vectors() -> list[bytes]:
    matrix = np.array([[0.5, -2, 3e-3], [1, 2, 3]], np.float32)
    text = "2 3\nscreen 0.5 -2 3e-3\n\u05d0\u0301 1 2 3\n".encode()
    binary = b"2 3\n" + b"".join(
        word + b" " + row.tobytes() + b"\n" for word, row in zip((b"a", b"b"), matrix, strict=True)
    )
    return [text, text.partition(b"\n")[2], binary, gzip.compress(text, mtime=0)]


def packed(name: str) -> list[bytes]:
    entry = {"name": "a", "dimension": 3, "origin": "/nowhere", "whole": True}
    np.save(stream := io.BytesIO(), np.arange(6, dtype=np.float16).reshape(2, 3))
    files = {"sources.json": json.dumps([entry]).encode(), "0.words.txt": b"a\nb\\n\n"}
    return [(files | {"0.npy": stream.getvalue()})[name]]


def listed_runs() -> list[bytes]:
    settings = {"crf": True, "hidden_size": "8", "learning_rate": 0.01, "seed": 1, "data_dir": None}
    run = {"settings": settings, "workdir": "runs/a/seed1", "command": "python launch.py"}
    return [json.dumps({"runs": [run, run | {"workdir": "runs/b"}]}).encode()]


def studies() -> list[bytes]:
    return [
        b"question: Does it?\ntask: toy\nbase: {epochs: 3}\narms:\n  slow: {rate: 1e-3}\n"
        b"  fast: {rate: 2, label: 64}\nreported: {fast: 0.7}\nseeds: 2\n",
        b'question: "a\\u00e4"\ntask: toy\narms: {a: {rate: 1}, b: }\nmetric: test/loss\n'
        b"baseline: b\nshown: [gap/accuracy]\nname: x\n",
    ]


def configurations() -> list[bytes]:
    both = (vision_config.make_config({}), text_config.make_config({"crf": True}))
    return [json.dumps(asdict(config)).encode() for config in both]


def inputs() -> list[bytes]:
    three = [0.5, 0.25, 0.125]
    return [
        json.dumps({"classes": ["a", "b"], "mean": three, "std": three}).encode(),
        json.dumps({"words": ["a", "b"], "characters": ["a", "b"]}).encode(),
    ]


def cached(name: str) -> list[bytes]:
    images, labels = np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 1], np.int32)
    if name == "info.json":
        split = Split(images, labels)
        digest = fingerprint(Arrays(split, split, ("a", "b")))
        info = {"identity": "x", "classes": ["a", "b"], "fingerprint": digest}
        return [json.dumps(info).encode()]
    np.save(stream := io.BytesIO(), images if "images" in name else labels)
    return [stream.getvalue()]
