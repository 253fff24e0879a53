"""The MQTT sink: a bounded queue, a spool, and one thread that keeps a connection and empties both into it.

A message is in one of three places: in the queue (durable ones: in the spool), outstanding on the link, or settled
(delivered, or counted as dropped). When a link is lost, what was outstanding goes back to where it was, so acknowledged
messages arrive at least once and in order.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

from edgevision.broker import words
from edgevision.broker.words import LinkError
from edgevision.messages import mark_historical
from edgevision.publish._mqtt_link import Link
from edgevision.publish._mqtt_sender import Sender
from edgevision.publish._mqtt_version import VersionChoice
from edgevision.publish._mqtt_waiting import Waiting
from edgevision.publish._mqtt_waker import Waker
from edgevision.publish._mqtt_window import Ticket
from edgevision.publish._report import Report
from edgevision.publish.base import SinkContext, SinkStats
from edgevision.publish.mqtt import Options
from edgevision.retry import Backoff
from edgevision.types import Message

_log = logging.getLogger(__name__)

_PROVED_NS = 30 * 10**9
"""A connection that lasted so long was a success: the next failure starts the back-off anew."""
_HANG_UP_S = 0.5
_IDLE_S = 10.0
_GRACE_S = 1.0
"""What `close` allows the thread above its deadline, to hang up and to come to its end."""


class MqttSink:
    """`Sink` for an MQTT broker."""

    def __init__(
        self,
        *,
        options: Options,
        context: SinkContext,
        backoff: Backoff | None = None,
        historical: Callable[[bytes], bytes] = mark_historical,
    ) -> None:
        """Start to connect.

        Args:
            options: what the user set.
            context: who we are; birth and will.
            backoff: delays between tries to connect.
            historical: marks a JSON payload as late; ValueError where it cannot.

        Raises:
            StateError: another daemon keeps its durable messages in the same folder.
        """
        self._options = options
        self._context = context
        self._clock = context.clock
        self._backoff = backoff or Backoff()
        self._historical = historical
        self._client_id = options.client_id or f"edgevision-{context.device}"
        self._where = options.where
        self._version = VersionChoice(options.protocol)
        self._report = Report(log=_log, name="mqtt", clock=self._clock)
        self._sender: Sender | None = None
        """Of the connection that is up."""
        self._connected = False
        self._state = f"connecting to {self._where}"
        self._closing = threading.Event()
        self._end_ns = 0
        self._waker = Waker()
        try:
            self._waiting = Waiting(
                options=options,
                context=context,
                historical=historical,
                report=self._report,
                on_ready=self._waker.nudge,
            )
        except BaseException:
            self._waker.close()
            raise
        self._queue, self._retained = self._waiting.queue, self._waiting.retained
        self._thread = threading.Thread(target=self._run, name="publish-mqtt", daemon=True)
        self._thread.start()

    @property
    def stats(self) -> SinkStats:
        """The counts now."""
        return self._waiting.stats(connected=self._connected, state=self._state)

    def publish(self, message: Message) -> None:
        """Take a message."""
        self._waiting.put(message)

    def flush(self, deadline_s: float = 5.0) -> bool:
        """Wait until every durable message taken so far is safe on the disk or delivered; False when that took longer."""
        return self._waiting.flush(deadline_s)

    def close(self, deadline_s: float = 5.0) -> None:
        """Deliver what waits within the deadline, say goodbye, count the rest as dropped."""
        if not self._closing.is_set():
            self._end_ns = self._clock.monotonic_ns() + int(deadline_s * 1e9)
            self._closing.set()
            self._waker.wake()
        self._thread.join(deadline_s + _GRACE_S)
        # Still alive only if the operating system keeps it in a name look-up or a connect; it ends by itself then.
        self._waiting.close(max(_GRACE_S, self._left_s()))

    def _beat(self) -> None:
        if self._context.progress is not None:
            self._context.progress.enter("its work with the broker")

    def _run(self) -> None:
        try:
            while self._has_time():
                self._beat()
                last = self._closing.is_set()
                delay_s = self._connect_and_serve()
                if self._closing.is_set() and (last or not self._waiting):
                    break
                self._queue.drop_expired()
                self._report.drops(self._queue)
                if delay_s:
                    self._beat()
                    self._clock.wait(self._closing, delay_s)
        finally:
            self._connected = False
            self._state = "closed"
            self._queue.close()
            self._waker.close()

    def _connect_and_serve(self) -> float:
        """One connection, from dial to end; returns how long to wait before the next, in seconds."""
        link: Link | None = None
        # A broker of old that waits in silence for the rest of an MQTT 5 CONNECT with a last will refuses one without a will in
        # plain words. So after silence one is sent to ask no more than that.
        probe = self._version.in_doubt
        try:
            link = Link(
                options=self._options,
                client_id=self._client_id,
                version=self._version.version,
                will=self._context.will() if self._context.will is not None and not probe else None,
                wake_fd=self._waker.fd,
                clock=self._clock,
                on_settled=self._settled,
            )
            timeout_s = self._options.connect_timeout_s
            link.dial(max(0.01, min(timeout_s, self._left_s())), self._has_time)
            if probe:
                self._version.answered()
                link.hang_up(_HANG_UP_S)
            else:
                self._serve(link)
            return 0.0
        except LinkError as error:
            self._connected = False
            if self._version.failed(refused=error.version_refused, unanswered=error.unanswered):
                return 0.0
            delay_s = self._backoff.next_delay_s()
            self._state = f"{error}; next try in {delay_s:.0f} s"
            self._report.trouble(str(error))
            return delay_s
        except Exception:  # noqa: BLE001 - the top of a thread: say it, and go on with a fresh connection
            self._connected = False
            if self._sender is not None and self._sender.sending is not None:
                # Not sent again: what broke us once would break us for ever.
                self._waiting.settle(self._sender.sending, "lost to an internal error")
            delay_s = self._backoff.next_delay_s()
            self._state = f"internal error, see the log; next try in {delay_s:.0f} s"
            _log.exception("mqtt: internal error; connecting anew in %.0f s", delay_s)
            return delay_s
        finally:
            self._sender = None
            if link is not None:
                link.close()
                self._waiting.put_back(link.outstanding)

    def _serve(self, link: Link) -> None:
        """Send until the connection ends (LinkError), or until we are to close and are done."""
        up_ns = self._clock.monotonic_ns()
        proved = False
        self._sender = sender = Sender(
            link,
            self._waiting,
            historical=self._historical,
            report=self._report,
            clock=self._clock,
            left_s=self._left_s,
        )
        self._welcome(link, sender)
        while True:
            self._beat()
            if not self._has_time():
                link.hang_up(_HANG_UP_S)
                return
            while link.has_room and sender.some():
                pass
            link.flush()
            if self._closing.is_set() and not link.outstanding and not self._waiting:
                link.hang_up(min(_HANG_UP_S, self._left_s()))
                return
            self._report.drops(self._queue)
            if not proved and self._clock.monotonic_ns() - up_ns > _PROVED_NS:
                proved = True
                self._backoff.reset()
                self._report.recovered()
            # First say that we sleep, then look once more: a message that came between the two has either seen it and
            # wakes us, or is seen here.
            self._waker.sleeps = link.has_room
            due_s = self._waiting.due_s() if link.has_room else None
            link.step(min(_IDLE_S if due_s is None else due_s, _IDLE_S, self._left_s()))
            self._waker.sleeps = False

    def _welcome(self, link: Link, sender: Sender) -> None:
        """What each connection begins with: we are there, and what the broker should know."""
        self._connected = True
        spoken = f"MQTT {self._version.version}"
        self._state = f"connected to {self._where} ({spoken})"
        self._report.note(self._state)
        if not self._version.known and self._version.version == "3.1.1":
            _log.warning(
                "mqtt: the broker at %s does not speak MQTT 5: using 3.1.1, where messages do not expire in the broker "
                "and refused ones are not told; set protocol: 3.1.1 to accept that",
                self._where,
            )
        self._version.spoken()
        if link.shortcomings:
            self._report.trouble(link.shortcomings)
        sender.begin(self._birth())
        if self._retained.forgotten:
            self._report.trouble(
                f"{self._retained.forgotten} retained topics are too many to be told again to a broker that restarts"
            )

    def _birth(self) -> Message | None:
        """That we are there; None where a newer state of the same topic came while this one was made, and tells it as well."""
        if self._context.birth is None:
            return None
        before = self._retained.all()
        birth = self._context.birth()
        newest = self._retained.newest(birth.topic)
        return birth if newest is None or any(newest is message for message in before) else None

    def _settled(self, message: Message, entry: Ticket, refusal: str | None) -> None:
        if refusal is not None:
            self._report.trouble(words.not_taken(self._where, message.topic[:200], refusal, self._options.username))
        self._waiting.settle(entry, None if refusal is None else "refused")

    def _has_time(self) -> bool:
        return not self._closing.is_set() or self._left_s() > 0

    def _left_s(self) -> float:
        """Seconds until `close` gives up; without end while nobody closes."""
        return (self._end_ns - self._clock.monotonic_ns()) / 1e9 if self._closing.is_set() else math.inf
