"""A sink that keeps the newest messages in memory: for tests and the demo, where somebody looks instead of a broker."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from pydantic import Field

from edgevision import registry
from edgevision.publish.base import SinkContext, SinkStats
from edgevision.types import Message


class Options(registry.Options):
    """How much is kept."""

    keep: int = Field(default=1000, ge=1, le=1_000_000)
    """Messages; the oldest goes first."""


class MemorySink:
    """`Sink` whose messages can be looked at and waited for."""

    def __init__(self, *, keep: int = 1000) -> None:
        """Begin empty."""
        self._arrived = threading.Condition()
        self._messages: deque[Message] = deque(maxlen=keep)
        self._sent = 0
        self._dropped = 0
        self._closed = False

    @property
    def stats(self) -> SinkStats:
        """The counts now; what made room for newer messages counts as delivered."""
        with self._arrived:
            return SinkStats(
                sent=self._sent,
                dropped=self._dropped,
                queued=0,
                connected=not self._closed,
                state="closed" if self._closed else f"keeps {len(self._messages)} messages",
            )

    @property
    def messages(self) -> tuple[Message, ...]:
        """What is kept, oldest first."""
        with self._arrived:
            return tuple(self._messages)

    def wait_for(self, predicate: Callable[[Message], bool], timeout_s: float = 5.0) -> Message:
        """The first kept message for which `predicate` is true; waits for it.

        Raises:
            TimeoutError: none came in time; says how many did.
        """
        with self._arrived:
            found = self._arrived.wait_for(
                lambda: next((message for message in self._messages if predicate(message)), None), timeout_s
            )
            if found is None:
                raise TimeoutError(
                    f"no such message within {timeout_s:g} s; {len(self._messages)} others are here, on "
                    f"{sorted({message.topic for message in self._messages})}"
                )
            return found

    def publish(self, message: Message) -> None:
        """Take a message."""
        with self._arrived:
            if self._closed:
                self._dropped += 1
                return
            self._messages.append(message)
            self._sent += 1
            self._arrived.notify_all()

    def close(self, deadline_s: float = 5.0) -> None:  # noqa: ARG002 - the stage's protocol; nothing waits here
        """Take no more; what is kept stays to be looked at."""
        with self._arrived:
            self._closed = True


def create(options: Options, context: SinkContext) -> MemorySink:  # noqa: ARG001 - the stage's signature
    """Make the sink."""
    return MemorySink(keep=options.keep)
