"""The only builder: config and manifests become cameras, models, scenes and sinks.

Here alone the stages meet. Everything is made by name through the registry, so a new plug-in needs no edit here.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgevision import documents, model_store, registry
from edgevision.capture._orient import Oriented
from edgevision.capture.base import FrameSource, SourceContext
from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.config import CameraSection, Choice, Config, ModelSection
from edgevision.decode.base import DecodeContext
from edgevision.errors import EdgevisionError, ModelError, PluginError, UsageError
from edgevision.events.base import Rule, RuleContext
from edgevision.inference.base import Backend, BackendContext, ModelFile
from edgevision.manifest import Manifest, read_weights
from edgevision.model_store import ModelFolder
from edgevision.pipeline import Model, Scene
from edgevision.preprocess.base import InputFormat
from edgevision.publish.base import Sink, SinkContext
from edgevision.types import TensorSpec

_log = logging.getLogger(__name__)

UNPACED_CAMERA_FPS = 30.0
"""What a live camera is taken to deliver where the config gives no `fps`: it only decides how inference threads wait."""

# Which module shows that a backend's runtime is installed; backends from outside packages are taken to bring theirs.
_RUNTIMES: Mapping[str, tuple[str, ...]] = {"onnxrt": ("onnxruntime",), "litert": ("ai_edge_litert", "tflite_runtime")}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """How a model is to be used; None leaves it to the manifest."""

    backend: str | None = None
    threads: int = 1
    confidence: float | None = None
    iou: float | None = None
    max_detections: int | None = None
    top_k: int | None = None
    classes: tuple[str, ...] | None = None
    class_confidence: Mapping[str, float] | None = None
    backend_options: Mapping[str, Any] | None = None
    expected_fps: float | None = None
    """Frames per second that all its cameras ask for together; None is as many as can be had."""


def load_model(
    model: str | Path,
    *,
    backend: str | None = None,
    threads: int = 2,
    confidence: float | None = None,
    like: str | None = None,
    models_dir: Path | None = None,
    settings: ModelSettings | None = None,
) -> Model:
    """Load a model, ready to predict.

    Args:
        model: a model's name (`edgevision models list`), a model folder, or an .onnx or .tflite file.
        backend: `onnxrt` or `litert`; by default the first that the model has a file for and this machine a runtime.
        threads: threads of one inference.
        confidence: drop predictions below; by default the manifest's threshold.
        like: for a bare file: the name of a model that is built alike.
        models_dir: where the user's own models are.
        settings: all settings at once, in place of backend, threads and confidence.

    Raises:
        UsageError: nothing has this name.
        ModelError: the weights are missing, altered, or refused by the runtime.
        PluginError: the runtime is not installed.
    """
    chosen = settings or ModelSettings(backend=backend, threads=threads, confidence=confidence)
    name = str(model)
    if Path(name).suffix.lower() in model_store.BACKEND_BY_SUFFIX:
        return identify(Path(name), like=like, settings=chosen, models_dir=models_dir).model
    if like is not None:
        raise UsageError(f"--like describes a bare model file; {name!r} is no .onnx or .tflite file")
    folder = model_store.find(name, models_dir)
    chosen_backend = choose_backend(folder, chosen.backend)
    content = read_weights(folder.path, folder.manifest, chosen_backend)
    return _build(folder.manifest, model_store.labels(folder), chosen_backend, content, chosen, where=str(folder.path))


def choose_backend(folder: ModelFolder, wanted: str | None) -> str:
    """The backend to use; raises UsageError for an unknown one and PluginError where no runtime is installed."""
    files = folder.manifest.files
    if wanted is not None:
        registry.load("inference", wanted)
        if wanted not in files:
            raise ModelError(
                f"{folder.path}: {folder.manifest.name} has no file for {wanted}; it has {', '.join(files)}"
            )
        return wanted
    for name in files:
        modules = _RUNTIMES.get(name)
        if modules is None or any(importlib.util.find_spec(module) for module in modules):
            return name
    extras = ",".join(name for name in files)
    raise PluginError(
        f"no runtime for {folder.manifest.name} is installed: pip install 'edgevision[{extras}]' (one is enough)"
    )


def identify(
    file: Path, *, like: str | None = None, settings: ModelSettings | None = None, models_dir: Path | None = None
) -> Described:
    """Load a bare weights file: described by the model it is said to be like, or by the one known model that it fits.

    Raises:
        UsageError: none or several fit: nothing says how its pixels and outputs are meant.
        ModelError: it cannot be read, or does not fit the model it is said to be like.
    """
    if like is not None:
        return describe(file, model_store.find(like, models_dir), settings=settings)
    backend = model_store.BACKEND_BY_SUFFIX[file.suffix.lower()]
    candidates = [folder for folder in _readable_folders(models_dir) if backend in folder.manifest.files]
    digest = model_store.digest(file)
    for folder in candidates:
        if folder.manifest.files[backend].sha256 == digest:
            return describe(file, folder, settings=settings)
    fitting: list[Described] = []
    refusals: list[str] = []
    for folder in candidates:
        try:
            fitting.append(describe(file, folder, settings=settings))
        except ModelError as failure:
            refusals.append(f"\n  not like {folder.manifest.name}: {failure}")
    if len(fitting) == 1:
        fields = {"file": str(file), "like": fitting[0].like}
        _log.warning(
            "model file has no model.yaml and is read like the one known model that it fits", extra={"fields": fields}
        )
        return fitting[0]
    for described in fitting:
        described.model.close()
    why = f"it fits {', '.join(described.like for described in fitting)}" if fitting else "no known model fits"
    raise UsageError(
        f"{file}: nothing says how its pixels and outputs are meant; name a model that is built alike with --like ({why})"
        + "".join(refusals if not fitting else [])
    )


def _readable_folders(models_dir: Path | None) -> list[ModelFolder]:
    found = []
    for path in model_store.list_folders(models_dir):
        try:
            found.append(model_store.open_folder(path))
        except EdgevisionError as failure:
            _log.warning("model folder left out", extra={"fields": {"folder": str(path), "reason": str(failure)}})
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A bare file that was loaded with another model's description and fits it."""

    model: Model
    manifest: Manifest
    content: bytes
    like: str
    """The other model's name."""
    labels_from: Path
    """The other model's folder."""


def describe(
    file: Path, like: ModelFolder, *, name: str | None = None, settings: ModelSettings | None = None
) -> Described:
    """Load a bare weights file as a model that is built like another, and run it once.

    Raises:
        ModelError: it does not fit: other inputs or outputs, or the runtime refuses it.
    """
    manifest, backend_name, content = model_store.describe_file(file, like.manifest, name=name)
    chosen = settings or ModelSettings()
    if chosen.backend not in (None, backend_name):
        raise UsageError(f"{file}: is a file for {backend_name}, not for {chosen.backend}")
    backend = _open_backend(backend_name, content, chosen, where=str(file))
    try:
        manifest = _with_outputs(manifest, backend_name, backend.outputs, file)
        model = _assemble(manifest, model_store.labels(like), backend_name, backend, chosen, where=str(file))
        model.warm_up()
    except EdgevisionError:
        backend.close()
        raise
    return Described(model=model, manifest=manifest, content=content, like=like.manifest.name, labels_from=like.path)


def _with_outputs(manifest: Manifest, backend: str, outputs: tuple[TensorSpec, ...], file: Path) -> Manifest:
    """The manifest with this file's own tensor names, where they follow without a guess."""
    roles = manifest.outputs_for(backend)
    names = [spec.name for spec in outputs]
    if all(name in names for name in roles.values()):
        return manifest
    if len(roles) == len(names) == 1:  # one role, one tensor: there is nothing to guess
        section = manifest.files[backend].model_copy(update={"outputs": {next(iter(roles)): names[0]}})
        return manifest.model_copy(update={"files": {backend: section}})
    wanted = ", ".join(f"{role}={name}" for role, name in roles.items())
    raise ModelError(f"{file}: outputs: its tensors are named {', '.join(names)}; the roles want {wanted}")


def _build(
    manifest: Manifest,
    labels: tuple[str, ...],
    backend_name: str,
    content: bytes,
    settings: ModelSettings,
    *,
    where: str,
) -> Model:
    backend = _open_backend(backend_name, content, settings, where=where)
    try:
        model = _assemble(manifest, labels, backend_name, backend, settings, where=where)
        model.warm_up()
    except EdgevisionError:
        backend.close()
        raise
    return model


def _open_backend(name: str, content: bytes, settings: ModelSettings, *, where: str) -> Backend:
    plugin = registry.load("inference", name)
    options = _options(plugin, dict(settings.backend_options or {}), f"{where}: backend {name}")
    context = BackendContext(threads=settings.threads, expected_fps=settings.expected_fps)
    file = ModelFile(name=where, content=content, sha256=model_store.digest_of(content))
    backend: Backend = plugin.create(options, file, context)
    return backend


def _assemble(
    manifest: Manifest,
    labels: tuple[str, ...],
    backend_name: str,
    backend: Backend,
    settings: ModelSettings,
    *,
    where: str,
) -> Model:
    """Put preprocessor and decoder around a loaded backend; whatever does not fit is told with the model's place."""
    if len(backend.inputs) != 1:
        names = ", ".join(spec.name for spec in backend.inputs)
        raise ModelError(f"{where}: inputs: needs one picture input; the model has {names}")
    by_name = {spec.name: spec for spec in backend.outputs}
    roles = manifest.outputs_for(backend_name)
    for role, name in roles.items():
        if name not in by_name:
            raise ModelError(f"{where}: outputs.{role}: the model has no output {name!r}; it has {', '.join(by_name)}")
    section = manifest.input_for(backend_name)
    preprocess, decode = registry.load("preprocess", section.resize), registry.load("decode", manifest.family)
    try:
        preprocessor = preprocess.create(
            _options(preprocess, section.options, "input.options"),
            backend.inputs[0],
            InputFormat(size=section.size, color=section.color, mean=section.mean, std=section.std),
        )
        decoder = decode.create(
            _options(decode, manifest.decoder, "decoder"),
            {role: by_name[name] for role, name in roles.items()},
            _decode_context(manifest, labels, settings),
        )
    except ModelError as failure:
        raise ModelError(f"{where}: {failure}") from failure
    return Model(
        manifest=manifest,
        labels=labels,
        backend_name=backend_name,
        threads=settings.threads,
        preprocessor=preprocessor,
        backend=backend,
        decoder=decoder,
    )


def _options(plugin: registry.Plugin, given: Mapping[str, Any], where: str) -> registry.Options:
    try:
        return plugin.Options.model_validate(dict(given))
    except ValidationError as failure:
        document = documents.Document(file=where, data=dict(given), lines={})
        problems = "; ".join(
            f"{fault.key}: {fault.problem}" for fault in documents.faults(document, failure, plugin.Options)
        )
        raise ModelError(f"{where}: {problems}") from failure


def _decode_context(manifest: Manifest, labels: tuple[str, ...], settings: ModelSettings) -> DecodeContext:
    defaults = manifest.thresholds

    def class_ids(names: Iterable[str]) -> dict[str, int]:
        unknown = [name for name in names if name not in labels]
        if unknown:
            raise UsageError(f"{manifest.name}: {registry.unknown_name('label', unknown[0], list(labels))}")
        return {name: labels.index(name) for name in names}

    def first(value: Any, default: Any) -> Any:
        return default if value is None else value

    own = settings.class_confidence or {}
    ids = class_ids(own)
    return DecodeContext(
        labels=labels,
        confidence=first(settings.confidence, defaults.confidence),
        iou=first(settings.iou, defaults.iou),
        max_detections=first(settings.max_detections, defaults.max_detections),
        top_k=first(settings.top_k, defaults.top_k),
        classes=None if settings.classes is None else frozenset(class_ids(settings.classes).values()),
        class_confidence={ids[label]: confidence for label, confidence in own.items()},
        activation=manifest.activation,
    )


def settings_for(section: ModelSection, cameras: Iterable[CameraSection]) -> ModelSettings:
    """A config's model section as settings; its cameras tell how many frames per second to expect."""
    asked = [_expected_fps(camera) for camera in cameras]
    return ModelSettings(
        backend=section.backend,
        threads=section.threads,
        confidence=section.confidence,
        iou=section.iou,
        max_detections=section.max_detections,
        top_k=section.top_k,
        classes=None if section.classes is None else tuple(section.classes),
        class_confidence=section.class_confidence,
        backend_options=section.options,
        expected_fps=None if None in asked else sum(fps for fps in asked if fps is not None),
    )


def _expected_fps(camera: CameraSection) -> float | None:
    if getattr(camera.source.options, "pace", None) == "max":
        return None  # as fast as the model can
    return camera.fps or UNPACED_CAMERA_FPS


def make_source(camera: CameraSection, *, clock: Clock = SYSTEM_CLOCK) -> FrameSource:
    """A new, unopened source for a camera, turned and flipped as its config says."""
    plugin = registry.load("capture", camera.source.type)
    context = SourceContext(camera=camera.name, fps=camera.fps, clock=clock)
    source: FrameSource = plugin.create(camera.source.options, context)
    return Oriented(source, rotation=camera.rotation, flip=camera.flip, roi=camera.roi)


def make_scene(camera: CameraSection, labels: tuple[str, ...]) -> Scene:
    """A camera's rules."""
    rules: list[Rule] = []
    for section in camera.rules:
        plugin = registry.load("events", section.rule.type)
        context = RuleContext(camera=camera.name, name=section.name, labels=labels)
        rules.append(plugin.create(section.rule.options, context))
    return Scene(rules)


def make_sinks(config: Config, context_for: Callable[[str], SinkContext]) -> dict[str, Sink]:
    """Every sink of the config by name: `mqtt`, and the others by type and number."""
    choices: list[tuple[str, Choice]] = []
    if config.mqtt is not None:
        choices.append(("mqtt", Choice(type="mqtt", options=config.mqtt)))
    choices += [(f"{choice.type}-{number}", choice) for number, choice in enumerate(config.sinks, 1)]
    return {
        name: registry.load("publish", choice.type).create(choice.options, context_for(name))
        for name, choice in choices
    }
