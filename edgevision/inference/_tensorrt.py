"""TensorRT inside ONNX Runtime: its engine cache, what an engine depends on, and the build in a process of its own.

An engine is good for one model, one ONNX Runtime, one TensorRT and one GPU; anything else reads it wrongly or not at all. So
each such combination has a folder of its own, with the timing cache beside the engine. A cache that cannot be written to
would repeat minutes of building at every start: it is a fault before the build begins. INT8 is explicit here: the quantise and
dequantise nodes of the file, never a calibration table (TensorRT 11 has removed calibrators).
Option names: https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Literal, TypeAlias

from edgevision import child
from edgevision.environment import default_state_dir
from edgevision.errors import ModelError, StateError
from edgevision.inference._providers import KNOWN, Wanted, short
from edgevision.inference.base import Engines, ModelFile

NAME = KNOWN["tensorrt"].name
BUILD_DEADLINE_S = 3600.0
"""The longest that was reported is a quarter of that, on a Jetson Nano."""
_LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8")
_PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11")

Way: TypeAlias = Literal["whole", "background", "rest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What an engine depends on, besides the model."""

    ort: str
    tensorrt: str
    gpu: str


def place(ort_version: str, *, root: Path = Path("/")) -> Place:
    """This machine; `root` is another folder in tests."""
    return Place(ort=ort_version, tensorrt=_tensorrt_version(), gpu=gpu_name(root))


def gpu_name(root: Path = Path("/")) -> str:
    """The GPUs and their driver as the driver tells them; on a Jetson, the board."""
    found = []
    for file in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        model = re.search(r"^Model:\s*(.+)$", file.read_text(errors="replace"), re.MULTILINE)
        found += [model[1].strip()] if model else []
    version = root / "proc/driver/nvidia/version"
    driver = re.search(r"\b(\d+\.\d+(?:\.\d+)?)\b", version.read_text(errors="replace")) if version.is_file() else None
    board = root / "proc/device-tree/model"
    if not found and board.is_file():
        found = [board.read_text(errors="replace").strip("\0\n ")]
    return " ".join([*found, *([f"driver {driver[1]}"] if driver else [])]) or "unknown GPU"


def _tensorrt_version() -> str:
    for package in _PACKAGES:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name in _LIBRARIES:
        try:
            return str(ctypes.CDLL(name).getInferLibVersion())
        except (OSError, AttributeError):
            continue
    return "unknown"


def cache_folder(entry: Wanted, model_sha256: str, where: Place) -> Path:
    """The folder of one model's engine: by all that the engine depends on, TensorRT's options among it."""
    base = Path(str(entry.options.get("cache_dir") or default_state_dir() / "engines"))
    options = {key: value for key, value in entry.options.items() if key != "cache_dir"}
    asked = json.dumps(options, sort_keys=True, default=str)
    depends = f"{model_sha256}\n{where.ort}\n{where.tensorrt}\n{where.gpu}\n{asked}"
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", f"ort{where.ort}-trt{where.tensorrt}-{where.gpu}").strip("-")[:80]
    return base / f"{model_sha256[:12]}-{hashlib.sha256(depends.encode()).hexdigest()[:12]}-{readable}"


def with_cache(entry: Wanted, folder: Path, *, quantised: bool) -> Wanted:
    """The entry with the options of ONNX Runtime that keep engine and timing cache in a folder; the user's own win."""
    own = {key: value for key, value in entry.options.items() if key != "cache_dir"}
    options = {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(folder),
        **({"trt_int8_enable": True} if quantised else {}),
        **own,
    }
    return Wanted(name=entry.name, options=options, optional=entry.optional)


def check_writable(folder: Path) -> None:
    """Make the folder and write to it; raises StateError where that cannot be, before anything is built."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"edgevision")
    except OSError as failure:
        raise StateError(
            f"{folder}: the engine cache cannot be written to ({failure.strerror or failure}), and TensorRT would build for "
            "minutes at every start; give `tensorrt` a `cache_dir` that can be"
        ) from failure


def is_built(folder: Path) -> bool:
    """Whether an engine lies there."""
    return any(folder.glob("*.engine"))


def way(used: Sequence[Wanted], *, built: bool, engines: Engines) -> Way:
    """How a list with TensorRT in it is begun.

    Returns:
        `whole`: at once with all of it, because the engine is there, or nobody else could serve, or the caller waits;
        `background`: the rest of the list serves while the engine is built; `rest`: the rest alone, and nothing is built.
    """
    others = [entry for entry in used if entry.name != NAME]
    if built or not others or engines == "wait":
        return "whole"
    return "background" if engines == "background" else "rest"


def build_in_child(
    model: ModelFile, options: Mapping[str, Any], threads: int, stopping: Event, *, deadline_s: float = BUILD_DEADLINE_S
) -> None:
    """Build the engine in a process of its own, which leaves it in the cache.

    Raises:
        ModelError: the process crashed, hung, or was told to end.
        EdgevisionError: what the load there raised.
    """
    job = {"options": dict(options), "name": model.name, "sha256": model.sha256, "threads": threads}
    try:
        child.call(
            "edgevision.inference._tensorrt:build",
            job,
            content=model.content,
            deadline_s=deadline_s,
            stopping=stopping,
        )
    except child.ChildGoneError as failure:
        raise ModelError(f"model {model.name!r}: the process that builds its engine {failure}") from failure


def build(job: dict[str, Any], content: bytes) -> dict[str, int]:
    """What the child does: load with the whole list, which builds and keeps the engine, and run once; gives who took what."""
    from edgevision.inference import onnxrt  # noqa: PLC0415  it imports us
    from edgevision.inference.base import BackendContext  # noqa: PLC0415  as above

    file = ModelFile(name=job["name"], content=content, sha256=job["sha256"])
    create: Callable[..., Any] = onnxrt.create
    backend = create(
        onnxrt.Options.model_validate(job["options"]), file, BackendContext(threads=job["threads"], engines="wait")
    )
    taken = dict(backend.execution.nodes)
    backend.close()
    if not taken.get(short(NAME), 1):
        raise ModelError(f"model {file.name!r}: TensorRT can run nothing of it")
    return taken
