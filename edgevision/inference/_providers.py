"""ONNX Runtime's execution providers: their names, what brings them, and what a config's list asks for. Pure: no runtime here.

A provider is built into ONNX Runtime (each build has its own few), or is a plug-in library that is registered at run time
(ONNX Runtime 1.22 on), mostly from a package of its own. Which of the two it is decides what is to be installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgevision import registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A provider that we know by a short name."""

    name: str
    """ONNX Runtime's own."""
    build: str = ""
    """The package on PyPI whose build of ONNX Runtime has it."""
    plugin: str = ""
    """The package on PyPI that brings it as a plug-in library."""
    elsewhere: str = ""
    """Where else it is to be had."""


KNOWN: Mapping[str, Known] = {
    "cpu": Known(name="CPUExecutionProvider", build="onnxruntime"),
    "cuda": Known(
        name="CUDAExecutionProvider",
        build="onnxruntime-gpu",
        elsewhere="on Jetson NVIDIA's own wheel of onnxruntime-gpu",
    ),
    "tensorrt": Known(
        name="TensorrtExecutionProvider",
        build="onnxruntime-gpu",
        elsewhere="with TensorRT's libraries; on Jetson NVIDIA's own wheel",
    ),
    "tensorrt-rtx": Known(name="NvTensorRTRTXExecutionProvider", plugin="onnxruntime-ep-nv-tensorrt-rtx"),
    "openvino": Known(name="OpenVINOExecutionProvider", build="onnxruntime-openvino", plugin="onnxruntime-ep-openvino"),
    "webgpu": Known(name="WebGpuExecutionProvider", plugin="onnxruntime-ep-webgpu"),
    "qnn": Known(name="QNNExecutionProvider", plugin="onnxruntime-qnn"),
    "rocm": Known(name="ROCMExecutionProvider", build="onnxruntime-rocm"),
    "migraphx": Known(name="MIGraphXExecutionProvider", build="onnxruntime-migraphx"),
    "directml": Known(name="DmlExecutionProvider", build="onnxruntime-directml"),
    "coreml": Known(name="CoreMLExecutionProvider", elsewhere="ONNX Runtime's build for macOS has it"),
    "xnnpack": Known(
        name="XnnpackExecutionProvider", elsewhere="build ONNX Runtime with --use_xnnpack; PyPI's builds have it not"
    ),
    "nnapi": Known(
        name="NnapiExecutionProvider",
        elsewhere="only ONNX Runtime's Android builds have it, and Android 15 has deprecated it",
    ),
    "acl": Known(name="ACLExecutionProvider", elsewhere="build ONNX Runtime with --use_acl; PyPI's builds have it not"),
}
_SHORT = {known.name: short for short, known in KNOWN.items()}
CPU = KNOWN["cpu"].name

_OURS = ("optional", "library", "package", "device")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One entry of a config's list."""

    name: str
    """ONNX Runtime's own."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Its own options."""
    optional: bool = False
    """Where it is missing or cannot start, the list goes on, and that is said."""
    library: str | None = None
    """A plug-in library's path."""
    package: str | None = None
    """A package that brings a plug-in library."""
    device: str | None = None
    """Of a plug-in: `cpu`, `gpu` or `npu`; None is every device that it offers."""


def parse(entry: Any) -> Wanted:
    """One entry of the list, `cuda` or `{cuda: {device_id: 0, optional: true}}`; ValueError with the fix else."""
    if isinstance(entry, str):
        given, more = entry, dict[str, Any]()
    elif isinstance(entry, dict) and len(entry) == 1:
        given, more = next(iter(entry.items()))
        more = {} if more is None else more  # `- cuda:` in YAML
        given = str(given)
        if not isinstance(more, dict):
            raise ValueError(  # noqa: TRY004  pydantic takes a ValueError for a fault of the value
                f"{given}: its options must be a mapping: {{{given}: {{device_id: 0}}}}; found {more!r}"
            )
    else:
        raise ValueError(f"{entry!r} must be one provider's name and its options: {{cuda: {{device_id: 0}}}}")
    is_plugin = "library" in more or "package" in more
    if given not in KNOWN and not given.endswith("ExecutionProvider") and not is_plugin:
        raise ValueError(registry.unknown_name("execution provider", given, tuple(KNOWN)))
    if "library" in more and "package" in more:
        raise ValueError(f"{given}: `library` and `package` are both given; keep one")
    if not isinstance(more.get("optional", False), bool):
        raise ValueError(f"{given}: `optional` must be true or false; found {more['optional']!r}")  # noqa: TRY004  as above
    if more.get("device") not in (None, "cpu", "gpu", "npu"):
        raise ValueError(f"{given}: `device` must be cpu, gpu or npu; found {more['device']!r}")
    for key in ("library", "package"):
        if not isinstance(more.get(key, "x"), str) or more.get(key) == "":
            raise ValueError(f"{given}: `{key}` must be text; found {more[key]!r}")
    return Wanted(
        name=KNOWN[given].name if given in KNOWN else given,
        options={key: value for key, value in more.items() if key not in _OURS},
        **{key: more[key] for key in _OURS if key in more},
    )


def short(name: str) -> str:
    """`cuda` for `CUDAExecutionProvider`; a name that we do not know as it is."""
    return _SHORT.get(name, name)


def module_of(package: str) -> str:
    """The module that a package of a plug-in library brings: `onnxruntime_ep_webgpu`."""
    return package.replace("-", "_")


def plugin_package(wanted: Wanted) -> str | None:
    """The installed package that brings a provider as a plug-in; None where there is none, or a library is named."""
    if wanted.library is not None:
        return None
    if wanted.package is not None:
        return wanted.package
    package = KNOWN[short(wanted.name)].plugin if short(wanted.name) in KNOWN else ""
    return package if package and importlib.util.find_spec(module_of(package)) is not None else None


def how_to_get(name: str) -> str:
    """What to install for a provider, in words."""
    known = KNOWN.get(short(name))
    if known is None:
        return "use a build of ONNX Runtime that has it, or name its plug-in `library`"
    ways = [f"pip install {known.plugin}"] if known.plugin else []
    ways += [f"pip install {known.build} in place of onnxruntime"] if known.build else []
    return ", or ".join([*ways, *([known.elsewhere] if known.elsewhere else [])])


def missing(name: str, *, version: str, there: Sequence[str]) -> str:
    """The error for a provider that neither this build nor an installed plug-in has."""
    return (
        f"this ONNX Runtime {version} has no {name}; it has {', '.join(there)}; {how_to_get(name)}; "
        "or name another provider, or give it `optional: true` so that the list goes on"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What a list comes to here."""

    used: tuple[Wanted, ...]
    left_out: Mapping[str, str]
    """Why, by name."""
    refused: str | None
    """Why the list cannot be had at all."""


def settle(wanted: Iterable[Wanted], *, there: Sequence[str], version: str) -> Split:
    """Which entries this ONNX Runtime can use; an optional one that it cannot is left out, any other refuses the list."""
    used: list[Wanted] = []
    left_out: dict[str, str] = {}
    for entry in wanted:
        if entry.library is not None or entry.name in there or plugin_package(entry) is not None:
            used.append(entry)
            continue
        why = missing(entry.name, version=version, there=there)
        if not entry.optional:
            return Split(used=(), left_out=left_out, refused=why)
        left_out[entry.name] = f"not in this ONNX Runtime {version}; {how_to_get(entry.name)}"
    if not used:
        return Split(used=(), left_out=left_out, refused="every provider of the list is missing: add `cpu` at its end")
    return Split(used=tuple(used), left_out=left_out, refused=None)
