"""The end of every detection decoder: what is one object."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.decode._detections import Finisher
from edgevision.decode.base import DecodeContext
from edgevision.geometry import FEW, iou_xyxy
from edgevision.types import ImageTransform

TRANSFORM = ImageTransform(
    frame_size=(1000, 1000), input_size=(1000, 1000), scale=(1.0, 1.0), offset=(0.0, 0.0), region=(0, 0, 1000, 1000)
)


def finish(xyxy, confidence, class_id, *, suppress=True, **context):
    finisher = Finisher(DecodeContext(labels=("good", "bad"), **context), suppress=suppress)
    arrays = np.array(xyxy, np.float32), np.array(confidence, np.float32), np.array(class_id, np.int32)
    return finisher(*arrays, TRANSFORM)


@pytest.mark.parametrize("suppress", [True, False])
@pytest.mark.parametrize("apart", [0, FEW])
def test_one_part_is_never_both_good_and_bad(suppress, apart):
    """Few candidates and many take different ways; and so does what a model has suppressed class by class itself."""
    far = [(20.0 * n, 500, 20.0 * n + 10, 510) for n in range(apart)]
    xyxy = [(10, 10, 110, 110), (12, 12, 112, 112), *far]
    confidence, class_id = [0.8, 0.9, *[0.5] * apart], [0, 1, *[0] * apart]
    both = finish(xyxy, confidence, class_id, suppress=suppress)
    assert both.class_id.tolist()[:2] == [1, 0]
    assert len(both) == 2 + apart
    one = finish(xyxy, confidence, class_id, suppress=suppress, class_agnostic=True)
    assert one.class_id.tolist() == [1, *[0] * apart]
    assert np.isclose(one.confidence[0], 0.9)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 300), st.integers(0, 300), st.integers(1, 200), st.integers(1, 200), st.integers(0, 1)
        ),
        max_size=2 * FEW,
    ),
    st.floats(0.1, 0.9),
)
def test_across_classes_no_two_boxes_overlap_more_than_iou(boxes, iou):
    xyxy = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in boxes], np.float32).reshape(-1, 4)
    confidence = np.linspace(0.9, 0.3, len(boxes), dtype=np.float32)
    found = finish(xyxy, confidence, [box[4] for box in boxes], iou=iou, class_agnostic=True)
    overlaps = iou_xyxy(found.xyxy, found.xyxy)
    assert (overlaps[~np.eye(len(found), dtype=bool)] <= iou + 1e-5).all()
    assert all(before >= after for before, after in pairwise(found.confidence))
