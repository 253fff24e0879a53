"""Spoiled model files, bundles and pictures: each must give a result or one of our errors, and never a crash, a hang, or 1 GB.

Every case is made of a good seed by a few mutations, from its number alone, so that `--only KIND:NUMBER` makes it again. Cases
run in a worker process, as the daemon would load them: read, checked, handed to the runtime, warmed up. A worker that dies is
counted with the signal and the line of Python that it died in, the case is tried once more in a process of its own, and a new
worker goes on. Small seeds, which are nearly all structure, make most cases; a real file makes some where the test material is
there.

    python benchmarks/fuzz.py --count 10000
    python benchmarks/fuzz.py --only tflite:77
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import random
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

KINDS = ("onnx", "tflite", "bundle", "picture", "manifest")
LIMIT_BYTES = 1 << 30
"""Memory that one case may take beyond what the worker had."""
ADDRESS_SPACE_BYTES = 8 << 30
"""A wall behind it, for the machine's sake."""
DEADLINE_S = 20.0
"""One case; on a busy machine, too."""
SHARED = Path(os.environ.get("EDGEVISION_SHARED", Path(__file__).resolve().parents[2] / "shared"))
REAL_ONE_IN = 20
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 62, (1 << 64) - 1)


def mutated(seed: bytes, draw: random.Random, *, edge: int = 0) -> bytes:  # noqa: C901  one branch for each mutation
    """One to four mutations; `edge` bytes at both ends get three of four of them, where a large file has its structure."""
    content = bytearray(seed)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 4))):
        if not content:
            break
        at = draw.randrange(len(content))
        if edge and draw.random() < 0.75:
            at = draw.choice(
                (draw.randrange(min(edge, len(content))), len(content) - 1 - draw.randrange(min(edge, len(content))))
            )
        what = draw.randrange(8)
        if what <= 1:
            content[at] ^= 1 << draw.randrange(8)
        elif what == 2:
            content[at] = draw.randrange(256)
        elif what == 3:
            width = draw.choice((1, 2, 4, 8))
            value = draw.choice(_NUMBERS) & ((1 << 8 * width) - 1)
            content[at : at + width] = value.to_bytes(width, draw.choice(("little", "big")))
        elif what == 4:
            del content[at : at + draw.choice((1, 2, 4, 16, 64))]
        elif what == 5:
            content[at:at] = draw.randbytes(draw.choice((1, 2, 4, 16)))
        elif what == 6:
            other = draw.randrange(len(content))
            size = draw.choice((4, 8, 32, 128))
            content[at : at + size] = content[other : other + size]
        elif draw.random() < 0.5:
            del content[at:]
    return bytes(content)


def onnx_seed() -> bytes:
    """Picture (1, 3, 8, 8) -> scores (1, 4): quantised and float convolutions, resize, concat, reshape, gemm, softmax."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    constants = {
        "w": draw.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "b": draw.normal(size=4).astype(np.float32),
        "s": np.float32(0.1), "z": np.uint8(128), "scales": np.array([1, 1, 2, 2], np.float32),
        "shape": np.array([0, -1], np.int64), "g": draw.normal(size=(8, 4)).astype(np.float32),
        "start": np.array([0], np.int64), "end": np.array([8], np.int64), "axis": np.array([1], np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["picture", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Relu", ["d"], ["r"]),
        helper.make_node("Resize", ["r", "", "scales"], ["u"], mode="nearest"),
        helper.make_node("MaxPool", ["u"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Concat", ["m", "r"], ["k"], axis=1),
        helper.make_node("GlobalAveragePool", ["k"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["f"]),
        helper.make_node("Slice", ["f", "start", "end", "axis"], ["l"]),
        helper.make_node("Gemm", ["l", "g"], ["y"]),
        helper.make_node("Softmax", ["y"], ["scores"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, (1, 4))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tflite_seed() -> bytes:
    """Picture (1, 8, 8, 3) -> scores (1, 4): convolution, pooling, reshape, softmax."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    draw = np.random.default_rng(0)
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.subgraphs, model.operatorCodes = 3, [schema.BufferT()], [graph], []
    graph.tensors, graph.operators = [], []

    def tensor(name: str, shape: tuple[int, ...], value: Any = None) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.hasRank, made.type, made.buffer = name.encode(), list(shape), True, 0, 0
        if value is not None:
            made.type = 2 if value.dtype == np.int32 else 0
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(value.tobytes(), np.uint8)
            made.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def step(code: int, inputs: list[int], output: int, options: Any, kind: int) -> int:
        told, made = schema.OperatorCodeT(), schema.OperatorT()
        told.builtinCode, told.deprecatedBuiltinCode, told.version = code, code, 1
        made.inputs, made.outputs, made.opcodeIndex = inputs, [output], len(model.operatorCodes)
        made.builtinOptions, made.builtinOptionsType = options, kind
        model.operatorCodes.append(told)
        graph.operators.append(made)
        return output

    picture = tensor("picture", (1, 8, 8, 3))
    weights = tensor("w", (4, 3, 3, 3), draw.normal(size=(4, 3, 3, 3)).astype(np.float32))
    bias = tensor("b", (4,), draw.normal(size=4).astype(np.float32))
    convolution = schema.Conv2DOptionsT()
    convolution.strideH = convolution.strideW = convolution.dilationHFactor = convolution.dilationWFactor = 1
    at = step(3, [picture, weights, bias], tensor("c", (1, 8, 8, 4)), convolution, 1)
    pool = schema.Pool2DOptionsT()
    pool.strideH = pool.strideW = pool.filterHeight = pool.filterWidth = 8
    pool.padding = 1
    at = step(1, [at], tensor("p", (1, 1, 1, 4)), pool, 5)
    reshape = schema.ReshapeOptionsT()
    reshape.newShape = [1, 4]
    at = step(22, [at, tensor("shape", (2,), np.array([1, 4], np.int32))], tensor("r", (1, 4)), reshape, 17)
    softmax = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    at = step(25, [at], tensor("scores", (1, 4)), softmax, 9)
    graph.inputs, graph.outputs = [picture], [at]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


MANIFEST = {
    "name": "seed", "version": "1", "task": "classification", "family": "classifier",
    "input": {"size": [8, 8], "resize": "stretch"}, "outputs": {"scores": "scores"},
    "labels": "labels.txt", "activation": "none", "licence": "x", "source": "x",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How cases of a kind are made and run."""

    seeds: tuple[bytes, ...]
    real: bytes | None
    """One of the test material's; None where it is not there."""
    try_it: Callable[[bytes], None]
    """Raises what the product raises."""

    def case(self, kind: str, number: int) -> bytes:
        """The spoiled bytes."""
        draw = random.Random(f"{kind} {number}")
        if self.real is not None and number % REAL_ONE_IN == 0:
            return mutated(self.real, draw, edge=16_384)
        return mutated(draw.choice(self.seeds), draw)


def _model_kind(folder: Path, suffix: str, backend: str, seed: bytes, real: Path) -> Kind:
    from edgevision import assembly
    from edgevision.manifest import Manifest
    from edgevision.model_store import ModelFolder

    entry = {"path": f"seed{suffix}", "sha256": "0" * 64, "size": 1}
    manifest = Manifest.model_validate(MANIFEST | {"files": {backend: entry}})
    (folder / "labels.txt").write_text("a\nb\nc\nd\n")
    like = ModelFolder(path=folder, manifest=manifest, shipped=False)
    file = folder / f"case{suffix}"

    def try_it(content: bytes) -> None:
        file.write_bytes(content)
        described = assembly.describe(file, like)
        described.model.close()

    try_it(seed)
    return Kind(seeds=(seed,), real=real.read_bytes() if real.is_file() else None, try_it=try_it)


def _onnx(folder: Path) -> Kind:
    return _model_kind(folder, ".onnx", "onnxrt", onnx_seed(), SHARED / "models" / "picodet_s_416_coco.onnx")


def _tflite(folder: Path) -> Kind:
    real = SHARED / "models" / "mobilenet_v2_1.0_224_quant.tflite"
    return _model_kind(folder, ".tflite", "litert", tflite_seed(), real)


def _tiny_model(folder: Path) -> Path:
    import hashlib

    import yaml

    model = folder / "models" / "seed"
    model.mkdir(parents=True, exist_ok=True)
    entry = {"path": "seed.onnx", "sha256": hashlib.sha256(b"weights").hexdigest(), "size": 7}
    (model / "seed.onnx").write_bytes(b"weights")
    (model / "labels.txt").write_text("a\nb\n")
    (model / "model.yaml").write_text(yaml.safe_dump(MANIFEST | {"files": {"onnxrt": entry}}))
    return model


def _bundle(folder: Path) -> Kind:
    from edgevision import model_store
    from edgevision.bundle import export_bundle, import_bundle

    export_bundle(model_store.open_folder(_tiny_model(folder)), folder / "seed.bundle", replace=True)
    file = folder / "case.bundle"

    def try_it(content: bytes) -> None:
        file.write_bytes(content)
        own = import_bundle(file, name="case", replace=True, models_dir=folder / "imported")
        if model_store.verify(own) != {"onnxrt": "ok"}:
            raise AssertionError("a spoiled model was imported")

    seed = (folder / "seed.bundle").read_bytes()
    try_it(seed)
    return Kind(seeds=(seed,), real=None, try_it=try_it)


def _manifest(folder: Path) -> Kind:
    from edgevision.manifest import load_labels, load_manifest

    seed = (_tiny_model(folder) / "model.yaml").read_bytes()
    spoiled = folder / "spoiled"
    spoiled.mkdir(exist_ok=True)
    (spoiled / "labels.txt").write_text("a\nb\n")

    def try_it(content: bytes) -> None:
        (spoiled / "model.yaml").write_bytes(content)
        load_labels(spoiled, load_manifest(spoiled))

    try_it(seed)
    shipped = Path(__file__).resolve().parents[1] / "models" / "efficientnet-lite0" / "model.yaml"
    return Kind(seeds=(seed, shipped.read_bytes()), real=None, try_it=try_it)


def _picture(_folder: Path) -> Kind:
    import cv2
    import numpy as np

    from edgevision.capture.images import decode_image

    draw = np.random.default_rng(0)
    image = cv2.resize(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
    seeds = []
    for suffix, given, options in (
        (".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80]),
        (".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".png", image, []),
        (".png", image.astype(np.uint16) * 257, []),
        (".bmp", image, []),
        (".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 80]),
        (".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 101]),
        (".tif", image, []),
        (".gif", image, []),
    ):
        done, encoded = cv2.imencode(suffix, given, options)
        if done:
            seeds.append(encoded.tobytes())
    # EXIF with an orientation, as a phone writes it.
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    seeds.append(seeds[0][:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + seeds[0][2:])

    def try_it(content: bytes) -> None:
        decoded = decode_image(content, name="case")
        if decoded.dtype != np.uint8 or decoded.ndim != 3 or decoded.shape[2] != 3 or 0 in decoded.shape:
            raise AssertionError(f"no picture: {decoded.shape} {decoded.dtype}")

    for seed in seeds:
        try_it(seed)
    return Kind(seeds=tuple(seeds), real=None, try_it=try_it)


_MAKERS = {"onnx": _onnx, "tflite": _tflite, "bundle": _bundle, "picture": _picture, "manifest": _manifest}


def work(kind: str) -> None:
    """The worker: case numbers come in, a line of JSON goes out for each."""
    from edgevision import logs
    from edgevision.errors import EdgevisionError

    faulthandler.enable(all_threads=False)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logs.configure(level="error")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        made = _MAKERS[kind](Path(folder))
        answers.write('"ready"\n')
        answers.flush()
        for line in sys.stdin:
            content = made.case(kind, int(line))
            before = _peak_bytes(reset=True)
            began = time.monotonic()
            try:
                made.try_it(content)
                outcome, detail = "result", ""
            except EdgevisionError as failure:
                outcome, detail = "refused", type(failure).__name__
                if not str(failure).strip() or "Traceback" in str(failure):
                    outcome, detail = "bug", f"an error without words: {failure!r}"
            except BaseException as failure:  # noqa: BLE001  whatever is none of ours is what is looked for
                last = failure.__traceback__
                while last is not None and last.tb_next is not None:
                    last = last.tb_next
                place = f"{Path(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno}" if last else ""
                outcome, detail = "bug", f"{type(failure).__name__} in {place}: {str(failure)[:200]}"
            used = _peak_bytes() - before
            if used > LIMIT_BYTES and outcome != "bug":
                outcome, detail = "memory", f"{used >> 20} MB"
            told = {"outcome": outcome, "detail": detail, "mb": used >> 20, "s": round(time.monotonic() - began, 3)}
            answers.write(json.dumps(told) + "\n")
            answers.flush()


def _peak_bytes(*, reset: bool = False) -> int:
    """The most memory held since the last reset (proc(5): VmHWM, clear_refs)."""
    if reset:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) << 10 if found else 0


@dataclass(kw_only=True)
class Tally:
    """What became of the cases of one kind."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    details: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[int]] = field(default_factory=dict)
    """The first case numbers of what should not have been."""
    most_mb: int = 0
    slowest_s: float = 0.0

    def add(self, number: int, told: dict[str, Any]) -> None:
        """One case."""
        outcome, detail = told["outcome"], told["detail"]
        self.cases += 1
        self.outcomes[outcome] += 1
        key = f"{outcome}: {detail}" if detail else outcome
        self.details[key] += 1
        self.most_mb, self.slowest_s = max(self.most_mb, told["mb"]), max(self.slowest_s, told["s"])
        if outcome not in {"result", "refused"} and len(self.examples.setdefault(key, [])) < 5:
            self.examples[key].append(number)

    def document(self) -> dict[str, Any]:
        """Plain, for JSON."""
        return {
            "cases": self.cases,
            "outcomes": dict(self.outcomes.most_common()),
            "details": dict(self.details.most_common()),
            "examples": self.examples,
            "most_mb": self.most_mb,
            "slowest_s": self.slowest_s,
        }


@final
class Worker:
    """A worker process."""

    def __init__(self, kind: str) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed by `__exit__`
        command = [sys.executable, str(Path(__file__).resolve()), "--work", kind]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True, bufsize=1
        )
        if self._line(60.0 + DEADLINE_S) is None:
            raise SystemExit(f"the worker for {kind} does not start: {self._said()}")

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    def _line(self, timeout_s: float) -> str | None:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        return (self._process.stdout.readline() or None) if ready else None

    def _said(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")[-6000:]

    def ask(self, number: int) -> dict[str, Any] | None:
        """What became of a case; None: the worker is gone, see `end`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        line = self._line(DEADLINE_S)
        told: dict[str, Any] | None = json.loads(line) if line else None
        return told

    def end(self) -> dict[str, Any]:
        """How it died, or that it hung."""
        try:
            status = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return {"outcome": "hang", "detail": f"more than {DEADLINE_S:g} s", "mb": 0, "s": DEADLINE_S}
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        places = re.findall(r'File ".*?([^/"]+)", line \d+ in (\w+)', self._said())
        where = " in " + "/".join(places[0]) if places else ""
        return {"outcome": "crash", "detail": name + where, "mb": 0, "s": 0.0}


def results(kind: str, numbers: Iterator[int], on_case: Callable[[Tally], None] = lambda _tally: None) -> Tally:
    """All cases of a kind, in one worker after the other."""
    tally = Tally()
    worker = Worker(kind)
    try:
        for number in numbers:
            told = worker.ask(number)
            if told is None:
                told = worker.end()
                worker.__exit__()
                with Worker(kind) as alone:  # whether it is this case's own doing
                    again = alone.ask(number)
                    if again is not None:
                        told = again | {"outcome": told["outcome"], "detail": f"{told['detail']}; not when alone"}
                worker = Worker(kind)
            tally.add(number, told)
            on_case(tally)
    finally:
        worker.__exit__()
    return tally


def main() -> None:
    """Run the cases and tell what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="cases of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only these; may be given several times")
    parser.add_argument("--only", metavar="KIND:NUMBER", help="one case, in this process, with whatever it raises")
    parser.add_argument("--work", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="F", help="write what became of them here")
    given = parser.parse_args()
    if given.work:
        work(given.work)
        return
    if given.only:
        kind, _, number = given.only.partition(":")
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            made = _MAKERS[kind](Path(folder))
            made.try_it(made.case(kind, int(number)))
        return
    document: dict[str, Any] = {}
    for kind in given.kind or KINDS:
        began = time.monotonic()

        def show(tally: Tally, kind: str = kind) -> None:
            if tally.cases % 500 == 0:
                print(f"{kind}: {tally.cases}: {dict(tally.outcomes)}", file=sys.stderr, flush=True)

        tally = results(kind, iter(range(given.first, given.first + given.count)), show)
        document[kind] = tally.document() | {"seconds": round(time.monotonic() - began, 1)}
        print(
            f"{kind}: {tally.cases} cases: {dict(tally.outcomes)}; most {tally.most_mb} MB, slowest {tally.slowest_s} s"
        )
        for key, numbers in tally.examples.items():
            print(f"  {tally.details[key]:6} {key} (case {', '.join(map(str, numbers))})")
    if given.json:
        environment = importlib.import_module("edgevision.host.benchmark.machine").environment()
        environment.pop("host", None)
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({"environment": environment, "kinds": document}, indent=2) + "\n")


if __name__ == "__main__":
    main()
