"""The daemon: builds everything from a config, keeps it going, takes over a new config, and ends it in order.

Order matters and is written down once, here. Up: sinks first, so that a start that fails can still say so; then models,
warm before anything is called ready; then cameras. Down: cameras, models, snapshots, then a last word, then the sinks. A
reload makes what is new before it touches what runs, so that a config that cannot be taken over changes nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2

from edgevision import assembly
from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.config import Config
from edgevision.errors import EdgevisionError, RollbackError
from edgevision.messages import CameraTelemetry, DeviceState
from edgevision.publish.base import Sink
from edgevision.runtime.changes import Changes, compare
from edgevision.runtime.crashes import GOOD_AFTER_S, CrashJournal, SafeMode
from edgevision.runtime.device import Device
from edgevision.runtime.group import ModelGroup, sections_of
from edgevision.runtime.heap import give_memory_back, give_pages_back, keep_one_heap
from edgevision.runtime.loading import Loaded, Loader, close_all, is_replaced
from edgevision.runtime.progress import Board, Stuck
from edgevision.runtime.systemd import Notifier
from edgevision.runtime.watchman import Watchman
from edgevision.runtime.worker import Station

_log = logging.getLogger(__name__)

CHECK_EVERY_S = 0.5
"""How often cameras are looked at for silence: a stall is noticed this much after its limit at the latest."""
TRIM_EVERY_S = 30.0
"""How often the heap's unused pages go back to the machine: one to four milliseconds with eight cameras."""
MAIN_LIMIT_S = 60.0
"""How long one round of the supervision may take."""
PART_STOP_S = 5.0
"""What a part that a reload ends may take; one that hangs is left behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """How a new config comes: somebody sets `requested`, and the service loads it in its own time."""

    requested: threading.Event
    load: Callable[[], tuple[Config, SafeMode]]
    """EdgevisionError from it is a config that is refused."""


class Service:
    """One daemon. `start`, then `wait` until told to stop or all sources have ended, then `stop`."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock = SYSTEM_CLOCK,
        extra_sinks: Mapping[str, Sink] | None = None,
        notifier: Notifier | None = None,
        journal: CrashJournal | None = None,
        safe_mode: SafeMode | None = None,
        health_dir: Path | None = None,
    ) -> None:
        """Opens nothing.

        Args:
            config: the whole, with what safe mode leaves out.
            clock: the time.
            extra_sinks: get every message beside those of the config.
            notifier: the line to systemd; by default to nobody.
            journal: where crashes are counted; by default nowhere.
            safe_mode: what is left out.
            health_dir: where the watchman writes its file.
        """
        self._safe_mode = safe_mode or SafeMode()
        self._whole = config
        self._config = self._safe_mode.apply(config)
        self._clock = clock
        self._notifier = notifier or Notifier()
        self._journal = journal
        self._board = Board(clock)
        self._main = self._board.part("main", limit_s=MAIN_LIMIT_S)
        self._extra_sinks = dict(extra_sinks or {})
        self._device = Device(config, clock=clock, board=self._board, extra_sinks=self._extra_sinks)
        self._device.safe_mode = self._safe_mode.reason or None
        self._groups: dict[str, ModelGroup] = {}
        self._refused: dict[str, str] = {}
        """Models that did not survive their probe, by the config's name, with the reason; they are tried again by a reload."""
        self._watchman = Watchman(
            self._board, notifier=self._notifier, clock=clock, last_words=self._last_words, health_dir=health_dir
        )
        self._started_ns = clock.monotonic_ns()
        self._trimmed_ns = self._good_from_ns = self._started_ns
        self._told_good = False

    def start(self) -> None:
        """Load everything and begin.

        Raises:
            EdgevisionError: a model or a sink cannot be made; everything that was started is stopped again, and the
                device's status says why.
        """
        # OpenCV's own threads cost more than they give on pictures of a camera's size, and would compete with inference.
        cv2.setNumThreads(1)
        keep_one_heap()
        self._main.enter("the start", limit_s=self._config.supervision.start_deadline_s)
        self._watchman.start()
        try:
            self._begin()
        except EdgevisionError as failure:
            reason = str(failure).splitlines()[0]
            if self._journal is not None:
                self._journal.end("failed", reason=reason)
            self._end(f"failed to start: {reason}")
            self._watchman.stop()
            raise
        if self._journal is not None:
            self._journal.running()
        give_memory_back()  # what loading a model took, beside what it takes
        self._main.enter("supervision")
        self._notifier.ready()

    def _begin(self) -> None:
        self._device.open_sinks(self._config)
        self._announce("starting", "models are being loaded")
        for name in self._config.models:
            if not sections_of(name, self._whole.cameras):
                _log.warning("model is used by no camera and is not loaded", extra={"fields": {"model": name}})
        self._refused = {}
        loaded = self._loader().load(self._config, self._config.models, refused=self._refused)
        self._device.refused = self._refused
        self._tell_left_out()
        for name, new in loaded.items():
            self._start_group(name, new)
        self._announce("online", "running")

    def _tell_left_out(self, *, events: bool = True) -> None:
        for camera in self._whole.cameras:
            rules = [rule.name for rule in camera.rules] if events else []
            if self._safe_mode.leaves_out(camera.name, camera.model):
                self._device.left_out(camera.name, rules)
            elif camera.model in self._refused:
                reason = f"model {camera.model} is left out: {self._refused[camera.model]}"
                self._device.left_out(camera.name, rules, reason)

    def _tell_states(self) -> None:
        """Every camera's state once more, for sinks that were opened just now."""
        for group in self._groups.values():
            group.tell_states()
        self._tell_left_out(events=False)

    def _start_group(self, name: str, loaded: Loaded) -> None:
        self._device.models[name] = loaded.model
        self._groups[name] = group = self._loader().group(self._config, name, loaded)
        group.start()

    def wait(self, stopping: threading.Event, *, reload: Reload | None = None) -> None:
        """Watch over everything until `stopping` is set or every source has ended.

        Args:
            stopping: set from outside, such as by a signal.
            reload: how a new config is asked for.
        """
        while not self._clock.wait(stopping, CHECK_EVERY_S):
            self._main.enter("supervision")
            if reload is not None and reload.requested.is_set():
                reload.requested.clear()
                self._take_over(reload)
            for group in self._groups.values():
                group.check()
            if self._device.reopen():
                self._tell_states()
            self._device.check_alarms(alarm for group in self._groups.values() for alarm in group.alarms())
            if self._device.telemetry_is_due():
                self.send_telemetry()
            if self._clock.monotonic_ns() - self._trimmed_ns >= TRIM_EVERY_S * 1e9:
                give_pages_back()
                self._trimmed_ns = self._clock.monotonic_ns()
            self._tell_status()
            if self._groups and all(group.has_ended() for group in self._groups.values()):
                _log.info("every source has ended")
                return

    def stop(self, reason: str = "stopped") -> None:
        """End everything in order, within the config's `stop_deadline_s`; what hangs is left behind, and that is said."""
        limit_s = self._config.supervision.stop_deadline_s
        # Above the limit of the drain: each of the parts that are closed at the very end has a shortest time of its own.
        self._main.enter("the end", limit_s=limit_s + 10.0)
        self._notifier.stopping(limit_s)
        self._wind_down(reason, limit_s)
        if self._journal is not None:
            self._journal.end("clean", reason=reason)
        self._watchman.stop()

    def _wind_down(self, reason: str, limit_s: float, keep: Collection[str] = ()) -> None:
        end_ns = self._clock.monotonic_ns() + int(limit_s * 1e9)

        def left_s() -> float:
            return max(0.0, (end_ns - self._clock.monotonic_ns()) / 1e9)

        self._announce("stopping", reason)
        for group in self._groups.values():
            group.ask_to_stop()
        # Half is kept for the sinks: what was seen is worth more than a thread that hangs.
        for group in self._groups.values():
            group.stop(lambda: max(0.0, left_s() - limit_s / 2))
        if self._groups:
            self.send_telemetry()
        self._end(reason, left_s, keep)

    def _end(self, reason: str, left_s: Callable[[], float] = lambda: PART_STOP_S, keep: Collection[str] = ()) -> None:
        self._announce("offline", reason)
        self._device.close_sinks(left_s, keep=keep)
        self._device.give_up_held()

    @property
    def stations(self) -> Mapping[str, Station]:
        """The cameras at work, by name."""
        return {name: station for group in self._groups.values() for name, station in group.stations.items()}

    @property
    def sinks(self) -> Mapping[str, Sink]:
        """Where messages go, by name."""
        return self._device.sinks

    def send_telemetry(self) -> None:
        """Publish the counts now, and begin a new interval."""

        def counts(interval_s: float) -> dict[str, CameraTelemetry]:
            return {name: told for group in self._groups.values() for name, told in group.telemetry(interval_s).items()}

        self._device.telemetry(counts)

    def _announce(self, state: DeviceState, reason: str) -> None:
        self._device.announce(state, reason)
        self._tell_status()

    def _tell_status(self) -> None:
        """Our state in words, for systemd; the journal learns of a run that was good."""
        states = [station.camera.status.state for station in self.stations.values()]
        words = [f"{self._device.state}: {self._device.reason}"]
        if states:
            words.append(f"{states.count('live')} of {len(states)} cameras live")
        words += [f"safe mode {self._safe_mode.reason}"] if self._safe_mode.parts else []
        words += self._device.troubles
        self._notifier.status("; ".join(words))
        lasted_s = (self._clock.monotonic_ns() - self._good_from_ns) / 1e9
        if self._journal is not None and not self._told_good and lasted_s > GOOD_AFTER_S:
            self._told_good = True
            self._journal.good()

    def _last_words(self, stuck: Stuck) -> None:
        """Called by the watchman, just before it ends the process."""
        if self._journal is not None:
            part = stuck.part if stuck.part.startswith(("model:", "camera:")) else None
            self._journal.end("stuck", reason=str(stuck), part=part)
        self._device.announce("offline", f"restarts: {stuck}")
        self._device.close_sinks(lambda: 2.0)

    def _loader(self) -> Loader:
        return Loader(
            composer=self._device.composer,
            publish=self._device.publish,
            clock=self._clock,
            board=self._board,
            journal=self._journal,
            tallies=self._device.tallies,
        )

    def _take_over(self, reload: Reload) -> None:
        """A new config was asked for: take it over, or say why not and run on."""
        self._main.enter("a reload", limit_s=self._config.supervision.start_deadline_s)
        self._notifier.reloading()
        try:
            whole, safe_mode = reload.load()
            self._good_from_ns, self._told_good = self._clock.monotonic_ns(), False  # the journal has begun a new run
            changes = self._change_to(whole, safe_mode)
        except RollbackError:
            raise
        except EdgevisionError as failure:
            faults = str(failure).splitlines()
            for fault in faults:
                _log.error("new config refused; the old one runs on", extra={"fields": {"fault": fault}})
            self._announce(
                "online", f"running with the old config; the new one was refused: {'; '.join(faults)[:2000]}"
            )
        else:
            self._announce("online", f"running; a new config was taken over: {changes}")
        give_memory_back()
        if self._journal is not None:
            self._journal.running()
        self._notifier.ready()
        self._main.enter("supervision")

    def _change_to(self, whole: Config, safe_mode: SafeMode) -> Changes:
        config = safe_mode.apply(whole)
        replaced = {
            name
            for name, group in self._groups.items()
            if name in config.models and is_replaced(group.model, config.models[name].model, config.models_dir)
        }
        changes = compare(self._config, config, replaced=replaced)
        if changes.identity:
            self._restart(whole, safe_mode, str(changes))
            return changes
        again = self._refused.keys() & config.models.keys()
        still: dict[str, str] = {}
        loaded = self._loader().load(config, sorted(changes.models - again))
        try:
            loaded |= self._loader().load(config, sorted(again), refused=still, all_may_fail=True)
            self._check_rules(config, changes, loaded)
            self._device.replace_sinks(config, mqtt=changes.mqtt, sinks=changes.sinks)
        except EdgevisionError:
            close_all(loaded)
            raise
        finally:
            if changes.mqtt or changes.sinks:
                self._tell_states()
        self._end_parts(changes)
        self._remember(whole, safe_mode)
        self._refused.clear()
        self._refused.update(still)
        if still:
            self._tell_left_out(events=False)
        for name, new in loaded.items():
            self._start_group(name, new)
        for group in self._groups.values():
            for section in sections_of(group.name, config.cameras):
                if section.name in changes.cameras and group.name not in loaded:
                    group.add(section).start()
        return changes

    def _check_rules(self, config: Config, changes: Changes, loaded: Mapping[str, Loaded]) -> None:
        """Make what is made of cameras that start, and let go of it: a rule that does not fit its model touches nothing."""
        for section in config.cameras:
            if section.model in loaded:
                assembly.make_scene(section, loaded[section.model].model.labels)
            elif section.name in changes.cameras and section.model in self._groups:
                assembly.make_scene(section, self._groups[section.model].model.labels)

    def _end_parts(self, changes: Changes) -> None:
        for name in sorted((changes.models | changes.gone_models) & self._groups.keys()):
            self._groups.pop(name).stop(lambda: PART_STOP_S)
            self._device.models.pop(name, None)
        for group in self._groups.values():
            for name in sorted(changes.gone_cameras & group.stations.keys()):
                group.remove(name, timeout_s=PART_STOP_S)

    def _restart(self, whole: Config, safe_mode: SafeMode, reason: str) -> None:
        """Every part anew, in this process; where the new config cannot be started, the old one is again."""
        before = (self._whole, self._safe_mode)
        self._wind_down(reason, self._config.supervision.stop_deadline_s, keep=self._extra_sinks.keys())
        try:
            self._remember(whole, safe_mode, anew=True)
            self._begin()
        except EdgevisionError as refused:
            self._device.close_sinks(lambda: PART_STOP_S, keep=self._extra_sinks.keys())
            self._remember(*before, anew=True)
            self._begin_as_before(refused)
            raise

    def _begin_as_before(self, refused: EdgevisionError) -> None:
        try:
            self._begin()
        except EdgevisionError as worse:
            reason = f"the new config cannot be started: {refused}; and the old one no longer: {worse}"
            if self._journal is not None:
                self._journal.end("failed", reason=reason)
            self._end(f"failed: {reason}")
            self._watchman.stop()
            raise RollbackError(reason) from worse

    def _remember(self, whole: Config, safe_mode: SafeMode, *, anew: bool = False) -> None:
        self._whole, self._safe_mode, self._config = whole, safe_mode, safe_mode.apply(whole)
        if anew:
            self._groups = {}
            self._device = Device(whole, clock=self._clock, board=self._board, extra_sinks=self._extra_sinks)
        self._device.cameras = [camera.name for camera in whole.cameras]
        self._device.safe_mode = safe_mode.reason or None
