"""LiteRT's delegates: what a config's list asks for, loading a delegate library, and which nodes each delegate took.

A delegate is a shared library with two functions (external_delegate.h of TensorFlow Lite); vendors ship one for their chip.
LiteRT itself brings XNNPACK, for the CPU. A library that is missing is an error that names what brings it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from edgevision import registry
from edgevision.errors import PluginError
from edgevision.inference._specs import first_sentence

XNNPACK = "xnnpack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A delegate that we know by a name of our own."""

    library: str
    """As its vendor names it."""
    source: str
    """What brings it."""


KNOWN: Mapping[str, Known] = {
    "edgetpu": Known(
        library="libedgetpu.so.1", source="Coral's package libedgetpu1-std, and a model compiled by edgetpu_compiler"
    ),
    "vx": Known(
        library="libvx_delegate.so",
        source="NXP's Linux for i.MX 8 (tensorflow-lite-vx-delegate), or TIM-VX's own build",
    ),
    "ethosu": Known(
        library="libethosu_delegate.so",
        source="NXP's Linux for i.MX 93 (ethos-u-driver-stack), and a model compiled by vela",
    ),
    "armnn": Known(library="libarmnnDelegate.so", source="Arm NN (Debian: libarmnn-dev; or its release archives)"),
    "nnapi": Known(library="libnnapi_delegate.so", source="Android's LiteRT, or a vendor's Linux with an NNAPI driver"),
    "gpu": Known(
        library="libtensorflowlite_gpu_delegate.so",
        source="a build of TensorFlow Lite's GPU delegate with the external-delegate functions; LiteRT's wheel has none",
    ),
}
_OURS = ("optional", "library")
_CREATE = "tflite_plugin_create_delegate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One entry of a config's list."""

    name: str
    library: str
    options: Mapping[str, str] = field(default_factory=dict)
    """The delegate's own; it takes text only."""
    optional: bool = False


def parse(entry: Any) -> Wanted:
    """One entry, `edgetpu` or `{vx: {library: /usr/lib/libvx_delegate.so, optional: true}}`; ValueError with the fix else."""
    if isinstance(entry, str):
        name, more = entry, dict[str, Any]()
    elif isinstance(entry, dict) and len(entry) == 1:
        name, more = next(iter(entry.items()))
        more = {} if more is None else more
    else:
        raise ValueError(f"{entry!r} must be one delegate's name and its options: {{edgetpu: {{device: 'usb:0'}}}}")
    if not isinstance(more, dict):
        raise ValueError(f"{name}: its options must be a mapping; found {more!r}")  # noqa: TRY004  for pydantic
    if name == XNNPACK:
        raise ValueError("xnnpack is inside LiteRT and stands in no list: `xnnpack: true`, the default, uses it")
    if name not in KNOWN and "library" not in more:
        known = registry.unknown_name("delegate", str(name), tuple(KNOWN))
        raise ValueError(f"{known}; another needs its `library`: {{{name}: {{library: /usr/lib/libmine.so}}}}")
    if not isinstance(more.get("optional", False), bool):
        raise ValueError(f"{name}: `optional` must be true or false; found {more['optional']!r}")  # noqa: TRY004  for pydantic
    library = more.get("library") or KNOWN[str(name)].library
    if not isinstance(library, str):
        raise ValueError(f"{name}: `library` must be text; found {library!r}")  # noqa: TRY004  for pydantic
    options = {str(key): _text(value) for key, value in more.items() if key not in _OURS}
    return Wanted(name=str(name), library=library, options=options, optional=more.get("optional", False))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def load(runtime: ModuleType, wanted: Iterable[Wanted]) -> tuple[list[Any], dict[str, str]]:
    """Load the delegates of a list.

    Args:
        runtime: LiteRT's interpreter module.
        wanted: the list.

    Returns:
        The delegates, and why optional ones are left out, by name.

    Raises:
        PluginError: one that is not optional cannot be loaded.
    """
    loaded, left_out = [], dict[str, str]()
    for entry in wanted:
        try:
            loaded.append(_load(runtime, entry))
        except PluginError as failure:
            if not entry.optional:
                raise
            left_out[entry.name] = str(failure).removeprefix("backend litert: ")
    return loaded, left_out


def _load(runtime: ModuleType, entry: Wanted) -> Any:
    where = f"backend litert: delegate {entry.name}"
    if (fault := why_no_library(entry)) is not None:
        raise PluginError(f"{where}: {fault}")
    try:
        return runtime.load_delegate(entry.library, dict(entry.options))
    except (ValueError, OSError, RuntimeError, AttributeError) as failure:
        text = str(failure).replace(f"Failed to load delegate from {entry.library}", "").strip()
        why = (
            first_sentence(ValueError(text))
            if text
            else "it gives no reason (is its device plugged in and ours to use?)"
        )
        raise PluginError(f"{where}: {entry.library} does not start: {why}") from failure


def why_no_library(entry: Wanted) -> str | None:
    """Why a delegate's library cannot be used, with the fix; None where it can."""
    known = KNOWN.get(entry.name)
    source = f"; {known.source} has it" if known else ""
    if "/" in entry.library and not Path(entry.library).is_file():
        return f"library {entry.library}: no such file{source}"
    try:
        library = ctypes.CDLL(entry.library)
    except OSError as failure:
        if "cannot open shared object file" in str(failure) and entry.library in str(failure).partition(":")[0]:
            return f"library {entry.library} is not installed{source}, or give its path as `library`"
        return f"library {entry.library} cannot be loaded: {first_sentence(failure)}"
    if not hasattr(library, _CREATE):
        return f"library {entry.library} is no external delegate: it has no function {_CREATE}"
    return None


def taken(operators: Sequence[Mapping[str, Any]], delegates: Sequence[Mapping[str, Any]]) -> int:
    """How many of the graph's nodes delegates took.

    Args:
        operators: the graph's own, as the interpreter tells them: `inputs` and `outputs` are indices of tensors.
        delegates: the nodes that stand in their place, likewise.

    Returns:
        The operators on the way from what the delegates' nodes read to what they make.
    """
    maker = {int(tensor): index for index, one in enumerate(operators) for tensor in one["outputs"]}
    found: set[int] = set()
    for node in delegates:
        edge = {int(tensor) for tensor in node["inputs"]}
        pending = [int(tensor) for tensor in node["outputs"]]
        while pending:
            index = maker.get(pending.pop())
            if index is not None and index not in found:
                found.add(index)
                pending += [int(tensor) for tensor in operators[index]["inputs"] if int(tensor) not in edge]
    return len(found)
