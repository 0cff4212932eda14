"""Look-up, reading without TensorFlow, cache, split and statistics."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from common.errors import InputError
from tests.vision.tfds_cases import CLASSES, png, rows, write_tfds
from vision import cifar_archives, datasets, download, tfds_folder
from vision.arrays import channel_statistics, stratified
from vision.datasets import load

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data" / "tfds"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/tfds is absent")


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """No cache and no data but what a test makes; small originals."""
    monkeypatch.setenv("ATHANOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(cifar_archives, "TRAIN_ROWS", 100)
    monkeypatch.setattr(cifar_archives, "TEST_ROWS", 20)


def silent(line):
    pass


def write_batches(folder, seed=0):
    """The original binary form of the same rows."""
    folder.mkdir(parents=True)
    tables = []
    for count in (100, 20):
        images, labels = rows(count, seed + count)
        planes = images.transpose(0, 3, 1, 2).reshape(count, -1)
        tables.append(np.column_stack([labels, planes]).astype(np.uint8))
    for number, part in enumerate(np.split(tables[0], 5), start=1):
        (folder / f"data_batch_{number}.bin").write_bytes(part.tobytes())
    (folder / "test_batch.bin").write_bytes(tables[1].tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    return folder


def check(data, seed=0):
    """`data`, loaded with val_fraction=0, holds what the writers wrote."""
    for split, count in ((data.train, 100), (data.test, 20)):
        images, labels = rows(count, seed + count)
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32
    assert data.classes == tuple(CLASSES)


cifar10 = partial(load, "cifar10", val_fraction=0, log=silent)


# Arguments


def test_arguments_that_cannot_be(tmp_path):
    for message, call in {
        "--dataset=mnist is unknown: choose one of cifar10, cifar100, digits, folder": partial(
            load, "mnist"
        ),
        "--data_dir is not used by --dataset=digits": partial(load, "digits", data_dir="x"),
        "--dataset=folder needs --data_dir": partial(load, "folder"),
        "--val_fraction=1.0 must": partial(load, "digits", val_fraction=1.0),
        "--val_fraction=-0.1 must": partial(load, "digits", val_fraction=-0.1),
        "--val_fraction=nan must": partial(load, "digits", val_fraction=float("nan")),
        "--val_fraction=0.999 leaves a class without": partial(
            load, "digits", val_fraction=0.999, log=silent
        ),
        "--seed=-1 must": partial(load, "digits", seed=-1),
    }.items():
        with pytest.raises(InputError, match=message.replace(".", r"\.")):
            call()


# digits


def test_digits():
    data = load("digits", val_fraction=0.2, log=silent)
    other = load("digits", val_fraction=0.2, seed=1, log=silent)
    whole = load("digits", val_fraction=0, log=silent)
    assert data.classes == tuple("0123456789") and data.train.images.shape[1:] == (32, 32, 3)
    assert len(whole.train.labels) + len(whole.test.labels) == 1797
    assert whole.val.images.shape == (0, 32, 32, 3) and whole.val.labels.shape == (0,)
    np.testing.assert_array_equal(data.test.images, other.test.images)
    assert not np.array_equal(data.val.images, other.val.images)
    assert data.fingerprint == other.fingerprint == whole.fingerprint
    every = np.bincount(np.concatenate([whole.train.labels, whole.test.labels]))
    for labels, total in (
        (whole.test.labels, every),
        (data.val.labels, np.bincount(whole.train.labels)),
    ):
        assert np.bincount(labels).tolist() == [round(0.2 * count) for count in total]


def test_digits_are_the_ones_of_scikit_learn():
    from sklearn.datasets import load_digits

    data = load("digits", val_fraction=0, log=silent)
    images = np.concatenate([data.train.images, data.test.images])
    assert (images[..., :1] == images).all()
    corners = np.rint(images[:, 0, 0, 0] / 255 * 16), np.rint(images[:, -1, -1, 0] / 255 * 16)
    labels = np.concatenate([data.train.labels, data.test.labels])
    original = load_digits()
    # Bilinear enlargement leaves the corners as they are, and the mean nearly so.
    for corner, place in zip(corners, (0, -1), strict=True):
        seen = sorted(zip(labels.tolist(), corner.tolist(), strict=True))
        levels = original.images[:, place, place].tolist()
        assert seen == sorted(zip(original.target.tolist(), levels, strict=True))
    assert abs(images.mean() / 255 - original.images.mean() / 16) < 0.005


# Split and statistics


def test_split_is_stratified_sorted_and_seeded():
    labels = np.repeat([0, 1, 2], [40, 15, 5])[np.random.default_rng(0).permutation(60)]
    kept, held = stratified(labels, 0.2, seed=3)
    assert np.bincount(labels[held]).tolist() == [8, 3, 1]
    assert sorted([*kept, *held]) == list(range(60))
    assert (np.diff(kept) > 0).all() and (np.diff(held) > 0).all()
    np.testing.assert_array_equal(stratified(labels, 0.2, seed=3)[1], held)
    assert not np.array_equal(stratified(labels, 0.2, seed=4)[1], held)


def test_split_does_not_change_from_one_version_to_the_next():
    _, held = stratified(np.arange(50_000) % 10, 0.1, seed=0)
    assert len(held) == 5000
    assert hashlib.sha256(held.astype("<i8")).hexdigest()[:8] == "af1098a0"


def test_a_share_of_the_training_images():
    whole = load("digits", val_fraction=0.2, seed=1, log=silent)
    half, tenth = (
        load("digits", val_fraction=0.2, train_fraction=share, seed=1, log=silent)
        for share in (0.5, 0.1)
    )
    counts = np.bincount(whole.train.labels)
    assert np.bincount(half.train.labels).tolist() == [round(0.5 * count) for count in counts]
    pixels = [{image.tobytes() for image in data.train.images} for data in (tenth, half, whole)]
    assert pixels[0] < pixels[1] < pixels[2]
    np.testing.assert_array_equal(half.val.images, whole.val.images)
    np.testing.assert_array_equal(half.test.images, whole.test.images)
    scaled = half.train.images.astype(np.float64) / 255
    np.testing.assert_allclose(half.mean, scaled.mean((0, 1, 2)), rtol=1e-6)
    other = load("digits", val_fraction=0.2, train_fraction=0.5, seed=2, log=silent)
    assert not np.array_equal(other.train.images[:50], half.train.images[:50])
    with pytest.raises(InputError, match="--train_fraction=0.001 leaves a class without"):
        load("digits", train_fraction=0.001, log=silent)


def test_statistics_are_those_of_the_training_part():
    data = load("digits", val_fraction=0.3, seed=5, log=silent)
    scaled = data.train.images.astype(np.float64) / 255
    np.testing.assert_allclose(data.mean, scaled.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(data.std, scaled.std((0, 1, 2)), rtol=1e-6)
    assert data.mean.dtype == data.std.dtype == np.float32 and data.mean.shape == (3,)
    again = load("digits", val_fraction=0.3, seed=5, log=silent)  # now from the cache
    np.testing.assert_array_equal(again.mean, data.mean)
    np.testing.assert_array_equal(again.std, data.std)
    assert load("digits", val_fraction=0, log=silent).mean[0] != data.mean[0]


def test_a_constant_channel_can_be_divided_by():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 2), dtype=np.uint8)
    images[..., 1] = 51
    mean, std = channel_statistics(images)
    assert mean[1] == np.float32(0.2) and std[1] == 1 and std[0] > 0.2


# tensorflow-datasets folders


@pytest.mark.parametrize("form", ["array_record", "tfrecord"])
def test_tfds_root_data_set_and_version_folder(tmp_path, form):
    version = write_tfds(tmp_path / "data" / "cifar10" / "3.0.2", form)
    for path in (version, version.parent, version.parent.parent):
        data = cifar10(data_dir=str(path))
        check(data)
        assert data.source == str(version) and data.name == "cifar10"


def test_the_newest_finished_version(tmp_path):
    write_tfds(tmp_path / "data" / "cifar10" / "3.0.2")
    write_tfds(tmp_path / "data" / "cifar10" / "3.0.10", seed=7)
    write_tfds(tmp_path / "data" / "cifar10" / "incomplete.ABC_3.1.0", seed=8)
    check(cifar10(data_dir=str(tmp_path / "data")), seed=7)


@pytest.mark.parametrize("form", ["array_record", "tfrecord"])
def test_tensorflow_is_not_imported(tmp_path, form):
    folder = write_tfds(tmp_path / "data" / "cifar10" / "3.0.2", form)
    code = (
        "import sys\n"
        "from vision.datasets import load\n"
        f"load('cifar10', data_dir={str(folder)!r})\n"
        "assert 'tensorflow_datasets' in sys.modules and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    code = (
        "import sys\n"
        "from vision.datasets import load\n"
        f"load('cifar10', data_dir={str(folder)!r})\n"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'sklearn', 'PIL', 'jax'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)  # warm: nothing at all


@pytest.mark.parametrize("form", ["array_record", "tfrecord"])
@pytest.mark.parametrize("harm", ["gone", "short", "empty", "fewer", "zeros"])
def test_damaged_shard_is_named(tmp_path, form, harm):
    folder = write_tfds(tmp_path / "cifar10" / "3.0.2", form)
    shard = folder / f"cifar10-train.{form}-00001-of-00002"
    content = shard.read_bytes()
    if harm == "gone":
        shard.unlink()
    elif harm == "fewer":
        shard.write_bytes((folder / f"cifar10-train.{form}-00000-of-00002").read_bytes())
    else:
        half = len(content) // 2
        middle = content[: half - 9000] + bytes(9000) + content[half:]
        shard.write_bytes({"short": content[:half], "empty": b"", "zeros": middle}[harm])
    with pytest.raises(InputError, match=rf"{shard.name}.*(prepare|expected 75)"):
        cifar10(data_dir=str(folder))


def test_undecodable_record_is_named(tmp_path):
    folder = write_tfds(tmp_path / "3.0.2", encode=lambda image: png(image)[:200])
    with pytest.raises(InputError, match=r"train\.array_record-00000-of-00002 .* record 0 of 25"):
        cifar10(data_dir=str(folder))


def test_images_of_another_size_are_refused(tmp_path):
    folder = write_tfds(tmp_path / "3.0.2", encode=lambda image: png(image[:1, :1]))
    with pytest.raises(InputError, match=r"an image of shape \(1, 1, 3\)"):
        cifar10(data_dir=str(folder))


def test_damaged_dataset_info_is_named(tmp_path):
    folder = write_tfds(tmp_path / "3.0.2")
    (folder / "dataset_info.json").write_text('{"name": "cif')
    with pytest.raises(InputError, match=r"dataset_info\.json cannot be read"):
        cifar10(data_dir=str(folder))


def test_prepared_data_import_no_module_and_take_no_more_memory_than_cifar(tmp_path, monkeypatch):
    folder = write_tfds(tmp_path / "3.0.2")
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    original = (folder / "features.json").read_text()
    name = "tensorflow_datasets.core.features.image_feature.Image"
    (folder / "features.json").write_text(original.replace(name, "evil.Image"))
    with pytest.raises(InputError, match="features.json names 'evil.Image'"):
        cifar10(data_dir=str(folder))
    (folder / "features.json").write_text(original)
    info = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(info.replace('"25"', '"1000000000000"'))
    with pytest.raises(InputError, match="its train split has more examples than CIFAR"):
        cifar10(data_dir=str(folder))
    (folder / "dataset_info.json").write_text(info.replace('"train"', '"other"'))
    with pytest.raises(InputError, match="it has no train split"):
        cifar10(data_dir=str(folder))


# Other forms and the order of look-up


def test_tfds_comes_before_batches(tmp_path):
    write_batches(tmp_path / "data" / "cifar-10-batches-bin", seed=5)
    check(cifar10(data_dir=str(tmp_path / "data")), seed=5)
    write_tfds(tmp_path / "data" / "cifar10" / "3.0.2")
    check(cifar10(data_dir=str(tmp_path / "data")))


def test_cifar_in_class_folders(tmp_path):
    for part, count in (("train", 100), ("test", 20)):
        for number, (image, label) in enumerate(zip(*rows(count, count), strict=True)):
            folder = tmp_path / part / CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.png").write_bytes(png(image))
    data = cifar10(data_dir=str(tmp_path))
    images, labels = rows(100, 100)
    order = np.lexsort([[f"{number}.png" for number in range(100)], labels])
    np.testing.assert_array_equal(data.train.images, images[order])
    assert data.classes == tuple(CLASSES)
    with pytest.raises(
        InputError, match="has 10 class folders, cifar100 has 100: --dataset=folder"
    ):
        load("cifar100", data_dir=str(tmp_path), log=silent)
    assert load("folder", data_dir=str(tmp_path), log=silent).train.labels.shape == (90,)


def test_data_dir_without_the_data(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        InputError, match="empty holds no cifar10: give a tensorflow-datasets folder"
    ):
        cifar10(data_dir=str(tmp_path / "empty"))
    with pytest.raises(InputError, match="absent does not exist"):
        cifar10(data_dir=str(tmp_path / "absent"))
    with pytest.raises(InputError, match="empty holds no folder: give train/"):
        load("folder", data_dir=str(tmp_path / "empty"))
    write_batches(tmp_path / "cifar-10-batches-bin")
    with pytest.raises(InputError, match="holds no cifar100 but cifar10"):
        load("cifar100", data_dir=str(tmp_path))


# No data_dir


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A local host for the registered archive; its folder."""
    folder = tmp_path / "host"
    write_batches(folder / "cifar-10-batches-bin")
    archive = folder / "cifar-10-binary.tar.gz"
    subprocess.run(["tar", "czf", archive, "-C", folder, "cifar-10-batches-bin"], check=True)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    register(monkeypatch, f"http://127.0.0.1:{server.server_port}/{archive.name}", archive)
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


def register(monkeypatch, url, archive):
    """Make tensorflow-datasets say that cifar10 is this archive at `url`."""
    import tensorflow_datasets as tfds

    content = archive.read_bytes() if archive else b""
    info = SimpleNamespace(
        size=len(content), checksum=hashlib.sha256(content).hexdigest(), filename=Path(url).name
    )
    monkeypatch.setattr(tfds, "builder_cls", lambda name: SimpleNamespace(url_infos={url: info}))


def test_default_folder_prepared_and_archive(tmp_path, host, monkeypatch):
    monkeypatch.setattr(datasets, "_has_tensorflow", lambda: False)
    lines = []
    data = cifar10(log=lines.append)
    check(data)
    archive = tmp_path / "tfds" / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    assert data.source == str(archive) and "tens of kB/s" in lines[0]
    register(monkeypatch, "http://127.0.0.1:1/", None)  # from now on no network
    check(cifar10())
    write_tfds(tmp_path / "tfds" / "cifar10" / "3.0.2", seed=3)
    check(cifar10(), seed=3)


def test_prepared_by_tensorflow_where_that_works(tmp_path, host, monkeypatch):
    monkeypatch.setattr(datasets, "_has_tensorflow", lambda: True)

    def prepare(name, tfds_dir, archives):
        assert (archives / "cifar-10-binary.tar.gz").is_file()
        write_tfds(tfds_dir / name / "3.0.2", seed=9)

    monkeypatch.setattr(datasets, "_prepare", prepare)
    check(cifar10(), seed=9)


def test_a_broken_tensorflow_does_not_waste_the_download(host, monkeypatch):
    monkeypatch.setattr(datasets, "_has_tensorflow", lambda: True)

    def prepare(*_):
        raise ImportError("libcudart.so is missing")

    monkeypatch.setattr(datasets, "_prepare", prepare)
    lines = []
    check(cifar10(log=lines.append))
    assert any("libcudart.so is missing" in line for line in lines)


def test_without_data_and_network_one_message_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.5)
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(20) and [])
    start = time.monotonic()
    with pytest.raises(InputError) as caught:
        cifar10()
    over.set()
    assert time.monotonic() - start < 5  # most of it tensorflow-datasets' import
    message = str(caught.value)
    for part in (
        str(tmp_path / "tfds"),
        str(tmp_path / "tfds" / "downloads" / "manual"),
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "--data_dir",
        "original python or binary batches",
        "--dataset=digits",
    ):
        assert part in message
    assert "\n" not in message and not (tmp_path / "tfds").exists()


def test_the_registered_archives_are_the_known_ones():
    import tensorflow_datasets as tfds

    for name, layouts in cifar_archives.LAYOUTS.items():
        [(url, info)] = tfds.builder_cls(name).url_infos.items()
        layout = {layout.archive: layout for layout in layouts}[info.filename]
        assert int(info.size) == layout.archive_bytes and len(info.checksum) == 64
        assert url.startswith("https://")


# Cache


def cache_folder(tmp_path):
    [folder] = (tmp_path / "cache").iterdir()
    return folder


def test_the_second_load_decodes_nothing(tmp_path, monkeypatch):
    folder = write_tfds(tmp_path / "data" / "cifar10" / "3.0.2")
    lines = []
    first = cifar10(data_dir=str(folder), log=lines.append)
    assert len(lines) == 1 and str(folder) in lines[0]
    with monkeypatch.context() as patch:
        patch.setattr(tfds_folder, "_read", lambda folder: pytest.fail("decoded again"))
        second = cifar10(data_dir=str(folder), log=lines.append)
    check(second)
    assert len(lines) == 1 and second.fingerprint == first.fingerprint
    assert second.train.images.flags.writeable and type(second.test.images) is np.ndarray


def test_a_changed_source_is_read_again_in_place_of_the_old(tmp_path):
    folder = write_batches(tmp_path / "cifar-10-batches-bin")
    first = cifar10(data_dir=str(folder))
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    write_batches(folder, seed=4)
    os.utime(folder / "test_batch.bin", (1, 1))
    second = cifar10(data_dir=str(folder))
    check(second, seed=4)
    assert second.fingerprint != first.fingerprint
    cache_folder(tmp_path)  # one, not two


@pytest.mark.parametrize(
    "harm", ["flipped", "short", "pickled", "gone", "info", "classes", "statistics"]
)
def test_a_damaged_cache_is_ignored_and_replaced(tmp_path, harm):
    folder = write_batches(tmp_path / "cifar-10-batches-bin")
    first = cifar10(data_dir=str(folder))
    cache = cache_folder(tmp_path)
    pixels = cache / "train_images.npy"
    if harm == "flipped":
        content = bytearray(pixels.read_bytes())
        content[5000] ^= 1
        pixels.write_bytes(content)
    elif harm == "short":
        pixels.write_bytes(pixels.read_bytes()[:-1])
    elif harm == "pickled":
        np.save(pixels, np.array([{}], object), allow_pickle=True)
    elif harm == "gone":
        pixels.unlink()
    elif harm == "info":
        (cache / "info.json").write_text("[]")
    elif harm == "classes":
        info = json.loads((cache / "info.json").read_text())
        (cache / "info.json").write_text(json.dumps({**info, "classes": None}))
    else:
        [noted] = cache.glob("statistics-*.json")
        noted.write_text('{"mean": [NaN], "std": [0], "fingerprint": "' + first.fingerprint + '"}')
    lines = []
    second = cifar10(data_dir=str(folder), log=lines.append)
    check(second)
    np.testing.assert_array_equal(second.mean, first.mean)
    assert harm == "statistics" or ("unusable" in lines[0] and str(cache) in lines[0])
    lines.clear()
    check(cifar10(data_dir=str(folder), log=lines.append))
    assert lines == []


def test_a_cache_that_cannot_be_written_is_told_and_ignored(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ATHANOR_CACHE", str(tmp_path / "file" / "cache"))
    folder = write_batches(tmp_path / "cifar-10-batches-bin")
    lines = []
    check(cifar10(data_dir=str(folder), log=lines.append))
    assert "cannot be written" in lines[-1] and "ATHANOR_CACHE" in lines[-1]


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.delenv("ATHANOR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load("digits", log=silent)
    assert (tmp_path / "xdg" / "athanor").is_dir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    load("digits", log=silent)
    assert (tmp_path / "home" / ".cache" / "athanor").is_dir()


# Real data


@needs_real
def test_real_cifar10(tmp_path):
    code = (
        "import sys\n"
        "from vision.datasets import load\n"
        f"load('cifar10', data_dir={str(REAL)!r})\n"
        "assert 'tensorflow_datasets' in sys.modules and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    lines = []
    data = load("cifar10", data_dir=str(REAL), val_fraction=0, log=lines.append)
    assert lines == []  # the cache of the subprocess
    np.testing.assert_allclose(data.mean, [0.4914, 0.4822, 0.4465], atol=1e-4)
    np.testing.assert_allclose(data.std, [0.2470, 0.2435, 0.2616], atol=1e-4)
    split = load("cifar10", data_dir=str(REAL), log=lines.append)
    assert len(split.train.labels) == 45_000 and len(split.val.labels) == 5_000
    assert np.bincount(split.val.labels).tolist() == [500] * 10
    assert np.bincount(split.test.labels).tolist() == [1000] * 10
    assert split.classes[:3] == ("airplane", "automobile", "bird")
