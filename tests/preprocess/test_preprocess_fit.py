"""Each way of fitting: what is seen, where it goes, and that the numbers in the tensor are the plain arithmetic's."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevision import registry
from edgevision.errors import ImageError, ModelError
from edgevision.geometry import to_frame_xyxy, to_input_xyxy
from edgevision.preprocess.base import InputFormat
from edgevision.types import Frame, Quantization, TensorSpec

RNG = np.random.default_rng(1)
PHOTO = cv2.resize(RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)


def frame_of(image, roi=None):
    return Frame(image=image, camera="line1", sequence=0, captured_at_ns=0, captured_mono_ns=0, roi=roi)


def spec_of(dtype="uint8", layout="NHWC", size=(64, 64), quantization=None):
    width, height = size
    shape = (1, height, width, 3) if layout == "NHWC" else (1, 3, height, width)
    return TensorSpec(name="in", shape=shape, dtype=np.dtype(dtype), layout=layout, quantization=quantization)


def make(name, spec=None, *, color="BGR", size=(64, 64), mean=None, std=None, **options):
    module = registry.load("preprocess", name)
    input_format = InputFormat(size=size, color=color, mean=mean, std=std)
    return module.create(module.Options(**options), spec or spec_of(size=size), input_format)


def picture(result, layout="NHWC"):
    """The tensor as (H, W, 3)."""
    tensor = result.tensors["in"][0]
    return tensor if layout == "NHWC" else tensor.transpose(1, 2, 0)


def per_tensor(scale, zero_point):
    return Quantization(scale=np.array([scale], np.float32), zero_point=np.array([zero_point], np.int32))


INT8 = per_tensor(1 / 255, -128)
ODD = per_tensor(0.019, 11)
CASES: dict[str, Any] = {
    "uint8 raw": ("uint8", None, None, None, lambda real: real),
    "int8 raw": ("int8", None, None, None, lambda real: real - 128),
    "float32 raw": ("float32", None, None, None, lambda real: real),
    "float16 raw": ("float16", None, None, None, lambda real: real),
    "int32 raw": ("int32", None, None, None, lambda real: real),
    "int8 by sign": ("int8", INT8, (0.0,) * 3, (255.0,) * 3, lambda real: np.rint(real * 255) - 128),
    "int8 table": (
        "int8", ODD, (123.0, 116.0, 103.0), (58.0, 57.0, 56.0),
        lambda real: np.clip(np.rint(real / np.float32(0.019)) + 11, -128, 127),
    ),
    "float32 table": ("float32", None, (123.0, 116.0, 103.0), (58.0, 57.0, 56.0), lambda real: real),
}  # fmt: skip


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("color", ["BGR", "RGB"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["letterbox", "center_crop", "stretch"])
def test_values_are_those_of_plain_arithmetic(name, case, color, layout):
    dtype, quantization, mean, std, expected_of = CASES[case]
    size = (48, 64)  # portrait: both axes differ, and the letterbox is padded above and below
    spec = spec_of(dtype, layout, size, quantization)
    result = make(name, spec, color=color, size=size, mean=mean, std=std)(frame_of(PHOTO))

    small = np.full((64, 48, 3), 114, np.uint8)
    if name == "letterbox":
        small[14:50] = cv2.resize(PHOTO, (48, 36), interpolation=cv2.INTER_LINEAR)
    elif name == "center_crop":
        small[:] = cv2.resize(np.ascontiguousarray(PHOTO[:, 140:500]), size, interpolation=cv2.INTER_LINEAR)
    else:
        small[:] = cv2.resize(PHOTO, size, interpolation=cv2.INTER_LINEAR)
    real = (small if color == "BGR" else small[:, :, ::-1]).astype(np.float64)
    if mean is not None:
        real = (real - mean) / std
    expected = expected_of(real).astype(dtype)
    assert result.tensors["in"].dtype == dtype
    assert result.tensors["in"].shape == spec.shape
    np.testing.assert_array_equal(picture(result, layout), expected)


@pytest.mark.parametrize("interpolation", ["linear", "area", "nearest", "cubic"])
def test_interpolation_is_the_one_asked_for(interpolation):
    result = make("stretch", interpolation=interpolation)(frame_of(PHOTO))
    flag = getattr(cv2, f"INTER_{interpolation.upper()}")
    np.testing.assert_array_equal(picture(result), cv2.resize(PHOTO, (64, 64), interpolation=flag))


def test_letterbox_aligns_and_pads_as_told():
    centred = picture(make("letterbox", pad=7)(frame_of(PHOTO))).copy()
    assert (centred[:8] == 7).all()
    assert (centred[56:] == 7).all()
    top_left = picture(make("letterbox", align="top_left", pad=7)(frame_of(PHOTO)))
    assert (top_left[48:] == 7).all()
    np.testing.assert_array_equal(top_left[:48], centred[8:56])


def test_padding_is_right_again_after_the_frame_size_changes():
    letterbox = make("letterbox", spec_of("float32", "NCHW"))
    wide, tall = PHOTO[:240], PHOTO[:, :240]
    fresh = [make("letterbox", spec_of("float32", "NCHW"))(frame_of(image)).tensors["in"] for image in (wide, tall)]
    for _ in range(2):
        for image, expected in zip((wide, tall), fresh, strict=True):
            np.testing.assert_array_equal(letterbox(frame_of(image)).tensors["in"], expected)


def test_crop_fraction_is_of_the_short_side():
    result = make("center_crop", fraction=0.5)(frame_of(PHOTO))
    assert result.transform.region == (200, 120, 440, 360)
    np.testing.assert_array_equal(picture(result), cv2.resize(PHOTO[120:360, 200:440].copy(), (64, 64)))


@pytest.mark.parametrize("name", ["letterbox", "center_crop", "stretch"])
def test_only_the_region_is_seen(name):
    image = PHOTO.copy()
    roi = (100, 50, 420, 250)
    inside = make(name)(frame_of(PHOTO[50:250, 100:420])).tensors["in"].copy()
    image[:50], image[250:], image[:, :100], image[:, 420:] = 0, 255, 0, 255
    result = make(name)(frame_of(image, roi))
    np.testing.assert_array_equal(result.tensors["in"], inside)
    assert result.transform.frame_size == (640, 480)
    left, top, right, bottom = result.transform.region
    assert roi[0] <= left < right <= roi[2]
    assert roi[1] <= top < bottom <= roi[3]


@given(
    st.sampled_from(["letterbox", "center_crop", "stretch"]),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.data(),
)
@settings(deadline=None)
def test_the_transform_maps_the_region_onto_its_place_in_the_input(name, frame_size, size, data):
    width, height = frame_size
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    roi = (left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height)))
    image = np.full((height, width, 3), 200, np.uint8)
    result = make(name, size=size)(frame_of(image, roi))
    transform = result.transform
    region = np.array([transform.region], np.float32)
    x0, y0, x1, y1 = np.rint(to_input_xyxy(region, transform)[0]).astype(int)
    assert 0 <= x0 < x1 <= size[0]
    assert 0 <= y0 < y1 <= size[1]
    pixels = picture(result)
    assert (pixels[y0:y1, x0:x1] == 200).all()
    assert (pixels == 200).all(axis=2).sum() == (x1 - x0) * (y1 - y0)
    np.testing.assert_allclose(to_frame_xyxy(to_input_xyxy(region, transform), transform), region, atol=1e-3)


def test_a_marked_spot_is_found_where_the_transform_says():
    image = np.zeros((480, 640, 3), np.uint8)
    image[300:340, 500:540] = 255
    transform_and_pixels = make("letterbox", size=(128, 128))(frame_of(image))
    ys, xs = np.nonzero(picture(transform_and_pixels)[:, :, 0] > 127)
    inner = (ys >= 16) & (ys < 112)  # between the bars of padding
    ys, xs = ys[inner], xs[inner]
    spot = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], np.float32)
    np.testing.assert_allclose(to_frame_xyxy(spot, transform_and_pixels.transform), [[500, 300, 540, 340]], atol=5.1)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40000, 3), (40000, 1, 3), (8000, 12000, 3)])
@pytest.mark.parametrize("name", ["letterbox", "center_crop", "stretch"])
def test_extreme_sizes(name, shape):
    result = make(name, spec_of("float32", "NCHW"))(frame_of(np.full(shape, 9, np.uint8)))
    assert (result.tensors["in"] == 9).any()
    assert min(result.transform.scale) > 0


def test_frames_share_one_buffer_and_one_plan():
    stretch = make("stretch")
    assert stretch(frame_of(PHOTO)) is stretch(frame_of(PHOTO[::-1].copy()))


def test_pictures_that_are_no_pictures_are_refused():
    stretch = make("stretch")
    with pytest.raises(ImageError, match=r"camera 'line1': the picture's shape is \(480, 640\)"):
        stretch(frame_of(PHOTO[:, :, 0]))
    with pytest.raises(ImageError, match="is float32; uint8 is needed"):
        stretch(frame_of(PHOTO.astype(np.float32)))
    with pytest.raises(ImageError, match=r"\(0, 640, 3\)"):
        stretch(frame_of(PHOTO[:0]))
    with pytest.raises(ImageError, match=r"region \[600, 0, 700, 100\] does not lie in the picture of 640x480"):
        stretch(frame_of(PHOTO, (600, 0, 700, 100)))


def test_inputs_that_are_no_pictures_are_refused():
    with pytest.raises(ModelError, match=r"'in' is \[1, 10\]: no picture of 3 channels"):
        make("stretch", TensorSpec(name="in", shape=(1, 10), dtype=np.dtype("uint8")))
    with pytest.raises(ModelError, match=r"NHWC \[1, 64, 64, 3\], but the manifest's input size is 32x64"):
        make("stretch", spec_of(), size=(32, 64))
    with pytest.raises(ModelError, match="is bool"):
        make("stretch", spec_of("bool"))
    with pytest.raises(ModelError, match="set `mean` and `std`"):
        make("stretch", spec_of(quantization=per_tensor(0.01, 128)))


def test_an_open_input_size_is_taken_from_the_manifest():
    spec = TensorSpec(name="in", shape=(1, -1, -1, 3), dtype=np.dtype("uint8"), layout="NHWC")
    assert make("stretch", spec, size=(20, 10))(frame_of(PHOTO)).tensors["in"].shape == (1, 10, 20, 3)
