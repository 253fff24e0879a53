"""NanoDet and PicoDet: against the paper's formula written cell by cell, and what does not fit."""

import numpy as np
import pytest
from decode_support import decoder, per_tensor, same, spec
from hypothesis import given
from hypothesis import strategies as st

from edgevision.errors import InferenceError, ModelError
from edgevision.types import ImageTransform

SIZE = (72, 40)  # does not divide by 16: the grids reach over the border
STRIDES = (8, 16)
COUNTS = {8: 9 * 5, 16: 5 * 3}
CLASSES, BINS = 3, 5
OPTIONS = {"strides": STRIDES, "reg_max": BINS - 1, "multi_label": False}


def tensors_of(seed):
    rng = np.random.default_rng(seed)
    tensors = {}
    for stride, cells in COUNTS.items():
        tensors[f"scores_{stride}"] = rng.random((1, cells, CLASSES)).astype(np.float32)
        tensors[f"boxes_{stride}"] = rng.normal(0, 3, (1, cells, 4 * BINS)).astype(np.float32)
    return tensors


def specs_of(tensors):
    return {role: spec(tensor.shape, name=role, dtype=tensor.dtype) for role, tensor in tensors.items()}


def make(tensors, family="picodet", options=None, **context):
    return decoder(family, specs_of(tensors), {**OPTIONS, **(options or {})}, **context)


def plain(tensors, confidence, transform, offset=0.5):
    """(x0, y0, x1, y1, confidence, class) of every cell, without NMS, most confident first."""
    found = []
    for stride in STRIDES:
        columns = -(-SIZE[0] // stride)
        for cell, (scores, raw) in enumerate(
            zip(tensors[f"scores_{stride}"][0], tensors[f"boxes_{stride}"][0], strict=True)
        ):
            best = int(np.argmax(scores))
            if scores[best] < confidence:
                continue
            x, y = (cell % columns + offset) * stride, (cell // columns + offset) * stride
            sides = []
            for side in range(4):
                weights = np.exp(raw[side * BINS : (side + 1) * BINS].astype(np.float64))
                sides.append(sum(bin_ * weight for bin_, weight in enumerate(weights)) / weights.sum() * stride)
            corners = (x - sides[0], y - sides[1], x + sides[2], y + sides[3])
            (sx, sy), (ox, oy) = transform.scale, transform.offset
            left, top, right, bottom = transform.region
            frame = [(corners[0] - ox) / sx, (corners[1] - oy) / sy, (corners[2] - ox) / sx, (corners[3] - oy) / sy]
            clipped = np.clip(frame, [left, top, left, top], [right, bottom, right, bottom])
            if clipped[2] > clipped[0] and clipped[3] > clipped[1]:
                found.append((*clipped, scores[best], best))
    return np.array(sorted(found, key=lambda row: -row[4])).reshape(-1, 6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.5, 0.9]), st.sampled_from([0.0, 0.5]))
def test_it_is_the_paper_s_decoding(seed, confidence, offset):
    tensors = tensors_of(seed)
    transform = ImageTransform(
        frame_size=(300, 200), input_size=SIZE, scale=(0.3, 0.5), offset=(-6.0, -10.0), region=(20, 20, 200, 90)
    )
    decode = make(tensors, options={"cell_offset": offset}, confidence=confidence, iou=1.0, max_detections=1000)
    found = decode(tensors, transform)
    expected = plain(tensors, confidence, transform, offset)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.confidence, expected[:, 4], rtol=1e-5)
    np.testing.assert_allclose(found.xyxy, expected[:, :4], rtol=1e-4, atol=1e-2)
    assert found.class_id.tolist() == expected[:, 5].astype(int).tolist()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.3]))
def test_all_forms_of_the_same_numbers_are_one_result(seed, confidence):
    """Rows, channels first, grids as maps, without a batch axis, and all in one tensor."""
    tensors = tensors_of(seed)
    context = {"confidence": confidence, "iou": 0.6}
    options = {"multi_label": None}
    first = make(tensors, options=options, **context)(tensors, same(SIZE))
    turned = {role: np.ascontiguousarray(tensor.transpose(0, 2, 1)) for role, tensor in tensors.items()}
    maps = {
        role: tensor.reshape(1, tensor.shape[1], -(-SIZE[1] // int(role.rpartition("_")[2])), -1)
        for role, tensor in turned.items()
    }
    bare = {role: tensor[0] for role, tensor in tensors.items()}
    rows = [np.concatenate([tensors[f"scores_{s}"], tensors[f"boxes_{s}"]], axis=2) for s in STRIDES]
    joined = {"predictions": np.concatenate(rows, axis=1)}
    for other, layout in (
        (turned, "channels_first"), (maps, "channels_first"), (bare, "channels_last"), (joined, "channels_last"),
    ):  # fmt: skip
        found = make(other, options={**options, "layout": layout}, **context)(other, same(SIZE))
        np.testing.assert_allclose(found.confidence, first.confidence)
        # Of two equal scores either may come first.
        order, expected = (np.lexsort((*one.xyxy.T, one.class_id, one.confidence)) for one in (found, first))
        np.testing.assert_array_equal(found.class_id[order], first.class_id[expected])
        np.testing.assert_allclose(found.xyxy[order], first.xyxy[expected], atol=1e-4)


def test_nanodet_s_boxes_end_at_the_border_before_they_are_compared():
    """Two boxes that reach far out alike overlap much; what is left of them inside does not."""
    tensors = tensors_of(0)
    for tensor in tensors.values():
        tensor[:] = 0
    boxes = tensors["boxes_8"].reshape(1, -1, 4, BINS)
    for cell, (left, right) in ((0, (4, 1)), (1, (4, 0))):
        tensors["scores_8"][0, cell, 0] = 0.9
        for side, distance in enumerate((left, 0, right, 1)):
            boxes[0, cell, side, distance] = 50
    # x: -28 to 12 and -20 to 12; inside 0 to 12 both: the same after clipping alone.
    assert len(make(tensors, "nanodet", confidence=0.5, iou=0.9)(tensors, same(SIZE))) == 1
    assert len(make(tensors, "picodet", confidence=0.5, iou=0.9)(tensors, same(SIZE))) == 2


def test_raw_scores_get_their_sigmoid():
    tensors = tensors_of(5)
    raw = dict(tensors)
    for stride in STRIDES:
        scores = tensors[f"scores_{stride}"]
        raw[f"scores_{stride}"] = np.log(scores / (1 - scores)).astype(np.float32)
    first = make(tensors, confidence=0.5)(tensors, same(SIZE))
    second = make(raw, confidence=0.5, activation="sigmoid")(raw, same(SIZE))
    assert len(first) > 3
    np.testing.assert_allclose(first.confidence, second.confidence, rtol=1e-4)


def test_a_model_that_gives_no_numbers_is_not_nothing_found():
    tensors = tensors_of(1)
    tensors["scores_16"][:] = np.nan
    for layout in ("channels_last", "channels_first"):
        given_ = tensors if layout == "channels_last" else {k: v.transpose(0, 2, 1) for k, v in tensors.items()}
        with pytest.raises(InferenceError, match="output 'scores_16': all scores are NaN"):
            make(given_, options={"layout": layout}, confidence=0.5)(given_, same(SIZE))
    tensors["scores_16"][0, 0] = 0.9
    tensors["boxes_8"][:] = np.inf
    tensors["scores_8"][0, 3:, 1] = np.nan
    found = make(tensors, confidence=0.5)(tensors, same(SIZE))
    assert len(found) == 1


def test_what_does_not_fit_is_refused_with_figures():
    tensors = tensors_of(0)
    good = specs_of(tensors)
    with pytest.raises(ModelError, match=r"decoder nanodet: .* name no boxes_16; needed: scores_8, scores_16, boxes_8"):
        decoder("nanodet", {k: v for k, v in good.items() if k != "boxes_16"}, OPTIONS)
    with pytest.raises(
        ModelError, match=r"name scores_16, boxes_16, which would be left out .* `strides` must name every"
    ):
        decoder("nanodet", good, {**OPTIONS, "strides": (8,)})
    with pytest.raises(
        ModelError, match=r"'boxes_8' \(boxes_8\) is \[1, 45, 20\], .* has 20 channels; 32 are needed: 4 s"
    ):
        decoder("nanodet", good, {**OPTIONS, "reg_max": 7})
    with pytest.raises(ModelError, match="has 3 classes, but there are 2 labels"):
        decoder("picodet", good, OPTIONS, labels=("a", "b"))
    with pytest.raises(ModelError, match="activation softmax"):
        decoder("picodet", good, OPTIONS, activation="softmax")
    with pytest.raises(ModelError, match=r"is \[2, 45, 3\]; with `layout: channels_last` \[1, cells, channels\] or"):
        decoder("picodet", {**good, "scores_8": spec((2, 45, 3))}, OPTIONS)
    with pytest.raises(ModelError, match="int8 without a scale"):
        decoder("picodet", {**good, "scores_8": spec((1, 45, 3), dtype=np.int8)}, OPTIONS)
    with pytest.raises(
        ModelError, match=r"'scores_8' 45, 'scores_16' 15; strides .* 64x40 make 8x5 \+ 4x3 = 40, 12; mend"
    ):
        make(tensors)(tensors, same((64, 40)))
    short = {**tensors, "boxes_8": tensors["boxes_8"][:, :44]}
    with pytest.raises(ModelError, match="'scores_8' and 'boxes_8' have 45 and 44 cells"):
        make(tensors, confidence=0.1)(short, same(SIZE))


def test_one_scale_serves_neither_a_threshold_out_of_reach_nor_an_empty_picture():
    tensors = {role: np.full(tensor.shape, -128, np.int8) for role, tensor in tensors_of(0).items()}
    specs = {
        role: spec(tensor.shape, name=role, dtype=np.int8, quantization=per_tensor(1 / 512, -128))
        for role, tensor in tensors.items()
    }
    decode = decoder("picodet", specs, OPTIONS, confidence=0.9)  # the largest real value is 0.498
    tensors["scores_8"][:] = 127
    assert len(decode(tensors, same(SIZE))) == 0
