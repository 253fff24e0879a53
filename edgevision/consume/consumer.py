"""The consumer: one persistent session with a broker, from which each message is handed on once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from paho.mqtt.client import MQTTMessage

from edgevision.broker.words import LinkError
from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.consume.identity import Delivered, MalformedError, identify
from edgevision.consume.ledger import Ledger, Notice
from edgevision.consume.session import Session
from edgevision.errors import PublishError
from edgevision.publish._mqtt_version import VersionChoice
from edgevision.publish._report import Report
from edgevision.publish.mqtt import Options
from edgevision.retry import Backoff

_log = logging.getLogger(__name__)

HandOn: TypeAlias = Callable[[Sequence[Delivered], Sequence[Notice]], tuple[str, int] | None]

_BATCH = 500
"""Messages that share a transaction, and at most so many come again after a kill."""


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
        self._version = VersionChoice(options.broker.protocol)

    def run(self, stopping: threading.Event) -> None:
        """Consume until `stopping` is set; connects again for ever.

        Raises:
            StateError: the ledger or the output cannot be written: what was not marked comes again at the next start.
        """
        while not stopping.is_set():
            try:
                self._connection(stopping)
            except LinkError as error:
                self._report.trouble(str(error))
                if self._version.failed(refused=error.version_refused, unanswered=error.unanswered):
                    self._backoff.reset()
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
        # A broker of old may take an MQTT 5 CONNECT with properties for an unfinished packet, and wait for the rest in silence;
        # a bare one it refuses in plain words. So after silence one is sent to ask no more than that.
        probe = self._version.in_doubt
        session = Session(
            self._broker,
            version=self._version.version,
            clock=self._clock,
            topics=self._options.topics,
            session_s=self._options.session_s,
            most=_BATCH,
            probe=probe,
        )
        try:
            session.dial()
            while not stopping.is_set() and not (probe and session.welcomed):
                session.step()
                if session.subscribed and not self.connected.is_set():
                    self._welcomed(session)
                count = -1
                while count < len(session.batch) < _BATCH:
                    count = len(session.batch)
                    session.step(0.0)
                self._settle(session)
            if probe and session.welcomed:
                self._version.answered()
            session.hang_up()
        finally:
            session.close()

    def _welcomed(self, session: Session) -> None:
        self._backoff.reset()
        if not self._version.known and self._version.version == "3.1.1":
            _log.warning(
                "consume: the broker at %s does not speak MQTT 5: using 3.1.1, where it decides itself how long it keeps our "
                "session; --protocol 3.1.1 accepts that",
                self._broker.where,
            )
        self._version.spoken()
        # Only now: whoever reads "connected" and publishes must find us subscribed.
        self._report.note(
            f"connected to {self._broker.where} (MQTT {self._version.version}), "
            + ("where our session was kept" if session.kept else "with a new session")
        )
        self.connected.set()

    def _settle(self, session: Session) -> None:
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
            session.ack(message)

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
