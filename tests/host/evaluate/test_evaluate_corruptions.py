"""Spoiled pictures: every corruption spoils, more with each severity, and always alike."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import edgevision
from edgevision.capture.images import read_image
from edgevision.errors import UsageError
from edgevision.host.evaluate.corruptions import SEVERITIES, corrupt, names
from edgevision.host.evaluate.robustness import Slice, mean_drop, parse_corruptions, parse_severities, relative_drop

PHOTO = read_image(Path(edgevision.__file__).parent / "data" / "photos" / "coffee.jpg")[100:340, 100:460]


def difference(one, two):
    return np.abs(one.astype(int) - two.astype(int)).mean()


@pytest.mark.parametrize("corruption", names())
def test_each_corruption_spoils_more_with_each_severity(corruption):
    before = PHOTO.copy()
    spoiled = [corrupt(PHOTO, corruption, severity, name="a") for severity in SEVERITIES]
    assert all(image.shape == PHOTO.shape and image.dtype == np.uint8 for image in spoiled)
    changes = [difference(image, PHOTO) for image in spoiled]
    assert changes[0] > 1
    assert changes == sorted(changes)
    assert np.array_equal(PHOTO, before)


@pytest.mark.parametrize("corruption", ["noise", "fog", "occlusion"])
def test_what_is_random_depends_on_seed_and_name_alone(corruption):
    def spoil(**more):
        return corrupt(PHOTO, corruption, 3, **more)

    assert np.array_equal(spoil(seed=1, name="a"), spoil(seed=1, name="a"))
    assert not np.array_equal(spoil(seed=1, name="a"), spoil(seed=2, name="a"))
    assert not np.array_equal(spoil(seed=1, name="a"), spoil(seed=1, name="b"))


def test_parameters_of_the_protocol():
    grey = np.full((400, 400, 3), 128, np.uint8)
    noise = corrupt(grey, "noise", 1).astype(float) - 128
    assert noise.std() == pytest.approx(0.08 * 255, rel=0.02)
    assert np.unique(corrupt(grey, "bright", 3)).tolist() == pytest.approx([128 + 0.3 * 255], abs=1)
    light = (corrupt(grey, "dark", 3)[0, 0, 0] / 255) ** 2.2 / (128 / 255) ** 2.2
    assert light == pytest.approx(0.3, rel=0.02)
    covered = (corrupt(np.zeros_like(grey), "occlusion", 4)[:, :, 0] == 127).mean()
    assert 0.3 <= covered < 0.37
    assert np.unique(corrupt(grey, "blur", 5)).tolist() == [128]
    fog = corrupt(np.zeros((100, 100, 3), np.uint8), "fog", 3)
    assert not fog.any()  # fog is as bright as the picture's brightest point


def test_blur_and_noise_grow_with_pictures_that_are_larger_than_the_protocols():
    small = np.zeros((480, 480, 3), np.uint8)
    large = np.zeros((1440, 1440, 3), np.uint8)
    small[240, 240] = large[719:722, 719:722] = 255
    for image, radius in ((small, 10), (large, 30)):
        rows = np.flatnonzero(
            corrupt(np.asarray(cv2.dilate(image, np.ones((9, 9))), np.uint8), "blur", 5).any(axis=(1, 2))
        )
        assert np.ptp(rows) / 2 == pytest.approx(radius, abs=radius * 0.6)
    noisy = corrupt(np.full((1440, 1440, 3), 128, np.uint8), "noise", 3)
    assert (noisy[::3] == noisy[1::3]).all()  # grains of 3 x 3 pixels


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 200, 3), (65, 33, 3)])
@pytest.mark.parametrize("corruption", names())
def test_small_and_narrow_pictures(corruption, shape):
    assert corrupt(np.full(shape, 90, np.uint8), corruption, 5).shape == shape


def test_wrong_words():
    with pytest.raises(UsageError, match="unknown corruption 'blurr'; did you mean 'blur'"):
        parse_corruptions("noise,blurr")
    assert parse_corruptions("noise, blur,noise") == ("noise", "blur")
    assert parse_corruptions("all") == names()
    assert parse_severities("1-3,5") == (1, 2, 3, 5)
    for text in ("0", "6", "", "1-9", "x", "5-1"):
        with pytest.raises(UsageError, match="--severity"):
            parse_severities(text)
    with pytest.raises(UsageError, match="severity 6"):
        corrupt(PHOTO, "blur", 6)


def test_drops():
    assert relative_drop(0.8, 0.6) == pytest.approx(0.25)
    assert relative_drop(0.0, 0.6) is None
    slices = [
        Slice(corruption="blur", severity=1, figure=0.6, drop=0.25),
        Slice(corruption="blur", severity=2, figure=0.4, drop=0.5),
        Slice(corruption="fog", severity=1, figure=None, drop=None),
    ]
    assert mean_drop(slices) == pytest.approx(0.375)
    assert mean_drop(slices, "fog") is None
