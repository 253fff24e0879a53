"""Semantic segmentation: against torch's own interpolation, and pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest
from decode_support import decoder, per_tensor, same, spec
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevision import model_store
from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize
from edgevision.types import UNSEEN, ImageTransform

GOLDEN = Path(__file__).parents[1] / "golden" / "decoders" / "torchvision_deeplab.npz"
LABELS = tuple("abcdef")


def make(outputs, options=None, **context):
    """With a manifest's own threshold, which is none."""
    return decoder("semantic", outputs, options, **{"confidence": 0.0, **context})


def segment(scores, options=None, transform=None, *, role="scores", quantization=None, **context):
    values = np.asarray(scores)
    made = make({role: spec(values.shape, dtype=values.dtype, quantization=quantization)}, options, **context)
    return made({"out": values}, transform or same((values.shape[-1], values.shape[-2])))


def test_bilinear_is_what_torch_makes_of_the_same_scores():
    golden = np.load(GOLDEN)
    found = segment(golden["tensor scores"], {"upsample": "bilinear"}, same((256, 192)), labels=LABELS)
    assert found.class_map.shape == (192, 256)
    # float32 sums in another order: of 49152 pixels a few lie on the very edge.
    assert (found.class_map == golden["class_map"]).mean() > 0.9995
    nearest = segment(golden["tensor scores"], None, same((256, 192)), labels=LABELS)
    assert 0.85 < (nearest.class_map == golden["class_map"]).mean() < 0.99


def test_channels_last_and_first_say_the_same():
    scores = np.load(GOLDEN)["tensor scores"]
    last = np.ascontiguousarray(scores.transpose(0, 2, 3, 1))
    for options in ({"upsample": "nearest"}, {"upsample": "bilinear"}):
        first = segment(scores, options, same((40, 30)), labels=LABELS)
        second = segment(last, options, same((40, 30)), labels=LABELS)
        np.testing.assert_array_equal(first.class_map, second.class_map)
        assert first.labels is LABELS


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.int8, np.uint8]), st.sampled_from([0.0, 0.3, 0.6]))
@settings(max_examples=30)
def test_integers_give_what_their_real_values_give(seed, dtype, confidence):
    values = np.random.default_rng(seed).integers(0, 127, (1, 4, 5, 6)).astype(dtype)
    quantization = per_tensor(0.07, 40)
    options = {"layout": "NCHW"}
    context = {"activation": "softmax", "confidence": confidence, "class_confidence": {2: 0.5}}
    first = segment(values, options, quantization=quantization, **context)
    second = segment(dequantize(values, quantization), options, **context)
    np.testing.assert_array_equal(first.class_map, second.class_map)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["none", "softmax", "sigmoid"]), st.sampled_from(["NCHW", "NHWC"]))
@settings(max_examples=30)
def test_what_is_not_sure_enough_is_background(seed, activation, layout):
    scores = np.random.default_rng(seed).normal(0, 2, (1, 3, 4, 5)).astype(np.float32)
    given_as = scores if layout == "NCHW" else scores.transpose(0, 2, 3, 1)
    found = segment(given_as, {"layout": layout, "background": 2}, same((5, 4)), activation=activation, confidence=0.6)
    real = {
        "none": scores,
        "softmax": np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True),
        "sigmoid": 1 / (1 + np.exp(-scores)),
    }[activation][0]
    clear = np.abs(real.max(axis=0) - 0.6) > 1e-5
    expected = np.where(real.max(axis=0) >= 0.6, real.argmax(axis=0), 2)
    np.testing.assert_array_equal(found.class_map[clear], expected[clear])


def test_each_pixel_takes_its_cell_and_what_was_not_seen_is_not_background():
    cells = np.arange(1, 5, dtype=np.int64).reshape(1, 2, 2)
    # 8x4 frame, of which columns 2 to 5 were stretched to the input of 4x4.
    transform = ImageTransform(
        frame_size=(8, 4), input_size=(4, 4), scale=(1.0, 1.0), offset=(-2.0, 0.0), region=(2, 0, 6, 4)
    )
    found = segment(cells, None, transform, role="class_map")
    row = [UNSEEN, UNSEEN, 1, 1, 2, 2, UNSEEN, UNSEEN]
    below = [UNSEEN, UNSEEN, 3, 3, 4, 4, UNSEEN, UNSEEN]
    assert found.class_map.tolist() == [row, row, below, below]
    assert found.class_map.dtype == np.uint8
    assert len(found) == 4


def test_the_letterbox_is_taken_off():
    cells = np.zeros((1, 4, 4), np.int32)
    cells[0, 2:] = 9  # what the model says of the grey below
    transform = ImageTransform(
        frame_size=(400, 200), input_size=(100, 100), scale=(0.25, 0.25), offset=(0.0, 0.0), region=(0, 0, 400, 200)
    )
    assert len(segment(cells, None, transform, role="class_map")) == 0


@pytest.mark.parametrize("shape", [(1, 2, 3), (1, 1, 2, 3), (1, 2, 3, 1), (2, 3)])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.float32])
def test_class_maps_of_every_make(shape, dtype):
    values = np.array([[0, 1, 2], [5, 4, 3]], dtype).reshape(shape)
    found = segment(values, None, same((3, 2)), role="class_map", labels=LABELS)
    assert found.class_map.tolist() == [[0, 1, 2], [5, 4, 3]]
    assert len(found) == 5
    assert len(segment(values, {"background": None}, same((3, 2)), role="class_map")) == 6


@pytest.mark.parametrize("bad", [6, -1, np.nan, np.inf])
def test_a_number_that_is_no_class_is_an_error(bad):
    values = np.array([[[0, bad]]], np.float32)
    with pytest.raises(InferenceError, match="classes are 0 to 5"):
        segment(values, None, same((2, 1)), role="class_map", labels=LABELS)


@pytest.mark.parametrize(
    "options", [{"layout": "NCHW"}, {"layout": "NHWC"}, {"layout": "NCHW", "upsample": "bilinear"}]
)
def test_scores_that_are_no_numbers_are_an_error(options):
    scores = np.zeros((1, 3, 4, 3), np.float32)
    scores[0, 1, 2, 1] = np.nan
    with pytest.raises(InferenceError, match=r"1 of (9|12) cells"):
        segment(scores, options)


@pytest.mark.parametrize(("activation", "edge"), [("sigmoid", 0.0), ("none", 0.5)])
def test_one_class_alone_is_told_from_the_background(activation, edge):
    scores = np.array([[[[edge - 0.1, edge, edge + 0.1]]]], np.float32)
    found = segment(scores, None, same((3, 1)), activation=activation, labels=("good", "scratch"))
    assert found.class_map.tolist() == [[0, 1, 1]]
    sure = segment(scores, None, same((3, 1)), activation=activation, labels=("good", "scratch"), confidence=0.9)
    assert len(sure) == 0


def test_classes_that_nobody_asked_for_are_background():
    values = np.array([[[0, 1, 2, 3]]], np.int64)
    found = segment(values, None, same((4, 1)), role="class_map", classes=frozenset({2}))
    assert found.class_map.tolist() == [[0, 0, 2, 0]]
    with pytest.raises(ModelError, match="background"):
        segment(values, {"background": None}, role="class_map", classes=frozenset({2}))


def test_the_result_shares_no_memory_with_the_tensors():
    values = np.array([[[0, 1], [2, 3]]], np.uint8)
    found = make({"class_map": spec(values.shape, dtype=np.uint8)})({"out": values}, same((2, 2)))
    values[:] = 0
    assert found.class_map.tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("shape", "options", "context", "words"),
    [
        ((1, 6, 6, 6), {}, {"labels": LABELS}, r"\[1, 6, 6, 6\] and there are 6 labels.*set decoder"),
        ((1, 21, 8, 8), {}, {"labels": LABELS}, "does not tell which axis"),
        ((1, 21, 8, 8), {}, {}, "there are 0 labels"),
        ((1, 21, 8, 8), {"layout": "NCHW"}, {"labels": LABELS}, "has 21 classes, but there are 6 labels"),
        ((1, 21, 8), {}, {}, "where the argmax is inside, its role is class_map"),
        ((1, 300, 8, 8), {"layout": "NCHW"}, {}, "has 300 classes; at most 255"),
        ((1, 1, 8, 8), {"layout": "NCHW"}, {"activation": "softmax"}, "of one class is always 1"),
        ((1, 3, 8, 8), {"layout": "NCHW", "background": 3}, {}, "background 3 is none of the classes 0 to 2"),
        ((1, 3, 8, 8), {"layout": "NCHW", "background": None}, {"confidence": 0.5}, "pixels without a class"),
        ((1, 3, 8, 8), {"layout": "NCHW", "upsample": "bilinear"}, {"confidence": 0.5}, "needs upsample nearest"),
    ],
)
def test_scores_that_do_not_fit_are_refused(shape, options, context, words):
    with pytest.raises(ModelError, match=words):
        make({"scores": spec(shape)}, options, **context)


@pytest.mark.parametrize(
    ("shape", "options", "context", "words"),
    [
        ((1, 21, 8, 8), {}, {}, "its role is scores"),
        ((1, 8, 8), {}, {"confidence": 0.5}, "no scores: there is nothing that an activation or a confidence"),
        ((1, 8, 8), {}, {"activation": "softmax"}, "no scores"),
        ((1, 8, 8), {"upsample": "bilinear"}, {}, "bilinear needs scores"),
        ((1, 8, 8), {"background": 9}, {"labels": LABELS}, "background 9"),
    ],
)
def test_class_maps_that_do_not_fit_are_refused(shape, options, context, words):
    with pytest.raises(ModelError, match=words):
        make({"class_map": spec(shape, dtype=np.int64)}, options, **context)


def test_one_role_is_needed():
    both = {"scores": spec((1, 3, 4, 4)), "class_map": spec((1, 4, 4), "m", np.int64)}
    with pytest.raises(ModelError, match="both scores and class_map"):
        make(both)
    with pytest.raises(ModelError, match=r"class_map alone.*name no scores"):
        make({"logits": spec((1, 3, 4, 4))})


@pytest.mark.parametrize(
    ("role", "shape"),
    [("scores", (2, 4, 4)), ("class_map", (4, 4)), ("class_map", (1, 4, 4)), ("class_map", (4, 4, 1))],
)
def test_an_open_batch_is_one_picture(role, shape):
    made = make({role: spec((-1, *shape))}, {"layout": "NCHW"}, labels=("nothing", "scratch"))
    answer = np.zeros((1, *shape), np.float32)
    answer[:, -1] = 1
    assert made({"out": answer}, same((4, 4))).class_map[3].tolist() == [1] * 4
    with pytest.raises(InferenceError, match="the answer for one picture is needed"):
        made({"out": np.zeros((2, *shape), np.float32)}, same((4, 4)))


def test_a_class_map_without_a_batch_may_be_of_any_size():
    made = make({"class_map": spec((-1, -1))})
    assert made({"out": np.ones((2, 2), np.float32)}, same((4, 4))).class_map.tolist() == [[1] * 4] * 4


def test_torchvisions_pattern_makes_probabilities_of_its_logits():
    """A logit of 0.6 is no confidence of 0.7: of two classes, 0 and 0.7, the second is only 0.668 sure."""
    manifest = model_store.find("deeplabv3-torchvision").manifest
    logits = np.zeros((1, 2, 1, 2), np.float32)
    logits[0, 1] = [[0.7, 3.0]]
    labels = ("nothing", "scratch")
    found = segment(
        logits, manifest.decoder, same((2, 1)), activation=manifest.activation, labels=labels, confidence=0.7
    )
    assert found.class_map.tolist() == [[0, 1]]
    found = segment(logits, manifest.decoder, same((2, 1)), activation=manifest.activation, labels=labels)
    assert found.class_map.tolist() == [[1, 1]]
