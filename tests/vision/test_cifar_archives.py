"""The published CIFAR batches, genuine, damaged and hostile."""

import io
import pickle
import tarfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from common.errors import InputError
from vision import cifar_archives
from vision.cifar_archives import LAYOUTS
from vision.cifar_pickle import read_pickle

FORMS = [(name, layout) for name, layouts in LAYOUTS.items() for layout in layouts]
FORM_IDS = [layout.folder for _, layout in FORMS]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(cifar_archives, "TRAIN_ROWS", 20)
    monkeypatch.setattr(cifar_archives, "TEST_ROWS", 6)


class OldPickler(pickle._Pickler):
    """Writes byte strings and numpy's old module names, as Python 2 did for the originals."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes

    def save_global(self, value, name=None):
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(b"c" + f"{module}\n{value.__qualname__}\n".encode())

    dispatch[type] = dispatch[type(save_global)] = save_global


def old_pickle(value):
    stream = io.BytesIO()
    OldPickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def new_pickle(value):
    return pickle.dumps(value, protocol=2)


def batches(layout, dump=old_pickle):
    """The files of one form, {name: content}, and the (images, labels) of both splits."""
    rng = np.random.default_rng(len(layout.folder))
    classes = 10 if layout in LAYOUTS["cifar10"] else 100
    names = [f"class_{number}" for number in range(classes)]
    files, splits = {}, []
    for group, rows in ((layout.train, 20), (layout.test, 6)):
        images = rng.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8)
        labels = rng.integers(0, classes, rows)
        splits.append((images, labels))
        pairs = zip(np.split(images, len(group)), np.split(labels, len(group)), strict=True)
        for file, (part, part_labels) in zip(group, pairs, strict=True):
            planes = part.transpose(0, 3, 1, 2).reshape(len(part), -1)
            if layout.label_bytes:
                columns = [part_labels % 20, part_labels][-layout.label_bytes :]
                table = np.column_stack([*columns, planes]).astype(np.uint8)
                files[file] = table.tobytes()
            else:
                key = layout.labels_key.encode()
                listed = [int(label) for label in part_labels]
                files[file] = dump({b"data": planes, key: listed, b"batch_label": b"a batch"})
    if layout.label_bytes:
        files[layout.meta] = ("\n".join(names) + "\n\n").encode()
    else:
        encoded = [name.encode() for name in names]
        files[layout.meta] = dump({layout.names_key.encode(): encoded, b"num_vis": 3072})
    return files, splits, tuple(names)


def write_folder(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def write_archive(path, members):
    """members: (TarInfo or name, content)."""
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def members_of(layout, files):
    return [(f"{layout.folder}/{name}", content) for name, content in files.items()]


def check(arrays, splits, names):
    assert arrays.classes == names
    for split, (images, labels) in zip((arrays.train, arrays.test), splits, strict=True):
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)


@pytest.mark.parametrize(("name", "layout"), FORMS, ids=FORM_IDS)
def test_folder_and_its_parent(tmp_path, name, layout):
    files, splits, names = batches(layout)
    write_folder(tmp_path / layout.folder, files)
    for path in (tmp_path, tmp_path / layout.folder):
        check(cifar_archives.find(name, path).read(), splits, names)
    other = "cifar100" if name == "cifar10" else "cifar10"
    assert cifar_archives.find(other, tmp_path) is None


@pytest.mark.parametrize(("name", "layout"), FORMS, ids=FORM_IDS)
def test_archive_by_itself_and_by_its_folder(tmp_path, name, layout):
    files, splits, names = batches(layout)
    write_archive(tmp_path / layout.archive, members_of(layout, files))
    for path in (tmp_path, tmp_path / layout.archive):
        check(cifar_archives.find(name, path).read(), splits, names)
    renamed = (tmp_path / layout.archive).rename(tmp_path / "mine.tgz")
    check(cifar_archives.find(name, renamed).read(), splits, names)
    other = "cifar100" if name == "cifar10" else "cifar10"
    assert cifar_archives.find(other, renamed) is None


def test_pickles_of_python_3(tmp_path):
    layout = LAYOUTS["cifar10"][0]
    files, splits, names = batches(layout, new_pickle)
    write_folder(tmp_path / layout.folder, files)
    check(cifar_archives.find("cifar10", tmp_path).read(), splits, names)


def test_missing_batch_is_named(tmp_path):
    layout = LAYOUTS["cifar10"][1]
    files, *_ = batches(layout)
    del files["data_batch_3.bin"]
    write_folder(tmp_path / layout.folder, files)
    with pytest.raises(InputError, match=r"lacks data_batch_3\.bin"):
        cifar_archives.find("cifar10", tmp_path)
    write_archive(tmp_path / "a.tar.gz", members_of(layout, files))
    with pytest.raises(InputError, match=r"a\.tar\.gz lacks cifar-10-batches-bin/data_batch_3"):
        cifar_archives.find("cifar10", tmp_path / "a.tar.gz").read()


def test_truncated_binary_batch_tells_both_sizes(tmp_path):
    layout = LAYOUTS["cifar10"][1]
    files, *_ = batches(layout)
    files["test_batch.bin"] = files["test_batch.bin"][:-100]
    write_folder(tmp_path / layout.folder, files)
    with pytest.raises(InputError, match=r"test_batch\.bin: 18,338 bytes, expected 18,438"):
        cifar_archives.find("cifar10", tmp_path).read()


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("where", ["top", "value", "meta"])
def test_hostile_pickle_runs_nothing(tmp_path, where):
    layout = LAYOUTS["cifar10"][0]
    files, *_ = batches(layout)
    mark = tmp_path / "pwned"
    evil = Evil(Path.touch, mark)
    bad = new_pickle(evil if where == "top" else {b"data": evil, b"labels": []})
    pickle.loads(bad)
    assert mark.exists()  # the attack is a real one
    mark.unlink()
    file = layout.meta if where == "meta" else "data_batch_2"
    write_folder(tmp_path / layout.folder, {**files, file: bad})
    with pytest.raises(InputError, match=rf"{file} .*it refers to "):
        cifar_archives.find("cifar10", tmp_path).read()
    assert not mark.exists()


STANDS = b"cnumpy\nndarray\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02}q\x01.",
        b"\x80\x02]q\x01.",
        b"not a pickle",
        b"\x80\x02" + STANDS + b"}b.",  # state for the stand-in class itself
        b"\x80\x02" + STANDS + b"N}X\x0c\x00\x00\x00__setstate__Ns\x86b.",
        b"\x80\x02}(X\x04\x00\x00\x00data" + STANDS + b")\x81X\x06\x00\x00\x00labels]u.",
        old_pickle({b"data": np.zeros((4, 3072), np.float32), b"labels": [0] * 4}),
        old_pickle({b"data": np.zeros((4, 3071), np.uint8), b"labels": [0] * 4}),
        old_pickle({b"data": np.zeros((4, 3072), np.uint8), b"labels": [0] * 3}),
        old_pickle({b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2, 10]}),
        old_pickle({b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2, "3"]}),
        old_pickle({b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2, -1]}),
        old_pickle({b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2, 3]})[:9000],
    ],
)
def test_damaged_python_batch_is_named(tmp_path, content):
    layout = LAYOUTS["cifar10"][0]
    files, *_ = batches(layout)
    write_folder(tmp_path / layout.folder, {**files, "data_batch_1": content})
    with pytest.raises(InputError, match="data_batch_1.*fetch it again"):
        cifar_archives.find("cifar10", tmp_path).read()


def test_a_small_pickle_that_asks_for_much_is_refused_soon():
    """Each makes an unpickler take gigabytes, or hours."""
    nested = b"\x80\x02}(K\x00" + b"q\x00h\x00\x86" * 200 + b"K\x00u."  # a key of 2^200 parts
    places = b"\x80\x02}r\xff\xff\xff\x7f."  # a table of 2^31 places
    endless = b"\x80\x02" + b"N0" * (1 << 20) + b"."
    for content in (nested, places, endless, b"\x80\x02X\xff\xff\xff\xff."):
        with (
            pytest.raises(InputError, match="fetch it again")
            if content != places
            else nullcontext()
        ):
            read_pickle(content, "batch")


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "odd",
    [
        "/etc/athanor-passwd",
        "cifar-10-batches-bin/../../escape",
        special("cifar-10-batches-bin/link", tarfile.SYMTYPE, "/etc/passwd"),
        special("cifar-10-batches-bin/hard", tarfile.LNKTYPE, "../secret"),
        special("cifar-10-batches-bin/tty", tarfile.CHRTYPE),
        special("cifar-10-batches-bin/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda odd: odd if isinstance(odd, str) else odd.name,
)
def test_odd_members_are_refused(tmp_path, odd):
    layout = LAYOUTS["cifar10"][1]
    files, *_ = batches(layout)
    members = members_of(layout, files)
    write_archive(tmp_path / "a.tar.gz", [*members[:2], (odd, b""), *members[2:]])
    with pytest.raises(InputError, match=r"a\.tar\.gz .*has no place in it"):
        cifar_archives.find("cifar10", tmp_path / "a.tar.gz").read()
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_a_member_that_comes_twice_is_refused(tmp_path):
    layout = LAYOUTS["cifar10"][1]
    members = members_of(layout, batches(layout)[0])
    write_archive(tmp_path / "a.tar.gz", [*members, members[0]])
    with pytest.raises(InputError, match="is in it twice"):
        cifar_archives.find("cifar10", tmp_path / "a.tar.gz").read()


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar_archives, "MAX_UNPACKED", 200_000)
    layout = LAYOUTS["cifar10"][1]
    members = members_of(layout, batches(layout)[0])
    for bomb in ("cifar-10-batches-bin/other", members[0][0]):
        rest = [member for member in members if member[0] != bomb]
        write_archive(tmp_path / "a.tar.gz", [(bomb, bytes(1 << 20)), *rest])
        with pytest.raises(InputError, match="unpacks to more than|claims 1,048,576 bytes"):
            cifar_archives.find("cifar10", tmp_path / "a.tar.gz").read()


@pytest.mark.parametrize("harm", ["short", "flipped", "empty", "no gzip", "no tar"])
def test_damaged_archive_is_named_with_its_size(tmp_path, harm):
    import gzip

    layout = LAYOUTS["cifar10"][1]
    archive = tmp_path / layout.archive
    write_archive(archive, members_of(layout, batches(layout)[0]))
    content = bytearray(archive.read_bytes())
    if harm == "flipped":
        content[len(content) // 2] ^= 0xFF
    changed = {
        "short": bytes(content[: len(content) // 2]),
        "flipped": bytes(content),
        "empty": b"",
        "no gzip": b"<html>blocked</html>",
        "no tar": gzip.compress(b"<html>blocked</html>" * 100),
    }[harm]
    archive.write_bytes(changed)
    message = rf"cifar-10-binary\.tar\.gz \({len(changed):,} bytes, the original has 170,052,171\)"
    with pytest.raises(InputError, match=message):
        cifar_archives.find("cifar10", archive).read()
