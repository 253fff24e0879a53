"""The device's voice: its sinks, its state, and what it says of itself, so that the service itself only has to run things."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

from edgevision import assembly
from edgevision._version import __version__
from edgevision.clock import Clock
from edgevision.config import Config
from edgevision.errors import EdgevisionError
from edgevision.inference.base import Execution
from edgevision.messages import (
    CameraTelemetry,
    Composer,
    Deliveries,
    DeviceState,
    ExecutionStatus,
    ModelStatus,
    SinkTelemetry,
)
from edgevision.pipeline import Model, execution_of
from edgevision.publish.base import Sink, SinkContext
from edgevision.runtime.metrics import ProcessMeter
from edgevision.runtime.progress import Board
from edgevision.runtime.sinks import CertificateAlarm, add_dropped, sink_alarms, sink_telemetry, sink_troubles
from edgevision.runtime.tally import Tally
from edgevision.runtime.wall_clock import clock_synchronised
from edgevision.types import Event, Message

_log = logging.getLogger(__name__)

SHORTEST_CLOSE_S = 0.5
"""What a sink gets to close in, even where the time for the end has run out."""
REPLACED_CLOSE_S = 5.0
"""What a sink that a reload replaces gets to deliver what waits."""
REOPEN_EVERY_S = 5.0
"""How often a sink that could not be opened again is tried."""
MOST_HELD_BYTES = 16 * 2**20
"""Of payloads that are kept for sinks while they are being exchanged."""
MQTT_ROUND_S = 120.0
"""More than the longest wait between two tries of the MQTT sink to connect."""


class Device:
    """Sinks, composer and state; made for one device and topic, and for as long as these stay."""

    def __init__(self, config: Config, *, clock: Clock, board: Board, extra_sinks: Mapping[str, Sink]) -> None:
        """Opens nothing; `extra_sinks` get every message beside those of the config, and are closed with them."""
        mqtt = config.mqtt
        self.composer = Composer(
            topic=mqtt.topic if mqtt else "edgevision",
            device=config.device,
            version=__version__,
            deliveries=mqtt.deliveries if mqtt else Deliveries(),
            clock=clock,
        )
        self.sinks: dict[str, Sink] = dict(extra_sinks)
        self._extra = frozenset(extra_sinks)
        self._sinks_lock = threading.Lock()
        self._held: list[Message] | None = None
        """What was published while sinks are being exchanged; None where they are not."""
        self._held_bytes = self._held_lost = 0
        self._past: dict[str, SinkTelemetry] = {}
        """The counts of sinks that were exchanged since the start, by name."""
        self._not_open = ""
        """Why sinks of the config are not open; empty where they are."""
        self._reopen_at_ns = 0
        self.state: DeviceState = "starting"
        self.reason = ""
        self.safe_mode: str | None = None
        self.cameras: list[str] = [camera.name for camera in config.cameras]
        self.models: dict[str, Model] = {}
        """By the config's names; what a status tells of them."""
        self.tallies: dict[str, Tally] = {}
        """Each camera's counts, as long as the `boot_id`."""
        self.refused: Mapping[str, str] = {}
        """Models that are left out because they did not survive their probe; each is an alarm."""
        self._config = config
        self._clock = clock
        self._board = board
        self._alarms: tuple[str, ...] = ()
        self._executions: dict[str, Execution | None] = {}
        self._certificate = CertificateAlarm(clock)
        self._since_ns = clock.time_ns()
        self._meter = ProcessMeter(clock)
        self._telemetry_at_ns = clock.monotonic_ns()

    def open_sinks(self, config: Config) -> None:
        """Make the config's sinks, but those that are open under the same name.

        Raises:
            EdgevisionError: one cannot be made.
        """
        self._config = config
        self._certificate = CertificateAlarm(self._clock)
        self.composer.deliveries = config.mqtt.deliveries if config.mqtt else Deliveries()
        own = self.sinks.keys() - self._extra
        wanted = {"mqtt": None if "mqtt" in own else config.mqtt, "sinks": [] if own - {"mqtt"} else config.sinks}
        made = assembly.make_sinks(config.model_copy(update=wanted), self._sink_context)
        with self._sinks_lock:
            # Under the lock, so that nothing newer comes before what was held.
            for message in self._held or ():
                for sink in made.values():
                    sink.publish(message)
            self._held = None
            self.sinks |= made
        self._not_open = ""
        if self._held_lost and made:
            _log.error("messages are lost to an exchange of sinks", extra={"fields": {"count": self._held_lost}})
            self._past |= {name: add_dropped(self._past.get(name), self._held_lost) for name in made}

    def replace_sinks(self, config: Config, *, mqtt: bool, sinks: bool) -> None:
        """Close what changed, delivering what waits, and open it as the new config has it.

        What is published meanwhile the new ones get.

        Raises:
            EdgevisionError: a new one cannot be made; the old ones are open again, or `reopen` tries it.
        """
        before = self._config
        ending = {name for name in self.sinks.keys() - self._extra if (mqtt if name == "mqtt" else sinks)}
        if ending:
            self._hold()
        self.close_sinks(lambda: REPLACED_CLOSE_S, keep=self.sinks.keys() - ending)
        try:
            self.open_sinks(config)
        except EdgevisionError as refused:
            try:
                self.open_sinks(before)
            except EdgevisionError as worse:
                self._is_not_open(worse)
                _log.error("sinks cannot be opened again", extra={"fields": {"reason": self._not_open}})
            raise refused from None

    def _hold(self) -> None:
        with self._sinks_lock:
            if self._held is None:
                self._held, self._held_bytes, self._held_lost = [], 0, 0

    def give_up_held(self) -> None:
        """The end: what was held for sinks that could not be opened again is lost, and that is said."""
        with self._sinks_lock:
            lost, self._held = len(self._held or ()) + self._held_lost, None
        if lost:
            _log.error("messages are lost: their sinks could not be opened again", extra={"fields": {"count": lost}})

    def reopen(self) -> bool:
        """Try again what could not be opened, now and then; True when it is open. What is published till then is held."""
        if not self._not_open or self._clock.monotonic_ns() < self._reopen_at_ns:
            return False
        try:
            self.open_sinks(self._config)
        except EdgevisionError as failure:
            self._is_not_open(failure)
            return False
        _log.info("sinks are open again")
        return True

    def _is_not_open(self, why: EdgevisionError) -> None:
        self._not_open, self._reopen_at_ns = str(why), self._clock.monotonic_ns() + int(REOPEN_EVERY_S * 1e9)

    def close_sinks(self, left_s: Callable[[], float], *, keep: Collection[str] = ()) -> None:
        """Deliver what waits and close; `left_s` says how many seconds are left for all."""
        for name in [name for name in self.sinks if name not in keep]:
            # Out of the way first, so that nobody publishes to what ends: that would be counted as dropped there.
            with self._sinks_lock:
                sink = self.sinks.pop(name)
            sink.close(max(SHORTEST_CLOSE_S, left_s()))
            self._past[name] = sink_telemetry(sink, past=self._past.get(name))
            self._board.remove(f"sink:{name}")

    def publish(self, message: Message, *, but_not: str | None = None) -> None:
        """To every sink."""
        with self._sinks_lock:
            sinks = list(self.sinks.items())
            if self._held is not None:
                self._held_bytes += len(message.payload)
                if self._held_bytes <= MOST_HELD_BYTES:
                    self._held.append(message)
                else:
                    self._held_bytes -= len(message.payload)
                    self._held_lost += 1
        for name, sink in sinks:
            if name != but_not:
                sink.publish(message)

    def announce(self, state: DeviceState, reason: str) -> None:
        """A new state, or a new reason for the same."""
        if state != self.state:
            self._since_ns = self._clock.time_ns()
        self.state, self.reason = state, reason
        self._executions = self._where_models_run()
        _log.info("device state", extra={"fields": {"state": state, "reason": reason}})
        if self.composer.deliveries.status.enabled:
            self.publish(self._status())

    def check_alarms(self, cameras: Iterable[str] = ()) -> None:
        """Tell on the device's status what changed and a person should see.

        A disk that fails, a sink that could not be opened again, a certificate that ends, a model that is left out, an engine
        that is being built or has taken over, and its return to what it was. With it, what `cameras` have to say.
        """
        not_open = (f"sinks are not open, and nothing reaches them: {self._not_open}",) if self._not_open else ()
        left_out = tuple(f"model {name} is left out: {why}" for name, why in self.refused.items())
        alarms = not_open + sink_alarms(self.sinks) + self._certificate.look(self._config.mqtt) + left_out
        alarms += tuple(cameras)
        if alarms == self._alarms and self._where_models_run() == self._executions:
            return
        for alarm in alarms:
            if alarm not in self._alarms:
                _log.warning("alarm", extra={"fields": {"alarm": alarm}})
        for alarm in self._alarms:
            if alarm not in alarms:
                _log.info("alarm has ended", extra={"fields": {"alarm": alarm}})
        self._alarms = alarms
        self.announce(self.state, self.reason)

    @property
    def troubles(self) -> list[str]:
        """What keeps the device from being well, in words: alarms, and sinks that deliver nothing."""
        return [*self._alarms, *sink_troubles(self.sinks)]

    def _where_models_run(self) -> dict[str, Execution | None]:
        return {name: execution_of(model) for name, model in self.models.items()}

    def left_out(self, camera: str, rules: Iterable[str], reason: str | None = None) -> None:
        """A camera that safe mode leaves out, or another reason, says so: nobody looks, and its rules' answers are unknown."""
        reason, now_ns = reason or f"safe mode: {self.safe_mode}", self._clock.time_ns()
        if self.composer.deliveries.status.enabled:
            self.publish(self.composer.camera_status(camera, state="off", since_ns=now_ns, reason=reason))
        if self.composer.deliveries.events.enabled:
            for rule in rules:
                event = Event(kind="unknown", camera=camera, rule=rule, occurred_at_ns=now_ns, reason=reason)
                self.publish(self.composer.event(event, state="off"))

    def telemetry_is_due(self) -> bool:
        """Whether the interval of telemetry is over."""
        interval_s = self._config.mqtt.telemetry.interval_s if self._config.mqtt else 10.0
        return self._clock.monotonic_ns() - self._telemetry_at_ns >= interval_s * 1e9

    def telemetry(self, cameras: Callable[[float], dict[str, CameraTelemetry]]) -> None:
        """Publish the counts now, and begin a new interval; `cameras` is given the old one's length in seconds."""
        now_ns = self._clock.monotonic_ns()
        interval_s = max((now_ns - self._telemetry_at_ns) / 1e9, 1e-3)
        self._telemetry_at_ns = now_ns
        counts = cameras(interval_s)
        if not self.composer.deliveries.telemetry.enabled:
            return
        sinks = {name: sink_telemetry(sink, past=self._past.get(name)) for name, sink in self.sinks.items()}
        message = self.composer.telemetry(
            interval_s=round(interval_s, 3),
            cameras=counts,
            sinks=sinks,
            process=self._meter.read(),
            clock_synchronised=clock_synchronised(),
        )
        self.publish(message)

    def _status(self) -> Message:
        return self.composer.device_status(
            state=self.state,
            since_ns=self._since_ns,
            reason=self.reason,
            cameras=self.cameras,
            models={name: _model_status(model) for name, model in self.models.items()},
            alarms=self._alarms,
            safe_mode=self.safe_mode,
            clock_synchronised=clock_synchronised(),
        )

    def _sink_context(self, name: str) -> SinkContext:
        limit_s = self._config.supervision.publish_deadline_s
        if name == "mqtt" and self._config.mqtt is not None:
            limit_s = max(limit_s, self._config.mqtt.connect_timeout_s + MQTT_ROUND_S)
        return SinkContext(
            device=self._config.device,
            birth=partial(self._birth, name),
            will=self._will,
            clock=self._clock,
            state_dir=self._config.state_dir,
            progress=self._board.part(f"sink:{name}", limit_s=limit_s),
        )

    def _birth(self, sink: str) -> Message:
        """The status that a sink sends on each connection; the others get it too, so that no count has a gap."""
        message = self._status()
        self.publish(message, but_not=sink)
        return message

    def _will(self) -> Message:
        return self.composer.device_status(
            state="offline",
            since_ns=self._clock.time_ns(),
            reason="the connection was lost without a word (last will)",
            cameras=self.cameras,
            will=True,
        )


def _model_status(model: Model) -> ModelStatus:
    return ModelStatus(
        name=model.name,
        version=model.manifest.version,
        sha256=model.sha256,
        backend=model.backend_name,
        threads=model.threads,
        proof=model.manifest.metrics,
        execution=_execution_status(execution_of(model)),
    )


def _execution_status(told: Execution | None) -> ExecutionStatus | None:
    if told is None:
        return None
    return ExecutionStatus(
        shares={name: round(share, 4) for name, share in told.shares.items()},
        left_out=dict(told.left_out),
        notes=list(told.notes),
        building=told.building,
    )
