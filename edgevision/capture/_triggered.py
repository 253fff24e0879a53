"""One picture for each trigger: wrapped around a camera that runs free, and hands on the first picture taken after a message.

A light barrier or a controller publishes a message when a part is in place. The camera goes on giving pictures all the while,
so the delay from the message to the picture is at most one of its intervals, and a camera that is dead is known before it is
needed. A trigger that gets no picture in time is counted: it is a part that nobody looked at.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from edgevision.broker.options import BrokerOptions
from edgevision.capture._pacing import NS_PER_S
from edgevision.capture.base import FrameSource
from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.errors import PublishError
from edgevision.retry import Backoff
from edgevision.types import Frame

_log = logging.getLogger(__name__)

MAX_PAYLOAD_BYTES = 4096
MAX_ID = 200
"""Characters of a trigger's id that are kept."""
_MOST_WAITING = 100
_DELAYS_KEPT = 1000
_RETRY_MOST_S = 4.0
_IDLE_EVERY_NS = NS_PER_S // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """A message that asks for a picture."""

    id: str
    mono_ns: int
    """When it came."""


class TriggerBox:
    """Triggers that have come and wait for their picture; hears them in a thread of its own, and connects again for ever."""

    def __init__(
        self, broker: BrokerOptions, topic: str, *, camera: str, deadline_s: float, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Hears nothing before `start`.

        Args:
            broker: where triggers are published.
            topic: what a trigger is published on.
            camera: names us to the broker and in the log.
            deadline_s: a picture that was taken later is none for this trigger.
            clock: the time.
        """
        self.received = 0
        self.served = 0
        self.missed = 0
        """Triggers that got no picture within the deadline."""
        self.fault = "not yet connected to the broker"
        """Why no trigger can come; empty where one can."""
        self._broker = broker
        self._topic = topic
        self._camera = camera
        self._deadline_ns = round(deadline_s * NS_PER_S)
        self._clock = clock
        self._waiting: deque[Trigger] = deque()
        self._delays_ns: deque[int] = deque(maxlen=_DELAYS_KEPT)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to listen; may be called again."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._listen, name=f"trigger:{self._camera}", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(self._broker.connect_timeout_s + 1)

    def add(self, payload: bytes, mono_ns: int) -> None:
        """A trigger has come."""
        with self._lock:
            self.received += 1
            if len(self._waiting) >= _MOST_WAITING:
                self._miss(self._waiting.popleft())
            self._waiting.append(Trigger(id=trigger_id(payload), mono_ns=mono_ns))

    def take(self, captured_mono_ns: int) -> Trigger | None:
        """The trigger that a picture of this time is for, if it is for any: the oldest that came before it."""
        with self._lock:
            self._expire(captured_mono_ns)
            if not self._waiting or self._waiting[0].mono_ns > captured_mono_ns:
                return None
            trigger = self._waiting.popleft()
            self.served += 1
            self._delays_ns.append(captured_mono_ns - trigger.mono_ns)
            return trigger

    def take_delays_ms(self) -> list[float]:
        """From each trigger to its picture, since the last call; counts what has waited too long meanwhile."""
        with self._lock:
            self._expire(self._clock.monotonic_ns())
            delays = [delay_ns / 1e6 for delay_ns in self._delays_ns]
            self._delays_ns.clear()
            return delays

    def _expire(self, now_ns: int) -> None:
        while self._waiting and now_ns - self._waiting[0].mono_ns > self._deadline_ns:
            self._miss(self._waiting.popleft())

    def _miss(self, trigger: Trigger) -> None:
        self.missed += 1
        fields = {"camera": self._camera, "trigger": trigger.id, "missed": self.missed}
        _log.warning("trigger got no picture in time", extra={"fields": fields})

    def _listen(self) -> None:
        from edgevision.broker.subscription import Subscription  # noqa: PLC0415  paho, which few daemons need here

        backoff = Backoff(first_s=0.2, max_s=_RETRY_MOST_S)
        while not self._closing.is_set():
            subscription = Subscription(
                self._broker,
                self._topic,
                name=f"edgevision-{self._camera}-trigger",
                max_bytes=MAX_PAYLOAD_BYTES,
                clock=self._clock,
            )
            try:
                subscription.connect()
                backoff.reset()
                self._tell("")
                while not self._closing.is_set():
                    for heard in subscription.take():
                        self.add(heard.payload, heard.mono_ns)
            except PublishError as failure:
                self._tell(str(failure))
            finally:
                subscription.close()
            self._clock.wait(self._closing, backoff.next_delay_s())

    def _tell(self, fault: str) -> None:
        if fault != self.fault:
            self.fault = fault
            fields = {"camera": self._camera, "topic": self._topic, "reason": fault or "connected"}
            _log.log(logging.WARNING if fault else logging.INFO, "camera triggers", extra={"fields": fields})


class Triggered:
    """A source of which only the pictures after a trigger are handed on, each with its trigger's id as `origin`."""

    def __init__(
        self, source: FrameSource, triggers: TriggerBox, *, idle: Callable[[str], None], clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Wrap a live `source`; `idle` as in `SourceContext`: the camera gives pictures, and none is asked for."""
        self._source = source
        self._triggers = triggers
        self._idle = idle
        self._clock = clock

    @property
    def live(self) -> bool:
        """As the wrapped source."""
        return self._source.live

    @property
    def unreadable(self) -> int:
        """As the wrapped source."""
        return self._source.unreadable

    def frames(self) -> Iterator[Frame]:
        """The frames that were asked for; a trigger that got none is a gap in `sequence`."""
        triggers, sequence, missed, idle_ns = self._triggers, 0, self._triggers.missed, 0
        for frame in self._source.frames():
            trigger = triggers.take(frame.captured_mono_ns)
            if trigger is None:
                now_ns = self._clock.monotonic_ns()
                if now_ns - idle_ns >= _IDLE_EVERY_NS:
                    idle_ns = now_ns
                    fault = triggers.fault
                    self._idle(f"no trigger can come: {fault}" if fault else "")
                continue
            sequence += triggers.missed - missed
            missed = triggers.missed
            yield replace(frame, sequence=sequence, origin=trigger.id)
            sequence += 1

    def close(self) -> None:
        """Close the wrapped source."""
        self._source.close()


def trigger_id(payload: bytes) -> str:
    """A trigger's id: `id` of a JSON object, or else the payload itself as text."""
    text = payload.decode(errors="replace").strip()
    if text.startswith("{"):
        with suppress(ValueError, RecursionError):
            found = json.loads(text)
            if isinstance(found, dict) and isinstance(found.get("id"), str | int):
                text = str(found["id"])
    return "".join(character for character in text if character.isprintable())[:MAX_ID]
