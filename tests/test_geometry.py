"""Boxes: round trips, and the NMS against the plainest one that can be written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.geometry import (
    area_xyxy,
    clip_xyxy,
    cxcywh_to_xyxy,
    ios_xyxy,
    iou_xyxy,
    nms,
    to_frame_xyxy,
    to_input_xyxy,
    xyxy_to_cxcywh,
)
from edgevision.types import ImageTransform


def plain_nms(xyxy, confidence, class_id, iou, max_detections, overlap=None):
    """Textbook greedy NMS in Python floats."""
    kept: list[int] = []
    for i in sorted(range(len(confidence)), key=lambda i: (-confidence[i], i)):
        if len(kept) == max_detections:
            break
        if all(class_id[j] != class_id[i] or (overlap or plain_iou)(xyxy[i], xyxy[j]) <= iou for j in kept):
            kept.append(i)
    return kept


def plain_iou(a, b):
    a, b = [float(v) for v in a], [float(v) for v in b]
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union > 0 else 0.0


def plain_ios(a, b):
    a, b = [float(v) for v in a], [float(v) for v in b]
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return width * height / smaller if smaller > 0 else 0.0


@st.composite
def candidates(draw):
    """Whole-pixel boxes, so that areas are exact, in a few classes, with distinct confidences."""
    n = draw(st.integers(0, 60))
    coordinate = st.integers(0, 40)
    boxes = [
        (x, y, x + w, y + h)
        for x, y, w, h in draw(
            st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), min_size=n, max_size=n)
        )
    ]
    ranks = draw(st.permutations(range(n)))
    classes = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    return (
        np.array(boxes, np.float32).reshape(n, 4),
        ((np.array(ranks, np.float32) + 1) / (n + 1)).astype(np.float32),
        np.array(classes, np.int32),
    )


# No quotient of two areas below 10,000 lies so near these that float32 and Python disagree.
IOUS = st.sampled_from([0.00007, 0.30013, 0.45011, 0.65017, 0.99993])


@given(candidates(), IOUS, st.integers(0, 70))
def test_nms_is_the_plain_greedy_one(boxes, iou, max_detections):
    xyxy, confidence, class_id = boxes
    found = nms(xyxy, confidence, class_id, iou=iou, max_detections=max_detections)
    assert found.tolist() == plain_nms(xyxy, confidence, class_id, iou, max_detections)


@given(candidates(), IOUS, st.integers(0, 70))
def test_nms_by_the_smaller_area_is_the_plain_greedy_one(boxes, iou, max_detections):
    xyxy, confidence, class_id = boxes
    found = nms(xyxy, confidence, class_id, iou=iou, max_detections=max_detections, overlap="ios")
    assert found.tolist() == plain_nms(xyxy, confidence, class_id, iou, max_detections, plain_ios)


@given(candidates())
def test_ios_is_what_it_is_pair_by_pair(boxes):
    xyxy = boxes[0]
    expected = [[plain_ios(a, b) for b in xyxy] for a in xyxy]
    np.testing.assert_allclose(ios_xyxy(xyxy, xyxy), np.array(expected).reshape(len(xyxy), len(xyxy)), rtol=1e-6)


@given(candidates(), IOUS, st.randoms(use_true_random=False))
def test_nms_does_not_depend_on_the_order_of_its_input(boxes, iou, random):
    xyxy, confidence, class_id = boxes
    shuffled = list(range(len(confidence)))
    random.shuffle(shuffled)
    order = np.array(shuffled, np.intp)
    straight = nms(xyxy, confidence, class_id, iou=iou, max_detections=100)
    other = nms(xyxy[order], confidence[order], class_id[order], iou=iou, max_detections=100)
    assert straight.tolist() == order[other].tolist()


@pytest.mark.parametrize("n", [127, 128, 129, 1000])
def test_nms_across_its_blocks(n):
    rng = np.random.default_rng(n)
    centres, sizes = rng.uniform(0, 300, (n, 2)), rng.uniform(10, 80, (n, 2))
    xyxy = np.concatenate((centres - sizes / 2, centres + sizes / 2), axis=1).astype(np.float32)
    confidence, class_id = rng.random(n).astype(np.float32), rng.integers(0, 3, n)
    found = nms(xyxy, confidence, class_id, iou=0.4, max_detections=n)
    assert 10 < len(found) < n
    assert found.tolist() == plain_nms(xyxy, confidence, class_id, 0.4, n)


def test_nms_of_equally_confident_boxes_keeps_the_first():
    xyxy = np.array([[0, 0, 10, 10]] * 3, np.float32)
    assert nms(xyxy, np.full(3, 0.5, np.float32), np.zeros(3, int), iou=0.5, max_detections=9).tolist() == [0]


def test_nms_bears_coordinates_at_the_end_of_float32():
    xyxy = np.array([[-3e38, -3e38, 3e38, 3e38], [0, 0, 1, 1]], np.float32)
    found = nms(xyxy, np.array([0.9, 0.8], np.float32), np.zeros(2, int), iou=0.5, max_detections=9)
    assert 0 in found


def test_iou_of_known_boxes():
    first = np.array([[0, 0, 2, 2], [5, 5, 5, 5]], np.float32)
    second = np.array([[1, 0, 3, 2], [0, 0, 2, 2], [2, 0, 4, 2], [5, 5, 5, 5]], np.float32)
    expected = np.array([[1 / 3, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(iou_xyxy(first, second), expected, rtol=1e-6)


coordinate = st.floats(-1000, 5000, width=32)


@given(
    st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), max_size=8),
    st.tuples(st.floats(0.05, 20), st.floats(0.05, 20)),
    st.tuples(st.floats(-2000, 2000), st.floats(-2000, 2000)),
)
def test_to_input_undoes_to_frame(boxes, scale, offset):
    transform = ImageTransform(
        frame_size=(10, 10), input_size=(10, 10), scale=scale, offset=offset, region=(0, 0, 10, 10)
    )
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    # float32 holds a frame coordinate to 1 part in 16 million, which `scale` carries back to the input.
    np.testing.assert_allclose(to_input_xyxy(to_frame_xyxy(xyxy, transform), transform), xyxy, rtol=1e-5, atol=0.01)
    np.testing.assert_allclose(to_frame_xyxy(to_input_xyxy(xyxy, transform), transform), xyxy, rtol=1e-5, atol=0.2)


@given(st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), max_size=8))
def test_centre_boxes_and_corner_boxes_are_inverse(boxes):
    xyxy = np.array(boxes, np.float64).reshape(-1, 4)
    np.testing.assert_allclose(cxcywh_to_xyxy(xyxy_to_cxcywh(xyxy)), xyxy, atol=1e-9)


def test_clip_keeps_the_type_and_what_lies_inside():
    xyxy = np.array([[-5, -5, 50, 50], [12, 13, 14, 15], [30, 30, 40, 40]], np.float32)
    clipped = clip_xyxy(xyxy, (10, 11, 20, 21))
    assert clipped.dtype == np.float32
    assert clipped.tolist() == [[10, 11, 20, 21], [12, 13, 14, 15], [20, 21, 20, 21]]
    assert area_xyxy(clipped).tolist() == [100, 4, 0]


def test_a_box_that_is_inside_out_has_no_area():
    assert area_xyxy(np.array([[5, 5, 0, 0], [5, 0, 0, 5]], np.float32)).tolist() == [0, 0]
