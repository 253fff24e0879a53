"""LiteRT: what is refused, and that quantised tensors come out as they are."""

import numpy as np
import pytest
from inference_support import load, load_shared, zeros_for

from edgevision.errors import InferenceError, ModelError

MOBILENET = "mobilenet_v2_1.0_224_quant.tflite"


def test_a_quantised_model_tells_its_tensors(shared):
    backend = load_shared("litert", shared, MOBILENET)
    (given,), (output,) = backend.inputs, backend.outputs
    assert (given.shape, given.dtype, given.layout) == ((1, 224, 224, 3), np.uint8, "NHWC")
    assert given.quantization is not None
    assert (given.quantization.scale.tolist(), given.quantization.zero_point.tolist()) == ([1 / 128], [128])
    assert (output.shape, output.dtype, output.layout) == ((1, 1001), np.uint8, None)
    assert output.quantization is not None
    assert output.quantization.axis is None
    assert backend.run(zeros_for(backend))[output.name].dtype == np.uint8


def test_the_result_is_the_runtime_s_own(shared):
    interpreter_module = pytest.importorskip("ai_edge_litert.interpreter")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    bare = interpreter_module.Interpreter(model_path=str(shared / "models" / MOBILENET), num_threads=1)
    bare.allocate_tensors()
    bare.set_tensor(bare.get_input_details()[0]["index"], pixels)
    bare.invoke()
    expected = bare.get_tensor(bare.get_output_details()[0]["index"])
    backend = load_shared("litert", shared, MOBILENET)
    name = backend.outputs[0].name
    held = backend.run({"input": pixels})[name]
    np.testing.assert_array_equal(held, expected)
    backend.run({"input": pixels[:, ::-1]})  # an interpreter does not run while somebody holds a view of its memory


def test_plain_kernels_give_nearly_the_same(shared):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    fast, plain = (load_shared("litert", shared, MOBILENET, xnnpack=xnnpack) for xnnpack in (True, False))
    first, second = (backend.run({"input": pixels})[backend.outputs[0].name] for backend in (fast, plain))
    assert np.abs(first.astype(int) - second.astype(int)).max() <= 8


def test_a_model_that_the_runtime_refuses_is_told_in_one_line(shared):
    with pytest.raises(ModelError) as caught:
        load_shared("litert", shared, "person_detect_REFUSED.tflite")
    assert str(caught.value) == (
        "model 'person_detect_REFUSED.tflite': LiteRT refuses it: quantized_dimension must be in range [0, 1)"
    )


@pytest.mark.parametrize("content", [b"", b"TFL3", b"hello world" * 20, b"\x08\x07\x12\x07pytorch"])
def test_what_is_no_tflite_file_is_refused(content):
    with pytest.raises(ModelError, match=r"model 'm': no .tflite file: bytes 4 to 8 are b"):
        load("litert", content)


def test_garbage_behind_the_right_beginning_is_refused():
    garbage = np.random.default_rng(0).bytes(100_000)
    with pytest.raises(ModelError, match="LiteRT refuses it: The model is not a valid Flatbuffer buffer"):
        load("litert", b"\x1c\0\0\0TFL3" + garbage)


@pytest.mark.parametrize("share", [0.00001, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_model_is_refused(shared, share):
    content = (shared / "models" / MOBILENET).read_bytes()
    with pytest.raises(ModelError, match="LiteRT refuses it: The model is not a valid Flatbuffer buffer"):
        load("litert", content[: int(len(content) * share)])


def test_tensors_that_do_not_fit_are_refused_by_name(shared):
    backend = load_shared("litert", shared, MOBILENET)
    with pytest.raises(
        InferenceError, match=r"input 'input' is \[1, 3, 224, 224\]; the model wants \[1, 224, 224, 3\]"
    ):
        backend.run({"input": np.zeros((1, 3, 224, 224), np.uint8)})
    with pytest.raises(InferenceError, match=r"input 'input' is int8; the model wants uint8"):
        backend.run({"input": np.zeros((1, 224, 224, 3), np.int8)})


def test_a_name_that_is_no_text_is_a_damaged_file(shared):
    content = (shared / "models" / "mobilenet_v2_1.0_224_quant.tflite").read_bytes()
    place = content.rindex(b"\x05\0\0\0input\0") + 4
    with pytest.raises(ModelError, match="model 'm': a name in it is no text: the file is damaged"):
        load("litert", content[:place] + b"\xff" + content[place + 1 :])
