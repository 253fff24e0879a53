"""The runtimes of this machine: which are here, what each can run on, and what brings the rest. Every provider is started."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np

from edgevision import registry
from edgevision.doctor.findings import Finding, fault, ok, parted, warning
from edgevision.errors import EdgevisionError
from edgevision.inference import _delegates as delegates
from edgevision.inference import _providers as providers
from edgevision.inference.base import BackendContext, ModelFile

_Entry = TypeVar("_Entry")
TINY = bytes.fromhex(
    "0807120a65646765766973696f6e3a3e0a0c0a0178120179220452656c75120474696e795a130a0178120e0a0c080112080a"
    "0208010a02080462130a0179120e0a0c080112080a0208010a02080442040a00100d"
)
"""An .onnx file: y = Relu(x), float32 (1, 4), opset 13."""


def any_at_all(_job: dict[str, Any]) -> Iterator[Finding]:
    """A fault where no runtime is here."""
    if not any(
        importlib.util.find_spec(name) for name in ("onnxruntime", "ai_edge_litert", "tflite_runtime", "openvino")
    ):
        found = "no runtime is installed: no model can run"
        yield fault("runtimes", "none", found, "pip install 'edgevision[onnxrt]', or [litert], or [openvino]")


def onnxrt(job: dict[str, Any]) -> Iterator[Finding]:
    """ONNX Runtime and its execution providers."""
    if (absent := _absent("onnxrt", ("onnxruntime",), job)) is not None:
        yield absent
        return
    ort = registry.require("onnxruntime", package="edgevision[onnxrt]", purpose="backend onnxrt")
    yield ok("runtimes", "onnxrt", f"ONNX Runtime {ort.__version__}")
    asked = _parsed(providers.parse, _options(job, "onnxrt", "providers", []))
    there = [name for name in ort.get_available_providers() if name != "AzureExecutionProvider"]  # no local inference
    there += [
        known.name
        for known in providers.KNOWN.values()
        if known.plugin and importlib.util.find_spec(providers.module_of(known.plugin)) and known.name not in there
    ]
    started = []
    for name in there:
        failure = _starts({"providers": [name, "cpu"] if name != providers.CPU else ["cpu"]})
        if failure is None:
            started.append(providers.short(name))
            continue
        wanted = any(entry.name == name and not entry.optional for entry in asked)
        say = fault if wanted else warning
        found, fix = (
            failure,
            f"it needs its driver, its libraries and a device; `providers: [{providers.short(name)}]` fails",
        )
        if name in {entry.name for entry in asked}:
            found, fix = parted(failure)
        yield say("runtimes", f"onnxrt {providers.short(name)}", found, fix)
    yield ok("runtimes", "onnxrt providers", f"run here: {', '.join(started) or 'none'}")
    for entry in asked:
        if entry.name not in there and entry.library is None and entry.package is None:
            found = f"{entry.name} is asked for and not here"
            say = warning if entry.optional else fault
            yield say("runtimes", f"onnxrt {providers.short(entry.name)}", found, providers.how_to_get(entry.name))
    lacking = [short for short, known in providers.KNOWN.items() if known.name not in there]
    words = "; ".join(f"{short}: {providers.how_to_get(providers.KNOWN[short].name)}" for short in lacking)
    yield ok("runtimes", "onnxrt, not here", words)


def litert(job: dict[str, Any]) -> Iterator[Finding]:
    """LiteRT and its delegates."""
    if (absent := _absent("litert", ("ai_edge_litert", "tflite_runtime"), job)) is not None:
        yield absent
        return
    runtime = registry.load("inference", "litert")
    module = runtime._runtime()  # type: ignore[attr-defined]  # noqa: SLF001  the backend's own choice of the two
    package = "ai-edge-litert" if module.__name__.startswith("ai_edge_litert") else "tflite-runtime"
    if package == "tflite-runtime":
        found = f"tflite-runtime {_version(package)}, which ended in 2023"
        yield warning("runtimes", "litert", found, "pip install ai-edge-litert, unless this is 32-bit ARM")
    else:
        yield ok("runtimes", "litert", f"LiteRT ({package} {_version(package)}), delegate XNNPACK inside")
    yield from _delegates(job)


def _delegates(job: dict[str, Any]) -> Iterator[Finding]:
    """Every known delegate whose library is here, and every one that is asked for, is looked into."""
    asked = _parsed(delegates.parse, _options(job, "litert", "delegates", []))
    names = {entry.name for entry in asked}
    lacking = []
    for entry in [*asked, *(delegates.parse(name) for name in delegates.KNOWN if name not in names)]:
        why = delegates.why_no_library(entry)
        if why is None:
            yield ok("runtimes", f"litert {entry.name}", f"delegate library {entry.library} is here")
        elif entry.name in names:
            found, fix = parted(why)
            say = warning if entry.optional else fault
            yield say("runtimes", f"litert {entry.name}", found, fix)
        else:
            lacking.append(f"{entry.name}: {delegates.KNOWN[entry.name].source}")
    if lacking:
        yield ok("runtimes", "litert, not here", "; ".join(lacking))


def openvino(job: dict[str, Any]) -> Iterator[Finding]:
    """OpenVINO and its devices."""
    if (absent := _absent("openvino", ("openvino",), job)) is not None:
        yield absent
        return
    module = registry.require("openvino", package="edgevision[openvino]", purpose="backend openvino")
    core = module.Core()
    named = ", ".join(
        f"{name} ({core.get_property(name, 'FULL_DEVICE_NAME').strip()})" for name in core.available_devices
    )
    version = str(module.__version__).partition("-")[0]
    yield ok("runtimes", "openvino", f"OpenVINO {version}; devices: {named or 'none'}")
    there = {name.partition(".")[0] for name in core.available_devices}
    for device in ("GPU", "NPU"):
        if device not in there:
            wanted = any(device in str(entry) for entry in _options(job, "openvino", "device", ""))
            fix = (
                "intel-opencl-icd and access to /dev/dri (group render)"
                if device == "GPU"
                else "the intel-npu driver and access to /dev/accel (group render)"
            )
            if wanted:
                yield fault("runtimes", f"openvino {device}", f"no {device} found", f"an Intel {device} needs {fix}")
            else:
                yield ok("runtimes", f"openvino {device}", f"none; an Intel {device} needs {fix}")


def _absent(backend: str, modules: tuple[str, ...], job: dict[str, Any]) -> Finding | None:
    """A finding where a runtime is not installed."""
    if any(importlib.util.find_spec(module) for module in modules):
        return None
    wanted = any(section.get("backend") == backend for section in job["models"] if isinstance(section, dict))
    fix = f"pip install 'edgevision[{backend}]'"
    if wanted:
        return fault("runtimes", backend, "asked for and not installed", fix)
    return ok("runtimes", backend, f"not installed ({fix})")


def _options(job: dict[str, Any], backend: str, key: str, default: Any) -> list[Any]:
    """The values of one option of a backend over all models, lists made flat."""
    found: list[Any] = []
    for section in job["models"]:
        options = section.get("options") if isinstance(section, dict) else None
        if isinstance(options, dict) and section.get("backend", backend) == backend:
            value = options.get(key, default)
            found += value if isinstance(value, list) else [value]
    return found


def _parsed(parse: Callable[[Any], _Entry], entries: list[Any]) -> list[_Entry]:
    """The entries that are well formed; of the others the config's own check tells, with their lines."""
    found = []
    for entry in entries:
        with suppress(ValueError):
            found.append(parse(entry))
    return found


def _starts(options: dict[str, Any]) -> str | None:
    """Why ONNX Runtime cannot start with these options; None where it runs a model."""
    plugin = registry.load("inference", "onnxrt")
    model = ModelFile(name="the doctor's one-operator model", content=TINY, sha256="")
    try:
        backend = plugin.create(plugin.Options.model_validate(options), model, BackendContext())
        backend.run({spec.name: np.zeros(spec.shape, spec.dtype) for spec in backend.inputs})
        backend.close()
    except EdgevisionError as failure:
        return str(failure)
    return None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
