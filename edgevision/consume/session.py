"""One connection of the consumer to its broker, from dial to end; the broker keeps the session beyond it."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any

from paho.mqtt import MQTTException
from paho.mqtt.client import ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edgevision.broker import words
from edgevision.broker.client import GARBAGE, LastError, Version, make_client
from edgevision.broker.words import LinkError
from edgevision.clock import Clock
from edgevision.errors import PublishError
from edgevision.publish._certificate import certificate_problem
from edgevision.publish.mqtt import Options

_STEP_S = 0.2


class Session:
    """One connection. `dial`, then `step` until it ends; what comes is in `batch`, and stays the broker's until `ack`."""

    def __init__(
        self,
        broker: Options,
        *,
        version: Version,
        clock: Clock,
        topics: Sequence[str],
        session_s: int,
        most: int,
        probe: bool = False,
    ) -> None:
        """Nothing is sent before `dial`.

        Args:
            broker: where it is, and who we are.
            version: which MQTT to speak.
            clock: the time.
            topics: what to subscribe to.
            session_s: how long the broker is to keep our session (MQTT 5).
            most: how many messages it may send before we acknowledge one (MQTT 5).
            probe: only ask for an answer: with a CONNECT as bare as can be, and under another name, because a session that is
                not asked for anew would end with it.

        Raises:
            PublishError: a file with a password or a certificate cannot be used.
        """
        self.batch: list[MQTTMessage] = []
        self.welcomed = False
        self.subscribed = False
        self.kept = False
        """The broker had our session."""
        self._broker = broker
        self._clock = clock
        self._topics = topics
        self._probe = probe
        self._client_id = (broker.client_id or "edgevision-consume") + ("-probe" if probe else "")
        self._refused = self._thrown_out = ""
        self._errors = LastError()
        self._client = make_client(
            broker, client_id=self._client_id, version=version, will=None, errors=self._errors, keep_session=not probe
        )
        self._client.connect_timeout = broker.connect_timeout_s
        self._client.on_message = lambda _client, _data, message: self.batch.append(message)
        self._client.on_connect = lambda _client, _data, flags, reason, _: self._was_answered(flags, reason)
        self._client.on_subscribe = lambda _client, _data, _mid, reasons, _: self._was_subscribed(reasons)
        self._client.on_disconnect = lambda _client, _data, flags, reason, _: self._was_ended(flags, reason)
        self._more: dict[str, Any] = {}
        if version == "5" and not probe:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = session_s
            properties.ReceiveMaximum = most
            self._more = {"clean_start": False, "properties": properties}
        self._ask()

    def _ask(self) -> None:
        """The broker has from now on its time to answer."""
        self._answer_by_ns = self._clock.monotonic_ns() + int(self._broker.connect_timeout_s * 1e9)

    def dial(self) -> None:
        """Connect; the broker's answer comes with `step`.

        Raises:
            PublishError: it cannot be reached.
        """
        broker = self._broker
        try:
            self._client.connect(broker.host, broker.broker_port, broker.keepalive_s, **self._more)
        except OSError as error:
            trusted = None if broker.tls is None else str(broker.tls.ca_file or "an authority this system trusts")
            raise PublishError(
                words.unreachable(
                    error,
                    host=broker.host,
                    where=broker.where,
                    timeout_s=broker.connect_timeout_s,
                    trusted=trusted,
                    own=self._own(),
                )
            ) from error
        except UnicodeError as error:
            raise PublishError(f"host {broker.host!r} is not a valid name: check --host") from error
        self._ask()

    def step(self, timeout_s: float = _STEP_S) -> None:
        """Wait for the broker, at most `timeout_s`, and take in what it says.

        Raises:
            LinkError: it did not answer, or refused us.
            PublishError: the connection has ended.
        """
        where = self._broker.where
        try:
            code = self._client.loop(timeout_s)
        except (*GARBAGE, MQTTException, ssl.SSLError) as error:
            raise PublishError(words.not_mqtt(where)) from error
        if self._refused:
            refused = self._refused == "Unsupported protocol version"
            raise LinkError(words.refused(where, self._refused, self._client_id), version_refused=refused)
        if self._thrown_out:
            raise PublishError(words.thrown_out(where, self._thrown_out, self._client_id))
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            if self.welcomed:
                raise PublishError(words.lost(where))
            tls, detail = self._broker.tls is not None, self._errors.text.upper()
            text = words.closed_unanswered(where, tls=tls, detail=detail, own=self._own())
            raise LinkError(text, unanswered=True)
        if not self.subscribed and self._clock.monotonic_ns() > self._answer_by_ns:
            limit_s = self._broker.connect_timeout_s
            if not self.welcomed:
                raise LinkError(words.silent(where, limit_s), unanswered=True)
            raise PublishError(f"the broker at {where} does not answer our subscription within {limit_s:g} s")

    def _own(self) -> str:
        tls = self._broker.tls
        return "" if tls is None else certificate_problem(tls.cert_file, self._clock.time_ns())

    def ack(self, message: MQTTMessage) -> None:
        """The broker need not keep it any longer."""
        self._client.ack(message.mid, message.qos)

    def hang_up(self) -> None:
        """Say goodbye."""
        self._client.disconnect()
        self._client.loop(_STEP_S)

    def close(self) -> None:
        """Drop the connection as it is."""
        connection = self._client.socket()
        if connection is not None:
            connection.close()

    def _was_answered(self, flags: ConnectFlags, reason: ReasonCode) -> None:
        if reason.is_failure:
            self._refused = str(reason)
            return
        self.welcomed = True
        self.kept = flags.session_present
        if not self._probe:
            self._client.subscribe([(topic, 1) for topic in self._topics])
            self._ask()

    def _was_subscribed(self, reasons: Sequence[ReasonCode]) -> None:
        refused = [topic for topic, reason in zip(self._topics, reasons, strict=False) if reason.is_failure]
        if refused:
            self._refused = f"it does not let us subscribe to {', '.join(map(repr, refused))}: check its access rules"
        else:
            self.subscribed = True

    def _was_ended(self, flags: DisconnectFlags, reason: ReasonCode) -> None:
        if flags.is_disconnect_packet_from_server:
            self._thrown_out = str(reason)
