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
from edgevision.tiling import Tiles
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
        tiles: Tiles | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Put the three stages together; with `tiles`, a frame is looked at in parts."""
        self.manifest = manifest
        self.labels = labels
        self.backend_name = backend_name
        self.threads = threads
        self._preprocess = preprocessor
        self._backend = backend
        self._decode = decoder
        self._tiles = tiles
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

    @property
    def tiles(self) -> Tiles | None:
        """How a frame is cut into parts; None: it is looked at as a whole."""
        return self._tiles

    @property
    def most_passes(self) -> int:
        """How many passes one frame may take: its tiles and the whole."""
        return 1 if self._tiles is None else self._tiles.tiling.max_tiles + 1

    def predict(self, image: NDArray[np.uint8] | str | Path) -> Predictions:
        """What one picture shows.

        Args:
            image: (H, W, 3) uint8 BGR, as OpenCV reads it, or the path of a picture file.

        Returns:
            Detections (boxes in pixels of the picture) or Classifications, most confident first; a Segmentation; or an
            Embedding.

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
        """One frame through preprocessing, inference and decoding, with the time of each, of all tiles together.

        Raises:
            ImageError: the picture is none that can be looked at.
            InferenceError: the runtime failed.
        """
        now = self._clock.monotonic_ns
        with self._lock:
            started_ns = now()
            if self._tiles is not None:
                found, spent = self._tiles.look(frame)
                return found, StageTimes(
                    capture_to_start_ns=max(0, started_ns - frame.captured_mono_ns),
                    preprocess_ns=spent.preprocess_ns,
                    inference_ns=spent.inference_ns,
                    decode_ns=spent.decode_ns,
                )
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
        if self._tiles is not None:  # no more than one of them
            width, height = min(width, self._tiles.size[0]), min(height, self._tiles.size[1])
        self.predict(np.full((height, width, 3), 127, np.uint8))
        if self._tiles is not None:
            with self._lock:
                self._tiles.warm_up()

    def close(self) -> None:
        """Let go of the runtime."""
        with self._lock:
            self._backend.close()


def execution_of(model: Model) -> Execution | None:
    """Where a model's operators run now; None where its backend does not tell."""
    told = getattr(model.backend, "execution", None)
    return told if isinstance(told, Execution) else None


class Scene:
    """One camera's rules and what they remember.

    A rule is never shown a frame that is not to be trusted: a covered lens makes nothing disappear. While the camera cannot
    see, each rule's answer is `unknown`, which is an event of its own, once; afterwards the rules begin anew, and tell what
    they find even where it is what they said before.
    """

    def __init__(self, rules: Mapping[str, Rule], *, camera: str = "") -> None:
        """The rules by name; they are asked in order. `camera` is whose."""
        self._rules = dict(rules)
        self._camera = camera
        self._lost = False
        self._spell = 0

    def update(self, frame: Frame, predictions: Predictions, *, trusted: bool = True, spell: int = 0) -> list[Event]:
        """What happened, as the camera's rules see it.

        Args:
            frame: the frame.
            predictions: what the model saw in it.
            trusted: whether this frame is to be believed.
            spell: counts the times that the camera could not see, before this frame was taken.
        """
        if not trusted or spell < self._spell:
            return []
        self._lost = False
        return [event for rule in self._rules.values() for event in rule.update(frame, predictions)]

    def lose(self, *, spell: int, at_ns: int, reason: str) -> list[Event]:
        """The camera cannot see from now on: what its rules said no longer holds.

        Args:
            spell: as in `update`; frames that were taken before, and come late, are not shown to the rules.
            at_ns: now, Unix time.
            reason: why, in words.

        Returns:
            An `unknown` for each rule; none where that has been told already.
        """
        self._spell = spell
        if self._lost:
            return []
        self._lost = True
        for rule in self._rules.values():
            rule.reset()
        return [
            Event(kind="unknown", camera=self._camera, rule=name, occurred_at_ns=at_ns, reason=reason)
            for name in self._rules
        ]
