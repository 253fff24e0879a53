"""YOLO-seg and YOLO-pose: masks and keypoints against what they are, pixel by pixel; the boxes are `yolov8`'s."""

import numpy as np
import pytest
from decode_support import decoder, per_tensor, same, spec
from hypothesis import given
from hypothesis import strategies as st

from edgevision.decode import _masks
from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import quantize
from edgevision.types import ImageTransform

CLASSES, MAPS, POINTS = 2, 3, 4
CELLS = 84  # of 64 x 64
# A letterboxed part of a larger frame, as a region of interest makes it.
TRANSFORM = ImageTransform(
    frame_size=(300, 200), input_size=(64, 64), scale=(0.4, 0.4), offset=(-16.0, -8.0), region=(40, 30, 200, 150)
)


def channels(seed, extra):
    """Random outputs [1, 4 + classes + extra, cells], boxes in pixels, a few of them above 0.5."""
    rng = np.random.default_rng(seed)
    boxes = rng.random((4, CELLS)) * np.array([[64], [64], [40], [40]])
    scores = rng.random((CLASSES, CELLS)) * (rng.random(CELLS) < 0.1)
    return np.concatenate((boxes, scores, rng.normal(0, 1, (extra, CELLS))))[None].astype(np.float32)


def segmenter(predictions, prototypes, options=None, **context):
    outputs = {
        "predictions": spec(predictions.shape, name="p", dtype=predictions.dtype),
        "prototypes": spec(prototypes.shape, name="q", dtype=prototypes.dtype),
    }
    return decoder("yolov8_seg", outputs, {"multi_label": False, **(options or {})}, **context)


def plain_mask(coefficients, prototypes, box, transform):
    """(H, W) of the whole frame: bilinear sums at pixel centres, above 0, within the box."""
    width, height = transform.frame_size
    _, h, w = prototypes.shape
    sums = np.einsum("m,mhw->hw", coefficients.astype(np.float64), prototypes.astype(np.float64))
    painted = np.zeros((height, width), np.bool_)
    uncertain = np.zeros((height, width), np.bool_)
    for y, x in np.ndindex(height, width):
        if box[0] <= x < box[2] and box[1] <= y < box[3]:
            u = ((x + 0.5) * transform.scale[0] + transform.offset[0]) * w / transform.input_size[0] - 0.5
            v = ((y + 0.5) * transform.scale[1] + transform.offset[1]) * h / transform.input_size[1] - 0.5
            u, v = min(max(u, 0), w - 1), min(max(v, 0), h - 1)
            x0, y0 = int(u), int(v)
            x1, y1 = min(x0 + 1, w - 1), min(y0 + 1, h - 1)
            upper = sums[y0, x0] * (1 - u + x0) + sums[y0, x1] * (u - x0)
            lower = sums[y1, x0] * (1 - u + x0) + sums[y1, x1] * (u - x0)
            value = upper * (1 - v + y0) + lower * (v - y0)
            painted[y, x], uncertain[y, x] = value > 0, abs(value) < 1e-4
    return painted, uncertain


def paint(mask):
    width, height = mask.frame_size
    canvas = np.zeros((height, width), np.bool_)
    h, w = mask.pixels.shape
    canvas[mask.top : mask.top + h, mask.left : mask.left + w] = mask.pixels
    return canvas


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("turned", [False, True])
def test_masks_are_the_prototypes_sums_under_the_boxes(seed, turned):
    predictions = channels(seed, MAPS)
    prototypes = np.random.default_rng(seed + 100).normal(0, 1, (1, MAPS, 16, 16)).astype(np.float32)
    given_ = prototypes if not turned else np.ascontiguousarray(prototypes.transpose(0, 2, 3, 1))
    options = {"prototypes_layout": "channels_last" if turned else "channels_first"}
    found = segmenter(predictions, given_, options, confidence=0.5)({"p": predictions, "q": given_}, TRANSFORM)
    assert len(found.masks) == len(found) > 2
    scores = predictions[0, 4 : 4 + CLASSES].max(axis=0)
    for mask, box, confidence in zip(found.masks, found.xyxy, found.confidence, strict=True):
        assert mask.frame_size == (300, 200)
        (cell,) = np.flatnonzero(scores == confidence)
        expected, uncertain = plain_mask(predictions[0, 4 + CLASSES :, cell], prototypes[0], box, TRANSFORM)
        np.testing.assert_array_equal(paint(mask)[~uncertain], expected[~uncertain])


def test_integer_prototypes_are_what_they_stand_for():
    predictions = channels(3, MAPS)
    quantization = per_tensor(0.03, 5)
    integers = quantize(np.random.default_rng(0).normal(0, 1, (1, MAPS, 16, 16)), quantization, np.dtype(np.int8))
    real = ((integers.astype(np.float32) - 5) * np.float32(0.03)).astype(np.float32)
    outputs = {
        "predictions": spec(predictions.shape, name="p"),
        "prototypes": spec(integers.shape, name="q", dtype=np.int8, quantization=quantization),
    }
    first = decoder("yolov8_seg", outputs, {"multi_label": False})({"p": predictions, "q": integers}, TRANSFORM)
    second = segmenter(predictions, real)({"p": predictions, "q": real}, TRANSFORM)
    assert len(first) > 2
    for mask, other in zip(first.masks, second.masks, strict=True):
        np.testing.assert_array_equal(mask.pixels, other.pixels)


def test_nothing_found_has_no_masks_rather_than_none():
    predictions = channels(0, MAPS)
    predictions[:, 4:6] = 0
    prototypes = np.zeros((1, MAPS, 16, 16), np.float32)
    assert segmenter(predictions, prototypes)({"p": predictions, "q": prototypes}, same()).masks == ()
    pose = channels(0, POINTS * 3)
    pose[:, 4:6] = 0
    decode = decoder("yolov8_pose", {"predictions": spec(pose.shape)}, {"keypoints": POINTS})
    assert decode({"out": pose}, same()).keypoints.shape == (0, POINTS, 3)


def test_room_for_masks_is_bounded_and_goes_to_the_most_confident(monkeypatch):
    predictions = channels(0, MAPS)
    prototypes = np.ones((1, MAPS, 16, 16), np.float32)
    decode = segmenter(predictions, prototypes, confidence=0.5)
    whole = decode({"p": predictions, "q": prototypes}, same())
    first = whole.masks[0].pixels.size
    monkeypatch.setattr(_masks, "MOST_PIXELS", first)
    few = decode({"p": predictions, "q": prototypes}, same())
    assert few.masks[0] is not None
    assert few.masks[1:] == (None,) * (len(whole) - 1)


def test_numbers_that_are_none_are_no_pixels_and_prototypes_without_any_are_a_broken_model():
    predictions = channels(0, MAPS)
    predictions[0, :4] = 32
    prototypes = np.ones((1, MAPS, 16, 16), np.float32)
    prototypes[0, 0, 8, 8] = np.nan
    predictions[0, 4 + CLASSES :] = 1
    found = segmenter(predictions, prototypes, confidence=0.5)({"p": predictions, "q": prototypes}, same())
    assert 0.5 < found.masks[0].pixels.mean() < 1
    prototypes[:] = np.nan
    with pytest.raises(InferenceError, match="output 'q': all prototypes are NaN"):
        segmenter(predictions, prototypes, confidence=0.5)({"p": predictions, "q": prototypes}, same())


@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([2, 3]))
def test_keypoints_go_the_way_of_the_boxes_and_stay_where_the_model_looked(seed, normalised, values):
    predictions = channels(seed, POINTS * values)
    points = predictions[0, 4 + CLASSES :].reshape(POINTS, values, CELLS)
    points[:, :2] = points[:, :2] * 30 + 32
    if values == 3:
        points[:, 2] = 1 / (1 + np.exp(-points[:, 2]))
    scores = predictions[0, 4 : 4 + CLASSES].max(axis=0)
    given_ = predictions.copy()
    if normalised:
        given_[0, :4] /= 64
        given_[0, 4 + CLASSES :].reshape(POINTS, values, CELLS)[:, :2] /= 64
    options = {"keypoints": POINTS, "keypoint_values": values, "normalised": normalised, "multi_label": False}
    decode = decoder("yolov8_pose", {"predictions": spec(given_.shape)}, options, confidence=0.5)
    found = decode({"out": given_}, TRANSFORM)
    assert found.keypoints.shape == (len(found), POINTS, 3)
    for told, confidence in zip(found.keypoints, found.confidence, strict=True):
        (cell,) = np.flatnonzero(scores == confidence)
        expected = points[:, :2, cell].astype(np.float64)
        expected = (expected - TRANSFORM.offset) / TRANSFORM.scale
        np.testing.assert_allclose(told[:, :2], expected.clip((40, 30), (200, 150)), atol=1e-2)
        np.testing.assert_allclose(told[:, 2], points[:, 2, cell] if values == 3 else confidence, rtol=1e-6)


def test_a_keypoint_that_is_no_number_is_not_seen():
    predictions = channels(0, POINTS * 3)
    predictions[0, 4 + CLASSES, :] = np.nan
    predictions[0, 4 + CLASSES + 4, :] = np.inf
    predictions[0, 4 + CLASSES + 8, :] = np.nan
    decode = decoder("yolov8_pose", {"predictions": spec(predictions.shape)}, {"keypoints": POINTS}, confidence=0.5)
    found = decode({"out": predictions}, TRANSFORM)
    assert len(found) > 2
    assert np.isfinite(found.keypoints).all()
    assert (found.keypoints[:, :3, 2] == 0).all()


def test_what_does_not_fit_is_refused_with_figures():
    predictions, prototypes = spec((1, 9, 84), name="p"), spec((1, 3, 16, 16), name="q")
    with pytest.raises(ModelError, match="name no prototypes; needed: prototypes; found: predictions"):
        decoder("yolov8_seg", {"predictions": predictions})
    with pytest.raises(ModelError, match="name no predictions; needed: predictions"):
        decoder("yolov8_seg", {"prototypes": prototypes})
    with pytest.raises(
        ModelError, match=r"'q' \(prototypes\) is \[3, 16, 16\]; with `prototypes_layout: channels_first` \[1"
    ):
        decoder("yolov8_seg", {"predictions": predictions, "prototypes": spec((3, 16, 16), name="q")})
    with pytest.raises(ModelError, match="has 2 classes, but there are 3 labels"):
        decoder("yolov8_seg", {"predictions": predictions, "prototypes": prototypes}, labels=("a", "b", "c"))
    both = {"predictions": predictions, "prototypes": prototypes}
    with pytest.raises(ModelError, match="has no room for a class"):  # the layout is wrong: 16 maps
        decoder("yolov8_seg", both, {"prototypes_layout": "channels_last"})
    split = {
        "boxes": spec((1, 4, 84)), "scores": spec((1, 2, 84)), "coefficients": spec((1, 5, 84), name="c"),
        "prototypes": prototypes,
    }  # fmt: skip
    with pytest.raises(ModelError, match=r"'c' \(coefficients\) is \[1, 5, 84\], .* 5 channels; 3 are needed"):
        decoder("yolov8_seg", split)
    with pytest.raises(ModelError, match=r"'p' \(predictions\) is \[1, 9, 84\]; \[1, n, 9\] is needed \(.* 3 more\)"):
        decoder("yolov8_seg", {"predictions": predictions, "prototypes": prototypes}, {"end_to_end": True})
    with pytest.raises(ModelError, match="has 2 classes, but there are 1 labels"):
        decoder("yolov8_pose", {"predictions": spec((1, 4 + 2 + 51, 84))}, labels=("person",))
    with pytest.raises(ModelError, match="name no keypoints; needed: boxes, scores, keypoints"):
        decoder("yolov8_pose", {"boxes": split["boxes"], "scores": split["scores"]})


def test_what_is_told_of_one_grid_has_as_many_cells():
    tensors = {
        "b": np.ones((1, 4, 84), np.float32), "s": np.ones((1, 2, 84), np.float32), "k": np.ones((1, 12, 80), np.float32),
    }  # fmt: skip
    outputs = {
        role: spec((1, tensors[role[0]].shape[1], -1), name=role[0]) for role in ("boxes", "scores", "keypoints")
    }
    decode = decoder("yolov8_pose", outputs, {"keypoints": POINTS}, confidence=0.5)
    with pytest.raises(ModelError, match="outputs 's' and 'k' have 84 and 80 cells"):
        decode(tensors, same())
