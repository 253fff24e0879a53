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
import time
from types import ModuleType
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from edgevision import registry
from edgevision.errors import InferenceError, ModelError, PluginError
from edgevision.inference._onnx_file import has_external_data
from edgevision.inference._specs import check_tensors, first_sentence, layout_of
from edgevision.inference.base import Backend, BackendContext, ModelFile
from edgevision.types import Tensors, TensorSpec

log = logging.getLogger(__name__)

READS = (".onnx",)

# Short name -> ONNX Runtime's name and the package whose build has it.
_PROVIDERS = {
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "tensorrt": ("TensorrtExecutionProvider", "onnxruntime-gpu"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    "rocm": ("ROCMExecutionProvider", "onnxruntime-rocm"),
    "migraphx": ("MIGraphXExecutionProvider", "onnxruntime-migraphx"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
    "qnn": ("QNNExecutionProvider", "onnxruntime-qnn"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime (macOS)"),
    "xnnpack": ("XnnpackExecutionProvider", ""),
    "acl": ("ACLExecutionProvider", ""),
}
_PACKAGES = dict(_PROVIDERS.values())

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

    providers: tuple[str | dict[str, dict[str, Any]], ...] = Field(default=("CPUExecutionProvider",), min_length=1)
    """Execution providers in order of preference, all of which must be there: `cuda`, `CUDAExecutionProvider`, or with
    options `{cuda: {device_id: 0}}`. Where `cpu` is not listed, operators the others cannot run are an error."""
    spinning: Literal["auto", "on", "off"] = "auto"
    """Whether threads wait for work by spinning; `auto` decides by the load."""
    graph_optimization: Literal["all", "extended", "basic", "none"] = "all"

    @field_validator("providers")
    @classmethod
    def _known(cls, providers: tuple[Any, ...]) -> tuple[Any, ...]:
        for entry in providers:
            if isinstance(entry, dict) and len(entry) != 1:
                raise ValueError(f"{entry!r} must be one provider's name and its options: {{cuda: {{device_id: 0}}}}")
            name = entry if isinstance(entry, str) else next(iter(entry))
            if name not in _PROVIDERS and not name.endswith("ExecutionProvider"):
                raise ValueError(registry.unknown_name("execution provider", name, tuple(_PROVIDERS)))
        return providers

    def provider_options(self) -> dict[str, dict[str, Any]]:
        """Options by ONNX Runtime's own provider name, in the order asked for."""
        found: dict[str, dict[str, Any]] = {}
        for entry in self.providers:
            name, options = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
            found[_PROVIDERS.get(name, (name, ""))[0]] = options
        return found


def create(options: Options, model: ModelFile, context: BackendContext) -> Backend:
    """Load a model, warm it up, and settle how its threads wait.

    Raises:
        PluginError: ONNX Runtime is not installed, or has not the provider that was asked for.
        ModelError: ONNX Runtime refuses the model.
    """
    ort = registry.require("onnxruntime", package="edgevision[onnxrt]", purpose="backend onnxrt")
    _check_providers(ort, options)
    if has_external_data(model.content, model.name):
        raise ModelError(f"model {model.name!r}: {_SECOND_FILE}")
    ort.set_default_logger_severity(3)
    spin = options.spinning == "on" or (options.spinning == "auto" and context.expected_fps is None)
    backend = _Session(ort, options, model, threads=context.threads, spin=spin)
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
            backend = _Session(ort, options, model, threads=context.threads, spin=True)
            backend.warm_up()
    return backend


class _Session:
    """One inference session; a `Backend`."""

    def __init__(self, ort: ModuleType, options: Options, model: ModelFile, *, threads: int, spin: bool) -> None:
        self._name = model.name
        self._errors = _errors(ort)
        self.spinning = spin and threads > 1
        try:
            self._session: Any = ort.InferenceSession(
                model.content,
                _session_options(ort, options, threads=threads, spin=self.spinning),
                providers=list(options.provider_options().items()),
            )
        except self._errors as error:
            raise ModelError(f"model {model.name!r}: {_refusal(error, options)}") from error
        self._session.disable_fallback()
        _check_running(self._session.get_providers(), options, model.name)
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


def _check_providers(ort: ModuleType, options: Options) -> None:
    """ONNX Runtime only warns of a provider it does not have."""
    there = ort.get_available_providers()
    for name in options.provider_options():
        if name not in there:
            package = _PACKAGES.get(name, "")
            fix = (
                f"pip install {package} in place of onnxruntime"
                if package
                else "use a build of ONNX Runtime that has it"
            )
            raise PluginError(
                f"backend onnxrt: this ONNX Runtime {ort.__version__} has no {name}; it has {', '.join(there)}; "
                f"{fix}, or name another provider"
            )


def _check_running(running: list[str], options: Options, model: str) -> None:
    """ONNX Runtime leaves out a provider that the build has but that cannot start (no device, no driver library)."""
    wanted = list(options.provider_options())
    if running[: len(wanted)] != wanted:
        missing = ", ".join(name for name in wanted if name not in running) or "the order asked for"
        raise PluginError(
            f"backend onnxrt: model {model!r} was to run on {', '.join(wanted)}, but ONNX Runtime could not start "
            f"{missing} and runs {', '.join(running)}; its reason is on stderr (device, driver or library missing)"
        )


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
    """ONNX Runtime's message without its prefix: `[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : `."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
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
