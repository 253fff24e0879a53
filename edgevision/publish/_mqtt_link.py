"""One connection to a broker, from dial to end: a fresh paho client each, so that nothing of ours hides in its queues.

What is handed over and not yet settled is `outstanding`, bounded by us and not by paho, so that a slow or half-open
broker cannot make memory grow. A link is used by one thread, which drives paho's socket itself. When it fails it says
so in words, by `LinkError`, and is thrown away.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
from collections.abc import Callable
from typing import Any

from paho.mqtt import MQTTException
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edgevision.broker import words
from edgevision.broker.client import GARBAGE, LastError, Version, make_client
from edgevision.broker.words import LinkError
from edgevision.clock import Clock
from edgevision.errors import PublishError
from edgevision.publish._certificate import certificate_problem
from edgevision.publish._mqtt_client import PropertiesMaker, packet_bytes
from edgevision.publish._mqtt_window import Ticket, Window
from edgevision.publish.mqtt import Options
from edgevision.types import Message

_EARLY_NS = 3 * 10**9
"""A connection that the broker closes so soon after its welcome has not simply been lost."""
_UNSETTLED_S = 60.0
"""A broker that acknowledges nothing for so long (and two keepalives) is taken for stuck, even if it answers pings."""


class Link:
    """One connection. `dial`, then `send`, `flush` and `step` in turn, then `hang_up` or `close`."""

    def __init__(
        self,
        *,
        options: Options,
        client_id: str,
        version: Version,
        will: Message | None,
        wake_fd: int,
        clock: Clock,
        on_settled: Callable[[Message, Ticket, str | None], None],
    ) -> None:
        """Prepare; nothing is sent before `dial`.

        Args:
            options: where to and how.
            client_id: who we are.
            version: which MQTT to speak.
            will: what the broker says when we vanish.
            wake_fd: a non-blocking descriptor, readable when `step` shall return early.
            clock: the time.
            on_settled: told of each message that is done, with None or the broker's reason for refusing it.

        Raises:
            LinkError: a file with a password or a certificate cannot be used.
        """
        self.where = options.where
        self.outstanding = Window(options.max_inflight)
        self._options = options
        self._client_id = client_id
        self._wake_fd = wake_fd
        self._clock = clock
        self._on_settled = on_settled
        self._socket: socket.socket | None = None
        self._poll = select.poll()
        self._watches_write = False
        self._up_ns = self._life_ns = self._progress_ns = clock.monotonic_ns()
        self._connack: ReasonCode | None = None
        self._thrown_out: str | None = None
        self._garbled = False
        self._last_error = LastError()
        self._properties = PropertiesMaker() if version == "5" else None
        try:
            self._client = make_client(
                options, client_id=client_id, version=version, will=will, errors=self._last_error
            )
        except PublishError as error:
            raise LinkError(str(error)) from error
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_publish = self._published
        # paho then leaves all writing to us, so that a message is in `outstanding` before it can be settled.
        self._client.on_socket_register_write = _nothing

    def dial(self, timeout_s: float, may_go_on: Callable[[], bool]) -> None:
        """Connect and wait for the broker's welcome, at most `timeout_s`, or until `may_go_on` says no.

        Raises:
            LinkError: it did not work.
        """
        options = self._options
        end_ns = self._clock.monotonic_ns() + int(timeout_s * 1e9)
        self._client.connect_timeout = timeout_s
        try:
            self._client.connect(options.host, options.broker_port, options.keepalive_s)
        except OSError as error:
            trusted = None
            if options.tls is not None:
                ca_file = options.tls.ca_file
                trusted = "an authority this system trusts" if ca_file is None else f"tls.ca_file {ca_file}"
            raise LinkError(
                words.unreachable(
                    error, host=options.host, where=self.where, timeout_s=timeout_s, trusted=trusted, own=self._own()
                )
            ) from error
        except UnicodeError as error:
            raise LinkError(f"host {options.host!r} is not a valid name: check host") from error
        connection = self._client.socket()
        if not isinstance(connection, socket.socket):
            raise self._end()
        self._socket = connection
        # Small messages must not wait for the acknowledgement of the one before (Nagle).
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll.register(connection, select.POLLIN)
        self._poll.register(self._wake_fd, select.POLLIN)
        self._life_ns = self._progress_ns = self._clock.monotonic_ns()
        while self._connack is None:
            left_s = (end_ns - self._clock.monotonic_ns()) / 1e9
            if left_s <= 0:
                raise LinkError(words.silent(self.where, timeout_s), unanswered=True)
            if not may_go_on():
                raise LinkError(f"closed while connecting to {self.where}")
            self.step(min(left_s, 0.5))
        self._up_ns = self._life_ns = self._progress_ns = self._clock.monotonic_ns()

    @property
    def shortcomings(self) -> str:
        """What this broker cannot do and we have to leave out; empty where it can do all."""
        lacks = (
            []
            if self.outstanding.may_retain
            else ["keeps no retained messages: who connects later sees no status until it changes"]
        )
        if self.outstanding.max_qos < 1:
            lacks.append("acknowledges no messages (QoS 0 only): some may be lost when a connection breaks")
        return f"the broker at {self.where} {' and '.join(lacks)}" if lacks else ""

    @property
    def has_room(self) -> bool:
        """Whether another message may be handed over now."""
        return self.outstanding.has_room

    def send(self, message: Message, entry: Ticket, *, payload: bytes, expires_s: int | None) -> None:
        """Hand a message over; `flush` or `step` write it.

        Args:
            message: what to send; its payload is not looked at.
            entry: its place in the queue or the spool, None for what never stood there.
            payload: the bytes to send.
            expires_s: seconds it has left to live.

        Raises:
            LinkError: the connection cannot take it; the entry is then not outstanding.
        """
        qos = min(message.qos, self.outstanding.max_qos)
        properties: Properties | None = None
        try:
            if self._properties is not None:
                properties, properties_bytes = self._properties(message.content_type, expires_s)
                size_bytes = packet_bytes(
                    topic_bytes=len(message.topic.encode()),
                    payload_bytes=len(payload),
                    qos=qos,
                    properties_bytes=properties_bytes,
                )
                if size_bytes > self.outstanding.max_packet_bytes:
                    limit = f"larger than the broker's limit of {self.outstanding.max_packet_bytes} bytes"
                    self._on_settled(message, entry, limit)
                    return
            if not self.outstanding:
                self._progress_ns = self._clock.monotonic_ns()
            info = self._client.publish(
                message.topic, payload, qos, message.retain and self.outstanding.may_retain, properties
            )
        except (ValueError, MQTTException) as error:
            self._on_settled(message, entry, f"not a message to publish: {error}")
            return
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS or info.mid in self.outstanding:
            raise LinkError(words.lost(self.where))
        self.outstanding.add(info.mid, message, entry, size_bytes=len(payload))

    def flush(self) -> None:
        """Write what can be written now."""
        if self._client.want_write():
            self._client.loop_write()

    def step(self, timeout_s: float) -> None:
        """Wait for the socket, the waker, the next ping or `timeout_s`, and do what is due.

        Raises:
            LinkError: the connection has ended.
        """
        self.flush()
        if self._socket is None or self._client.socket() is None:
            raise self._end()
        if self._watches_write != self._client.want_write():
            self._watches_write = not self._watches_write
            self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if self._watches_write else 0))
        # +1: poll counts whole milliseconds, and waking too early would spin.
        events = self._poll.poll(0 if timeout_s <= 0 else int(1000 * min(timeout_s, self._tick_s())) + 1)
        now_ns = self._clock.monotonic_ns()
        for descriptor, event in events:
            if descriptor == self._wake_fd:
                os.read(self._wake_fd, 4096)
                continue
            # We ask for POLLOUT only after the socket was full: room again means that the other side takes bytes.
            self._life_ns = now_ns
            if event & select.POLLOUT:
                self._progress_ns = now_ns
            if event & ~select.POLLOUT:
                self._read()
        self.flush()
        self._client.loop_misc()
        if self._client.socket() is None:
            raise self._end()
        self._check_alive(now_ns)

    def hang_up(self, timeout_s: float) -> None:
        """Say goodbye, so that the broker keeps the last will to itself."""
        end_ns = self._clock.monotonic_ns() + int(timeout_s * 1e9)
        try:
            self.step(0)
            self._client.disconnect()
            while self._client.socket() is not None and self._clock.monotonic_ns() < end_ns:
                self.step(0.1)
        except LinkError:
            return  # gone already, which is what was wanted
        finally:
            self.close()

    def close(self) -> None:
        """Drop the connection as it is; the broker will send the last will unless `hang_up` went before."""
        if self._socket is not None:
            self._socket.close()

    def _read(self) -> None:
        try:
            rc = self._client.loop_read()
            # TLS may hold bytes that the socket no longer tells of.
            while rc == MQTTErrorCode.MQTT_ERR_SUCCESS and self._pending():
                rc = self._client.loop_read()
        except GARBAGE as error:
            raise LinkError(words.not_mqtt(self.where)) from error
        self._garbled = rc == MQTTErrorCode.MQTT_ERR_PROTOCOL

    def _pending(self) -> bool:
        connection = self._client.socket()
        return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0

    def _tick_s(self) -> float:
        """How long nothing has to be done: pings and the watchdog are due with the keepalive."""
        return max(0.05, self._client.keepalive / 10) if self._client.keepalive else 10.0

    def _check_alive(self, now_ns: int) -> None:
        keepalive_s = self._client.keepalive  # the broker may have set another one
        quiet_s = (now_ns - self._life_ns) / 1e9
        if keepalive_s and quiet_s > 1.5 * keepalive_s:
            raise LinkError(words.gone_quiet(self.where, quiet_s))
        stuck_s = (now_ns - self._progress_ns) / 1e9
        if self.outstanding and stuck_s > max(_UNSETTLED_S, 2 * keepalive_s):
            raise LinkError(
                f"the broker at {self.where} has acknowledged nothing for {stuck_s:.0f} s: connection given up"
            )

    def _own(self) -> str:
        """What is wrong with our certificate; empty where nothing is."""
        tls = self._options.tls
        return "" if tls is None else certificate_problem(tls.cert_file, self._clock.time_ns())

    def _end(self) -> LinkError:
        """Why paho closed the socket."""
        if self._connack is not None and self._connack.is_failure:
            reason = str(self._connack)
            return LinkError(
                words.refused(self.where, reason, self._client_id),
                version_refused=reason == "Unsupported protocol version",
            )
        if self._thrown_out is not None:
            return LinkError(words.thrown_out(self.where, self._thrown_out, self._client_id))
        if self._garbled:
            return LinkError(words.not_mqtt(self.where))
        if self._connack is None:
            tls, detail = self._options.tls is not None, self._last_error.text.upper()
            text = words.closed_unanswered(self.where, tls=tls, detail=detail, own=self._own())
            return LinkError(text, unanswered=True)
        if self._clock.monotonic_ns() - self._up_ns < _EARLY_NS:
            return LinkError(words.lost_early(self.where, self._client_id))
        return LinkError(words.lost(self.where))

    def _connected(
        self, _client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._connack = reason
        self.outstanding.learn(properties)

    def _disconnected(
        self, _client: Client, _data: Any, flags: DisconnectFlags, reason: ReasonCode, _: Properties | None
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._thrown_out = str(reason)

    def _published(self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _: Properties | None) -> None:
        known = self.outstanding.pop(mid)
        if known is None:
            return  # an acknowledgement for nothing we sent; paho has checked it already
        message, entry = known
        self._progress_ns = self._clock.monotonic_ns()
        self._on_settled(message, entry, str(reason) if reason.is_failure else None)


def _nothing(*_: Any) -> None:
    """Stands where paho asks for a callback whose presence is all that matters."""
