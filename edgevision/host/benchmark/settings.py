"""What is measured, and how: the values that make two results the same measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevision import assembly, model_store, registry
from edgevision.errors import ModelError, UsageError
from edgevision.manifest import read_weights
from edgevision.model_store import BACKEND_BY_SUFFIX

EVERY_BACKEND = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How every candidate is measured."""

    size: tuple[int, int] = (1280, 720)
    """Of the camera's frame, width and height in pixels."""
    duration_s: float = 10.0
    """Of the latency run's blocks, over all repeats. Its turns take half as long, the run alone a quarter, the paced run as
    long."""
    repeats: int = 6
    """Fresh processes that the latency run is spread over."""
    paced_fps: float | None = None
    bare: bool = True
    profile: bool = False
    providers: tuple[str, ...] = ()
    """ONNX Runtime's execution providers; none: the CPU."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "frame": f"{self.size[0]}x{self.size[1]}",
            "duration_s": self.duration_s,
            "repeats": self.repeats,
            "paced_fps": self.paced_fps,
            "bare": self.bare,
            "profile": self.profile,
            "providers": list(self.providers),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One model with one backend and so many threads."""

    given: str
    """As the user named it: a model's name, a folder or a file."""
    like: str | None
    sha256: str
    backend: str
    threads: int

    def __str__(self) -> str:
        """For people."""
        return f"{Path(self.given).name} {self.backend}, {self.threads} thread{'s' if self.threads > 1 else ''}"


def candidates(
    models: Sequence[str], *, backends: Sequence[str] = (), threads: Sequence[int] = (1,), like: str | None = None
) -> list[Candidate]:
    """Every model x backend x number of threads; weights are checked, nothing is loaded yet.

    Raises:
        UsageError: a name or file that is not there, a backend that nobody knows.
        ModelError: weights that are missing or altered, or no file for the backend.
        PluginError: no runtime is installed.
    """
    found: dict[Candidate, None] = {}
    for given in models:
        for backend, sha256 in _files(given, backends, like).items():
            for count in threads:
                found[Candidate(given=given, like=like, sha256=sha256, backend=backend, threads=count)] = None
    return list(found)


def _files(given: str, backends: Sequence[str], like: str | None) -> dict[str, str]:
    """The backends to use and the sha256 of the weights that each reads."""
    if Path(given).suffix.lower() in BACKEND_BY_SUFFIX:
        return _bare_file(Path(given), backends)
    if like is not None:
        raise UsageError(f"--like describes a bare model file; {given!r} is no .onnx or .tflite file")
    folder = model_store.find(given)
    if EVERY_BACKEND in backends:
        # A file that is not on this machine is no candidate; one that is there and altered is an error.
        chosen = [name for name, file in folder.manifest.files.items() if (folder.path / file.file_name).is_file()]
    else:
        chosen = [assembly.choose_backend(folder, name) for name in backends or (None,)]
    if not chosen:
        raise ModelError(f"{given}: none of its files is here; see `edgevision models verify {given}`")
    for name in chosen:
        read_weights(folder.path, folder.manifest, name)
    return {name: folder.manifest.file_for(name).sha256 for name in chosen}


def _bare_file(path: Path, backends: Sequence[str]) -> dict[str, str]:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    named = [name for name in backends if name != EVERY_BACKEND]
    for name in named:
        registry.load("inference", name)  # an unknown name is an error
    chosen = [name for name in named if path.suffix.lower() in registry.reads(name)]
    if EVERY_BACKEND in backends or not backends:
        chosen.append(BACKEND_BY_SUFFIX[path.suffix.lower()])
    if not chosen:
        own = BACKEND_BY_SUFFIX[path.suffix.lower()]
        raise UsageError(f"{path}: is a file for {own}, not for {', '.join(backends)}")
    return dict.fromkeys(chosen, model_store.digest(path))
