"""ONNX Runtime: .onnx models on the CPU and on whatever execution providers the installed build has.

Three things are decided here and not by ONNX Runtime's defaults. A provider that is asked for is used or is an error:
ONNX Runtime itself would go to the CPU with a warning. Weights come out of the checked bytes only: ONNX Runtime itself
would read a second file from the working directory. And threads do not spin while a paced camera waits for its next
frame.

YOLOX-nano with two threads on two cores, ORT 1.32 (medians; others used the machine). At 10 frames a second spinning
without end, the default, costs 66-69 % of a core for 10.4 ms a frame; not spinning 19-20 % for 16.3 ms; 200 us of spinning
23-28 % for 16.0 ms. One frame after the other, not spinning takes 13.4 ms, spinning 9.4 ms, 200 us of it 9.3 ms. So: paced
load does not spin, full load spins for 200 us, and nothing ever spins on a camera that has died.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from dataclasses import replace
from types import ModuleType
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from edgevision import registry
from edgevision.errors import InferenceError, ModelError
from edgevision.inference import _providers as providers
from edgevision.inference import _tensorrt
from edgevision.inference._onnx_file import has_external_data
from edgevision.inference._ort_session import check_running, execution, open_session, settle
from edgevision.inference._providers import Split, Wanted
from edgevision.inference._specs import check_tensors, first_sentence, layout_of
from edgevision.inference._switching import Switching
from edgevision.inference.base import Backend, BackendContext, ModelFile
from edgevision.types import Tensors, TensorSpec

log = logging.getLogger(__name__)

READS = (".onnx",)

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(int16)": np.int16,
    "tensor(uint16)": np.uint16,
    "tensor(int32)": np.int32,
    "tensor(uint32)": np.uint32,
    "tensor(int64)": np.int64,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}

_OPTIMIZATION = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}

_SECOND_FILE = (
    "its weights lie in a second file, which is not checked and not read; make it one file: "
    "onnx.save_model(onnx.load(path), new_path, save_as_external_data=False)"
)

_SPIN_US = 200
_BUSY = 0.6
"""Share of the time spent in inference above which a load is no longer paced."""


class Options(registry.Options):
    """Where and how the graph runs."""

    providers: tuple[Any, ...] = Field(default=("CPUExecutionProvider",), min_length=1)
    """Execution providers in order of preference, all of which must be there: `cuda`, `CUDAExecutionProvider`, or with
    options `{cuda: {device_id: 0}}`. With `optional: true` beside its options the list goes on without it, which is said.
    `library: PATH` or `package: NAME` names a plug-in, `device: gpu` one of its devices. Where `cpu` is not listed, operators
    the others cannot run are an error."""
    spinning: Literal["auto", "on", "off"] = "auto"
    """Whether threads wait for work by spinning; `auto` decides by the load."""
    graph_optimization: Literal["all", "extended", "basic", "none"] = "all"

    @field_validator("providers")
    @classmethod
    def _known(cls, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [providers.parse(entry).name for entry in entries]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise ValueError(f"{providers.short(double)} stands twice: keep one")
        return entries

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """The providers in the order asked for."""
        return tuple(providers.parse(entry) for entry in self.providers)

    def provider_options(self) -> dict[str, dict[str, Any]]:
        """Options by ONNX Runtime's own provider name, in the order asked for."""
        return {entry.name: dict(entry.options) for entry in self.wanted}


def create(options: Options, model: ModelFile, context: BackendContext) -> Backend:
    """Load a model, warm it up, and settle how its threads wait.

    Raises:
        PluginError: ONNX Runtime is not installed, or has not the provider that was asked for.
        ModelError: ONNX Runtime refuses the model.
        StateError: TensorRT's engine cache cannot be written to.
    """
    ort = registry.require("onnxruntime", package="edgevision[onnxrt]", purpose="backend onnxrt")
    split = settle(ort, options.wanted)
    if has_external_data(model.content, model.name):
        raise ModelError(f"model {model.name!r}: {_SECOND_FILE}")
    ort.set_default_logger_severity(3)
    if any(entry.name == _tensorrt.NAME for entry in split.used):
        return _with_tensorrt(ort, options, split, model, context)
    return _session(ort, options, split, model, context)


def _with_tensorrt(
    ort: ModuleType, options: Options, split: Split, model: ModelFile, context: BackendContext
) -> Backend:
    """The list with TensorRT in it: at once where its engine is cached, else the rest of the list until it is built."""
    entry = next(entry for entry in split.used if entry.name == _tensorrt.NAME)
    folder = _tensorrt.cache_folder(entry, model.sha256, _tensorrt.place(ort.__version__))
    _tensorrt.check_writable(folder)
    quantised = b"QuantizeLinear" in model.content
    cached = _tensorrt.with_cache(entry, folder, quantised=quantised)
    whole = replace(split, used=tuple(cached if one is entry else one for one in split.used))
    way = _tensorrt.way(split.used, built=_tensorrt.is_built(folder), engines=context.engines)
    if way == "whole":
        return _session(ort, options, whole, model, context)
    serving = _session(
        ort, options, replace(split, used=tuple(one for one in split.used if one is not entry)), model, context
    )
    if way == "rest":
        return serving

    def build(stopping: threading.Event) -> Backend:
        _tensorrt.build_in_child(model, options.model_dump(), context.threads, stopping)
        return _session(ort, options, whole, model, context)

    return Switching(serving, model=model.name, what="tensorrt builds its engine", build=build)


def _session(ort: ModuleType, options: Options, split: Split, model: ModelFile, context: BackendContext) -> _Session:
    """A warm session with the providers that can be used, and threads that wait as the load wants it."""
    spin = options.spinning == "on" or (options.spinning == "auto" and context.expected_fps is None)
    backend = _Session(ort, options, split, model, threads=context.threads, spin=spin)
    inference_s = backend.warm_up()
    if (
        options.spinning == "auto"
        and context.threads > 1
        and context.expected_fps is not None
        and inference_s is not None
    ):
        load = context.expected_fps * inference_s
        log.info(
            "model %r: %.1f ms at %g frames a second is a load of %.2f: threads %s while they wait",
            model.name, inference_s * 1e3, context.expected_fps, load, "spin" if load >= _BUSY else "sleep",
        )  # fmt: skip
        if load >= _BUSY:
            backend.close()
            backend = _Session(ort, options, split, model, threads=context.threads, spin=True)
            backend.warm_up()
    return backend


class _Session:
    """One inference session; a `Backend`."""

    def __init__(
        self, ort: ModuleType, options: Options, split: Split, model: ModelFile, *, threads: int, spin: bool
    ) -> None:
        self._name = model.name
        self._errors = _errors(ort)
        self.spinning = spin and threads > 1
        try:
            session, given_up = open_session(
                ort,
                model.content,
                lambda: _session_options(ort, options, threads=threads, spin=self.spinning),
                split.used,
                errors=self._errors,
            )
        except self._errors as error:
            raise ModelError(f"model {model.name!r}: {_refusal(error, options)}") from error
        session.disable_fallback()
        self._session: Any = session
        used = [entry for entry in split.used if entry.name not in given_up]
        left_out = {**split.left_out, **given_up, **check_running(session, used, model.name)}
        self.execution = execution(session, used, left_out)
        inputs = self._session.get_inputs()
        batch = {node.shape[0] for node in inputs if node.shape and not isinstance(node.shape[0], int)}
        self.inputs = tuple(_spec(node, batch, model.name, is_input=True) for node in inputs)
        self.outputs = tuple(_spec(node, batch, model.name) for node in self._session.get_outputs())
        self._output_names = [spec.name for spec in self.outputs]

    def warm_up(self) -> float | None:
        """Run on zeros; seconds of the second run, or None where the model leaves its input size open."""
        if any(-1 in spec.shape for spec in self.inputs):
            return None
        zeros = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.inputs}
        self.run(zeros)
        start_ns = time.perf_counter_ns()
        self.run(zeros)
        return (time.perf_counter_ns() - start_ns) / 1e9

    def run(self, tensors: Tensors) -> Tensors:
        """One inference."""
        check_tensors(self._name, self.inputs, tensors)
        if self._session is None:
            raise InferenceError(f"model {self._name!r} is closed")
        try:
            results = self._session.run(self._output_names, tensors)
        except self._errors as error:
            raise InferenceError(f"model {self._name!r}: {_own_words(error)}") from error
        return dict(zip(self._output_names, results, strict=True))

    def close(self) -> None:
        """Let go of the session."""
        self._session = None


def _session_options(ort: ModuleType, options: Options, *, threads: int, spin: bool) -> Any:
    made = ort.SessionOptions()
    made.intra_op_num_threads = threads
    made.inter_op_num_threads = 1
    made.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    made.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _OPTIMIZATION[options.graph_optimization])
    # What goes wrong is raised, and we say it; only what ends the process is ONNX Runtime's to print.
    made.log_severity_level = 4
    made.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    # Known from 1.26 on; older versions pass over it and spin without end under full load.
    made.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
    # A second lock behind `has_external_data`: no file can lie below /dev/null.
    made.add_session_config_entry("session.model_external_initializers_file_folder_path", "/dev/null")
    if "CPUExecutionProvider" not in options.provider_options():
        made.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return made


def _spec(node: Any, batch: set[Any], model: str, *, is_input: bool = False) -> TensorSpec:
    if node.type not in _DTYPES:
        raise ModelError(f"model {model!r}: {node.name!r} is {node.type}; only tensors of numbers can be used")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    open_batch = bool(shape) and shape[0] == -1 and (is_input or node.shape[0] in batch)
    if open_batch:
        shape = (1, *shape[1:])  # one frame at a time, unless somebody brings more
    return TensorSpec(
        name=node.name,
        shape=shape,
        dtype=np.dtype(_DTYPES[node.type]),
        layout=layout_of(shape) if is_input else None,
        open_batch=open_batch,
    )


def _errors(ort: ModuleType) -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions have no common base but `Exception`."""
    state = ort.capi.onnxruntime_pybind11_state
    own = (kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, RuntimeError, ValueError)


def _own_words(error: BaseException) -> str:
    """ONNX Runtime's message without `[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : ` before it; one may hold another."""
    text = re.split(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", str(error))[-1]
    return "ONNX Runtime says: " + first_sentence(ValueError(text))


def _refusal(error: BaseException, options: Options) -> str:
    text = str(error)
    if "xternal data" in text:
        return _SECOND_FILE
    if "fallback to CPU EP has been explicitly disabled" in text:
        return (
            f"{', '.join(options.provider_options())} cannot run all of its operators; "
            "add `cpu` to `providers` to allow the rest there"
        )
    return _own_words(error)
