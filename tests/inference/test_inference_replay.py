"""Replay: what was recorded comes out again, and what is no recording is refused."""

from types import MappingProxyType

import numpy as np
import pytest
from inference_support import load, zeros_for

from edgevision.errors import ModelError
from edgevision.inference import replay
from edgevision.types import Quantization, TensorSpec

INPUT = TensorSpec(name="image", shape=(1, 8, 8, 3), dtype=np.dtype(np.uint8), layout="NHWC")
OUTPUT = TensorSpec(
    name="a/b:0",
    shape=(1, 4),
    dtype=np.dtype(np.int8),
    quantization=Quantization(scale=np.array([0.5], np.float32), zero_point=np.array([-3], np.int32)),
)
RECORDINGS = [{"a/b:0": np.full((1, 4), value, np.int8)} for value in (1, 2, 3)]


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "recording.npz"
    replay.record(path, [INPUT], [OUTPUT], RECORDINGS)
    return path


def test_recordings_come_in_order_and_again(recording):
    backend = load("replay", b"", path=recording)
    values = [int(backend.run(zeros_for(backend))["a/b:0"][0, 0]) for _ in range(7)]
    assert values == [1, 2, 3, 1, 2, 3, 1]


def test_specs_are_those_that_were_recorded(recording):
    backend = load("replay", b"", path=recording)
    (given,), (output,) = backend.inputs, backend.outputs
    assert (given.name, given.shape, given.dtype, given.layout) == ("image", (1, 8, 8, 3), np.uint8, "NHWC")
    assert (output.name, output.shape, output.dtype) == ("a/b:0", (1, 4), np.int8)
    assert output.quantization is not None
    assert (output.quantization.scale.tolist(), output.quantization.zero_point.tolist()) == ([0.5], [-3])


def test_a_result_that_is_written_to_does_not_change_the_recording(recording):
    backend = load("replay", b"", path=recording)
    for _ in range(2):
        for expected in (1, 2, 3):
            result = backend.run(zeros_for(backend))["a/b:0"]
            assert (result == expected).all()
            result[:] = 99


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"none\.npz: cannot be read as a recording \(\.npz\): No such file"):
        load("replay", b"", path=tmp_path / "none.npz")


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"hello")
    with pytest.raises(ModelError, match="cannot be read as a recording"):
        load("replay", b"", path=path)


def test_pickles_are_never_loaded(tmp_path):
    path = tmp_path / "pickle.npz"
    np.savez(path, **{"output/x": np.array([{"a": 1}], dtype=object)})  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="allow_pickle=False"):
        load("replay", b"", path=path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (MappingProxyType({"input/x": np.zeros((0, 1))}), "at least one; found: {}"),
        (MappingProxyType({"output/x": np.zeros((0, 1))}), "found: {'x': 0}"),
        (MappingProxyType({"output/x": np.zeros((1, 1)), "output/y": np.zeros((2, 1))}), "found: {'x': 1, 'y': 2}"),
        (MappingProxyType({"scores": np.zeros(3)}), "holds 'scores'; a recording has"),
    ],
)
def test_arrays_that_are_no_recording(tmp_path, arrays, message):
    path = tmp_path / "odd.npz"
    np.savez(path, **arrays)
    with pytest.raises(ModelError) as caught:
        load("replay", b"", path=path)
    assert message in str(caught.value)


def test_a_recording_that_unpacks_to_too_much_is_refused(recording, monkeypatch):
    monkeypatch.setattr(replay, "MAX_BYTES", 100)
    with pytest.raises(ModelError, match=r"unpacks to \d+ bytes; recordings may have 100"):
        load("replay", b"", path=recording)


def test_an_open_input_size_cannot_be_recorded(tmp_path):
    spec = TensorSpec(name="image", shape=(1, -1, -1, 3), dtype=np.dtype(np.uint8))
    with pytest.raises(ModelError, match="needs the size that was recorded"):
        replay.record(tmp_path / "x.npz", [spec], [OUTPUT], RECORDINGS)
