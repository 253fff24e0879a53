"""YOLOv5 and v7: against a decoder written row by row, decoded and raw, in every number type and layout."""

import numpy as np
import pytest
from decode_support import decoder, per_tensor, same, spec
from hypothesis import given
from hypothesis import strategies as st

from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize
from edgevision.types import ImageTransform

CLASSES = 3
SIZE = (48, 32)
ANCHORS = {8: ((10, 13), (16, 30)), 16: ((30, 61), (62, 45))}
GRIDS = {8: (4, 6), 16: (2, 3)}  # rows, columns
TRANSFORM = ImageTransform(
    frame_size=(300, 200), input_size=SIZE, scale=(0.3, 0.5), offset=(-6.0, -10.0), region=(20, 20, 160, 80)
)


def raw_maps(seed):
    """[1, anchors, h, w, 5 + classes] by stride, as the network gives them."""
    rng = np.random.default_rng(seed)
    return {stride: rng.normal(0, 1.5, (1, 2, *GRIDS[stride], 5 + CLASSES)).astype(np.float32) for stride in ANCHORS}


def rows_of(maps):
    """The same as decoded rows [1, n, 5 + classes], written cell by cell."""
    rows = []
    for stride, values in maps.items():
        for anchor, y, x in np.ndindex(values.shape[1:4]):
            part = 1 / (1 + np.exp(-values[0, anchor, y, x].astype(np.float64)))
            width, height = ANCHORS[stride][anchor]
            box = (
                (2 * part[0] - 0.5 + x) * stride, (2 * part[1] - 0.5 + y) * stride,
                (2 * part[2]) ** 2 * width, (2 * part[3]) ** 2 * height,
            )  # fmt: skip
            rows.append((*box, *part[4:]))
    return np.array(rows, np.float32)[None]


def plain(rows, confidence, transform):
    """(x0, y0, x1, y1, confidence, class) of every row, without NMS, most confident first."""
    found = []
    for x, y, w, h, objectness, *scores in rows[0].tolist():
        best = int(np.argmax(scores))
        (sx, sy), (ox, oy) = transform.scale, transform.offset
        left, top, right, bottom = transform.region
        frame = [(x - w / 2 - ox) / sx, (y - h / 2 - oy) / sy, (x + w / 2 - ox) / sx, (y + h / 2 - oy) / sy]
        clipped = np.clip(frame, [left, top, left, top], [right, bottom, right, bottom])
        if objectness * scores[best] >= confidence and clipped[2] > clipped[0] and clipped[3] > clipped[1]:
            found.append((*clipped, objectness * scores[best], best))
    return np.array(sorted(found, key=lambda row: -row[4])).reshape(-1, 6)


def make(tensors, options=None, quantization=None, **context):
    outputs = {
        role: spec(tensor.shape, name=role, dtype=tensor.dtype, quantization=quantization)
        for role, tensor in tensors.items()
    }
    return decoder("yolov5", outputs, {"multi_label": False, "anchors": ANCHORS, **(options or {})}, **context)


def check(found, expected):
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.confidence, expected[:, 4], rtol=1e-4)
    np.testing.assert_allclose(found.xyxy, expected[:, :4], rtol=1e-3, atol=2e-2)
    assert found.class_id.tolist() == expected[:, 5].astype(int).tolist()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.25, 0.5]))
def test_decoded_rows_and_raw_maps_in_all_layouts_are_the_plain_decoding(seed, confidence):
    maps = raw_maps(seed)
    rows = rows_of(maps)
    expected = plain(rows, confidence, TRANSFORM)
    context = {"confidence": confidence, "iou": 1.0, "max_detections": 1000}
    check(make({"predictions": rows}, **context)({"predictions": rows}, TRANSFORM), expected)
    unit = rows / np.array((*SIZE * 2, *[1] * (1 + CLASSES)), np.float32)
    check(make({"predictions": unit}, {"normalised": True}, **context)({"predictions": unit}, TRANSFORM), expected)
    five = {f"predictions_{stride}": values for stride, values in maps.items()}
    first = {r: np.moveaxis(v, 4, 2).reshape(1, -1, *v.shape[2:4]) for r, v in five.items()}
    last = {r: np.ascontiguousarray(v.transpose(0, 2, 3, 1)) for r, v in first.items()}
    for tensors, layout in ((five, "channels_first"), (first, "channels_first"), (last, "channels_last")):
        decode = make(tensors, {"layout": layout}, activation="sigmoid", **context)
        check(decode(tensors, TRANSFORM), expected)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.01, 0.25, 0.9]), st.sampled_from([np.int8, np.uint8]))
def test_integers_give_exactly_what_their_real_values_give(seed, confidence, dtype):
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    quantization = per_tensor(1 / 256, limits.min)
    rows = rng.integers(limits.min, limits.max + 1, (1, 40, 5 + CLASSES)).astype(dtype)
    real = dequantize(rows, quantization)
    context = {"confidence": confidence, "class_confidence": {1: 0.3}}
    options = {"normalised": True, "multi_label": None}
    first = make({"predictions": rows}, options, quantization, **context)({"predictions": rows}, same(SIZE))
    second = make({"predictions": real}, options, **context)({"predictions": real}, same(SIZE))
    np.testing.assert_array_equal(first.confidence, second.confidence)
    np.testing.assert_array_equal(first.class_id, second.class_id)
    np.testing.assert_array_equal(first.xyxy, second.xyxy)


def test_a_model_that_gives_no_numbers_is_not_nothing_found():
    rows = np.full((1, 10, 5 + CLASSES), np.nan, np.float32)
    decode = make({"predictions": rows})
    with pytest.raises(InferenceError, match="output 'predictions': all scores are NaN"):
        decode({"predictions": rows}, same(SIZE))
    rows[..., 4] = 1
    with pytest.raises(InferenceError, match="output 'predictions': all scores are NaN"):
        decode({"predictions": rows}, same(SIZE))
    rows[0, 0] = (10, 10, 8, 8, 0.9, 0.1, 0.9, 0.1)
    rows[0, 1] = (10, np.inf, 8, 8, 0.9, 0.1, 0.9, 0.1)
    assert decode({"predictions": rows}, same(SIZE)).xyxy.tolist() == [[6, 6, 14, 14]]


def test_what_does_not_fit_is_refused_with_figures():
    good = spec((1, 40, 8))
    with pytest.raises(ModelError, match="`outputs` name no predictions; needed: predictions"):
        decoder("yolov5", {})
    with pytest.raises(ModelError, match=r"is \[1, 40\]; \[1, rows, 5 \+ classes\] is needed"):
        decoder("yolov5", {"predictions": spec((1, 40))})
    with pytest.raises(ModelError, match="has 3 classes, but there are 2 labels"):
        decoder("yolov5", {"predictions": good}, labels=("a", "b"))
    with pytest.raises(ModelError, match="activation sigmoid does not belong to `predictions`, which are decoded"):
        decoder("yolov5", {"predictions": good}, activation="sigmoid")
    with pytest.raises(ModelError, match="activation softmax"):
        decoder("yolov5", {"predictions": good}, activation="softmax")
    maps = {"predictions_8": spec((1, 16, 4, 6)), "predictions_16": spec((1, 16, 2, 3))}
    with pytest.raises(
        ModelError, match="name no predictions_32; needed: predictions_8, predictions_16, predictions_32"
    ):
        decoder("yolov5", maps)
    with pytest.raises(ModelError, match="name predictions_16, which would be left out beside predictions_8"):
        decoder("yolov5", maps, {"anchors": {8: ANCHORS[8]}})
    three = {8: ((1, 1),) * 3, 16: ((1, 1),) * 3}
    with pytest.raises(
        ModelError, match=r"is \[1, 16, 4, 6\]; with 3 anchors .* \[1, 3 \* \(5 \+ classes\), h, w\] or"
    ):
        decoder("yolov5", maps, {"anchors": three})
    with pytest.raises(ModelError, match="has 3 classes, but there are 2 labels"):
        decoder("yolov5", maps, {"anchors": ANCHORS}, labels=("a", "b"))
    tensors = {f"predictions_{stride}": values for stride, values in raw_maps(0).items()}
    with pytest.raises(
        ModelError, match=r"'predictions_8' 24, 'predictions_16' 6; .* of 64x32 make 8x4 \+ 4x2 = 32, 8"
    ):
        make(tensors, activation="sigmoid")(tensors, same((64, 32)))


def test_a_model_that_leaves_its_sizes_open_is_checked_when_it_speaks():
    open_ = {"predictions": spec((1, -1, -1), name="p")}
    decode = decoder("yolov5", open_, labels=("a", "b", "c"), confidence=0.5)
    assert len(decode({"p": np.ones((1, 40, 8), np.float32)}, same(SIZE))) == 1
    for width in (5, 9):
        with pytest.raises(ModelError, match=rf"'p' gave \[40, {width}\], which are not 1 times 5 \+ 3 numbers"):
            decode({"p": np.ones((1, 40, width), np.float32)}, same(SIZE))
    maps = {f"predictions_{stride}": spec((1, -1, -1, -1), name=f"{stride}") for stride in ANCHORS}
    decode = decoder("yolov5", maps, {"anchors": ANCHORS}, activation="sigmoid")
    for channels in (10, 15):
        tensors = {str(s): np.ones((1, channels, *GRIDS[s]), np.float32) for s in ANCHORS}
        with pytest.raises(ModelError, match=rf"'8' gave \[{channels}, 4, 6\], which are not 2 times 5 \+ classes"):
            decode(tensors, same(SIZE))
