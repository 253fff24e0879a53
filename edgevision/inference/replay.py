"""Replay: recorded outputs in place of a model, for tests and for hunting a fault without the machine that showed it.

The recording is one .npz: `output/<tensor>` holds that output's recordings along its first axis, `input/<tensor>` is an
empty array whose further axes and type are the input's, and `quantization/<tensor>` (2, 1) is the tensor's scale and
zero point.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision import registry
from edgevision.errors import InferenceError, ModelError
from edgevision.inference._specs import check_tensors, layout_of
from edgevision.inference.base import Backend, BackendContext, ModelFile
from edgevision.types import Quantization, Tensors, TensorSpec

MAX_BYTES = 256 * 1024 * 1024
"""Unpacked size above which a recording is refused."""


class Options(registry.Options):
    """Where the recording is."""

    path: Path


def create(options: Options, model: ModelFile, context: BackendContext) -> Backend:  # noqa: ARG001 - it needs neither
    """Load a recording.

    Raises:
        ModelError: the file is missing or is no recording.
    """
    arrays = _read(options.path)
    inputs = _specs(arrays, "input", options.path)
    outputs = _specs(arrays, "output", options.path)
    recordings = {spec.name: arrays[f"output/{spec.name}"] for spec in outputs}
    counts = {name: len(array) for name, array in recordings.items()}
    if not recordings or min(counts.values()) < 1 or len(set(counts.values())) > 1:
        raise ModelError(
            f"{options.path}: needs `output/<tensor>` arrays with equally many recordings, at least one; found: "
            f"{counts}"
        )
    return _Replay(str(options.path), inputs, outputs, recordings)


def record(
    path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], recordings: Sequence[Tensors]
) -> None:
    """Write a recording of what a backend with these inputs and outputs gave.

    Raises:
        ModelError: an input's size is open; give the `TensorSpec` with the size that was used.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for spec in inputs:
        if -1 in spec.shape:
            raise ModelError(f"{path}: input {spec.name!r} {list(spec.shape)} needs the size that was recorded, not -1")
        arrays[f"input/{spec.name}"] = np.empty((0, *spec.shape), spec.dtype)
    for spec in outputs:
        arrays[f"output/{spec.name}"] = np.stack([tensors[spec.name] for tensors in recordings])
    for spec in (*inputs, *outputs):
        if spec.quantization is not None:
            quantization = spec.quantization
            arrays[f"quantization/{spec.name}"] = np.stack(
                (quantization.scale.astype(np.float64), quantization.zero_point.astype(np.float64))
            )
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy takes `allow_pickle` for one of them


class _Replay:
    """A `Backend` that gives one recording after the other, and then the first again."""

    def __init__(
        self,
        name: str,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        recordings: Mapping[str, NDArray[Any]],
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._name = name
        self._recordings = recordings
        self._count = len(next(iter(recordings.values())))
        self._next = 0
        self._closed = False

    def run(self, tensors: Tensors) -> Tensors:
        """The next recording; the tensors are only checked."""
        check_tensors(self._name, self.inputs, tensors)
        if self._closed:
            raise InferenceError(f"recording {self._name!r} is closed")
        index, self._next = self._next, (self._next + 1) % self._count
        return {name: array[index].copy() for name, array in self._recordings.items()}

    def close(self) -> None:
        """Refuse further runs."""
        self._closed = True


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise ModelError(f"{path}: unpacks to {size} bytes; recordings may have {MAX_BYTES}")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, zipfile.BadZipFile, ValueError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ModelError(f"{path}: cannot be read as a recording (.npz): {reason}") from error


def _specs(arrays: Mapping[str, NDArray[Any]], kind: str, path: Path) -> tuple[TensorSpec, ...]:
    specs = []
    for key, array in arrays.items():
        group, _, name = key.partition("/")
        if group not in ("input", "output", "quantization") or not name:
            raise ModelError(f"{path}: holds {key!r}; a recording has input/, output/ and quantization/<tensor> only")
        if group == kind:
            shape = array.shape[1:]
            specs.append(
                TensorSpec(
                    name=name,
                    shape=shape,
                    dtype=array.dtype,
                    layout=layout_of(shape) if kind == "input" else None,
                    quantization=_quantization(arrays.get(f"quantization/{name}")),
                )
            )
    return tuple(specs)


def _quantization(stored: NDArray[Any] | None) -> Quantization | None:
    if stored is None:
        return None
    return Quantization(scale=stored[0].astype(np.float32), zero_point=stored[1].astype(np.int32))
