"""What is drawn of objects beside their boxes."""

import numpy as np

from edgevision.drawing import draw
from edgevision.types import Detections, Mask


def found(**more):
    return Detections(
        xyxy=np.array([[20, 40, 60, 80]], np.float32), confidence=np.array([0.9], np.float32),
        class_id=np.array([3], np.int32), **more,
    )  # fmt: skip


def test_a_mask_tints_its_pixels_and_no_others():
    image = np.full((100, 120, 3), 200, np.uint8)
    pixels = np.zeros((20, 20), np.bool_)
    pixels[5:, :10] = True
    plain = draw(image, found())
    tinted = draw(image, found(masks=(Mask(pixels=pixels, left=30, top=50, frame_size=(120, 100)),)))
    changed = (plain != tinted).any(axis=2)
    expected = np.zeros((100, 120), np.bool_)
    expected[55:70, 30:40] = True
    np.testing.assert_array_equal(changed, expected)
    assert (image == 200).all()


def test_an_object_without_its_mask_is_drawn_all_the_same():
    image = np.full((100, 120, 3), 200, np.uint8)
    np.testing.assert_array_equal(draw(image, found(masks=(None,))), draw(image, found()))


def test_keypoints_that_are_seen_are_drawn():
    image = np.full((100, 120, 3), 200, np.uint8)
    points = np.array([[[30, 50, 0.9], [50, 60, 0.2], [200, -50, 0.9]]], np.float32)
    changed = (draw(image, found(keypoints=points)) != draw(image, found())).any(axis=2)
    assert changed[50, 30]
    assert not changed[:, 45:].any()
