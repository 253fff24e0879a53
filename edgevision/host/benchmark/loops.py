"""What is timed: edgevision from frame to message, the same model in a bare runtime loop, and a yardstick.

The bare loop is the limit: what a user's own script would have, with the runtime's defaults, on a tensor that is ready. Its
twin is the same, but its threads do not go on spinning: it can be timed call by call beside edgevision, which tells `compare`
how fast the machine was at that very moment.

The yardstick is a fixed piece of arithmetic that knows no model and no runtime (OpenCV's matrix product, one on each
thread). A model that became slower together with its runtime is slower than its own past, and the yardstick is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgevision import registry
from edgevision._version import __version__
from edgevision.environment import shipped_models_dir
from edgevision.host.benchmark.frames import frame_of
from edgevision.inference.base import Backend, BackendContext, ModelFile
from edgevision.inference.onnxrt import Options as OnnxOptions
from edgevision.manifest import read_weights
from edgevision.messages import Composer, ModelRef
from edgevision.model_store import BACKEND_BY_SUFFIX, find, open_folder
from edgevision.pipeline import Model
from edgevision.publish.base import SinkContext
from edgevision.publish.memory import Options as MemoryOptions
from edgevision.publish.memory import create as create_memory

BARE_BACKENDS = ("onnxrt", "litert", "openvino")
"""Backends that a bare loop is known for."""
REFERENCE = "efficientnet-lite0"
"""A model that is the same whatever is measured: it tells the machine's speed where the model itself is another one."""
STAGES = ("preprocess", "inference", "decode", "publish")
_TWIN_SPIN_US = 200
"""As backend `onnxrt` lets its threads spin in a closed loop."""
_SIDE = 256
"""The yardstick's matrices: 256 x 256 float32, three of them are 768 KB; about 0.2 ms on one AVX2 core."""


def weights(model: str, backend: str) -> bytes:
    """The bytes that `model` (a name, a folder or a file) is made of."""
    if Path(model).suffix.lower() in BACKEND_BY_SUFFIX:
        return Path(model).read_bytes()
    folder = find(model)
    return read_weights(folder.path, folder.manifest, backend)


def bare_loop(
    content: bytes,
    backend: str,
    threads: int,
    tensor: NDArray[Any],
    name: str,
    *,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    twin: bool = False,
) -> Callable[[], object]:
    """One call of the runtime alone, with the runtime's own defaults; `tensor` is ready for its input `name`.

    A `twin` does not spin on after its call (ONNX Runtime 1.26 on; older ones do not spin at all then).
    """
    if backend == "onnxrt":
        ort = registry.require("onnxruntime", package="edgevision[onnxrt]", purpose="the bare loop")
        chosen = OnnxOptions.model_validate({"providers": tuple(providers)}).provider_options()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        if twin:
            options.add_session_config_entry("session.intra_op.spin_duration_us", str(_TWIN_SPIN_US))
            if tuple(int(part) for part in ort.__version__.split(".")[:2]) < (1, 26):
                options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = ort.InferenceSession(content, options, providers=list(chosen.items()))
        return lambda: session.run(None, {name: tensor})
    if backend == "openvino":
        return _bare_openvino(content, threads, tensor, name)
    runtime = registry.require("ai_edge_litert.interpreter", package="edgevision[litert]", purpose="the bare loop")
    interpreter = runtime.Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], tensor)
    invoke: Callable[[], object] = interpreter.invoke
    return invoke


def _bare_openvino(content: bytes, threads: int, tensor: NDArray[Any], name: str) -> Callable[[], object]:
    """As precise as backend `openvino` is by default: a loop that computes something else is no limit."""
    openvino = registry.require("openvino", package="edgevision[openvino]", purpose="the bare loop")
    core = openvino.Core()
    properties = {"INFERENCE_NUM_THREADS": threads, "EXECUTION_MODE_HINT": "ACCURACY"}
    network = core.read_model(content)
    network.reshape({name: tensor.shape})
    request = core.compile_model(network, "CPU", properties).create_infer_request()
    request.set_tensor(name, openvino.Tensor(tensor, shared_memory=True))
    call: Callable[[], object] = partial(request.infer, share_outputs=True)
    return call


def reference_loop(backend: str, threads: int) -> tuple[Callable[[], object], str] | None:
    """The shipped reference model in the same runtime, and what it is; None where it has no file for the backend."""
    folder = open_folder(shipped_models_dir() / REFERENCE)
    section = folder.manifest.find_file(backend)
    if section is None:
        return None
    plugin = registry.load("inference", backend)
    sha256 = section.sha256
    file = ModelFile(name=REFERENCE, content=read_weights(folder.path, folder.manifest, backend), sha256=sha256)
    runtime: Backend = plugin.create(plugin.Options(), file, BackendContext(threads=threads))
    tensors = {
        spec.name: np.random.default_rng(0).integers(0, 100, spec.shape).astype(spec.dtype) for spec in runtime.inputs
    }
    return lambda: runtime.run(tensors), f"{REFERENCE} {sha256[:12]}, {backend} x{threads}"


class EdgevisionLoop:
    """Everything that the daemon does for a frame between the camera and the sink's queue; notes each stage's time."""

    def __init__(self, model: Model, image: NDArray[np.uint8]) -> None:
        """`image` is (H, W, 3) BGR."""
        self._model, self._image = model, image
        self._composer = Composer(topic="edgevision", device="bench", version=__version__)
        self._reference = ModelRef(name=model.name, version=model.manifest.version, sha256=model.sha256)
        self._sink = create_memory(MemoryOptions(keep=1), SinkContext(device="bench"))
        self.stages_ns: list[tuple[int, int, int, int]] = []
        """Per call preprocess, inference, decode, publish."""

    def __call__(self) -> None:
        """One frame."""
        frame = frame_of(self._image, time_ns=time.time_ns(), mono_ns=time.monotonic_ns())
        predictions, times = self._model.run(frame)
        decoded_ns = time.monotonic_ns()
        message = self._composer.result(frame, predictions, times, model=self._reference, state="live", dropped=0)
        self._sink.publish(message)
        published_ns = time.monotonic_ns() - decoded_ns
        self.stages_ns.append((times.preprocess_ns, times.inference_ns, times.decode_ns, published_ns))

    def take_stages_ns(self) -> NDArray[np.int64]:
        """What was noted since the last time, (calls, 4) in the order of STAGES."""
        taken = np.array(self.stages_ns, np.int64).reshape(-1, len(STAGES))
        self.stages_ns.clear()
        return taken


class Yardstick:
    """A fixed piece of arithmetic on as many threads as the model has."""

    def __init__(self, threads: int) -> None:
        """Starts the threads; `close` ends them."""
        random = np.random.default_rng(0)
        self._matrices = [random.random((3, _SIDE, _SIDE), dtype=np.float32) for _ in range(threads)]
        self._nothing = np.empty((0, 0), np.float32)  # the matrix that would be added
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="yardstick")
        self.identity = f"cv2.gemm {_SIDE} x{threads}, OpenCV {cv2.__version__}"

    def __call__(self) -> None:
        """One product on each thread."""
        others = [self._pool.submit(self._multiply, number) for number in range(1, len(self._matrices))]
        self._multiply(0)
        for other in others:
            other.result()

    def _multiply(self, number: int) -> None:
        left, right, product = self._matrices[number]
        cv2.gemm(left, right, 1.0, self._nothing, 0.0, product)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()
