"""An ONNX Runtime session with the providers that were asked for, and the truth about which of them took which nodes.

ONNX Runtime leaves out what cannot start, hands the rest to the CPU, and at most warns. Here a provider that is asked for and
does not start is an error unless it is optional; and how the nodes were shared out is read back (ONNX Runtime 1.23 on).
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from edgevision.errors import PluginError
from edgevision.inference import _providers as providers
from edgevision.inference._providers import CPU, Wanted, short
from edgevision.inference._specs import first_sentence
from edgevision.inference.base import Execution

_RECORD = "session.record_ep_graph_assignment_info"
_CUDA, _TENSORRT = providers.KNOWN["cuda"].name, providers.KNOWN["tensorrt"].name
_CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
_registered: dict[str, str] = {}
"""Plug-in libraries that this process has registered, by path, and under which name; ONNX Runtime takes each once."""


def settle(ort: ModuleType, wanted: Sequence[Wanted]) -> providers.Split:
    """What of the list can be used here.

    Raises:
        PluginError: a provider that is not optional is in neither this build nor an installed plug-in.
    """
    split = providers.settle(wanted, there=ort.get_available_providers(), version=ort.__version__)
    if split.refused is not None:
        raise PluginError(f"backend onnxrt: {split.refused}")
    return split


def open_session(
    ort: ModuleType,
    content: bytes,
    make_options: Callable[[], Any],
    wanted: Sequence[Wanted],
    *,
    errors: tuple[type[Exception], ...],
) -> tuple[Any, dict[str, str]]:
    """Make the session; what ONNX Runtime raises comes out as it is.

    Args:
        ort: the runtime.
        content: the model.
        make_options: new session options for each try.
        wanted: the providers, in order.
        errors: what the runtime raises.

    Returns:
        The session, and which optional providers had to be left out for it, with the reason.

    Raises:
        PluginError: a plug-in library cannot be registered, or offers no device here.
    """
    used, left_out = list(wanted), dict[str, str]()
    failures: tuple[type[Exception], ...] = (PluginError, *errors)
    while True:
        try:
            return _open(ort, content, make_options(), used, errors), left_out
        except failures as failure:
            # Which provider it was is not always told: the optional ones are given up one by one, the first first.
            given_up = next((entry for entry in used if entry.optional), None)
            if given_up is None or len(used) == 1:
                raise
            left_out[given_up.name] = f"it could not start: {first_sentence(failure)}"
            used.remove(given_up)


def _open(
    ort: ModuleType, content: bytes, session_options: Any, used: Sequence[Wanted], errors: tuple[type[Exception], ...]
) -> Any:
    session_options.add_session_config_entry(_RECORD, "1")  # older versions pass over it
    built_in = ort.get_available_providers()
    if not any(_is_plugin(entry, built_in) for entry in used):
        return ort.InferenceSession(
            content,
            session_options,
            providers=[(entry.name, dict(entry.options)) for entry in used],
            enable_fallback=0,
        )
    for entry in used:
        # Options of a session take text only.
        options = {key: str(value) for key, value in entry.options.items()}
        if _is_plugin(entry, built_in):
            session_options.add_provider_for_devices(_devices(ort, entry, errors), options)
        elif entry.name != CPU:  # which is always the last, whether it is named or not
            session_options.add_provider(entry.name, options)
    return ort.InferenceSession(content, session_options, enable_fallback=0)


def _is_plugin(entry: Wanted, built_in: Sequence[str]) -> bool:
    # Once it is registered, ONNX Runtime lists a plug-in among the providers of its own.
    own = entry.name in built_in and entry.name not in _registered.values()
    return entry.library is not None or entry.package is not None or not own


def _devices(ort: ModuleType, entry: Wanted, errors: tuple[type[Exception], ...]) -> list[Any]:
    """The devices that a plug-in offers here, its library registered."""
    where = f"backend onnxrt: provider {short(entry.name)}"
    if not hasattr(ort, "register_execution_provider_library"):
        raise PluginError(f"{where}: ONNX Runtime {ort.__version__} takes no plug-in libraries; 1.22 and later do")
    known = next((path for path, name in _registered.items() if name == entry.name), None)
    path = known if known and entry.library is None else _library(entry, where)
    if path not in _registered:
        try:
            ort.register_execution_provider_library(entry.name, path)
        except errors as failure:
            raise PluginError(
                f"{where}: its library {path} cannot be registered: {first_sentence(failure)}; is it made for this "
                f"ONNX Runtime ({ort.__version__}) and this machine?"
            ) from failure
        _registered[path] = entry.name
    names = {entry.name, _registered[path]}
    offered = [device for device in ort.get_ep_devices() if device.ep_name in names]
    chosen = [one for one in offered if entry.device is None or one.device.type.name.lower() == entry.device]
    if not chosen:
        has = ", ".join(sorted({one.device.type.name for one in offered})) or "none"
        raise PluginError(
            f"{where}: its library {path} finds no {entry.device or 'device'} on this machine that it can use "
            f"(it offers {has}); take it out of `providers`, or give it `optional: true`"
        )
    return chosen


def _library(entry: Wanted, where: str) -> str:
    if entry.library is not None:
        if not Path(entry.library).is_file():
            raise PluginError(f"{where}: library {entry.library}: no such file")
        return entry.library
    package = providers.plugin_package(entry)
    assert package is not None  # noqa: S101  for mypy: `settle` has seen to it
    try:
        module = importlib.import_module(providers.module_of(package))
    except ImportError as failure:
        raise PluginError(f"{where} needs {package}: pip install {package} ({failure})") from failure
    find = getattr(module, "get_library_path", None)
    if find is None:
        raise PluginError(f"{where}: package {package} names no library; give its path as `library`")
    return str(find())


def check_running(session: Any, used: Sequence[Wanted], model: str) -> dict[str, str]:
    """What of the list did not start, with the reason; only optional ones may be among it.

    Raises:
        PluginError: another did not start.
    """
    running = session.get_providers()
    left_out = {entry.name: "it could not start (device, driver or library missing)"
                for entry in used if entry.name not in running}  # fmt: skip
    needed = [entry.name for entry in used if entry.name in left_out and not entry.optional]
    there = [entry.name for entry in used if entry.name in running]
    if needed or running[: len(there)] != there:
        missing = ", ".join(needed) or "the order asked for"
        raise PluginError(
            f"backend onnxrt: model {model!r} was to run on {', '.join(entry.name for entry in used)}, but ONNX Runtime "
            f"could not start {missing} and runs {', '.join(running)}; its reason is on stderr (device, driver or library "
            "missing)"
        )
    return left_out


def execution(session: Any, used: Sequence[Wanted], left_out: Mapping[str, str]) -> Execution:
    """Which provider took which share of the nodes."""
    taken = assigned(session)
    return Execution(
        nodes={short(name): sum(operators.values()) for name, operators in taken.items()},
        left_out={short(name): why for name, why in left_out.items()},
        notes=notes(taken, [entry.name for entry in used if entry.name not in left_out]),
    )


def assigned(session: Any) -> dict[str, Counter[str]]:
    """Operators by provider; empty where this ONNX Runtime does not tell."""
    taken: dict[str, Counter[str]] = {}
    if hasattr(session, "get_provider_graph_assignment_info"):
        for part in session.get_provider_graph_assignment_info():
            taken.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return taken


def notes(taken: Mapping[str, Mapping[str, int]], listed: Sequence[str]) -> tuple[str, ...]:
    """What a person should know of how the nodes were shared out."""
    found: list[str] = []
    if not taken:
        return ()
    total = sum(sum(operators.values()) for operators in taken.values())
    found += [
        f"{short(name)} took none of the {total} nodes: it can run nothing of this model"
        for name in listed
        if name != CPU and not taken.get(name)
    ]
    if taken.get(_CUDA) and not taken.get(_TENSORRT):
        on_cpu = sum(count for op, count in taken.get(CPU, {}).items() if is_quantised(op))
        on_gpu = sum(count for op, count in taken[_CUDA].items() if op in _CONVERSIONS)
        if on_cpu:
            found.append(
                f"INT8 on plain CUDA: {on_cpu} quantised operators have no kernel there and run on the CPU one by one; put "
                "tensorrt before cuda, or use the float model"
            )
        if on_gpu:
            found.append(
                f"INT8 on plain CUDA: it is computed in float between {on_gpu} conversions, slower than the float model; put "
                "tensorrt before cuda, or use the float model"
            )
    return tuple(found)


def is_quantised(op: str) -> bool:
    """Whether an operator of ONNX belongs to a quantised graph."""
    return op in _CONVERSIONS or op.startswith("QLinear") or op.endswith("Integer") or op in {"QGemm", "QAttention"}
