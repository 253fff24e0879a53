"""`load_model`: a name, a folder or a file becomes a model that is ready to predict."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from edgevision import model_store, registry
from edgevision.assembly.building import ModelSettings, build
from edgevision.assembly.identify import identify
from edgevision.assembly.probing import Prober, is_known
from edgevision.errors import ModelError, PluginError, UsageError
from edgevision.manifest import read_weights
from edgevision.model_store import ModelFolder
from edgevision.pipeline import Model
from edgevision.tiling import Tiling

# Which module shows that a backend's runtime is installed; backends from outside packages are taken to bring theirs.
_RUNTIMES: Mapping[str, tuple[str, ...]] = {
    "onnxrt": ("onnxruntime",),
    "litert": ("ai_edge_litert", "tflite_runtime"),
    "openvino": ("openvino",),
}


def load_model(
    model: str | Path,
    *,
    backend: str | None = None,
    threads: int = 2,
    confidence: float | None = None,
    iou: float | None = None,
    class_agnostic: bool | None = None,
    max_detections: int | None = None,
    tiling: Tiling | None = None,
    like: str | None = None,
    models_dir: Path | None = None,
    settings: ModelSettings | None = None,
    prober: Prober | None = None,
) -> Model:
    """Load a model, ready to predict.

    Args:
        model: a model's name (`edgevision models list`), a model folder, or an .onnx or .tflite file.
        backend: `onnxrt`, `litert` or `openvino`; by default the first that the model has a file for and this machine a
            runtime.
        threads: threads of one inference.
        confidence: drop predictions below; by default the manifest's threshold.
        iou: two boxes of one class that overlap more are one object; by default the manifest's.
        class_agnostic: and so are two of different classes; by default the manifest's.
        max_detections: at most so many objects in a picture; by default the manifest's.
        tiling: look at a large picture in overlapping parts, so that what is small in it is found; None: as a whole.
        like: for a bare file: the name of a model that is built alike.
        models_dir: where the user's own models are.
        settings: all settings at once, in place of the single ones.
        prober: a model that is unknown here is run once in another process first; None: it is loaded at once.

    Raises:
        UsageError: nothing has this name.
        ProbeError: the prober's child did not survive the model.
        ModelError: the weights are missing, altered, or refused by the runtime.
        PluginError: the runtime is not installed.
    """
    chosen = settings or ModelSettings(
        backend=backend,
        threads=threads,
        confidence=confidence,
        iou=iou,
        class_agnostic=class_agnostic,
        max_detections=max_detections,
        tiling=tiling,
    )
    name = str(model)
    if Path(name).suffix.lower() in model_store.BACKEND_BY_SUFFIX:
        if prober is not None:
            prober.check_file(Path(name), chosen)
        return identify(Path(name), like=like, settings=chosen, models_dir=models_dir).model
    if like is not None:
        raise UsageError(f"--like describes a bare model file; {name!r} is no .onnx or .tflite file")
    folder = model_store.find(name, models_dir)
    chosen_backend = choose_backend(folder, chosen.backend)
    content = read_weights(folder.path, folder.manifest, chosen_backend)
    if prober is not None and not is_known(folder, chosen):
        size = folder.manifest.input_for(chosen_backend).size
        prober.check(chosen_backend, content, chosen, where=str(folder.path), size=size)
    return build(folder.manifest, model_store.labels(folder), chosen_backend, content, chosen, where=str(folder.path))


def choose_backend(folder: ModelFolder, wanted: str | None) -> str:
    """The backend to use; raises UsageError for an unknown one and PluginError where no runtime is installed."""
    files = folder.manifest.files
    if folder.manifest.pattern:
        folder.manifest.file_for(wanted or "any backend")  # which says so
    if wanted is not None:
        registry.load("inference", wanted)
        try:
            folder.manifest.file_for(wanted)
        except ModelError as failure:
            raise ModelError(f"{folder.path}: {failure}") from failure
        return wanted
    # Those that can read another's file come last: what a file was made for is what it was measured with.
    for name in dict.fromkeys((*files, *_RUNTIMES)):
        if folder.manifest.find_file(name) is None:
            continue
        modules = _RUNTIMES.get(name)
        if modules is None or any(importlib.util.find_spec(module) for module in modules):
            return name
    extras = ",".join(name for name in files)
    raise PluginError(
        f"no runtime for {folder.manifest.name} is installed: pip install 'edgevision[{extras}]' (one is enough)"
    )
