"""What was handed to a connection and is not settled yet: bounded by us, and by what the broker says that it can take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from paho.mqtt.properties import Properties

from edgevision.publish._queue import Entry
from edgevision.publish._spool_memory import Spooled
from edgevision.types import Message

_WINDOW_BYTES = 4 * 2**20
"""Bytes handed over and not settled, unless it is one message: paho keeps a second copy of them."""
_MAX_PACKET_BYTES = 268_435_460
"""The longest packet there is (MQTT 5.0, 1.5.5); a broker may set a lower limit."""

Ticket: TypeAlias = Entry | Spooled | None
"""Where a message stands until it is settled; None for what never stood anywhere."""


class Window:
    """One connection's, used by its thread."""

    def __init__(self, max_inflight: int) -> None:
        """Begin empty, with the limits of a broker that names none."""
        self.max_packet_bytes = _MAX_PACKET_BYTES
        self.max_qos = 2
        self.may_retain = True
        self._max_inflight = max_inflight
        self._outstanding: dict[int, tuple[Message, Ticket, int]] = {}
        """Message, its place, bytes sent; by packet identifier, in the order of sending."""
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._outstanding)

    def __contains__(self, packet_id: int) -> bool:
        return packet_id in self._outstanding

    def __iter__(self) -> Iterator[Ticket]:
        """Where each outstanding message stands, in the order of sending."""
        return (ticket for _, ticket, _ in self._outstanding.values())

    def learn(self, properties: Properties | None) -> None:
        """The limits that the broker's welcome names; paho sets as attributes what the broker sent, and only that."""
        self._max_inflight = min(self._max_inflight, getattr(properties, "ReceiveMaximum", self._max_inflight))
        self.max_packet_bytes = getattr(properties, "MaximumPacketSize", self.max_packet_bytes)
        self.max_qos = getattr(properties, "MaximumQoS", self.max_qos)
        self.may_retain = bool(getattr(properties, "RetainAvailable", self.may_retain))

    @property
    def has_room(self) -> bool:
        """Whether another message may be handed over now."""
        return len(self._outstanding) < self._max_inflight and self._bytes < _WINDOW_BYTES

    def add(self, packet_id: int, message: Message, ticket: Ticket, *, size_bytes: int) -> None:
        """A message was handed over."""
        self._outstanding[packet_id] = (message, ticket, size_bytes)
        self._bytes += size_bytes

    def pop(self, packet_id: int) -> tuple[Message, Ticket] | None:
        """A message is settled; None for what was never handed over."""
        found = self._outstanding.pop(packet_id, None)
        if found is None:
            return None
        message, ticket, size_bytes = found
        self._bytes -= size_bytes
        return message, ticket
