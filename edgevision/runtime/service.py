"""The daemon: builds everything from a config, keeps it going, and tells the world how it is.

Order matters and is written down once, here. Up: sinks first, so that a start that fails can still say so; then models,
warm before anything is called ready; then cameras. Down: cameras, models, snapshots, then a last word, then the sinks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from functools import partial

import cv2

from edgevision import assembly
from edgevision._version import __version__
from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.config import CameraSection, Config
from edgevision.errors import EdgevisionError
from edgevision.messages import CameraTelemetry, Composer, Deliveries, DeviceState, ModelStatus, SinkTelemetry
from edgevision.pipeline import Model
from edgevision.publish.base import Sink, SinkContext
from edgevision.runtime.camera import Camera, CameraStatus
from edgevision.runtime.exchange import FrameExchange
from edgevision.runtime.metrics import ProcessMeter
from edgevision.runtime.snapshots import Snapshots
from edgevision.runtime.watch import watching
from edgevision.runtime.worker import ModelWorker, Station
from edgevision.types import Message

_log = logging.getLogger(__name__)

CHECK_EVERY_S = 0.5
"""How often cameras are looked at for silence: a stall is noticed this much after its limit at the latest."""


class Service:
    """One daemon. `start`, then `wait` until told to stop or all sources have ended, then `stop`."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock = SYSTEM_CLOCK,
        extra_sinks: Mapping[str, Sink] | None = None,
    ) -> None:
        """Opens nothing. `extra_sinks` get every message beside those of the config."""
        self._config = config
        self._clock = clock
        mqtt = config.mqtt
        self._telemetry_interval_s = mqtt.telemetry.interval_s if mqtt else 10.0
        self._composer = Composer(
            topic=mqtt.topic if mqtt else "edgevision",
            device=config.device,
            version=__version__,
            deliveries=mqtt.deliveries if mqtt else Deliveries(),
            clock=clock,
        )
        self._sinks: dict[str, Sink] = dict(extra_sinks or {})
        self._models: dict[str, Model] = {}
        self._workers: dict[str, ModelWorker] = {}
        self._exchanges: dict[str, FrameExchange] = {}
        self._stations: dict[str, Station] = {}
        self._sections: dict[str, CameraSection] = {camera.name: camera for camera in config.cameras}
        self._state: DeviceState = "starting"
        self._reason = "models are being loaded"
        self._since_ns = clock.time_ns()
        self._meter = ProcessMeter(clock)
        self._telemetry_at_ns = clock.monotonic_ns()

    def start(self) -> None:
        """Load everything and begin.

        Raises:
            EdgevisionError: a model or a sink cannot be made; everything that was started is stopped again, and the
                device's status says why.
        """
        # OpenCV's own threads cost more than they give on pictures of a camera's size, and would compete with inference.
        cv2.setNumThreads(1)
        try:
            self._sinks |= assembly.make_sinks(self._config, self._sink_context)
            self._announce("starting", "models are being loaded")
            self._load_models()
            self._make_cameras()
        except EdgevisionError as failure:
            self._end(f"failed to start: {str(failure).splitlines()[0]}")
            raise
        for worker in self._workers.values():
            worker.start()
        for station in self._stations.values():
            station.camera.start()
        self._announce("online", "running")

    def wait(self, stopping: threading.Event) -> None:
        """Watch over the cameras and send telemetry until `stopping` is set or every source has ended."""
        while not self._clock.wait(stopping, CHECK_EVERY_S):
            for station in self._stations.values():
                station.camera.check_stalled()
            if self._clock.monotonic_ns() - self._telemetry_at_ns >= self._telemetry_interval_s * 1e9:
                self.send_telemetry()
            if all(self._has_ended(name) for name in self._stations):
                _log.info("every source has ended")
                return

    def _has_ended(self, name: str) -> bool:
        waiting = self._exchanges[self._sections[name].model].is_waiting(name)
        return self._stations[name].camera.stopped.is_set() and not waiting

    def stop(self, reason: str = "stopped") -> None:
        """End everything in order; nothing is left running but what hangs, and that is said."""
        self._announce("stopping", reason)
        for station in self._stations.values():
            station.camera.stop()
        for worker in self._workers.values():
            if not worker.stop(timeout_s=10.0):
                _log.error("inference hangs and is left behind", extra={"fields": {"model": worker.model.name}})
        for name, station in self._stations.items():
            if not station.camera.join(timeout_s=5.0):
                _log.error("camera reader hangs and is left behind", extra={"fields": {"camera": name}})
            if station.snapshots is not None:
                station.snapshots.close()
        if self._stations:
            self.send_telemetry()
        for model in self._models.values():
            model.close()
        self._end(reason)

    def _end(self, reason: str) -> None:
        self._announce("offline", reason)
        for sink in self._sinks.values():
            sink.close()

    @property
    def stations(self) -> Mapping[str, Station]:
        """The cameras at work, by name."""
        return self._stations

    @property
    def sinks(self) -> Mapping[str, Sink]:
        """Where messages go, by name."""
        return self._sinks

    def _publish(self, message: Message, *, but_not: str | None = None) -> None:
        for name, sink in self._sinks.items():
            if name != but_not:
                sink.publish(message)

    def _announce(self, state: DeviceState, reason: str) -> None:
        if state != self._state:
            self._since_ns = self._clock.time_ns()
        self._state, self._reason = state, reason
        _log.info("device state", extra={"fields": {"state": state, "reason": reason}})
        if self._composer.deliveries.status.enabled:
            self._publish(self._device_status())

    def _device_status(self) -> Message:
        return self._composer.device_status(
            state=self._state,
            since_ns=self._since_ns,
            reason=self._reason,
            cameras=list(self._sections),
            models={name: _model_status(model) for name, model in self._models.items()},
        )

    def _sink_context(self, name: str) -> SinkContext:
        return SinkContext(
            device=self._config.device, birth=partial(self._birth, name), will=self._will, clock=self._clock
        )

    def _birth(self, sink: str) -> Message:
        """The status that a sink sends on each connection; the others get it too, so that no count has a gap."""
        message = self._device_status()
        self._publish(message, but_not=sink)
        return message

    def _will(self) -> Message:
        return self._composer.device_status(
            state="offline",
            since_ns=self._clock.time_ns(),
            reason="the connection was lost without a word (last will)",
            cameras=list(self._sections),
            will=True,
        )

    def _load_models(self) -> None:
        for name, section in self._config.models.items():
            cameras = [camera for camera in self._config.cameras if camera.model == name]
            if not cameras:
                _log.warning("model is used by no camera and is not loaded", extra={"fields": {"model": name}})
                continue
            settings = assembly.settings_for(section, cameras)
            model = assembly.load_model(section.model, settings=settings, models_dir=self._config.models_dir)
            self._models[name] = model
            fields = {
                "model": model.name,
                "version": model.manifest.version,
                "backend": model.backend_name,
                "threads": model.threads,
                "proved": model.manifest.proved,
            }
            _log.info("model is ready", extra={"fields": fields})

    def _make_cameras(self) -> None:
        for name, model in self._models.items():
            sections = [camera for camera in self._config.cameras if camera.model == name]
            exchange = FrameExchange(section.name for section in sections)
            stations = {section.name: self._make_station(section, model, exchange) for section in sections}
            self._exchanges[name] = exchange
            self._stations |= stations
            self._workers[name] = ModelWorker(
                model,
                exchange=exchange,
                stations=stations,
                composer=self._composer,
                publish=self._publish,
                clock=self._clock,
            )

    def _make_station(self, section: CameraSection, model: Model, exchange: FrameExchange) -> Station:
        status = CameraStatus(section.name, clock=self._clock, on_change=self._camera_changed)
        sources = assembly.SourceMaker(section, clock=self._clock)
        camera = Camera(
            section.name,
            make_source=sources.make,
            close_sources=sources.close,
            exchange=exchange,
            status=status,
            stall_after_s=assembly.stall_after_s(section),
            clock=self._clock,
            **watching(section, self._config.state_dir, self._clock),
        )
        status.set("starting", "the source is being opened")
        snapshots = None
        if section.snapshot is not None:
            snapshots = Snapshots(
                section.snapshot, camera=section.name, composer=self._composer, publish=self._publish, clock=self._clock
            )
        return Station(camera=camera, scene=assembly.make_scene(section, model.labels), snapshots=snapshots)

    def _camera_changed(self, status: CameraStatus) -> None:
        if self._composer.deliveries.status.enabled:
            message = self._composer.camera_status(
                status.name, state=status.state, since_ns=status.since_ns, reason=status.reason
            )
            self._publish(message)

    def send_telemetry(self) -> None:
        """Publish the counts now, and begin a new interval."""
        now_ns = self._clock.monotonic_ns()
        interval_s = max((now_ns - self._telemetry_at_ns) / 1e9, 1e-3)
        self._telemetry_at_ns = now_ns
        cameras = {name: self._camera_telemetry(name, interval_s) for name in self._stations}
        sinks = {}
        for name, sink in self._sinks.items():
            stats = sink.stats
            sinks[name] = SinkTelemetry(
                sent=stats.sent,
                dropped=stats.dropped,
                queued=stats.queued,
                connected=stats.connected,
                state=stats.state,
            )
        if self._composer.deliveries.telemetry.enabled:
            message = self._composer.telemetry(
                interval_s=round(interval_s, 3), cameras=cameras, sinks=sinks, process=self._meter.read()
            )
            self._publish(message)

    def _camera_telemetry(self, name: str, interval_s: float) -> CameraTelemetry:
        station = self._stations[name]
        camera = station.camera
        frames, stages = camera.window.summary()
        return CameraTelemetry(
            state=camera.status.state,
            captured=camera.captured,
            processed=camera.processed,
            dropped=self._exchanges[self._sections[name].model].dropped(name),
            unreadable=camera.unreadable,
            failed=camera.failed,
            restarts=camera.restarts,
            snapshots_dropped=station.snapshots.dropped if station.snapshots else 0,
            fps=round(frames / interval_s, 2),
            stages_ms=stages,
        )


def _model_status(model: Model) -> ModelStatus:
    return ModelStatus(
        name=model.name,
        version=model.manifest.version,
        sha256=model.sha256,
        backend=model.backend_name,
        threads=model.threads,
        proof=model.manifest.metrics,
    )
