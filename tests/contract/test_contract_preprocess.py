"""What every preprocessor must keep to, whatever it does with the picture."""

import subprocess
import sys

import numpy as np
import pytest

from edgevision import registry
from edgevision.errors import ModelError
from edgevision.preprocess.base import InputFormat
from edgevision.types import Frame, TensorSpec

PLUGINS = registry.available("preprocess")
SIZES = [(640, 480), (480, 640), (1, 1), (3, 900), (32, 24)]


def frame_of(width, height, roi=None):
    image = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Frame(image=image, camera="c", sequence=0, captured_at_ns=0, captured_mono_ns=0, roi=roi)


def make(name, dtype, layout):
    shape = (1, 24, 32, 3) if layout == "NHWC" else (1, 3, 24, 32)
    spec = TensorSpec(name="x", shape=shape, dtype=np.dtype(dtype), layout=layout)
    module = registry.load("preprocess", name)
    return spec, module.create(module.Options(), spec, InputFormat(size=(32, 24), color="RGB"))


def test_there_are_the_three_of_the_plan():
    assert {"letterbox", "center_crop", "stretch"} <= set(PLUGINS)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("name", PLUGINS)
def test_the_tensor_is_the_model_s_and_always_the_same_buffer(name, dtype, layout):
    spec, preprocess = make(name, dtype, layout)
    buffers = []
    for width, height in SIZES:
        frame = frame_of(width, height)
        before = frame.image.copy()
        result = preprocess(frame)
        (tensor,) = result.tensors.values()
        assert list(result.tensors) == ["x"]
        assert (tensor.shape, tensor.dtype) == (spec.shape, spec.dtype)
        assert tensor.flags.c_contiguous
        buffers.append(tensor.__array_interface__["data"])
        assert result.transform.frame_size == (width, height)
        assert result.transform.input_size == (32, 24)
        left, top, right, bottom = result.transform.region
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        np.testing.assert_array_equal(frame.image, before)
    assert len(set(buffers)) == 1


@pytest.mark.parametrize("name", PLUGINS)
def test_a_frame_gives_the_same_whatever_came_before(name):
    _, fresh = make(name, "float32", "NCHW")
    _, used = make(name, "float32", "NCHW")
    for width, height in SIZES:
        used(frame_of(width, height))
    frame = frame_of(640, 480, (10, 20, 600, 300))
    np.testing.assert_array_equal(fresh(frame).tensors["x"], used(frame).tensors["x"])


@pytest.mark.parametrize("name", PLUGINS)
def test_it_writes_into_its_place_of_a_batch_and_nowhere_else(name):
    spec, alone = make(name, "float32", "NCHW")
    batch = np.full((3, 3, 24, 32), 7, np.float32)
    module = registry.load("preprocess", name)
    placed = module.create(module.Options(), spec, InputFormat(size=(32, 24), color="RGB", buffer=batch[1:2]))
    frame = frame_of(640, 480)
    tensor = placed(frame).tensors["x"]
    np.testing.assert_array_equal(tensor, alone(frame).tensors["x"])
    assert np.shares_memory(tensor, batch)
    np.testing.assert_array_equal(batch[1:2], tensor)
    assert (batch[[0, 2]] == 7).all()
    with pytest.raises(ModelError, match="the buffer is"):
        module.create(module.Options(), spec, InputFormat(size=(32, 24), color="RGB", buffer=batch))


@pytest.mark.parametrize("name", PLUGINS)
def test_regions_of_one_picture_in_turn_are_as_if_each_were_alone(name):
    _, used = make(name, "uint8", "NHWC")
    regions = [(0, 0, 200, 100), (0, 0, 640, 480), (50, 40, 250, 140), (0, 0, 100, 300)]
    for region in regions * 3:
        _, fresh = make(name, "uint8", "NHWC")
        frame = frame_of(640, 480, region)
        np.testing.assert_array_equal(used(frame).tensors["x"], fresh(frame).tensors["x"])


@pytest.mark.parametrize("name", PLUGINS)
def test_it_imports_without_any_runtime(name):
    code = (
        f"import sys, edgevision.preprocess.{name}; "
        "sys.exit(bool({'onnxruntime', 'ai_edge_litert', 'paho'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
