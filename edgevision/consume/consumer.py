"""The consumer: one persistent session with a broker, from which each message is handed on once."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from paho.mqtt import MQTTException
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edgevision.broker import words
from edgevision.broker.client import GARBAGE, LastError, Version, make_client
from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.consume.identity import Delivered, MalformedError, identify
from edgevision.consume.ledger import Ledger, Notice
from edgevision.errors import PublishError
from edgevision.publish._report import Report
from edgevision.publish.mqtt import Options
from edgevision.retry import Backoff

_log = logging.getLogger(__name__)

HandOn: TypeAlias = Callable[[Sequence[Delivered], Sequence[Notice]], tuple[str, int] | None]

_BATCH = 500
"""Messages that share a transaction, and at most so many come again after a kill."""
_STEP_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerOptions:
    """Where from, and how."""

    broker: Options
    """Host, port, user, password and TLS, as of the daemon; `client_id` names the session that the broker keeps."""
    topics: tuple[str, ...] = ("edgevision/#",)
    state: Path
    """The ledger's file: one for each session."""
    session_s: int = 7 * 86_400
    """How long the broker keeps messages for us while we are away (MQTT 5; with 3.1.1 it decides itself)."""
    max_payload_bytes: int = 32 * 2**20


@dataclass(slots=True, kw_only=True)
class Counts:
    """What came since the start."""

    handed_on: int = 0
    historical: int = 0
    duplicates: int = 0
    malformed: int = 0
    gaps: int = 0
    gaps_closed: int = 0


@dataclass(slots=True, eq=False)
class _Session:
    """One connection, as paho tells of it."""

    client: Client
    batch: list[MQTTMessage] = field(default_factory=list)
    welcome: ReasonCode | None = None
    refused: str = ""
    thrown_out: str = ""
    kept: bool = False
    """The broker had our session."""


class Consumer:
    """Takes messages from a broker and hands each on once.

    What is guaranteed. The broker keeps what is published with QoS 1 while we are away, as long as the session lives; we
    acknowledge a message only after `hand_on` has returned with it and it has been marked in the ledger, in that order. So none
    is lost, and one comes twice only if we are killed between the two: at most one batch (500 messages). Where `hand_on`
    returns the file and length that it wrote (`JsonLinesFile`), that is kept with the marks, and the rest is cut off at the
    next start: then each message stands in the file exactly once, also after a kill or a power cut.

    What ends it: a session that has expired, a broker that drops or forgets (then the gap is named), a ledger that is deleted.
    Messages with QoS 0 are not kept by a broker for anybody. Order is the order of arrival: a late message comes when it comes.
    """

    def __init__(
        self, options: ConsumerOptions, *, hand_on: HandOn, clock: Clock = SYSTEM_CLOCK, backoff: Backoff | None = None
    ) -> None:
        """Open the ledger; nothing is connected before `run`.

        Args:
            options: where from, and how.
            hand_on: takes new messages, and gaps that opened or closed; when it returns, they count as handed on.
            clock: the time.
            backoff: delays between tries to connect.

        Raises:
            StateError: the ledger cannot be used.
        """
        self.counts = Counts()
        self.ledger = Ledger(options.state)
        self.connected = threading.Event()
        """Set while subscribed."""
        self._options = options
        self._broker = options.broker
        self._hand_on = hand_on
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._report = Report(log=_log, name="consume", clock=clock)
        self._version: Version = "3.1.1" if options.broker.protocol == "3.1.1" else "5"

    def run(self, stopping: threading.Event) -> None:
        """Consume until `stopping` is set; connects again for ever.

        Raises:
            StateError: the ledger or the output cannot be written: what was not marked comes again at the next start.
        """
        while not stopping.is_set():
            try:
                self._connection(stopping)
            except PublishError as error:
                self._report.trouble(str(error))
            self.connected.clear()
            if not stopping.is_set():
                self._clock.wait(stopping, self._backoff.next_delay_s())

    def close(self) -> None:
        """Close the ledger."""
        self.ledger.close()

    def _connection(self, stopping: threading.Event) -> None:
        """One connection, until it ends (PublishError) or we are told to stop."""
        session = self._dial()
        try:
            while not stopping.is_set():
                self._step(session, _STEP_S)
                count = -1
                while count < len(session.batch) < _BATCH:
                    count = len(session.batch)
                    self._step(session, 0.0)
                self._settle(session)
            session.client.disconnect()
            session.client.loop(_STEP_S)
        finally:
            connection = session.client.socket()
            if connection is not None:
                connection.close()

    def _dial(self) -> _Session:
        broker = self._broker
        errors = LastError()
        client = make_client(
            broker, client_id=broker.client_id or "edgevision-consume", version=self._version, will=None, errors=errors,
            keep_session=True,
        )  # fmt: skip
        session = _Session(client)
        client.connect_timeout = broker.connect_timeout_s
        client.on_message = lambda _client, _data, message: session.batch.append(message)
        client.on_connect = lambda _client, _data, flags, reason, _: self._welcomed(session, flags, reason)
        client.on_subscribe = lambda _client, _data, _mid, reasons, _: self._subscribed(session, reasons)
        client.on_disconnect = lambda _client, _data, flags, reason, _: _note_end(session, flags, reason)
        more: dict[str, Any] = {}
        if self._version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = self._options.session_s
            properties.ReceiveMaximum = _BATCH
            more = {"clean_start": False, "properties": properties}
        try:
            client.connect(broker.host, broker.broker_port, broker.keepalive_s, **more)
        except OSError as error:
            trusted = None if broker.tls is None else str(broker.tls.ca_file or "an authority this system trusts")
            raise PublishError(
                words.unreachable(
                    error, host=broker.host, where=broker.where, timeout_s=broker.connect_timeout_s, trusted=trusted
                )
            ) from error
        except UnicodeError as error:
            raise PublishError(f"host {broker.host!r} is not a valid name: check --host") from error
        return session

    def _step(self, session: _Session, timeout_s: float) -> None:
        try:
            code = session.client.loop(timeout_s)
        except (*GARBAGE, MQTTException, ssl.SSLError) as error:
            raise PublishError(words.not_mqtt(self._broker.where)) from error
        if session.refused:
            if session.refused == "Unsupported protocol version" and self._broker.protocol == "auto":
                self._version = "3.1.1"
                self._backoff.reset()
            raise PublishError(words.refused(self._broker.where, session.refused, self._broker.client_id or ""))
        if session.thrown_out:
            raise PublishError(words.thrown_out(self._broker.where, session.thrown_out, self._broker.client_id or ""))
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise PublishError(words.lost(self._broker.where))

    def _welcomed(self, session: _Session, flags: ConnectFlags, reason: ReasonCode) -> None:
        session.welcome = reason
        if reason.is_failure:
            session.refused = str(reason)
            return
        session.kept = flags.session_present
        session.client.subscribe([(topic, 1) for topic in self._options.topics])

    def _subscribed(self, session: _Session, reasons: Sequence[ReasonCode]) -> None:
        refused = [topic for topic, reason in zip(self._options.topics, reasons, strict=False) if reason.is_failure]
        if refused:
            session.refused = f"it does not let us subscribe to {', '.join(map(repr, refused))}: check its access rules"
            return
        self._backoff.reset()
        # Only now: whoever reads "connected" and publishes must find us subscribed.
        self._report.note(
            f"connected to {self._broker.where} (MQTT {self._version}), "
            + ("where our session was kept" if session.kept else "with a new session")
        )
        self.connected.set()

    def _settle(self, session: _Session) -> None:
        """Hand on what has come, mark it, acknowledge it: in this order."""
        batch, session.batch = session.batch, []
        if not batch:
            return
        new: list[Delivered] = []
        notices: list[Notice] = []
        for message in batch:
            found = self._look(message)
            if found is None:
                continue
            is_new, told = self.ledger.note(found)
            if is_new:
                new.append(found)
                notices += told
            else:
                self.counts.duplicates += 1
        output = self._hand_on(new, notices) if new or notices else None
        if new:
            self.ledger.commit(output)
        self.counts.handed_on += len(new)
        self.counts.historical += sum(found.historical for found in new)
        self.counts.gaps += sum(notice.notice == "gap" for notice in notices)
        self.counts.gaps_closed += sum(notice.notice == "gap-closed" for notice in notices)
        for message in batch:
            session.client.ack(message.mid, message.qos)

    def _look(self, message: MQTTMessage) -> Delivered | None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self._bad("?", "the topic is not UTF-8")
            return None
        try:
            return identify(
                topic,
                bytes(message.payload),
                qos=message.qos,
                retain=message.retain,
                max_bytes=self._options.max_payload_bytes,
            )
        except MalformedError as error:
            self._bad(topic, str(error))
            return None

    def _bad(self, topic: str, problem: str) -> None:
        self.counts.malformed += 1
        self._report.trouble(f"a message on {topic[:200]!r} is left out: {problem}")


def _note_end(session: _Session, flags: DisconnectFlags, reason: ReasonCode) -> None:
    if flags.is_disconnect_packet_from_server:
        session.thrown_out = str(reason)
