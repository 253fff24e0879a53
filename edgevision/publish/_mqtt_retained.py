"""The newest retained message of each topic, so that a broker that lost its memory can be told again.

A broker without persistence forgets all retained messages when it restarts, and a dashboard that connects afterwards
would see no camera at all until the next change of state. Bounded; what has to be forgotten is counted.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from edgevision.types import Message

_MAX_TOPICS = 1000
_MAX_BYTES = 16 * 2**20


class RetainedMemory:
    """Retained messages by topic, the least recently changed first; from any thread."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._lock = threading.Lock()
        self._messages: OrderedDict[str, Message] = OrderedDict()
        self._bytes = 0
        self._forgotten = 0

    @property
    def forgotten(self) -> int:
        """Topics that had to make room."""
        return self._forgotten

    def keep(self, message: Message) -> None:
        """Remember it instead of the one before; an empty payload clears a topic, in MQTT and here."""
        with self._lock:
            before = self._messages.pop(message.topic, None)
            if before is not None:
                self._bytes -= len(before.payload)
            if not message.payload:
                return
            self._messages[message.topic] = message
            self._bytes += len(message.payload)
            while len(self._messages) > _MAX_TOPICS or self._bytes > _MAX_BYTES:
                _, oldest = self._messages.popitem(last=False)
                self._bytes -= len(oldest.payload)
                self._forgotten += 1

    def newest(self, topic: str) -> Message | None:
        """What is remembered of a topic."""
        with self._lock:
            return self._messages.get(topic)

    def all(self) -> list[Message]:
        """All that is remembered now."""
        with self._lock:
            return list(self._messages.values())
