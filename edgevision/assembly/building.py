"""From a manifest and its checked weights to a model: backend, preprocessor and decoder are made by name and put together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgevision import documents, model_store, registry
from edgevision.assembly.constants import WithConstants, split_inputs
from edgevision.clock import SYSTEM_CLOCK
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.errors import EdgevisionError, ModelError, UsageError
from edgevision.inference.base import Backend, BackendContext, Engines, ModelFile
from edgevision.manifest import InputSection, Manifest
from edgevision.pipeline import Model
from edgevision.preprocess.base import InputFormat, Preprocessor
from edgevision.tiling import Tiles, Tiling, takes_batches
from edgevision.types import TensorSpec

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """How a model is to be used; None leaves it to the manifest."""

    backend: str | None = None
    threads: int = 1
    confidence: float | None = None
    iou: float | None = None
    class_agnostic: bool | None = None
    max_detections: int | None = None
    top_k: int | None = None
    classes: tuple[str, ...] | None = None
    class_confidence: Mapping[str, float] | None = None
    backend_options: Mapping[str, Any] | None = None
    tiling: Tiling | None = None
    """Look at a picture in parts; None: as a whole."""
    expected_fps: float | None = None
    """Frames per second that all its cameras ask for together; None is as many as can be had."""
    engines: Engines = "wait"


def build(
    manifest: Manifest,
    labels: tuple[str, ...],
    backend_name: str,
    content: bytes,
    settings: ModelSettings,
    *,
    where: str,
) -> Model:
    """Load checked weights and run them once, so that the first real frame meets a warm model.

    Raises:
        ModelError: the runtime refuses them, or manifest and model do not fit; `where` begins the message.
        PluginError: the runtime is not installed.
    """
    backend = open_backend(backend_name, content, settings, where=where)
    try:
        model = assemble(manifest, labels, backend_name, backend, settings, where=where)
        model.warm_up()
    except EdgevisionError:
        backend.close()
        raise
    return model


def open_backend(name: str, content: bytes, settings: ModelSettings, *, where: str) -> Backend:
    """Hand checked weights to a runtime; raises as `build` does."""
    plugin = registry.load("inference", name)
    options = _options(plugin, dict(settings.backend_options or {}), f"{where}: backend {name}")
    context = BackendContext(threads=settings.threads, expected_fps=settings.expected_fps, engines=settings.engines)
    file = ModelFile(name=where, content=content, sha256=model_store.digest_of(content))
    backend: Backend = plugin.create(options, file, context)
    return backend


def assemble(
    manifest: Manifest,
    labels: tuple[str, ...],
    backend_name: str,
    backend: Backend,
    settings: ModelSettings,
    *,
    where: str,
) -> Model:
    """Put preprocessor and decoder around a loaded backend; whatever does not fit is told with the model's place."""
    section = manifest.input_for(backend_name)
    picture, constants = split_inputs(backend.inputs, section.constants, where=where)
    by_name = {spec.name: spec for spec in backend.outputs}
    roles = manifest.outputs_for(backend_name)
    for role, name in roles.items():
        if name not in by_name:
            raise ModelError(f"{where}: outputs.{role}: the model has no output {name!r}; it has {', '.join(by_name)}")
    preprocess, decode = registry.load("preprocess", section.resize), registry.load("decode", manifest.family)
    fit = _options(preprocess, section.options, "input.options")
    wanted = InputFormat(size=section.size, color=section.color, mean=section.mean, std=section.std)

    def make_preprocessor(buffer: NDArray[Any] | None = None) -> Preprocessor:
        made: Preprocessor = preprocess.create(fit, picture, replace(wanted, buffer=buffer))
        return WithConstants(made, constants) if constants else made

    context = _decode_context(manifest, labels, settings)
    outputs = {role: by_name[name] for role, name in roles.items()}
    try:
        preprocessor = make_preprocessor()
        decoder: Decoder = decode.create(_options(decode, manifest.decoder, "decoder"), outputs, context)
        tiles = None
        if settings.tiling is not None:
            tiles = _tiles(
                settings.tiling,
                manifest=manifest,
                section=section,
                backend=backend,
                decoder=decoder,
                outputs=outputs,
                context=context,
                make_preprocessor=make_preprocessor,
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
        tiles=tiles,
    )


def _tiles(
    tiling: Tiling,
    *,
    manifest: Manifest,
    section: InputSection,
    backend: Backend,
    decoder: Decoder,
    outputs: Mapping[str, TensorSpec],
    context: DecodeContext,
    make_preprocessor: Callable[[NDArray[Any] | None], Preprocessor],
) -> Tiles:
    """What looks at a frame in tiles; several are one inference where the model's batch is open."""
    if manifest.task != "detection":
        raise ModelError(f"tiling puts boxes together, and {manifest.name} does {manifest.task}; take `tiling` away")
    batch: NDArray[Any] | None = None
    preprocessors = [make_preprocessor(None)]
    if tiling.batch > 1:
        spec = backend.inputs[0]
        if takes_batches(backend, tuple(outputs.values())):
            width, height = section.size
            shape = (3, height, width) if spec.layout == "NCHW" else (height, width, 3)
            batch = np.zeros((tiling.batch, *shape), spec.dtype)
            preprocessors = [make_preprocessor(batch[place : place + 1]) for place in range(tiling.batch)]
        else:
            _log.info("model %s takes one picture at a time: tiles are looked at one after the other", manifest.name)
    return Tiles(
        tiling,
        input_size=section.size,
        preprocessors=preprocessors,
        batch=batch,
        backend=backend,
        decoder=decoder,
        decoded=[spec.name for spec in outputs.values()],
        iou=context.iou,
        class_agnostic=context.class_agnostic,
        max_detections=context.max_detections,
        clock=SYSTEM_CLOCK,
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
        class_agnostic=first(settings.class_agnostic, defaults.class_agnostic),
        max_detections=first(settings.max_detections, defaults.max_detections),
        top_k=first(settings.top_k, defaults.top_k),
        classes=None if settings.classes is None else frozenset(class_ids(settings.classes).values()),
        class_confidence={ids[label]: confidence for label, confidence in own.items()},
        activation=manifest.activation,
    )
