"""The embedded data set: scikit-learn's 1,797 handwritten digits, which need no network."""

from importlib import metadata

import numpy as np

from vision.arrays import Arrays, Source, Split, take_test


def find() -> Source:
    """The digits, told apart by the version of scikit-learn; nothing is imported yet."""
    return Source(f"scikit-learn {metadata.version('scikit-learn')} (load_digits)", (), read)


def read() -> Arrays:
    """8x8 grey levels 0..16 as 32x32 RGB, bilinear; 20 % of each digit are the test split.

    Source: UCI Optical Recognition of Handwritten Digits, its test part.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    levels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # [N, 8, 8]
    large = [Image.fromarray(level).resize((32, 32), Image.Resampling.BILINEAR) for level in levels]
    images = np.repeat(np.stack([np.asarray(image) for image in large])[..., None], 3, axis=-1)
    labels = digits.target.astype(np.int32)
    train, test = take_test(Split(images, labels))
    return Arrays(train, test, tuple(str(digit) for digit in range(10)))
