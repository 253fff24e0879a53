"""A package that somebody else wrote: one plug-in of every stage, as a wheel that pip installs. Its code is the text below.

What it does is small and real: a lamp moves across a picture; its "model" tells where the picture is brighter than a threshold.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

MODULES = {
    "acme/__init__.py": "",
    "acme/lamp.py": """
import numpy as np
from edgevision import registry
from edgevision.types import Frame


class Options(registry.Options):
    steps: int = 10
    live: bool = False


class Lamp:
    unreadable = 0

    def __init__(self, options, context):
        self._options, self._context, self._closed = options, context, False

    @property
    def live(self):
        return self._options.live

    def frames(self):
        clock = self._context.clock
        for step in range(self._options.steps):
            if self._closed:
                return
            image = np.full((40, 100, 3), 20, np.uint8)
            image[10:20, step * 10 : step * 10 + 10] = 250
            yield Frame(image=image, camera=self._context.camera, sequence=step, captured_at_ns=clock.time_ns(),
                        captured_mono_ns=clock.monotonic_ns())

    def close(self):
        self._closed = True


def create(options, context):
    return Lamp(options, context)
""",
    "acme/as_it_is.py": """
from edgevision import registry
from edgevision.types import ImageTransform, ModelInput


class Options(registry.Options):
    pass


def create(options, spec, input_format):
    def preprocess(frame):
        height, width = frame.image.shape[:2]
        whole = (0, 0, width, height)
        transform = ImageTransform(frame_size=(width, height), input_size=(width, height), scale=(1, 1), offset=(0, 0),
                                   region=whole)
        return ModelInput(tensors={spec.name: frame.image[None]}, transform=transform)

    return preprocess
""",
    "acme/bright.py": """
import json
import numpy as np
from edgevision import registry
from edgevision.errors import ModelError
from edgevision.types import TensorSpec

READS = (".acme",)


class Options(registry.Options):
    gain: float = 1.0


class Bright:
    inputs = (TensorSpec(name="picture", shape=(1, -1, -1, 3), dtype=np.dtype(np.uint8), layout="NHWC"),)
    outputs = (TensorSpec(name="mask", shape=(1, -1, -1), dtype=np.dtype(np.float32)),)

    def __init__(self, threshold, gain):
        self._threshold, self._gain = threshold, gain

    def run(self, tensors):
        grey = tensors["picture"].mean(axis=3) * self._gain
        return {"mask": (grey > self._threshold).astype(np.float32)}

    def close(self):
        pass


def create(options, model, context):
    try:
        return Bright(float(json.loads(model.content)["threshold"]), options.gain)
    except (ValueError, KeyError, TypeError) as failure:
        raise ModelError(f"model {model.name!r}: no .acme file: {failure}") from failure
""",
    "acme/box.py": """
import numpy as np
from edgevision import registry
from edgevision.types import Detections


class Options(registry.Options):
    least_px: int = 4


def create(options, outputs, context):
    def decode(tensors, transform):
        y, x = np.nonzero(tensors[outputs["mask"].name][0])
        if len(x) < options.least_px:
            return Detections(xyxy=np.empty((0, 4), np.float32), confidence=np.empty(0, np.float32),
                              class_id=np.empty(0, np.int32), labels=context.labels)
        box = (x.min(), y.min(), x.max() + 1, y.max() + 1)
        return Detections(xyxy=np.array([box], np.float32), confidence=np.ones(1, np.float32),
                          class_id=np.zeros(1, np.int32), labels=context.labels)

    return decode
""",
    "acme/passed.py": """
from edgevision import registry
from edgevision.types import Event


class Options(registry.Options):
    x: float


class Passed:
    def __init__(self, options, context):
        self._options, self._context, self._told = options, context, False

    def update(self, frame, predictions):
        if self._told or not len(predictions) or predictions.xyxy[0, 0] < self._options.x:
            return ()
        self._told = True
        return (Event(kind="passed", camera=self._context.camera, rule=self._context.name,
                      occurred_at_ns=frame.captured_at_ns, label=self._context.labels[0]),)

    def reset(self):
        self._told = False


def create(options, context):
    return Passed(options, context)
""",
    "acme/lines.py": """
import threading
from pathlib import Path
from edgevision import registry
from edgevision.publish.base import SinkStats


class Options(registry.Options):
    path: Path


class Lines:
    def __init__(self, path):
        self._file, self._lock, self._sent = path.open("ab"), threading.Lock(), 0

    @property
    def stats(self):
        return SinkStats(sent=self._sent, dropped=0, queued=0, connected=True)

    def publish(self, message):
        with self._lock:
            self._file.write(message.topic.encode() + b" " + message.payload + b"\\n")
            self._file.flush()
            self._sent += 1

    def close(self, deadline_s=5.0):
        self._file.close()


def create(options, context):
    return Lines(options.path)
""",
    "acme/broken.py": "raise RuntimeError('the licence dongle is missing')\n",
    "acme/half.py": "Options = 3\n",
}
POINTS = {
    "edgevision.capture": {"acme-lamp": "acme.lamp"},
    "edgevision.preprocess": {"acme-as-it-is": "acme.as_it_is"},
    "edgevision.inference": {"acme-bright": "acme.bright", "acme-broken": "acme.broken", "acme-half": "acme.half",
                             "acme-gone": "acme.gone", "onnxrt": "acme.bright"},
    "edgevision.decode": {"acme-box": "acme.box"},
    "edgevision.events": {"acme-passed": "acme.passed"},
    "edgevision.publish": {"acme-lines": "acme.lines"},
}  # fmt: skip


def make_wheel(folder: Path, name: str = "acme_vision", points: dict[str, dict[str, str]] | None = None) -> Path:
    """A wheel (PEP 427) with all of the modules and these entry points."""
    info = f"{name}-1.0.dist-info"
    lines = [
        line
        for group, entries in (POINTS if points is None else points).items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()))
    ]
    files = {
        **MODULES,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "\n".join(lines) + "\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text.encode())}\n"
        for path, text in files.items()
    )
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)
    return wheel


def install(wheel: Path, site: Path) -> None:
    """As its user would."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*command, "--target", str(site), str(wheel)], check=True, capture_output=True)
