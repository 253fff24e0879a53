"""A model file, looked at from all sides: as JSON."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgevision import child, model_store, registry
from edgevision.errors import EdgevisionError, ModelError, UsageError
from edgevision.graphs import read
from edgevision.host.inspect.advice import advice
from edgevision.host.inspect.facts import facts
from edgevision.host.quantize.targets import choose_target

DEADLINE_S = 120.0
"""For one runtime: loading, a second of runs, and one with every optimisation off."""
MEMORY_FACTOR, LEAST_MEMORY_BYTES = 8, 2 << 30
"""A runtime may have so many times the file's size, and at least so much."""
_RUNTIMES = {"onnxrt": ("onnxruntime",), "litert": ("ai_edge_litert", "tflite_runtime"), "openvino": ("openvino",)}


def weights_files(given: str) -> dict[str, Path]:
    """The files that a name stands for, by backend: one for a file, all that are here for a model.

    Raises:
        UsageError: there is no such file or model.
        ModelError: it is a pattern, or none of its files is here.
    """
    path = Path(given)
    if path.suffix.lower() in model_store.BACKEND_BY_SUFFIX:
        if not path.is_file():
            raise UsageError(f"{given}: no such file")
        return {model_store.BACKEND_BY_SUFFIX[path.suffix.lower()]: path}
    folder = model_store.find(given)
    folder.manifest.refuse_pattern()
    files = {name: folder.path / section.file_name for name, section in folder.manifest.files.items()}
    here = {name: file for name, file in files.items() if file.is_file()}
    if not here:
        raise ModelError(f"{folder.path}: none of its files is here: {', '.join(file.name for file in files.values())}")
    return here


def readers(files: Mapping[str, Path], backends: Sequence[str]) -> dict[Path, list[str]]:
    """Of the files that `weights_files` gave, those that some of the backends read, and which of them do.

    Raises:
        UsageError: a backend is not known, or reads none of them.
    """
    found: dict[Path, list[str]] = {}
    for backend in backends:
        own = [files[backend]] if backend in files else []  # named for it, whatever else it could read
        read_too = own or [file for file in files.values() if file.suffix.lower() in registry.reads(backend)]
        if not read_too:
            model_store.backend_for(next(iter(files.values())), backend)  # says what is wrong with it
        for file in read_too:
            found.setdefault(file, []).append(backend)
    return {file: found[file] for file in files.values() if file in found}


def inspect(
    file: Path,
    *,
    backends: Sequence[str] | None = None,
    providers: Sequence[Any] = (),
    threads: int = 1,
    deadline_s: float = DEADLINE_S,
) -> dict[str, Any]:
    """Look at one file.

    Args:
        file: .onnx, .tflite, or OpenVINO's .xml or .ir.
        backends: which runtimes to ask; None is all that are here and read it, and none is an empty list.
        providers: execution providers of ONNX Runtime, as in a config.
        threads: of one inference.
        deadline_s: for each runtime.

    Raises:
        ModelError: the file cannot be read, or is none.
        UsageError: a backend does not read it.
    """
    content = model_store.read_file(file)
    graph = read(content, str(file))
    document = {"file": str(file), "sha256": model_store.digest_of(content), **facts(graph)}
    chosen = _backends(file, backends)
    options: dict[str, dict[str, Any]] = {"onnxrt": {"providers": list(providers)}} if providers else {}
    runs = {
        name: _run(
            {"backend": name, "name": str(file), "options": options.get(name, {}), "threads": threads},
            content,
            deadline_s,
            open_sizes=document["open_sizes"],
        )
        for name in chosen
    }
    if document["multiply_adds"] is None:  # the file does not tell the shapes in between; a runtime found them
        document["multiply_adds"] = next(
            (run["multiply_adds"] for run in runs.values() if run.get("multiply_adds")), None
        )
    document["here"] = runs
    try:
        suffix = file.suffix.lower()
        target = "openvino" if graph.format == "openvino" else choose_target("auto", suffix).name
    except UsageError:  # a machine that nobody quantises for
        target = "auto"
    document["advice"] = list(advice(document, runs, target, str(file)))
    if backends is None and not chosen:
        own = model_store.BACKEND_BY_SUFFIX[file.suffix.lower()]
        document["advice"].insert(0, f"no runtime that reads it is here: pip install 'edgevision[{own}]'")
    return document


def _backends(file: Path, wanted: Sequence[str] | None) -> list[str]:
    if wanted is not None:
        return [model_store.backend_for(file, name) for name in wanted]
    suffix = file.suffix.lower()
    own = model_store.BACKEND_BY_SUFFIX[suffix]
    reading = [
        own,
        *(name for name in registry.available("inference") if name != own and suffix in registry.reads(name)),
    ]
    return [name for name in reading if any(importlib.util.find_spec(module) for module in _RUNTIMES.get(name, ()))]


def _run(job: dict[str, Any], content: bytes, deadline_s: float, *, open_sizes: bool) -> dict[str, Any]:
    memory_bytes = max(LEAST_MEMORY_BYTES, MEMORY_FACTOR * len(content))
    try:
        told: dict[str, Any] = child.call(
            "edgevision.host.inspect.runs:look", job, content=content, deadline_s=deadline_s, memory_bytes=memory_bytes
        )
    except child.ChildGoneError as failure:
        return {"error": f"{job['backend']} {failure}: do not run this file in the daemon"}
    except EdgevisionError as failure:
        why = " (its open sizes were tried with 320 pixels)" if open_sizes else ""
        return {"error": f"{failure}{why}"}
    return told
