"""One model at work with the cameras that share it. Cameras join and leave while the model and the others go on.

That is what lets a reload touch only what changed: a changed camera is taken out and put in again, and neither the warm model
nor its neighbour's stream notices.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, MutableMapping
from functools import partial
from pathlib import Path

from edgevision import assembly
from edgevision.clock import Clock
from edgevision.config import CameraSection
from edgevision.messages import CameraTelemetry, Composer
from edgevision.pipeline import Model
from edgevision.runtime.camera import Camera, CameraStatus
from edgevision.runtime.exchange import FrameExchange
from edgevision.runtime.metrics import trigger_telemetry
from edgevision.runtime.progress import Board
from edgevision.runtime.snapshots import Snapshots
from edgevision.runtime.tally import Tally
from edgevision.runtime.verdicts import Verdicts
from edgevision.runtime.watch import watching
from edgevision.runtime.worker import ModelWorker, Station
from edgevision.types import Message

_log = logging.getLogger(__name__)


class ModelGroup:
    """A model, its thread, and its cameras."""

    def __init__(
        self,
        name: str,
        model: Model,
        *,
        composer: Composer,
        publish: Callable[[Message], None],
        clock: Clock,
        board: Board,
        deadline_s: float,
        state_dir: Path,
        tallies: MutableMapping[str, Tally],
    ) -> None:
        """Nothing runs yet.

        Args:
            name: the config's name for the model.
            model: loaded and warm.
            composer: makes the messages.
            publish: takes them.
            clock: times everything.
            board: where the threads stand.
            deadline_s: how long one frame may take the model before it counts as stuck.
            state_dir: where cameras keep their baselines.
            tallies: each camera's counts since the start of the daemon.
        """
        self.name = name
        """The config's name for the model."""
        self.model = model
        self.stations: dict[str, Station] = {}
        self.sections: dict[str, CameraSection] = {}
        self._composer = composer
        self._publish = publish
        self._clock = clock
        self._board = board
        self._state_dir = state_dir
        self._tallies = tallies
        self._exchange = FrameExchange(())
        self._worker = ModelWorker(
            model,
            exchange=self._exchange,
            stations=self.stations,
            composer=composer,
            publish=publish,
            clock=clock,
            part=board.part(f"model:{name}", limit_s=deadline_s),
        )

    def start(self) -> None:
        """The model begins to look; cameras that were added begin to read."""
        self._worker.start()
        for station in self.stations.values():
            station.camera.start()

    def add(self, section: CameraSection) -> Camera:
        """Make a camera and its place; it reads once it is started, and is counted on from where it stood."""
        tally = self._tallies.setdefault(section.name, Tally())
        verdicts = Verdicts(
            assembly.make_scene(section, self.model.labels),
            model=self._worker.reference,
            composer=self._composer,
            publish=self._publish,
            clock=self._clock,
        )
        status = CameraStatus(section.name, clock=self._clock, on_change=partial(self._camera_changed, verdicts))
        sources = assembly.SourceMaker(section, clock=self._clock)
        camera = Camera(
            section.name,
            make_source=sources.make,
            close_sources=sources.close,
            exchange=self._exchange,
            status=status,
            stall_after_s=assembly.stall_after_s(section),
            clock=self._clock,
            tally=tally,
            **watching(section, self._state_dir, self._clock),
        )
        camera.triggers = sources.triggers
        status.set("starting", "the source is being opened")
        snapshots = None
        if section.snapshot is not None:
            snapshots = Snapshots(
                section.snapshot,
                camera=section.name,
                composer=self._composer,
                publish=self._publish,
                clock=self._clock,
                tally=tally,
            )
        self._exchange.add(section.name, tally)
        self.sections[section.name] = section
        self.stations[section.name] = Station(
            camera=camera, verdicts=verdicts, snapshots=snapshots, masks=section.masks
        )
        part = self._board.part(f"camera:{section.name}", limit_s=0.0)
        part.ended = lambda: camera.has_died
        return camera

    def remove(self, name: str, *, timeout_s: float) -> None:
        """Take a camera out; one whose reader hangs is left behind, and said."""
        station = self.stations[name]
        station.camera.stop()
        self._exchange.remove(name)
        self._close_station(name, timeout_s)
        del self.stations[name], self.sections[name]

    def ask_to_stop(self) -> None:
        """The first half of `stop`, which takes no time: the cameras of all groups end side by side."""
        for station in self.stations.values():
            station.camera.stop()

    def stop(self, left_s: Callable[[], float]) -> None:
        """End in order; `left_s` says how many seconds are left for all that still has to end."""
        self.ask_to_stop()
        has_ended = self._worker.stop(timeout_s=left_s())
        self._board.remove(f"model:{self.name}")
        for name in self.stations:
            self._close_station(name, left_s())
        if has_ended:
            self.model.close()
        else:
            _log.error("inference hangs and is left behind", extra={"fields": {"model": self.model.name}})

    def _close_station(self, name: str, timeout_s: float) -> None:
        station = self.stations[name]
        self._board.remove(f"camera:{name}")
        if not station.camera.join(timeout_s):
            _log.error("camera reader hangs and is left behind", extra={"fields": {"camera": name}})
        _lose(station)
        if station.snapshots is not None:
            station.snapshots.close()

    def has_ended(self) -> bool:
        """Whether every source has ended and all their frames have been looked at; a group without cameras waits for one."""
        return bool(self.stations) and all(
            station.camera.stopped.is_set() and not self._exchange.is_waiting(name)
            for name, station in self.stations.items()
        )

    def check(self) -> None:
        """Look at every camera for silence, for its end, and for a new baseline."""
        for name, station in self.stations.items():
            station.camera.check_stalled()
            station.camera.look_at_baseline()
            if station.camera.stopped.is_set() and self._exchange.is_done(name):
                _lose(station)

    def tell_states(self) -> None:
        """Every camera's state once more: a sink that was opened just now has heard of none."""
        if self._composer.deliveries.status.enabled:
            for station in self.stations.values():
                station.camera.status.tell(self._tell)

    def alarms(self) -> tuple[str, ...]:
        """What a person should see of the cameras and their states do not tell."""
        told = ((name, station.camera.trouble) for name, station in self.stations.items())
        return tuple(f"camera {name}: {trouble}" for name, trouble in told if trouble)

    def telemetry(self, interval_s: float) -> dict[str, CameraTelemetry]:
        """Each camera's counts; begins a new interval."""
        return {name: _camera_telemetry(station, interval_s) for name, station in self.stations.items()}

    def _camera_changed(self, verdicts: Verdicts, status: CameraStatus) -> None:
        if self._composer.deliveries.status.enabled:
            self._tell(status)
        # Of a source that has ended, the last frames may still wait for the model; `check` sees to it.
        if status.state not in {"starting", "live", "off"}:
            verdicts.lose(status.state, status.reason, spell=status.spell)

    def _tell(self, status: CameraStatus) -> None:
        self._publish(
            self._composer.camera_status(
                status.name, state=status.state, since_ns=status.since_ns, reason=status.reason
            )
        )


def _lose(station: Station) -> None:
    """The camera has ended, and the model is done with it: nobody looks any more."""
    status = station.camera.status
    station.verdicts.lose(status.state, status.reason, spell=status.spell)


def _camera_telemetry(station: Station, interval_s: float) -> CameraTelemetry:
    camera, tally = station.camera, station.camera.tally
    frames, stages = camera.window.summary()
    return CameraTelemetry(
        state=camera.status.state,
        captured=camera.captured,
        processed=tally.processed,
        dropped=tally.dropped,
        unreadable=camera.unreadable,
        failed=tally.failed,
        restarts=camera.restarts,
        snapshots_dropped=tally.snapshots_dropped,
        fps=round(frames / interval_s, 2),
        stages_ms=stages,
        triggers=trigger_telemetry(camera.triggers),
    )


def sections_of(model: str, cameras: Iterable[CameraSection]) -> list[CameraSection]:
    """The cameras that the config gives to a model."""
    return [camera for camera in cameras if camera.model == model]
