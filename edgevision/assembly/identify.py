"""Bare weights files: described by a model that is built alike, which is named or is the only one that fits.

To fit proves something where outputs have a form of their own. A vector of 1000 numbers has none: every classifier fits.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgevision import model_store
from edgevision.assembly.building import ModelSettings, assemble, open_backend
from edgevision.errors import EdgevisionError, ModelError, UsageError
from edgevision.manifest import InputOverride, Manifest
from edgevision.model_store import ModelFolder
from edgevision.pipeline import Model
from edgevision.proposals import Told, changed
from edgevision.types import TensorSpec

_log = logging.getLogger(__name__)

_ALL_ALIKE = {"classifier", "embedding"}
"""Families whose models have inputs and outputs of one form, whatever mean, std and labels they were trained with."""


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
    labels: tuple[str, ...] | None = None
    """Labels of its own, in place of the other's."""


def identify(
    file: Path, *, like: str | None = None, settings: ModelSettings | None = None, models_dir: Path | None = None
) -> Described:
    """Load a bare weights file: described by the model it is said to be like, or by the one known model that it fits.

    Raises:
        UsageError: none or several fit, or one in shapes alone: nothing says how its pixels and outputs are meant.
        ModelError: it cannot be read, or does not fit the model it is said to be like.
    """
    if like is not None:
        return describe(file, model_store.find(like, models_dir), settings=settings)
    backend = model_store.backend_for(file, settings.backend if settings else None)
    candidates = [folder for folder in _readable_folders(models_dir) if folder.manifest.find_file(backend) is not None]
    digest = model_store.digest(file)
    for folder in candidates:
        if folder.manifest.file_for(backend).sha256 == digest:
            return describe(file, folder, settings=settings)
    fitting: list[Described] = []
    refusals: list[str] = []
    for folder in candidates:
        try:
            fitting.append(describe(file, folder, settings=settings))
        except ModelError as failure:
            refusals.append(f"\n  not like {folder.manifest.name}: {failure}")
    shapes_alone = len(fitting) == 1 and fitting[0].manifest.family in _ALL_ALIKE
    if len(fitting) == 1 and not shapes_alone:
        fields = {"file": str(file), "like": fitting[0].like}
        _log.warning(
            "model file has no model.yaml and is read like the one known model that it fits", extra={"fields": fields}
        )
        return fitting[0]
    for described in fitting:
        described.model.close()
    why = f"it fits {', '.join(described.like for described in fitting)}" if fitting else "no known model fits"
    if shapes_alone:
        why += f", but so does every {fitting[0].manifest.family} of its shapes, with whatever mean and std"
    raise UsageError(
        f"{file}: nothing says how its pixels and outputs are meant; name a model that is built alike with --like ({why}), "
        f"or let `edgevision models add {file}` propose what it is" + "".join(refusals if not fitting else [])
    )


def _readable_folders(models_dir: Path | None) -> list[ModelFolder]:
    found = []
    for path in model_store.list_folders(models_dir):
        try:
            found.append(model_store.open_folder(path))
        except EdgevisionError as failure:
            _log.warning("model folder left out", extra={"fields": {"folder": str(path), "reason": str(failure)}})
    return found


def describe(
    file: Path,
    like: ModelFolder,
    *,
    name: str | None = None,
    settings: ModelSettings | None = None,
    told: Told | None = None,
) -> Described:
    """Load a bare weights file as a model that is built like another, and run it once.

    `told` is what the user says himself, in place of what the other's manifest says.

    Raises:
        UsageError: what the user says is no manifest's.
        ModelError: it does not fit: other inputs or outputs, or the runtime refuses it.
    """
    chosen = settings or ModelSettings()
    manifest, backend_name, content = model_store.describe_file(file, like.manifest, name=name, backend=chosen.backend)
    labels: tuple[str, ...] | None = None
    if told is not None:
        manifest, labels = changed(manifest, told, where=str(file)), told.labels
    backend = open_backend(backend_name, content, chosen, where=str(file))
    try:
        manifest = _with_outputs(manifest, backend_name, backend.outputs, file)
        manifest = _with_pixels(manifest, like.manifest, backend_name, backend.inputs)
        if like.manifest.pattern and (told is None or told.size is None):
            manifest = _with_size(manifest, backend.inputs)
        known = model_store.labels(like) if labels is None else labels
        model = assemble(manifest, known, backend_name, backend, chosen, where=str(file))
        model.warm_up()
    except EdgevisionError:
        backend.close()
        raise
    return Described(
        model=model,
        manifest=manifest,
        content=content,
        like=like.manifest.name,
        labels_from=like.path,
        labels=labels,
    )


def _with_outputs(manifest: Manifest, backend: str, outputs: tuple[TensorSpec, ...], file: Path) -> Manifest:
    """The manifest with this file's own tensor names, where they follow without a guess."""
    roles = manifest.outputs_for(backend)
    names = [spec.name for spec in outputs]
    if all(name in names for name in roles.values()):
        return manifest
    if len(roles) == len(names) == 1:  # one role, one tensor: there is nothing to guess
        section = manifest.file_for(backend).model_copy(update={"outputs": {next(iter(roles)): names[0]}})
        return manifest.model_copy(update={"files": {backend: section}})
    wanted = ", ".join(f"{role}={name}" for role, name in roles.items())
    raise ModelError(f"{file}: outputs: its tensors are named {', '.join(names)}; the roles want {wanted}")


def _with_size(manifest: Manifest, inputs: tuple[TensorSpec, ...]) -> Manifest:
    """The manifest with this file's own input size, where it is fixed: a pattern's is only the usual one."""
    pictures = [spec for spec in inputs if spec.layout is not None]
    if len(pictures) != 1:
        return manifest
    shape = pictures[0].shape
    height, width = shape[-2:] if pictures[0].layout == "NCHW" else shape[-3:-1]
    if min(width, height) < 1 or (width, height) == manifest.input.size:
        return manifest
    _log.info("the file's own input size is taken", extra={"fields": {"size": f"{width}x{height}"}})
    return manifest.model_copy(update={"input": manifest.input.model_copy(update={"size": (width, height)})})


def _with_pixels(manifest: Manifest, like: Manifest, backend: str, inputs: tuple[TensorSpec, ...]) -> Manifest:
    """The manifest without what holds only for a file that takes bytes, where this one takes real numbers.

    A quantised file may have mean and std inside and say so in its entry (`input: {mean: null, std: null}`). The float model
    that it was made of has not, and would be shown pixels that are a hundred times too large.
    """
    section = manifest.file_for(backend)
    takes_real = len(inputs) == 1 and np.issubdtype(inputs[0].dtype, np.floating)
    if section.input is None or not takes_real or like.input.mean is None:
        return manifest
    left_out = section.input.model_fields_set & {"mean", "std"}
    if not left_out or any(getattr(section.input, key) is not None for key in left_out):
        return manifest
    _log.info("the file takes real numbers: mean and std are those of the model that it is like")
    kept = {key: getattr(section.input, key) for key in section.input.model_fields_set - left_out}
    described = section.model_copy(update={"input": InputOverride.model_validate(kept) if kept else None})
    return manifest.model_copy(update={"files": {backend: described}})
