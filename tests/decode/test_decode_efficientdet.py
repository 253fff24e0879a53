"""EfficientDet's bare heads in their three layouts (golden outputs of effdet are in tests/golden)."""

import numpy as np
import pytest
from decode_support import decoder, per_tensor, same, spec
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import quantize

SIDE, CLASSES = 64, 3
GRIDS = {3: 8, 4: 4, 5: 2, 6: 1, 7: 1}
ANCHORS = sum(side * side for side in GRIDS.values()) * 9


def grids(seed, last):
    """Random scores and codes of five grids; the last axis is the channels."""
    rng = np.random.default_rng(seed)
    return {
        level: rng.normal(0, 1, (1, side, side, 9 * (CLASSES if last == "scores" else 4))).astype(np.float32)
        for level, side in GRIDS.items()
    }


def outputs_of(tensors, quantization=None):
    return {
        role: spec(value.shape, role, dtype=value.dtype, quantization=quantization) for role, value in tensors.items()
    }


def layouts(seed):
    """The same numbers as NHWC grids, NCHW grids, and all in one."""
    scores, codes = grids(seed, "scores"), grids(seed + 1, "boxes")
    parts = {"scores": scores, "boxes": codes}
    last = {f"{name}_{level}": value for name, levels in parts.items() for level, value in levels.items()}
    first = {role: np.ascontiguousarray(value.transpose(0, 3, 1, 2)) for role, value in last.items()}
    one = {
        name: np.concatenate([value.reshape(1, -1, CLASSES if name == "scores" else 4) for value in levels.values()], 1)
        for name, levels in parts.items()
    }
    return last, first, one


def decode(tensors, options=None, quantization=None, **context):
    context = {"activation": "sigmoid", "confidence": 0.8, "iou": 0.5, **context}
    return decoder("efficientdet", outputs_of(tensors, quantization), options, **context)(tensors, same((SIDE, SIDE)))


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=20)
def test_the_layouts_say_the_same(seed):
    last, first, one = layouts(seed)
    found = [decode(last), decode(first, {"layout": "NCHW"}), decode(one)]
    assert len(found[0]) > 5
    order = [np.lexsort((part.xyxy[:, 0], -part.confidence)) for part in found]
    for part, rows in zip(found[1:], order[1:], strict=True):
        for field in ("xyxy", "confidence", "class_id"):
            np.testing.assert_allclose(getattr(part, field)[rows], getattr(found[0], field)[order[0]], rtol=1e-6)


def test_an_anchor_without_a_code_is_its_own_box():
    _, _, one = layouts(0)
    one["scores"][:] = -9
    one["boxes"][:] = 0
    one["scores"][0, 9 * 9, 2] = 9  # second row, second cell of the finest grid: centre 12, 12; 4 strides of 8
    found = decode(one)
    assert (found.class_id.tolist(), found.xyxy.tolist()) == ([2], [[0, 0, 28, 28]])
    one["boxes"][0, 81] = [10, 0, 0, np.log(2) * 5]  # y by one anchor, twice as wide
    moved = decode(one, {"box_scales": [10, 10, 5, 5]})
    np.testing.assert_allclose(moved.xyxy, [[0, 28, 44, 60]], atol=1e-4)
    assert decode(one, {"anchor_scale": 1.0, "box_scales": [10, 10, 5, 5]}).xyxy[0, 1] == pytest.approx(16)


def test_integers_give_what_their_real_values_give():
    _, _, one = layouts(5)
    quantization = per_tensor(0.03, 2)
    integers = {role: quantize(value, quantization, np.dtype(np.int8)) for role, value in one.items()}
    real = {role: ((value.astype(np.float32) - 2) * np.float32(0.03)) for role, value in integers.items()}
    first, second = decode(integers, quantization=quantization), decode(real)
    assert len(first) > 5
    np.testing.assert_allclose(first.xyxy, second.xyxy, rtol=1e-5)
    np.testing.assert_array_equal(first.class_id, second.class_id)


def test_no_numbers_and_boxes_without_measure():
    _, _, one = layouts(1)
    one["boxes"][..., 2:] = 1e9
    assert len(decode(one)) == 0
    one["scores"][:] = np.nan
    with pytest.raises(InferenceError, match="output 'scores': all scores are NaN"):
        decode(one)


@pytest.mark.parametrize(
    ("outputs", "options", "context", "words"),
    [
        ({}, {}, {}, "name no boxes, scores"),
        ({"boxes_3": spec((1, 8, 8, 36))}, {}, {}, "name no boxes_4"),
        ({"boxes": spec((1, 9, 5)), "scores": spec((1, 9, 3))}, {}, {}, r"\(boxes\) is \[1, 9, 5\]; \[1, anchors, 4\]"),
        ({"boxes": spec((1, 9, 4)), "scores": spec((1, 9, 3))}, {}, {"labels": ("a",)}, "3 classes, but there are 1"),
        ({"boxes": spec((1, 9, 4)), "scores": spec((1, 9, 3))}, {}, {"activation": "softmax"}, "activation softmax"),
        (
            {"boxes_3": spec((1, 8, 8, 36)), "scores_3": spec((1, 8, 8, 28))},
            {"levels": [3]},
            {},
            r"\(scores_3\) is \[1, 8, 8, 28\]; \[1, height, width, 9 \* channels\] is needed",
        ),
        (
            {"boxes_3": spec((1, 8, 8, 36)), "scores_3": spec((1, 8, 8, 27))},
            {"levels": [3], "layout": "NCHW"},
            {},
            r"\[1, 9 \* channels, height, width\] is needed; mend the role, `layout`",
        ),
    ],
)
def test_what_does_not_fit_is_refused(outputs, options, context, words):
    with pytest.raises(ModelError, match=words):
        decoder("efficientdet", outputs, options, **context)


def test_another_number_of_anchors_is_an_error():
    _, _, one = layouts(0)
    short = {role: value[:, :-9] for role, value in one.items()}
    with pytest.raises(ModelError, match=f"has {ANCHORS - 9} anchors, but an input of 64x64 has {ANCHORS}"):
        decode(short)
