"""The thread of one model: takes its cameras' frames in turn, looks, and hands the messages to the sinks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from edgevision import masks
from edgevision.clock import Clock
from edgevision.config import MasksSection
from edgevision.errors import EdgevisionError
from edgevision.messages import Composer, ModelRef
from edgevision.pipeline import Model
from edgevision.runtime.camera import Camera
from edgevision.runtime.exchange import Captured, FrameExchange
from edgevision.runtime.progress import Part
from edgevision.runtime.snapshots import Snapshots
from edgevision.runtime.verdicts import Verdicts
from edgevision.types import Message

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One camera's place at a model: what belongs to it alone."""

    camera: Camera
    verdicts: Verdicts
    snapshots: Snapshots | None
    masks: MasksSection = field(default_factory=MasksSection)


class ModelWorker:
    """One model and the cameras that share it."""

    def __init__(
        self,
        model: Model,
        *,
        exchange: FrameExchange,
        stations: Mapping[str, Station],
        composer: Composer,
        publish: Callable[[Message], None],
        clock: Clock,
        part: Part,
    ) -> None:
        """`stations` by camera name, may change while it works; `publish` must not block; `part` is told of each frame."""
        self.model = model
        self.reference = ModelRef(name=model.name, version=model.manifest.version, sha256=model.sha256)
        """What messages tell of the model."""
        self._exchange = exchange
        self._stations = stations
        self._composer = composer
        self._publish = publish
        self._clock = clock
        self._part = part
        self._ending = False
        self._thread = threading.Thread(target=self._work, name=part.name, daemon=True)

    def start(self) -> None:
        """Begin looking."""
        self._thread.start()
        self._part.ended = self._has_died

    def stop(self, timeout_s: float) -> bool:
        """End after the frame in hand; False when the inference hangs."""
        self._ending = True
        self._exchange.close()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _has_died(self) -> bool:
        return not self._ending and not self._thread.is_alive()

    def _work(self) -> None:
        while (captured := self._exchange.take()) is not None:
            station = self._stations.get(captured.frame.camera)
            if station is None:
                continue  # taken away by a reload while its last frame waited
            self._part.enter("inference")
            fault = ""
            try:
                self.look(captured, station)
            except EdgevisionError as failure:
                fault = f"model {self.model.name}: {failure}"
            except Exception as failure:  # noqa: BLE001  the top of this thread: one bad frame must not blind every camera of the model
                _log.exception("frame failed unexpectedly", extra={"fields": {"camera": station.camera.name}})
                fault = f"model {self.model.name}: internal error: {failure!r}"
            finally:
                self._part.idle()
            if fault:
                station.camera.model_failed(fault)
            if captured.frame.done is not None:
                captured.frame.done(fault)

    def look(self, captured: Captured, station: Station) -> None:
        """One frame, all the way to the sinks."""
        frame = captured.frame
        camera, now = station.camera, self._clock.monotonic_ns
        predictions, times = self.model.run(frame)
        camera.model_looked()
        state, trusted = captured.state, captured.trusted
        dropped = self._exchange.dropped(camera.name)
        before_events_ns = now()
        station.verdicts.look(captured, predictions, dropped=dropped)
        before_publish_ns = now()
        self._part.enter("publishing")
        times = replace(times, events_ns=before_publish_ns - before_events_ns)
        deliveries = self._composer.deliveries
        if deliveries.results.enabled:
            self._publish(
                self._composer.result(
                    frame,
                    predictions,
                    times,
                    model=self.reference,
                    state=state,
                    dropped=dropped,
                    trusted=trusted,
                    segments=masks.encode(
                        predictions, encoding=station.masks.encoding, max_bytes=station.masks.max_bytes
                    ),
                )
            )
        if station.snapshots is not None and deliveries.image.enabled:
            station.snapshots.offer(frame, predictions, state=state, dropped=dropped)
        done_ns = now()
        camera.window.add(replace(times, publish_ns=done_ns - before_publish_ns), done_ns - frame.captured_mono_ns)
