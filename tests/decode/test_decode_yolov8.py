"""YOLOv8: against a decoder written row by row, in every number type, layout and form of its outputs."""

import numpy as np
import pytest
from decode_support import decoder, per_tensor, same, spec
from hypothesis import given
from hypothesis import strategies as st

from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize
from edgevision.types import ImageTransform

CLASSES = 3
CELLS = 64 + 16 + 4  # of 8, 16 and 32 pixels on 64 x 64
TRANSFORM = ImageTransform(
    frame_size=(300, 200), input_size=(64, 64), scale=(0.3, 0.5), offset=(-6.0, -10.0), region=(20, 20, 200, 140)
)


def channels(seed):
    """Random outputs [1, 4 + classes, cells], boxes in pixels."""
    rng = np.random.default_rng(seed)
    boxes = rng.random((4, CELLS)) * np.array([[64], [64], [40], [40]])
    return np.concatenate((boxes, rng.random((CLASSES, CELLS))))[None].astype(np.float32)


def make(values, options=None, quantization=None, **context):
    outputs = {"predictions": spec(values.shape, dtype=values.dtype, quantization=quantization)}
    return decoder("yolov8", outputs, {"multi_label": False, **(options or {})}, **context)


def plain(values, confidence, transform, *, multi_label):
    """(x0, y0, x1, y1, confidence, class) of every cell, without NMS, most confident first."""
    found = []
    for x, y, w, h, *scores in values[0].T.tolist():
        named = enumerate(scores) if multi_label else [max(enumerate(scores), key=lambda pair: pair[1])]
        for class_id, score in named:
            (sx, sy), (ox, oy) = transform.scale, transform.offset
            left, top, right, bottom = transform.region
            frame = [(x - w / 2 - ox) / sx, (y - h / 2 - oy) / sy, (x + w / 2 - ox) / sx, (y + h / 2 - oy) / sy]
            clipped = np.clip(frame, [left, top, left, top], [right, bottom, right, bottom])
            if score >= np.float32(confidence) and clipped[2] > clipped[0] and clipped[3] > clipped[1]:
                found.append((*clipped, score, class_id))
    return np.array(sorted(found, key=lambda row: (-row[4], row[5]))).reshape(-1, 6)


def rows_of(found):
    """As `plain` gives them."""
    table = np.column_stack((found.xyxy, found.confidence, found.class_id))
    return table[np.lexsort((found.class_id, -found.confidence))]


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.5, 0.9]), st.booleans(), st.booleans(), st.booleans())
def test_it_is_the_plain_decoding(seed, confidence, multi_label, turned, normalised):
    values = channels(seed)
    expected = plain(values, confidence, TRANSFORM, multi_label=multi_label)
    if normalised:
        values = values.copy()
        values[:, :4] /= 64
    if turned:
        values = np.ascontiguousarray(values.transpose(0, 2, 1))
    layout = "channels_last" if turned else "channels_first"
    options = {"multi_label": multi_label, "layout": layout, "normalised": normalised}
    found = make(values, options, confidence=confidence, iou=1.0, max_detections=1000)({"out": values}, TRANSFORM)
    assert len(found) == len(expected)
    np.testing.assert_allclose(rows_of(found), expected, rtol=1e-4, atol=1e-2)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.01, 0.25, 0.4999, 0.9]),
    st.sampled_from([np.int8, np.uint8, np.int16]),
    st.sampled_from(["channels_first", "channels_last"]),
)
def test_integers_give_exactly_what_their_real_values_give(seed, confidence, dtype, layout):
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    quantization = per_tensor(1.2 / (int(limits.max) - int(limits.min)), limits.min)
    values = rng.integers(limits.min, limits.max + 1, channels(0).shape).astype(dtype)
    if layout == "channels_last":
        values = np.ascontiguousarray(values.transpose(0, 2, 1))
    options = {"normalised": True, "layout": layout}
    context = {"confidence": confidence, "iou": 0.5, "class_confidence": {1: 0.3}, "classes": frozenset({0, 1})}
    real = dequantize(values, quantization)
    first = make(values, options, quantization, **context)({"out": values}, same())
    second = make(real, options, **context)({"out": real}, same())
    np.testing.assert_array_equal(first.confidence, second.confidence)
    np.testing.assert_array_equal(first.class_id, second.class_id)
    np.testing.assert_array_equal(first.xyxy, second.xyxy)


@given(st.integers(0, 2**32 - 1))
def test_half_floats_are_their_real_values(seed):
    half = channels(seed).astype(np.float16)
    real = half.astype(np.float32)
    first = make(half, confidence=0.3)({"out": half}, same())
    second = make(real, confidence=0.3)({"out": real}, same())
    np.testing.assert_array_equal(first.confidence, second.confidence)
    np.testing.assert_array_equal(first.xyxy, second.xyxy)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["cxcywh", "xyxy"]))
def test_tensors_of_their_own_are_one_tensor_s_result(seed, box_format):
    values = channels(seed)
    if box_format == "xyxy":
        values[:, 2:4] += values[:, :2]
    context = {"confidence": 0.3, "iou": 0.6}
    first = make(values, {"box_format": box_format}, **context)({"out": values}, same())
    split = {"boxes": values[:, :4].copy(), "scores": values[:, 4:].copy()}
    ends = (0, 64, 80, 84)
    grids = {
        f"{role}_{stride}": tensor[:, :, ends[i] : ends[i + 1]].reshape(1, -1, 64 // stride, 64 // stride)
        for role, tensor in split.items()
        for i, stride in enumerate((8, 16, 32))
    }
    maps = {role: np.ascontiguousarray(tensor.transpose(0, 2, 3, 1)) for role, tensor in grids.items()}
    for tensors, layout in ((split, "channels_first"), (grids, "channels_first"), (maps, "channels_last")):
        outputs = {role: spec(tensor.shape, name=role) for role, tensor in tensors.items()}
        options = {"multi_label": False, "layout": layout, "box_format": box_format}
        found = decoder("yolov8", outputs, options, **context)(tensors, same())
        np.testing.assert_array_equal(found.confidence, first.confidence)
        np.testing.assert_array_equal(found.xyxy, first.xyxy)


def test_a_cell_with_a_nan_is_no_object_in_either_layout():
    values = channels(0)
    values[:, 4:] = 0.1
    values[0, 4:, 5] = (0.9, np.nan, 0.2)
    values[0, 4:, 6] = (0.9, 0.2, 0.2)
    values[0, 4:, 7] = (np.inf, 0.2, 0.2)
    values[0, 0, 8], values[0, 4, 8] = np.nan, 0.9
    for layout, given_ in (("channels_first", values), ("channels_last", values.transpose(0, 2, 1))):
        for multi_label in (False, True):
            decode = make(given_, {"layout": layout, "multi_label": multi_label}, confidence=0.5)
            assert len(decode({"out": given_}, same())) == 1


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_a_model_that_gives_no_numbers_is_not_nothing_found(layout):
    values = channels(0)
    values[:, 5] = np.nan  # of one class in every cell: the best class is unknown everywhere
    given_ = values if layout == "channels_first" else values.transpose(0, 2, 1)
    with pytest.raises(InferenceError, match="output 'out': all scores are NaN"):
        make(given_, {"layout": layout}, confidence=0.99)({"out": given_}, same())
    values[:, 4:, 0] = 0.1
    assert len(make(given_, {"layout": layout}, confidence=0.99)({"out": given_}, same())) == 0


def test_thresholds_of_single_classes_and_an_evaluation_s_many_labels():
    values = channels(0)
    values[:, 4:] = 0
    values[0, :4, :3] = ((10, 30, 50), (10, 30, 50), (8, 8, 8), (8, 8, 8))
    values[0, 4:, 0] = (0.2, 0.02, 0.0)
    values[0, 4:, 1] = (0.0, 0.5, 0.0)
    values[0, 4:, 2] = (0.0, 0.0, 0.5)
    context = {"confidence": 0.3, "class_confidence": {0: 0.1, 1: 0.6}}
    assert make(values, **context)({"out": values}, same()).class_id.tolist() == [2, 0]
    few = make(values, classes=frozenset({0, 1}), **context)({"out": values}, same())
    assert few.class_id.tolist() == [0]
    many = make(values, {"multi_label": None}, confidence=0.01)({"out": values}, same())
    assert sorted(many.class_id.tolist()) == [0, 1, 1, 2]


def test_what_does_not_fit_is_refused_with_figures():
    good = spec((1, 7, 84))
    labels = ("a", "b", "c")
    with pytest.raises(ModelError, match="`outputs` name no predictions; needed: predictions; found: none"):
        decoder("yolov8", {})
    with pytest.raises(ModelError, match="name other, which would be left out beside predictions"):
        decoder("yolov8", {"predictions": good, "other": good})
    with pytest.raises(ModelError, match="has 3 classes, but there are 2 labels"):
        decoder("yolov8", {"predictions": good}, labels=("a", "b"))
    with pytest.raises(
        ModelError, match=r"\[1, 84, 7\]: with 3 labels that is `layout: channels_last`, and the manifest's"
    ):
        decoder("yolov8", {"predictions": spec((1, 84, 7))}, labels=labels)
    with pytest.raises(ModelError, match="has no room for a class"):
        decoder("yolov8", {"predictions": spec((1, 4, 84))})
    with pytest.raises(ModelError, match=r"is \[7\]; with `layout: channels_first` \[1, channels, cells\] or"):
        decoder("yolov8", {"predictions": spec((7,))})
    with pytest.raises(ModelError, match="activation softmax"):
        decoder("yolov8", {"predictions": good}, activation="softmax")
    with pytest.raises(ModelError, match="int8 without a scale"):
        decoder("yolov8", {"predictions": spec((1, 7, 84), dtype=np.int8)})
    with pytest.raises(ModelError, match="name no scores; needed: boxes, scores; found: boxes"):
        decoder("yolov8", {"boxes": spec((1, 64, 84))})
    split = {"boxes": spec((1, 64, 84), name="b"), "scores": spec((1, 3, 84), name="s")}
    with pytest.raises(
        ModelError, match=r"'b' \(boxes\) is \[1, 64, 84\], .* 64 channels; 4 are needed: `box_format: cxcywh`"
    ):
        decoder("yolov8", split)
    with pytest.raises(ModelError, match="`normalised` belongs to cxcywh and xyxy; with `box_format: dfl`"):
        decoder("yolov8", split, {"box_format": "dfl", "normalised": True})
    with pytest.raises(ModelError, match="name no boxes_16, boxes_32"):
        decoder("yolov8", {"boxes_8": split["boxes"], "scores_8": split["scores"]})
    tensors = {"b": np.zeros((1, 64, 84), np.float32), "s": np.zeros((1, 3, 84), np.float32)}
    decode = decoder("yolov8", split, {"box_format": "dfl"})
    with pytest.raises(
        ModelError, match=r"'s' 84; strides \[8, 16, 32\] on an input of 96x64 make 12x8 \+ 6x4 \+ 3x2 = 126"
    ):
        decode(tensors, same((96, 64)))


def test_a_model_that_leaves_its_sizes_open_is_checked_when_it_speaks():
    values = channels(0)
    decode = decoder(
        "yolov8", {"predictions": spec((-1, -1, -1))}, {"multi_label": False}, confidence=0.5, labels=("a",) * 3
    )
    assert len(decode({"out": values}, same())) > 3
    with pytest.raises(ModelError, match=r"'out' \(predictions\) gave 9 channels; 7 are needed"):
        decode({"out": np.zeros((1, 9, 84), np.float32)}, same())


def test_a_mad_number_of_cells_is_refused_before_it_is_made():
    outputs = {"boxes": spec((1, 4, 84), name="b"), "scores": spec((1, 3, 84), name="s")}
    decode = decoder("yolov8", outputs, {"box_format": "ltrb", "strides": (1,) * 50})
    tensors = {"b": np.zeros((1, 4, 84), np.float32), "s": np.zeros((1, 3, 84), np.float32)}
    with pytest.raises(ModelError, match="8192x8192 = 3355443200; mend `strides`"):
        decode(tensors, same((8192, 8192)))
