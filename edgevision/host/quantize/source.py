"""The float model that everything is measured against: found by name or file, described, and still float.

From a source and a candidate's bytes a model is made exactly as the daemon would make it; so what is measured is what runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgevision import assembly, model_store
from edgevision.assembly import ModelSettings
from edgevision.assembly.building import assemble, open_backend
from edgevision.errors import EdgevisionError, ModelError, UsageError
from edgevision.manifest import FileSection, InputOverride, Manifest, read_weights
from edgevision.model_store import BACKEND_BY_SUFFIX, ModelFolder
from edgevision.pipeline import Model
from edgevision.types import TensorSpec

SUFFIXES = {"onnx": ".onnx", "tflite": ".tflite"}
_BACKENDS = {"onnx": "onnxrt", "tflite": "litert"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A float model and what is known of it."""

    given: str
    """As the user named it."""
    manifest: Manifest
    """With the one file that is quantised."""
    backend: str
    """Whose file that is: `onnxrt` or `litert`."""
    content: bytes
    labels: tuple[str, ...]
    labels_file: Path | None

    @property
    def format(self) -> str:
        """`onnx` or `tflite`."""
        return "onnx" if self.backend == "onnxrt" else "tflite"

    @property
    def sha256(self) -> str:
        """Of the float weights."""
        return model_store.digest_of(self.content)

    @property
    def file_name(self) -> str:
        """Of the float weights."""
        return self.manifest.files[self.backend].file_name


def open_source(given: str, *, like: str | None = None, wanted: str | None = None) -> Source:
    """Find the float model.

    Args:
        given: a model's name or folder, or an .onnx or .tflite file.
        like: for a bare file: a model that is built alike.
        wanted: `onnx` or `tflite`, to be preferred where a model has files of both.

    Raises:
        UsageError: there is no such model or file, or nothing says how its pixels and outputs are meant.
        ModelError: the weights are missing or altered, or the runtime refuses them.
    """
    path = Path(given)
    if path.suffix.lower() in BACKEND_BY_SUFFIX:
        if not path.is_file():
            raise UsageError(f"{given}: no such file")
        if BACKEND_BY_SUFFIX[path.suffix.lower()] not in _BACKENDS.values():
            raise UsageError(
                f"{given}: only .onnx and .tflite files can be quantised; give the .onnx that it was made of"
            )
        described = assembly.identify(path, like=like)
        described.model.close()
        manifest = described.manifest
        labels_file = None if manifest.labels is None else described.labels_from / manifest.labels
        return Source(
            given=given,
            manifest=manifest,
            backend=described.model.backend_name,
            content=described.content,
            labels=described.model.labels,
            labels_file=labels_file,
        )
    if like is not None:
        raise UsageError(f"--like describes a bare model file; {given!r} is no .onnx or .tflite file")
    folder = model_store.find(given)
    backend = _backend_of(folder, wanted)
    return Source(
        given=given,
        manifest=folder.manifest,
        backend=backend,
        content=read_weights(folder.path, folder.manifest, backend),
        labels=model_store.labels(folder),
        labels_file=None if folder.manifest.labels is None else folder.path / folder.manifest.labels,
    )


def _backend_of(folder: ModelFolder, wanted: str | None) -> str:
    there = [backend for backend in _BACKENDS.values() if backend in folder.manifest.files]
    if wanted is not None and _BACKENDS[wanted] in there:
        return _BACKENDS[wanted]
    if not there:
        raise ModelError(
            f"{folder.path}: files: {folder.manifest.name} has neither an .onnx nor a .tflite file; it has files for "
            f"{', '.join(folder.manifest.files)}"
        )
    return there[0]


def converted(source: Source, content: bytes) -> Source:
    """The same model as a .tflite file that was made from its .onnx file.

    Raises:
        ModelError: LiteRT refuses it, or its outputs are not the ones that the manifest names.
    """
    backend = open_backend("litert", content, ModelSettings(), where=f"{source.given} as .tflite")
    try:
        names = [spec.name for spec in backend.outputs]
        shapes = {spec.name: spec.shape for spec in backend.outputs}
    finally:
        backend.close()
    roles = source.manifest.outputs_for(source.backend)
    if len(roles) == len(names) == 1:
        outputs = {next(iter(roles)): names[0]}
    elif set(roles.values()) <= set(names):
        outputs = dict(roles)
    else:
        raise ModelError(
            f"{source.given}: the converted .tflite has the outputs {shapes}, the manifest wants "
            f"{', '.join(roles.values())}; convert it yourself and describe it with a model.yaml"
        )
    file = Path(source.file_name).with_suffix(".tflite").name
    section = FileSection(path=file, sha256=model_store.digest_of(content), size=len(content), outputs=outputs)
    manifest = source.manifest.model_copy(
        update={"files": {"litert": section}, "input": source.manifest.input_for(source.backend)}
    )
    return replace(source, manifest=manifest, backend="litert", content=content)


def describe_candidate(
    source: Source,
    content: bytes,
    *,
    backend: str,
    name: str,
    file: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
) -> Manifest:
    """The manifest of a candidate: the source's, with its one file, and nothing that was measured on another.

    Args:
        source: the float model.
        content: the candidate.
        backend: that loads it.
        name: of the model.
        file: of its weights.
        inputs: as the backend tells them.
        outputs: likewise.
    """
    override = pixel_override(inputs)
    roles = source.manifest.outputs_for(source.backend)
    if len(roles) == len(outputs) == 1:  # one role, one tensor: tools rename it
        roles = {next(iter(roles)): outputs[0].name}
    described: dict[str, Any] = {"path": file, "sha256": model_store.digest_of(content), "size": len(content)}
    if override is not None:
        described["input"] = InputOverride.model_validate(override)
    if roles != source.manifest.outputs:
        described["outputs"] = dict(roles)
    section = FileSection(**described)
    return source.manifest.model_copy(
        update={
            "name": name,
            "files": {backend: section},
            "input": source.manifest.input_for(source.backend),
            "metrics": [],
            "lineage": {},
        }
    )


def load_candidate(
    source: Source, content: bytes, *, backend: str, name: str, file: str, settings: ModelSettings
) -> Model:
    """Load a candidate as the daemon would, and run it once.

    Raises:
        ModelError: the runtime refuses it, or it does not fit the manifest any more.
        PluginError: the runtime is not installed.
    """
    loaded = open_backend(backend, content, settings, where=name)
    try:
        manifest = describe_candidate(
            source, content, backend=backend, name=name, file=file, inputs=loaded.inputs, outputs=loaded.outputs
        )
        model = assemble(manifest, source.labels, backend, loaded, settings, where=name)
        model.warm_up()
    except EdgevisionError:
        loaded.close()
        raise
    return model


def pixel_override(inputs: tuple[TensorSpec, ...]) -> dict[str, Any] | None:
    """What the manifest must say of an input that takes the pixels themselves: mean and std are inside the graph then.

    A .tflite input carries its own scale, which the preprocessor applies; an ONNX input of bytes has none.
    """
    if len(inputs) != 1 or inputs[0].quantization is not None:
        return None
    if inputs[0].dtype == np.uint8:
        return {"mean": None, "std": None}
    if inputs[0].dtype == np.int8:  # the pixel less 128, which is its topmost bit turned over
        return {"mean": (128.0, 128.0, 128.0), "std": (1.0, 1.0, 1.0)}
    return None
