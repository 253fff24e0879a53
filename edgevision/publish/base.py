"""What a sink is: it takes messages and gets them out of the house without ever holding up the pipeline. One file a sink.

A sink never sees a detection or an event, only `Message`. Whatever it cannot deliver is counted, and the counts are
published: a message is delivered, waiting, or counted as dropped, and never simply gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.types import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkStats:
    """A sink's counts since it was made."""

    sent: int
    """Delivered: acknowledged where the protocol acknowledges, written otherwise."""
    dropped: int
    """Given up: the queue was full, the message had expired, or the other side refused it."""
    queued: int
    """Waiting now."""
    connected: bool
    state: str = ""
    """In words, for people: `connected to 10.0.0.5:1883 (MQTT 5)`, `connection refused; next try in 4 s`."""


class Progress(Protocol):
    """A thread's place on the daemon's progress board."""

    def enter(self, doing: str) -> None:
        """Begin a round of what the thread does; one that lasts for minutes counts as stuck."""
        ...

    def idle(self) -> None:
        """Wait for something to do, for as long as it takes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkContext:
    """What every sink is told beside its own options."""

    device: str
    birth: Callable[[], Message] | None = None
    """Makes the message that says we are there; a sink with connections sends it first on each of them."""
    will: Callable[[], Message] | None = None
    """Makes the message that the broker sends when we vanish (last will)."""
    clock: Clock = SYSTEM_CLOCK
    progress: Progress | None = None
    """Told by a sink's own thread of every round, so that one that hangs is noticed."""


class Sink(Protocol):
    """Messages in; out of the house."""

    @property
    def stats(self) -> SinkStats:
        """The counts now; cheap, from any thread."""
        ...

    def publish(self, message: Message) -> None:
        """Take a message, from any thread. Never blocks and never raises for what happens outside; drops are counted."""
        ...

    def close(self, deadline_s: float = 5.0) -> None:
        """Deliver what is waiting within `deadline_s`, count the rest as dropped, and end; may be called twice."""
        ...
