"""Model (stages 2 to 4, shared by cameras) and Scene (stage 5, one per camera), with a time for each stage.

A Model is what `predict`, the daemon, the benchmarks and the host tools all run: there is one way from a picture to a
prediction, so a figure that was measured is a figure of the thing that runs.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevision.capture.images import read_image
from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.decode.base import Decoder
from edgevision.errors import ImageError
from edgevision.events.base import Rule
from edgevision.inference.base import Backend, Execution
from edgevision.manifest import Manifest
from edgevision.preprocess.base import Preprocessor
from edgevision.types import Event, Frame, Predictions, StageTimes


class Model:
    """A model that is ready to look at pictures. Made by `edgevision.load_model` or the daemon's assembly."""

    def __init__(
        self,
        *,
        manifest: Manifest,
        labels: tuple[str, ...],
        backend_name: str,
        threads: int,
        preprocessor: Preprocessor,
        backend: Backend,
        decoder: Decoder,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Put the three stages together."""
        self.manifest = manifest
        self.labels = labels
        self.backend_name = backend_name
        self.threads = threads
        self._preprocess = preprocessor
        self._backend = backend
        self._decode = decoder
        self._clock = clock
        # The preprocessor's buffer and the backend's outputs are reused: one frame at a time.
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The manifest's name."""
        return self.manifest.name

    @property
    def sha256(self) -> str:
        """Of the weights that are loaded."""
        return self.manifest.file_for(self.backend_name).sha256

    @property
    def backend(self) -> Backend:
        """The loaded runtime, for tools that measure it bare."""
        return self._backend

    @property
    def preprocessor(self) -> Preprocessor:
        """The stage before it."""
        return self._preprocess

    def predict(self, image: NDArray[np.uint8] | str | Path) -> Predictions:
        """What one picture shows.

        Args:
            image: (H, W, 3) uint8 BGR, as OpenCV reads it, or the path of a picture file.

        Returns:
            Detections (boxes in pixels of the picture) or Classifications, most confident first.

        Raises:
            ImageError: the file is no usable picture, or the array has another shape or dtype.
            InferenceError: the runtime failed.
        """
        pixels = read_image(image) if isinstance(image, str | Path) else image
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise ImageError(f"needs an image of (H, W, 3) uint8 BGR; found {pixels.shape} {pixels.dtype}")
        frame = Frame(
            image=pixels,
            camera="",
            sequence=0,
            captured_at_ns=self._clock.time_ns(),
            captured_mono_ns=self._clock.monotonic_ns(),
        )
        return self.run(frame)[0]

    def run(self, frame: Frame) -> tuple[Predictions, StageTimes]:
        """One frame through preprocessing, inference and decoding, with the time of each.

        Raises:
            InferenceError: the runtime failed.
        """
        now = self._clock.monotonic_ns
        with self._lock:
            started_ns = now()
            model_input = self._preprocess(frame)
            preprocessed_ns = now()
            outputs = self._backend.run(model_input.tensors)
            inferred_ns = now()
            predictions = self._decode(outputs, model_input.transform)
            decoded_ns = now()
        return predictions, StageTimes(
            capture_to_start_ns=max(0, started_ns - frame.captured_mono_ns),
            preprocess_ns=preprocessed_ns - started_ns,
            inference_ns=inferred_ns - preprocessed_ns,
            decode_ns=decoded_ns - inferred_ns,
        )

    def warm_up(self) -> None:
        """One whole pass on a grey picture, so that the first real frame meets no lazy initialisation."""
        width, height = self.manifest.input_for(self.backend_name).size
        self.predict(np.full((height, width, 3), 127, np.uint8))

    def close(self) -> None:
        """Let go of the runtime."""
        with self._lock:
            self._backend.close()


def execution_of(model: Model) -> Execution | None:
    """Where a model's operators run now; None where its backend does not tell."""
    told = getattr(model.backend, "execution", None)
    return told if isinstance(told, Execution) else None


class Scene:
    """One camera's rules and what they remember."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        """The rules by name; they are asked in order."""
        self._rules = dict(rules)
        self._blind = False
        self._sight = 0

    def update(
        self, frame: Frame, predictions: Predictions, *, seen: bool = True, trusted: bool = True, sight: int = 0
    ) -> list[Event]:
        """What happened, as the camera's rules see it.

        A rule is never shown a frame that is not to be trusted: a covered lens makes nothing disappear. While the camera
        cannot see, each rule's answer is `unknown`, which is an event of its own, once; afterwards the rules begin anew, and
        tell what they find even where it is what they said before.

        Args:
            frame: the frame.
            predictions: what the model saw in it.
            seen: whether the camera's state is `live`.
            trusted: whether this frame is to be believed.
            sight: counts the times that the camera was out of sight, without any frame, before this one.
        """
        events: list[Event] = []
        if sight != self._sight or (not seen and not self._blind):
            events = [
                Event(kind="unknown", camera=frame.camera, rule=name, occurred_at_ns=frame.captured_at_ns)
                for name in self._rules
            ]
            for rule in self._rules.values():
                rule.reset()
        self._sight, self._blind = sight, not seen
        if trusted:
            events += [event for rule in self._rules.values() for event in rule.update(frame, predictions)]
        return events
