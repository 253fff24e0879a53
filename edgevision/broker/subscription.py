"""Listening to a broker: one connection that subscribes, driven by the thread that wants to hear.

What comes while nobody is connected is not wanted later (a trigger, a picture of a moment): so each connection is a new
session. A retained message tells of the past and is left out, once said.
"""

from __future__ import annotations

import logging
import ssl
import uuid
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from paho.mqtt import MQTTException
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edgevision.broker import words
from edgevision.broker.client import GARBAGE, LastError, Version, make_client
from edgevision.broker.options import BrokerOptions
from edgevision.clock import Clock
from edgevision.errors import PublishError

_log = logging.getLogger(__name__)

_STEP_S = 0.2
_MOST_WAITING = 100
"""Messages that have come and are not taken; the oldest give way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A message, and when it came."""

    topic: str
    payload: bytes
    at_ns: int
    """Unix time."""
    mono_ns: int


class Subscription:
    """One connection; `connect`, then `take` again and again, then `close`. It is thrown away when it fails."""

    def __init__(self, options: BrokerOptions, topic: str, *, name: str, max_bytes: int, clock: Clock) -> None:
        """Connects to nothing yet.

        Args:
            options: where to and how.
            topic: what to subscribe to, wildcards too.
            name: begins our client id, where `options` has none.
            max_bytes: longer messages are left out; with MQTT 5 the broker does not even send them.
            clock: tells when a message came.
        """
        self.too_large = 0
        """Messages that were left out for their length (MQTT 3.1.1)."""
        self.overrun = 0
        """Messages that gave way to newer ones before they were taken."""
        self._options = options
        self._topic = topic
        self._client_id = options.client_id or f"{name}-{uuid.uuid4().hex[:8]}"
        self._max_bytes = max_bytes
        self._clock = clock
        self._client: Client | None = None
        self._heard: deque[Heard] = deque()
        self._fault = ""
        self._version_refused = False
        self._subscribed = False
        self._told_retained = False
        self._errors = LastError()

    def connect(self) -> None:
        """Connect and subscribe; when it returns, we hear.

        Raises:
            PublishError: it cannot be; the text says why and what to mend.
        """
        version: Version = "3.1.1" if self._options.protocol == "3.1.1" else "5"
        try:
            self._dial(version)
        except PublishError:
            if not (self._version_refused and self._options.protocol == "auto"):
                raise
            self.close()
            self._fault, self._version_refused = "", False
            self._dial("3.1.1")

    def take(self) -> list[Heard]:
        """What has come since, waiting for a short while where nothing has.

        Raises:
            PublishError: the connection has ended.
        """
        if not self._heard:
            self._step(_STEP_S)
        heard = list(self._heard)
        self._heard.clear()
        return heard

    def close(self) -> None:
        """Say goodbye and close."""
        client, self._client = self._client, None
        if client is None:
            return
        with suppress(OSError, *GARBAGE):
            client.disconnect()
            client.loop(0.0)
        connection = client.socket()
        if connection is not None:
            connection.close()

    def _dial(self, version: Version) -> None:
        options = self._options
        client = make_client(options, client_id=self._client_id, version=version, will=None, errors=self._errors)
        self._client = client
        client.connect_timeout = options.connect_timeout_s
        client.on_connect = self._welcomed
        client.on_subscribe = self._answered
        client.on_message = self._hear
        client.on_disconnect = self._thrown_out
        more: dict[str, Any] = {}
        if version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
            properties.MaximumPacketSize = self._max_bytes + 70_000  # its topic and properties
            more = {"clean_start": True, "properties": properties}
        where = options.where
        try:
            client.connect(options.host, options.broker_port, options.keepalive_s, **more)
        except OSError as failure:
            trusted = None if options.tls is None else str(options.tls.ca_file or "an authority this system trusts")
            text = words.unreachable(
                failure, host=options.host, where=where, timeout_s=options.connect_timeout_s, trusted=trusted
            )
            raise PublishError(text) from failure
        except UnicodeError as failure:
            raise PublishError(f"host {options.host!r} is not a valid name: check host") from failure
        until_ns = self._clock.monotonic_ns() + round(options.connect_timeout_s * 1e9)
        while not self._subscribed:
            self._step(_STEP_S)
            if self._clock.monotonic_ns() > until_ns:
                raise PublishError(words.silent(where, options.connect_timeout_s))

    def _step(self, timeout_s: float) -> None:
        client, where = self._client, self._options.where
        if client is None:
            raise PublishError(words.lost(where))
        try:
            code = client.loop(timeout_s)
        except (*GARBAGE, MQTTException, ssl.SSLError) as failure:
            raise PublishError(words.not_mqtt(where)) from failure
        if self._fault:
            raise PublishError(self._fault)
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            closed = words.closed_unanswered(where, tls=self._options.tls is not None, detail=self._errors.text.upper())
            raise PublishError(words.lost(where) if self._subscribed else closed)

    def _welcomed(self, client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, _properties: Any) -> None:
        if reason.is_failure:
            self._version_refused = str(reason) == "Unsupported protocol version"
            self._fault = words.refused(self._options.where, str(reason), self._client_id)
            return
        client.subscribe(self._topic, 1)

    def _answered(
        self, _client: Client, _data: Any, _mid: int, reasons: Sequence[ReasonCode], _properties: Any
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self._fault = (
                f"the broker at {self._options.where} does not let us subscribe to {self._topic!r}: check its access rules "
                f"for {self._client_id!r}"
            )
            return
        self._subscribed = True

    def _thrown_out(
        self, _client: Client, _data: Any, flags: DisconnectFlags, reason: ReasonCode, _properties: Any
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._fault = words.thrown_out(self._options.where, str(reason), self._client_id)

    def _hear(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "?"
        if message.retain:
            if not self._told_retained:
                self._told_retained = True
                _log.warning("a retained message on %r is left out: it tells of the past", topic[:200])
            return
        if len(message.payload) > self._max_bytes:
            self.too_large += 1
            _log.warning(
                "a message on %r is left out: %d bytes are above %d", topic[:200], len(message.payload), self._max_bytes
            )
            return
        if len(self._heard) >= _MOST_WAITING:
            self._heard.popleft()
            self.overrun += 1
        self._heard.append(
            Heard(
                topic=topic,
                payload=bytes(message.payload),
                at_ns=self._clock.time_ns(),
                mono_ns=self._clock.monotonic_ns(),
            )
        )
