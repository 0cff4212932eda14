"""Single images and class folders."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from common.errors import InputError
from vision import image_folder
from vision.image_folder import find_images, read_image


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def no_log(line):
    raise AssertionError(f"unexpected line: {line}")


def test_right_size_keeps_its_pixels(tmp_path):
    pixels = noise(32, 32)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", pixels)), pixels)


def test_wide_image_is_cropped_in_its_centre(tmp_path):
    pixels = noise(64, 160)
    blocks = pixels[:, 48:112].reshape(32, 2, 32, 2, 3).mean((1, 3))
    result = read_image(save(tmp_path / "a.png", pixels)).astype(float)
    assert result.shape == (32, 32, 3)
    # Bilinear by a factor of 2 is a triangle over 4 pixels: near the block means, not at them.
    assert np.corrcoef(result.ravel(), blocks.ravel())[0, 1] > 0.85
    other = pixels[:, 46:110].reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.corrcoef(result.ravel(), other.ravel())[0, 1] < 0.5


def test_size_is_height_then_width(tmp_path):
    assert read_image(save(tmp_path / "a.png", noise(50, 60)), (20, 30)).shape == (20, 30, 3)


def test_small_image_is_enlarged(tmp_path):
    pixels = np.repeat(np.array([[0], [255]], np.uint8), 2, axis=1)
    result = read_image(save(tmp_path / "a.png", pixels))
    assert (
        result[0].max() == 0 and result[-1].min() == 255 and (np.diff(result[:, 0, 0]) >= 0).all()
    )


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "gif"])
def test_formats(tmp_path, suffix):
    smooth = np.linspace(40, 200, 32 * 32).reshape(32, 32).astype(np.uint8)
    result = read_image(save(tmp_path / f"a.{suffix}", np.stack([smooth] * 3, -1)))
    assert np.abs(result[..., 0].astype(int) - smooth).max() < 12


def test_modes(tmp_path):
    grey = noise(32, 32, 1)
    np.testing.assert_array_equal(
        read_image(save(tmp_path / "grey.png", grey)), np.stack([grey] * 3, -1)
    )
    deep = grey.astype(np.uint16) * 257
    np.testing.assert_array_equal(
        read_image(save(tmp_path / "deep.png", deep)), np.stack([grey] * 3, -1)
    )
    clear = noise(32, 32, 4)
    clear[..., 3] = np.where(np.arange(32) < 16, 0, 255)
    expected = np.where(np.arange(32)[:, None] < 16, 255, clear[..., :3])
    np.testing.assert_array_equal(read_image(save(tmp_path / "clear.png", clear)), expected)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    pixels = noise(32, 32)
    result = read_image(save(tmp_path / "a.png", pixels, exif=exif))
    np.testing.assert_array_equal(result, pixels[::-1, ::-1])


@pytest.mark.parametrize("content", [b"", b"text", "short"])
def test_undecodable_image_is_named(tmp_path, content):
    path = save(tmp_path / "bad image.png", noise(32, 32))
    path.write_bytes(path.read_bytes()[:1000] if content == "short" else content)
    with pytest.raises(InputError, match=r"bad image\.png does not decode as an image \("):
        read_image(path)
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "absent.png")


def test_find_images(tmp_path):
    for name in ("b.png", "a/z.JPG", "a/y.jpeg", "notes.txt", ".hidden.png", ".git/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a/y.jpeg", "a/z.JPG", "b.png"]
    assert find_images(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no images"):
        find_images(tmp_path / "empty")
    with pytest.raises(InputError, match="nothing does not exist"):
        find_images(tmp_path / "nothing")


def test_train_and_test_folders(tmp_path):
    pixels = {}
    for row, name in enumerate(("train/dog/1", "train/cat/2", "train/dog/deep/0", "test/dog/7")):
        pixels[name] = noise(32, 32, seed=row)
        save(tmp_path / f"{name}.png", pixels[name])
    arrays = image_folder.find(tmp_path, no_log).read()
    assert arrays.classes == ("cat", "dog")
    assert arrays.train.labels.tolist() == [0, 1, 1] and arrays.test.labels.tolist() == [1]
    order = ("train/cat/2", "train/dog/1", "train/dog/deep/0")
    np.testing.assert_array_equal(arrays.train.images, [pixels[name] for name in order])
    np.testing.assert_array_equal(arrays.test.images, [pixels["test/dog/7"]])


def test_numbered_classes_are_in_numerical_order(tmp_path):
    for label in range(11):
        for part in ("train", "test"):
            save(tmp_path / part / str(label) / "a.png", noise(4, 4))
    assert image_folder.find(tmp_path, no_log).read().classes == tuple(map(str, range(11)))


def test_class_folders_alone_are_split_the_same_way_each_time(tmp_path):
    for label, name in enumerate(("cat", "dog", "emu")):
        for row in range(10):
            save(tmp_path / name / f"{row}.png", noise(32, 32, seed=label * 10 + row))
    lines = []
    first = image_folder.find(tmp_path, lines.append).read()
    again = image_folder.find(tmp_path, lines.append).read()
    assert "has no train/ and test/" in lines[0]
    assert np.bincount(first.train.labels).tolist() == [8, 8, 8]
    assert np.bincount(first.test.labels).tolist() == [2, 2, 2]
    np.testing.assert_array_equal(first.test.images, again.test.images)
    pixels = {image.tobytes() for split in first[:2] for image in split.images}
    assert len(pixels) == 30


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["train/cat/a.png", "test/cat/a.png"],
            "train has one class folder, cat: add a folder for",
        ),
        (["cat/a.png"], "has one class folder, cat: add"),
        (["train/cat/a.png", "train/dog/a.png"], "has train/ but no test/"),
        (["test/cat/a.png", "test/dog/a.png"], "has test/ but no train/"),
        (
            ["train/cat/a.png", "train/dog/a.png", "test/emu/a.png"],
            "test/emu is a class that train/ lacks",
        ),
        (
            ["train/cat/a.png", "train/dog/a.txt", "test/cat/a.png"],
            "train/dog holds no images",
        ),
        (
            ["train/cat/a.png", "train/dog/a.png", "test/a.png"],
            "test has no class folders with images",
        ),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, files, message):
    for file in files:
        save(tmp_path / file, noise(4, 4)) if file.endswith("png") else _touch(tmp_path / file)
    with pytest.raises(InputError, match=message):
        image_folder.find(tmp_path, no_log)


def _touch(path):
    path.parent.mkdir(parents=True)
    path.touch()


def test_folders_without_images_are_no_data_set(tmp_path):
    _touch(tmp_path / "a" / "notes.txt")
    _touch(tmp_path / "b" / "notes.txt")
    assert image_folder.find(tmp_path, no_log) is None


def test_too_few_images_for_a_test_split(tmp_path):
    for name in ("cat", "dog"):
        save(tmp_path / name / "a.png", noise(4, 4))
    with pytest.raises(InputError, match="2 images are too few"):
        image_folder.find(tmp_path, lambda line: None).read()


def test_undecodable_image_in_a_class_folder_is_named(tmp_path):
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            save(tmp_path / part / name / "a.png", noise(4, 4))
    (tmp_path / "train/dog/broken.jpg").write_bytes(b"\xff\xd8 no more")
    with pytest.raises(InputError, match=r"1 files do not .*train/dog/broken\.jpg \(.*replace"):
        image_folder.find(tmp_path, no_log).read()


def test_all_damaged_images_are_told_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(image_folder, "SHOWN", 2)
    monkeypatch.setattr(image_folder, "PROGRESS_SECONDS", 0.0)
    for name in ("cat", "dog"):
        save(tmp_path / name / "a.png", noise(4, 4))
        for broken in ("b.png", "c.png"):
            (tmp_path / name / broken).touch()
        (tmp_path / name / "notes.txt").touch()
    (tmp_path / "loose.png").touch()
    source = image_folder.find(tmp_path, lambda line: None)
    told = capsys.readouterr().err
    assert f"{tmp_path}: 1 images beside the class folders: {tmp_path}/loose.png" in told
    assert f"{tmp_path}: 2 files that are no .png" in told and "cat/notes.txt, ..." in told
    message = (
        r"4 files do not decode as images: .*cat/b.png \(.*cat/c.png \(.*, and 2 more: replace"
    )
    with pytest.raises(InputError, match=message):
        source.read()
    assert "6 of 6 images are read" in capsys.readouterr().out


def png_claiming(side):
    """A PNG of a few bytes whose header promises side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize("side", [11_000, 60_000])
def test_an_image_too_large_for_the_memory_is_refused_by_its_header(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_claiming(side))
    with pytest.raises(InputError, match=rf"bomb.png does not decode .*\({side**2} pixels\)"):
        read_image(tmp_path / "bomb.png")


def test_only_image_decoders_are_tried_and_only_files_read(tmp_path):
    """PIL would run Ghostscript on PostScript; a pipe would be waited for without end."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(InputError, match="cannot identify image file"):
        read_image(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="pipe.png is no regular file"):
        find_images(tmp_path / "pipe.png")


def test_colour_models_and_animations(tmp_path):
    red, blue = (Image.new("RGB", (32, 32), name) for name in ("red", "blue"))
    red.save(tmp_path / "a.png", "gif", save_all=True, append_images=[blue])  # a wrong extension
    red.convert("CMYK").save(tmp_path / "b.tif")
    for name in ("a.png", "b.tif"):
        assert (read_image(tmp_path / name) == (255, 0, 0)).all()
    Image.new("F", (32, 32), 0.5).save(tmp_path / "float.tif")
    with pytest.raises(InputError, match="floating-point"):
        read_image(tmp_path / "float.tif")
    Image.new("I", (32, 32), 200).save(tmp_path / "long.tif")
    with pytest.raises(InputError, match="integers of 32 bits of no known range"):
        read_image(tmp_path / "long.tif")


def test_a_class_name_that_no_page_can_show_is_refused(tmp_path):
    for name in (b"cat", b"\xff"):
        os.makedirs(os.fsencode(tmp_path) + b"/" + name)
        save(tmp_path / os.fsdecode(name) / "a.png", noise(4, 4))
    with pytest.raises(InputError, match="is no name for a class") as error:
        image_folder.find(tmp_path, no_log)
    str(error.value).encode()
