"""A model that nobody has run on this machine is run once in a process of its own before it comes into ours.

A file that is well formed for every check can still crash its runtime in native code, hang it, or make it take all memory.
In the daemon that would end every camera. So an unknown file is loaded and run once by a child with a deadline and a memory
limit, and a pass is remembered by what it depends on: the file, the backend with its options, the runtime's version and the
machine. What the package ships, run as it was tested, is known; whatever else passed once costs a start nothing more.

What the runtime refuses there in good order is not tried again here: a file that it cannot run may crash it the next time. Left
to the load itself are refusals that may come of the trial: of memory, of a backend's options, of sizes that were only guessed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgevision import child, registry
from edgevision.assembly.building import ModelSettings, open_backend
from edgevision.errors import EdgevisionError, ProbeError
from edgevision.model_store import ModelFolder, backend_for, read_file

_log = logging.getLogger(__name__)

DEADLINE_S = 120.0
MEMORY_FACTOR, LEAST_MEMORY_BYTES = 8, 1 << 30
"""A runtime needs 100 to 210 MB for YOLOX-nano (3.7 MB); weights are packed anew, and a large picture's layers take more."""
_KEPT = 500
"""Passes that are remembered, the newest."""
_FREE_SIZE = (320, 320)
"""For an open height or width of which nobody tells the size."""
_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "onnxrt": (
        "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-qnn", "onnxruntime-ep-openvino",
        "onnxruntime-ep-webgpu", "onnxruntime-ep-nv-tensorrt-rtx",
    ),
    "litert": ("ai-edge-litert", "tflite-runtime"),
    "openvino": ("openvino",),
}  # fmt: skip
"""Packages that bring a backend's runtime."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prober:
    """Runs unknown models once, elsewhere."""

    state_dir: Path
    """Passes are remembered in its folder `probed`."""
    deadline_s: float = DEADLINE_S
    memory_bytes: int | None = None
    """What the child may have; None goes by the file's size."""

    def check(
        self,
        backend: str,
        content: bytes,
        settings: ModelSettings,
        *,
        where: str,
        size: tuple[int, int] | None = None,
    ) -> bool:
        """Make sure that a model can be run here.

        Args:
            backend: its name.
            content: the weights.
            settings: as the model is to be used.
            where: names the model in messages.
            size: width and height of its picture, for inputs that leave them open.

        Returns:
            Whether a child had to be asked.

        Raises:
            ProbeError: it crashes or hangs the runtime, or takes too much memory.
            EdgevisionError: the runtime refuses it, in the words of a load.
        """
        key = _key(backend, content, settings)
        remembered = self.state_dir / "probed" / f"{_digest(key)}.json"
        if remembered.is_file():
            return False
        _log.info("model is new here and is run once in a process of its own", extra={"fields": {"model": where}})
        job = {
            "backend": backend,
            "options": dict(settings.backend_options or {}),
            "threads": settings.threads,
            "where": where,
            "size": size or _FREE_SIZE,
        }
        memory_bytes = self.memory_bytes or LEAST_MEMORY_BYTES + MEMORY_FACTOR * len(content)
        try:
            sure = child.call(
                "edgevision.assembly.probing:run_once",
                job,
                content=content,
                deadline_s=self.deadline_s,
                memory_bytes=memory_bytes,
            )
        except child.ChildGoneError as failure:
            raise ProbeError(
                f"{where}: its runtime ({backend}) was tried with it in a process of its own, which {failure}; it is not "
                "loaded: edgevision inspect tells more; export or quantise the model again, or try another backend"
            ) from failure
        except EdgevisionError as failure:
            if settings.backend_options or child.lacks_memory(str(failure)):
                return True
            raise
        if sure:
            _remember(remembered, {**key, "model": where})
        return True

    def check_file(self, file: Path, settings: ModelSettings | None = None) -> bool:
        """Make sure that a bare file can be run here, with the backend that its suffix names or the settings choose.

        Raises:
            UsageError: its suffix is not known.
            ModelError: it cannot be read.
            ProbeError: the child did not survive it.
        """
        chosen = settings or ModelSettings()
        return self.check(backend_for(file, chosen.backend), read_file(file), chosen, where=str(file))


def is_known(folder: ModelFolder, settings: ModelSettings) -> bool:
    """Whether a model is the package's own, used in a way that it was tested in: with a backend's own options."""
    return folder.shipped and not settings.backend_options


def run_once(job: dict[str, Any], content: bytes) -> bool:
    """What the child does: load, which warms up, and one run. False: that failed with sizes that were only guessed."""
    settings = ModelSettings(threads=job["threads"], backend_options=job["options"], engines="skip")
    backend = open_backend(job["backend"], content, settings, where=job["where"])
    width, height = job["size"]
    tensors, guessed = {}, False
    for spec in backend.inputs:
        guessed |= min(spec.shape, default=0) < 0
        sizes = (height, width) if spec.layout != "NHWC" else (width, height)
        shape = [size if size > 0 else 1 for size in spec.shape]
        for place, open_size in zip((-2, -1) if spec.layout != "NHWC" else (-2, -3), sizes, strict=True):
            if len(shape) >= 3 and spec.shape[place] < 0:
                shape[place] = open_size
        tensors[spec.name] = np.zeros(shape, spec.dtype)
    try:
        backend.run(tensors)
    except EdgevisionError:
        if not guessed:
            raise
        return False
    backend.close()
    return True


def _key(backend: str, content: bytes, settings: ModelSettings) -> dict[str, Any]:
    """What a pass depends on."""
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "backend": backend,
        "options": dict(settings.backend_options or {}),
        "runtime": _versions(backend),
        "machine": platform.machine(),
    }


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _versions(backend: str) -> dict[str, str]:
    packages = _PACKAGES.get(backend)
    if packages is None:
        return registry.origin("inference", backend)
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _remember(file: Path, what: Mapping[str, Any]) -> None:
    """Write a pass down, whole or not at all; a folder that cannot be written to costs a probe at the next start."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".", delete=False, encoding="utf-8") as stream:
            json.dump(what, stream, indent=1, default=str)
        os.replace(stream.name, file)  # noqa: PTH105  the name is a string here
        old = sorted(file.parent.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)[:-_KEPT]
        for path in old:
            path.unlink(missing_ok=True)
    except OSError as failure:
        fields = {"folder": str(file.parent), "reason": failure.strerror or str(failure)}
        _log.warning("cannot be remembered: the model will be tried again at the next start", extra={"fields": fields})
