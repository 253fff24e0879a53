"""Scale and zero point."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.quantization import dequantize, pixel_table, quantize, quantized_threshold
from edgevision.types import Quantization

INT8, UINT8 = np.dtype(np.int8), np.dtype(np.uint8)


def per_tensor(scale, zero_point):
    return Quantization(scale=np.array([scale], np.float32), zero_point=np.array([zero_point], np.int32))


def every(dtype):
    limits = np.iinfo(dtype)
    return np.arange(limits.min, limits.max + 1).astype(dtype)


scales = st.floats(2**-20, 100, width=32)


@given(scales, st.integers(-128, 127))
def test_quantise_undoes_dequantise_for_every_integer(scale, zero_point):
    quantization = per_tensor(scale, zero_point)
    assert (quantize(dequantize(every(INT8), quantization), quantization, INT8) == every(INT8)).all()


def test_quantise_rounds_half_to_even_and_saturates():
    real = np.array([0.5, 1.5, 2.5, -0.5, 1e9, -1e9])
    assert quantize(real, per_tensor(1, 0), INT8).tolist() == [0, 2, 2, 0, 127, -128]


def test_dequantise_along_an_axis():
    quantization = Quantization(scale=np.array([1, 10], np.float32), zero_point=np.array([0, 1], np.int32), axis=1)
    assert dequantize(np.array([[2, 2], [3, 3]], np.int8), quantization).tolist() == [[2, 10], [3, 20]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32])
def test_dequantise_is_the_exact_product_rounded_once(dtype):
    limits = np.iinfo(dtype)
    values = np.array([limits.min, limits.min + 1, 0, 7, limits.max], dtype)
    quantization = per_tensor(0.0123, 3)
    exact = (values.astype(np.int64) - 3) * float(np.float32(0.0123))
    assert dequantize(values, quantization).tolist() == exact.astype(np.float32).tolist()


@given(st.floats(-300, 300, width=32), scales, st.integers(-128, 127))
def test_an_integer_threshold_selects_what_the_real_one_does(real, scale, zero_point):
    quantization = per_tensor(scale, zero_point)
    threshold = quantized_threshold(real, quantization, INT8)
    expected = dequantize(every(INT8), quantization) >= np.float32(real)
    assert ((every(INT8).astype(int) >= threshold) == expected).all()


def test_thresholds_beyond_all_values():
    assert quantized_threshold(float("-inf"), per_tensor(0.1, 0), INT8) == -128
    assert quantized_threshold(float("inf"), per_tensor(0.1, 0), INT8) == 128


def test_a_table_holds_what_arithmetic_gives():
    quantization = per_tensor(0.02, -3)
    mean, std = (123.0, 116.0, 103.0), (58.0, 57.0, 56.0)
    table = pixel_table(mean, std, quantization, INT8)
    pixel = np.arange(256)[:, None]
    expected = np.clip(np.rint((pixel - np.array(mean)) / np.array(std) / np.float32(0.02)) - 3, -128, 127)
    assert table.dtype == np.int8
    assert (table == expected).all()


def test_raw_tables():
    assert (pixel_table(None, None, None, UINT8) == np.arange(256)[:, None]).all()
    assert (pixel_table(None, None, None, INT8) == np.arange(-128, 128)[:, None]).all()
    assert pixel_table(None, None, None, np.dtype(np.float32)).dtype == np.float32
    assert (pixel_table((0,) * 3, (255,) * 3, per_tensor(1 / 255, -128), INT8) == np.arange(-128, 128)[:, None]).all()


def test_normalised_values_need_a_scale():
    with pytest.raises(ValueError, match="leave out `mean` and `std`"):
        pixel_table((1.0,) * 3, None, None, UINT8)


def test_pixels_that_the_input_cannot_hold_are_refused():
    with pytest.raises(ValueError, match=r"from -1 to 0.9922, but pixels become 0 to 255: set `mean` and `std`"):
        pixel_table(None, None, per_tensor(1 / 128, 128), UINT8)
