"""The measures of one picture, and what they cost."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgevision import picture
from edgevision.capture.images import read_image
from edgevision.environment import shipped_models_dir

PHOTOS = sorted((shipped_models_dir().parent / "edgevision" / "data" / "photos").glob("*.jpg"))
pictures = arrays.arrays(np.uint8, st.tuples(st.integers(1, 200), st.integers(1, 100), st.just(3)))


@given(pictures, st.integers(0, 255), st.integers(0, 255))
def test_measures_hold_for_every_size_and_content(image, dark_level, bright_level):
    image.flags.writeable = False
    rows = picture.sample_rows(image)
    assert rows.shape[0] <= 45
    assert not np.shares_memory(rows, image)
    dark, bright = picture.shares(rows, dark_level=dark_level, bright_level=bright_level)
    assert 0 <= dark <= 1
    assert 0 <= bright <= 1
    assert picture.difference(rows, rows.copy()) == 0
    value = picture.sharpness(image)
    assert value is None or (np.isfinite(value) and value >= 0)


def test_another_size_is_another_picture():
    one, other = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)
    assert picture.difference(one, other) == float("inf")


def test_one_changed_pixel_of_the_sample_is_a_difference():
    rows = np.full((45, 1280, 3), 7, np.uint8)
    changed = rows.copy()
    changed[20, 600, 1] += 1
    assert 0 < picture.difference(changed, rows) < 0.001


def test_black_is_dark_and_white_is_bright():
    for level, expected in ((0, (1, 0)), (20, (1, 0)), (21, (0, 0)), (249, (0, 0)), (250, (0, 1)), (255, (0, 1))):
        rows = picture.sample_rows(np.full((90, 20, 3), level, np.uint8))
        assert picture.shares(rows, dark_level=20, bright_level=250) == expected


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.stem)
def test_defocus_shows_and_light_does_not(path):
    photo = read_image(path)
    sharp = picture.sharpness(photo)
    assert sharp is not None
    soft = picture.sharpness(np.asarray(cv2.GaussianBlur(photo, (0, 0), 4), np.uint8))
    dim = picture.sharpness((photo * 0.6).astype(np.uint8))
    assert soft is not None
    assert dim is not None
    assert soft < 0.25 * sharp
    assert dim == pytest.approx(sharp, rel=0.25)


def test_an_even_picture_has_no_sharpness():
    assert picture.sharpness(np.full((480, 640, 3), 90, np.uint8)) is None
