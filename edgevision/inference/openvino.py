"""OpenVINO: .onnx models and its own on Intel's and other x86 and ARM CPUs, and on Intel's GPUs and NPUs.

ONNX is read, and OpenVINO's own IR as one .ir file: a model reaches a backend as the bytes of one checked file, and OpenVINO
writes two (.xml and .bin), which `edgevision models add` makes one of.

Four things are decided here and not by OpenVINO's defaults. A device that is asked for is used or is an error. Numbers are
as precise as the file says: OpenVINO itself computes float models in bfloat16 on CPUs that have it, so that the same file
would answer otherwise on the next machine (`execution_mode: performance` allows it). Threads are not pinned to cores,
which the models and cameras beside it need too. And nothing is written to disk unless `cache_dir` says where.

Threads need no choice between sleeping and spinning here, as ONNX Runtime's do: with two of them YOLOX-nano at 10 frames a
second costs 22 % of a core, where ONNX Runtime's that do not spin cost 17 %.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgevision import registry
from edgevision.errors import InferenceError, ModelError, PluginError, StateError
from edgevision.graphs import ir
from edgevision.inference._onnx_file import has_external_data
from edgevision.inference._specs import check_tensors, first_sentence, layout_of
from edgevision.inference.base import Backend, BackendContext, Execution, ModelFile
from edgevision.types import Tensors, TensorSpec

log = logging.getLogger(__name__)

READS = (".onnx", ir.SUFFIX, ir.XML_SUFFIX)

_DTYPES = {
    "f32": np.float32,
    "f16": np.float16,
    "f64": np.float64,
    "i8": np.int8,
    "u8": np.uint8,
    "i16": np.int16,
    "u16": np.uint16,
    "i32": np.int32,
    "u32": np.uint32,
    "i64": np.int64,
    "u64": np.uint64,
    "boolean": np.bool_,
}
_SECOND_FILE = (
    "its weights lie in a second file, which is not checked and not read; make it one file: "
    "onnx.save_model(onnx.load(path), new_path, save_as_external_data=False)"
)
_IR = (
    "it is OpenVINO IR without its weights; edgevision models add takes the .xml with its .bin beside it, and makes one "
    ".ir file of the two"
)
_DEVICE = r"(CPU|GPU(\.\d+)?|NPU)"


class Options(registry.Options):
    """Where and how the graph runs."""

    device: str = Field(default="CPU", pattern=rf"^({_DEVICE}|AUTO(:{_DEVICE}(,{_DEVICE})*)?)$")
    """`CPU`, `GPU`, `GPU.1`, `NPU`; or `AUTO`, OpenVINO's own choice, also among some: `AUTO:GPU,CPU`."""
    performance_hint: Literal["latency", "throughput"] = "latency"
    """What OpenVINO lays out its threads for; there is one frame at a time here."""
    execution_mode: Literal["accuracy", "performance"] = "accuracy"
    """`performance` lets OpenVINO compute in less than the file's precision where the device is quicker so (bfloat16 on new
    x86 servers): measure the accuracy on that very machine."""
    pinning: bool = False
    """Tie each thread to a core of its own."""
    cache_dir: Path | None = None
    """A folder for compiled models, so that the next start is quicker. They are read again unchecked: nobody else may write
    there."""


def create(options: Options, model: ModelFile, context: BackendContext) -> Backend:
    """Load a model and warm it up.

    Raises:
        PluginError: OpenVINO is not installed, or has not the device that was asked for.
        ModelError: OpenVINO refuses the model.
        StateError: `cache_dir` cannot be written to.
    """
    openvino = registry.require("openvino", package="edgevision[openvino]", purpose="backend openvino")
    is_ir = ir.is_ir(model.content)
    xml, weights = ir.split(model.content) if is_ir else (model.content, None)
    if is_ir and weights is None:
        raise ModelError(f"model {model.name!r}: {_IR}")
    if not is_ir and has_external_data(model.content, model.name):
        raise ModelError(f"model {model.name!r}: {_SECOND_FILE}")
    core = openvino.Core()
    _check_device(openvino, core, options.device)
    _check_cache(options.cache_dir)
    backend = _Request(openvino, core, options, model.name, (xml, weights), threads=context.threads)
    backend.warm_up()
    return backend


class _Request:
    """One model and its one request; a `Backend`.

    Tensors are not copied: OpenVINO reads the caller's arrays where they lie, and what comes out is a view of its own
    memory, which the next run writes over. For YOLOX-nano that saves 0.05 ms of copying in and 0.03 ms out.

    Where the model leaves sizes open, it is compiled anew for each size that comes: OpenVINO checks shapes then and not when
    it runs, where it reads past the end of what does not fit.
    """

    def __init__(
        self,
        openvino: ModuleType,
        core: Any,
        options: Options,
        name: str,
        files: tuple[bytes, bytes | None],
        *,
        threads: int,
    ) -> None:
        self._name = name
        self.execution = Execution()
        self._openvino, self._core = openvino, core
        self._device, self._properties = options.device, _properties(options, threads)
        self._request: Any = None
        self._closed = False
        self._shapes: list[tuple[int, ...]] = []
        self._held: list[NDArray[Any]] = []
        try:
            content, weights = files
            self._network: Any = core.read_model(content) if weights is None else core.read_model(content, weights)
            _one_frame(self._network)
            self.inputs = tuple(_spec(port, name, is_input=True) for port in self._network.inputs)
            self.outputs = tuple(_spec(port, name) for port in self._network.outputs)
            self._open = any(-1 in spec.shape for spec in self.inputs)
            if not self._open:
                self._compile()
        except _ERRORS as error:
            raise ModelError(f"model {name!r}: {own_words(error)}") from error

    def _compile(self) -> None:
        compiled = self._core.compile_model(self._network, self._device, self._properties)
        self._request = compiled.create_infer_request()
        devices = ",".join(compiled.get_property("EXECUTION_DEVICES"))
        # One device runs the whole graph, or refuses the model.
        self.execution = Execution(nodes={devices.lower(): len(self._network.get_ops())})
        if self._device.startswith("AUTO"):
            log.info("model %r: OpenVINO chose %s", self._name, devices)

    def warm_up(self) -> None:
        """Run on zeros, unless the model leaves its input size open: the first run prepares the kernels."""
        if not self._open:
            self.run({spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.inputs})

    def run(self, tensors: Tensors) -> Tensors:
        """One inference."""
        check_tensors(self._name, self.inputs, tensors)
        if self._closed:
            raise InferenceError(f"model {self._name!r} is closed")
        try:
            # OpenVINO keeps only the addresses, until the next run gives it others.
            self._held = [_shareable(tensors[spec.name]) for spec in self.inputs]
            if self._open:
                self._resize([array.shape for array in self._held])
            for index, array in enumerate(self._held):
                self._request.set_input_tensor(index, self._openvino.Tensor(array, shared_memory=True))
            self._request.infer(share_outputs=True)
            # Asked for anew each time: an output whose size the model computes is not always in the same place.
            return {spec.name: self._request.get_output_tensor(n).data for n, spec in enumerate(self.outputs)}
        except _ERRORS as error:
            raise InferenceError(f"model {self._name!r}: {own_words(error)}") from error

    def _resize(self, shapes: list[tuple[int, ...]]) -> None:
        """Compile for the sizes that came, unless it was done for the last frame."""
        if shapes != self._shapes:
            self._shapes = []
            self._network.reshape(dict(zip(self._network.inputs, shapes, strict=True)))
            self._compile()
            self._shapes = shapes

    def close(self) -> None:
        """Let go of the model and its memory."""
        self._closed = True
        self._request = self._network = self._core = None
        self._held = []


_ERRORS = (RuntimeError, ValueError, TypeError, NotImplementedError)
"""OpenVINO's C++ errors are RuntimeErrors; its Python layer adds the others."""


def _shareable(array: NDArray[Any]) -> NDArray[Any]:
    """The array itself, or a copy where OpenVINO cannot read it in place: it asks for one block that can be written."""
    return array if array.flags.c_contiguous and array.flags.writeable else np.array(array, order="C")


def _one_frame(network: Any) -> None:
    """Give an open batch the size of one."""
    shapes = {}
    for port in network.inputs:
        shape = port.get_partial_shape()
        if shape.rank.is_static and len(shape) and shape[0].is_dynamic:
            shape[0] = 1
            shapes[port] = shape
    if shapes:
        network.reshape(shapes)


def _properties(options: Options, threads: int) -> dict[str, Any]:
    """OpenVINO's property names (https://docs.openvino.ai, "Runtime properties")."""
    made: dict[str, Any] = {
        "PERFORMANCE_HINT": options.performance_hint.upper(),
        "EXECUTION_MODE_HINT": options.execution_mode.upper(),
    }
    if options.cache_dir is not None:
        made["CACHE_DIR"] = str(options.cache_dir)
    cpu = {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": options.pinning}
    if options.device == "CPU":
        made |= cpu
    elif options.device.startswith("AUTO"):
        made["DEVICE_PROPERTIES"] = {"CPU": cpu}
    return made


def _check_device(openvino: ModuleType, core: Any, device: str) -> None:
    """OpenVINO tells a missing device by whatever fails first."""
    there = tuple(core.available_devices)
    known = {*there, *(name.partition(".")[0] for name in there)}
    for name in device.removeprefix("AUTO").removeprefix(":").split(","):
        if name and name not in known:
            raise PluginError(
                f"backend openvino: OpenVINO {openvino.__version__.partition('-')[0]} finds no {name} on this machine; "
                f"it has {', '.join(there)}; install the {name.partition('.')[0]}'s driver, or name another `device`"
            )


def _check_cache(folder: Path | None) -> None:
    """OpenVINO goes on without a cache it cannot write, and compiles at every start."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".edgevision"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as failure:
        raise StateError(f"{folder}: cache_dir cannot be written to: {failure.strerror or failure}") from failure


def _spec(port: Any, model: str, *, is_input: bool = False) -> TensorSpec:
    name, kind = _tensor_name(port), port.get_element_type().get_type_name()
    if kind not in _DTYPES:
        raise ModelError(f"model {model!r}: {name!r} is {kind}; only tensors of numbers can be used")
    partial = port.get_partial_shape()
    if partial.rank.is_dynamic:
        raise ModelError(
            f"model {model!r}: {name!r} has no fixed number of dimensions; export the model with its shapes"
        )
    shape = tuple(-1 if size.is_dynamic else int(size.get_length()) for size in partial)
    return TensorSpec(
        name=name, shape=shape, dtype=np.dtype(_DTYPES[kind]), layout=layout_of(shape) if is_input else None
    )


def _tensor_name(port: Any) -> str:
    """The name in the ONNX file; OpenVINO gives a tensor all names that identities have led to it, in no order."""
    names: set[str] = port.get_names()
    own = str(port.get_node().get_friendly_name()).removesuffix("/sink_port_0")
    return own if own in names or not names else min(names)


def own_words(error: BaseException) -> str:
    """OpenVINO's message without the places in its source that stand around it."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not re.match(_PLACE, line)]
    useful = [line for line in told if line.startswith("-- ")] or told or lines
    words = "OpenVINO says: " + first_sentence(ValueError(useful[0].removeprefix("-- ")))
    if "can't protect" in words:
        # It makes its kernels at run time, and a hardened service may not (systemd.exec(5)).
        words += "; under systemd it needs MemoryDenyWriteExecute=no: systemctl edit edgevision"
    return words


_PLACE = r"Exception from \S+:\d+:$|Check '.*' failed at \S+:\d+:$|FrontEnd API failed|While validating"
