"""The model folders on this machine: the shipped ones and the user's own. Finding, listing, adding, verifying.

The user's folder comes first, so that a machine builder can put his own `efficientnet-lite0` in place of ours. Adding a
model writes a whole folder beside the others under another name and renames it: half a model can never be seen.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgevision import documents
from edgevision.environment import shipped_models_dir, user_models_dir
from edgevision.errors import ManifestError, ModelError, StateError, UsageError
from edgevision.graphs import ir
from edgevision.manifest import (
    MANIFEST_NAME,
    MAX_MODEL_BYTES,
    Manifest,
    check_weights,
    file_section,
    load_labels,
    load_manifest,
)
from edgevision.registry import load, reads, unknown_name

BACKEND_BY_SUFFIX = {".onnx": "onnxrt", ".tflite": "litert", ir.XML_SUFFIX: "openvino", ir.SUFFIX: "openvino"}
"""Which backend reads a file that no manifest describes, unless another that can is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A model on this machine."""

    path: Path
    manifest: Manifest
    shipped: bool


def search_path(models_dir: Path | None = None) -> tuple[Path, ...]:
    """The folders that hold model folders, the user's first."""
    return (models_dir or user_models_dir(), shipped_models_dir())


def list_folders(models_dir: Path | None = None) -> Iterator[Path]:
    """Every folder with a model.yaml; of two with one name, the user's."""
    seen: set[str] = set()
    for root in search_path(models_dir):
        if not root.is_dir():
            continue
        for folder in sorted(root.iterdir()):
            if folder.name not in seen and not folder.name.startswith(".") and (folder / MANIFEST_NAME).is_file():
                seen.add(folder.name)
                yield folder


def open_folder(folder: Path) -> ModelFolder:
    """Read the manifest of a model folder; raises ManifestError."""
    return ModelFolder(path=folder, manifest=load_manifest(folder), shipped=folder.parent == shipped_models_dir())


def find(name: str, models_dir: Path | None = None) -> ModelFolder:
    """A model by its name, or by the path of its folder or model.yaml.

    Raises:
        UsageError: there is none; the message lists those there are.
        ManifestError: it is there, and its model.yaml is wrong.
    """
    path = Path(name)
    if path.name == MANIFEST_NAME and path.is_file():
        return open_folder(path.resolve().parent)
    if (path / MANIFEST_NAME).is_file() and ("/" in name or path.is_absolute()):
        return open_folder(path.resolve())
    if "/" in name:
        raise UsageError(f"{name}: no such model: the path must lead to a folder with a {MANIFEST_NAME}, or to one")
    folders = {folder.name: folder for folder in list_folders(models_dir)}
    if name not in folders:
        raise UsageError(unknown_name("model", name, sorted(folders)))
    return open_folder(folders[name])


def labels(folder: ModelFolder) -> tuple[str, ...]:
    """The model's labels by class id; raises ModelError where the file cannot be read."""
    return load_labels(folder.path, folder.manifest)


def backend_for(file: Path, wanted: str | None = None) -> str:
    """The backend for a file that no manifest describes.

    Raises:
        UsageError: the suffix is not known, nobody knows the backend that is wanted, or it reads other files.
    """
    own = BACKEND_BY_SUFFIX.get(file.suffix.lower())
    if own is None:
        raise UsageError(
            f"{file}: model files are known by their suffix: {', '.join(BACKEND_BY_SUFFIX)}; found {file.suffix!r}"
        )
    if wanted in (None, own):
        return own
    load("inference", wanted)  # an unknown name is an error
    if file.suffix.lower() not in reads(wanted):
        raise UsageError(f"{file}: is a file for {own}, not for {wanted}")
    return wanted


def describe_file(
    file: Path, like: Manifest, *, name: str | None = None, backend: str | None = None
) -> tuple[Manifest, str, bytes]:
    """A bare weights file, described by the manifest of a model that is built alike.

    Args:
        file: the weights.
        like: the other model's manifest.
        name: the new model's; by default the file's.
        backend: what reads the file; by default what its suffix says.

    Returns:
        The new manifest (own name, size and sha256; metrics only where it is the very file that was measured), the backend,
        the bytes.

    Raises:
        UsageError: the file's suffix is not known, or the backend reads other files.
        ModelError: the file cannot be read.
    """
    backend = backend_for(file, backend)
    content = read_file(file)
    wanted: dict[str, Any] = {"path": stored_name(file), "sha256": digest_of(content), "size": len(content)}
    pattern = like.find_file(backend)
    if pattern is not None:
        overrides = pattern.model_dump(include={"input", "outputs"}, exclude_unset=True)
        wanted |= overrides
    raw = like.model_dump(mode="json", exclude_unset=True)
    raw |= {
        "name": name or default_name(file),
        "files": {backend: wanted},
        "source": f"local file {file.name}",
        "metrics": _metrics_of(like, backend, wanted["sha256"]),
        "lineage": {"described_like": {"name": like.name, "version": like.version}},
    }
    data = documents.Document(file=str(file), data=raw, lines={})
    return documents.validate(data, Manifest, error=ManifestError), backend, content


def _metrics_of(like: Manifest, backend: str, digest: str) -> list[dict[str, Any]]:
    """What was measured with these very bytes; nothing, where they are others."""
    section = like.find_file(backend)
    if section is None or section.sha256 != digest:
        return []
    return [metric for metric in like.metrics if metric.get("backend") == backend]


def add(
    manifest: Manifest,
    content: bytes,
    *,
    labels_from: Path,
    labels: tuple[str, ...] | None = None,
    models_dir: Path | None = None,
) -> ModelFolder:
    """Write a described weights file as a model of the user's own.

    Args:
        manifest: as `describe_file` made it, with one file.
        content: the weights.
        labels_from: the model folder whose labels file is copied, where the manifest names one.
        labels: what that file holds instead.
        models_dir: the user's models folder.

    Raises:
        UsageError: the name is taken.
        StateError: the folder cannot be written; nothing half-written stays.
    """
    root = models_dir or user_models_dir()
    target = root / manifest.name
    check_free_name(target, fix="choose another with --name")
    section = next(iter(manifest.files.values()))
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".adding-", dir=root) as temporary:
            folder = Path(temporary) / manifest.name
            folder.mkdir()
            (folder / section.file_name).write_bytes(content)
            if manifest.labels and labels is not None:
                lines = "".join(" ".join(label.split()) + "\n" for label in labels)
                (folder / manifest.labels).write_text(lines, encoding="utf-8")
            elif manifest.labels:
                shutil.copyfile(labels_from / manifest.labels, folder / manifest.labels)
            raw = manifest.model_dump(mode="json", exclude_unset=True)
            text = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=120)
            (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
            folder.rename(target)
    except OSError as failure:
        raise StateError(f"{target}: the model cannot be written: {failure.strerror or failure}") from failure
    return open_folder(target)


def check_free_name(target: Path, *, fix: str) -> None:
    """Refuse a model's folder that is there already; raises UsageError."""
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target}: a model of this name is there already; {fix}")


def put_in_place(made: Path, target: Path) -> None:
    """Give a folder that is whole its name; one that has it gives way, and comes back where that fails.

    Raises:
        OSError: it cannot be done.
    """
    if not target.exists() and not target.is_symlink():
        made.rename(target)
        return
    with tempfile.TemporaryDirectory(prefix=".replaced-", dir=target.parent) as aside:
        old = Path(aside) / target.name
        target.rename(old)
        try:
            made.rename(target)
        except OSError:
            old.rename(target)
            raise


def remove(folder: ModelFolder, *, models_dir: Path | None = None) -> None:
    """Delete a model of the user's own; it disappears as a whole.

    Raises:
        UsageError: it is a shipped one, or does not lie in the user's folder.
        StateError: it cannot be removed.
    """
    root, path = models_dir or user_models_dir(), folder.path
    if folder.shipped:
        raise UsageError(
            f"{folder.manifest.name}: is shipped with edgevision and stays; only your own models are removed"
        )
    if path.parent.resolve() != root.resolve():
        raise UsageError(f"{path}: does not lie in {root}; remove it there yourself")
    try:
        if path.is_symlink():
            path.unlink()
            return
        with tempfile.TemporaryDirectory(prefix=".removing-", dir=root) as aside:
            path.rename(Path(aside) / path.name)
    except OSError as failure:
        raise StateError(f"{path}: cannot be removed: {failure.strerror or failure}") from failure


def verify(folder: ModelFolder) -> dict[str, str]:
    """Check every file of a model against its manifest.

    Returns:
        For each backend `ok`, `not here (URL)`, or what is wrong.
    """
    found: dict[str, str] = {}
    for backend in folder.manifest.files:
        section = file_section(folder.manifest, backend, folder.path)
        path = folder.path / section.file_name
        if not path.is_file():
            found[backend] = f"not here ({section.url or 'the manifest names no source'})"
            continue
        try:
            check_weights(read_file(path), section, path)
            found[backend] = "ok"
        except ModelError as failure:
            found[backend] = str(failure)
    return found


def digest_of(content: bytes) -> str:
    """The sha256 of weights, in hex."""
    return hashlib.sha256(content).hexdigest()


def digest(file: Path) -> str:
    """The sha256 of a weights file, in hex; raises ModelError where it cannot be read."""
    return digest_of(read_file(file))


def read_file(file: Path) -> bytes:
    """A weights file's bytes; raises ModelError where it cannot be read or is larger than a model can be."""
    if file.suffix.lower() == ir.XML_SUFFIX:
        return ir.read_files(file, MAX_MODEL_BYTES)
    try:
        if file.stat().st_size > MAX_MODEL_BYTES:
            raise ModelError(f"{file}: is larger than {MAX_MODEL_BYTES} bytes, which is the limit")
        return file.read_bytes()
    except OSError as failure:
        raise ModelError(f"{file}: cannot be read: {failure.strerror or failure}") from failure


def safe_name(name: str) -> str:
    """A name that a model folder's file may have."""
    return (
        "".join(char if char.isascii() and (char.isalnum() or char in "._+-") else "_" for char in name).lstrip(".-+")
        or "model"
    )


def stored_name(file: Path) -> str:
    """What a weights file is called in a model's folder; OpenVINO's two files become one, which one digest proves."""
    return safe_name(f"{file.stem}{ir.SUFFIX}" if file.suffix.lower() == ir.XML_SUFFIX else file.name)


def default_name(file: Path) -> str:
    """What a model is called where nobody says."""
    return safe_name(file.stem).lower().replace("+", "-").lstrip("_")[:64]
