"""What a sink is: it takes messages and gets them out of the house without ever holding up the pipeline. One file a sink.

A sink never sees a detection or an event, only `Message`. Whatever it cannot deliver is counted, and the counts are
published: a message is delivered, waiting, or counted as dropped, and never simply gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.types import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolStats:
    """Counts of what keeps durable messages on the disk, since the sink was made."""

    state: Literal["journal", "memory"]
    """`memory`: the disk fails or stalls, and a power cut would lose what waits."""
    reason: str
    """In words, for people."""
    offered: int
    recovered: int
    """What an earlier run left behind."""
    sent: int
    """Acknowledged by the broker."""
    replayed: int
    """Those of them that were late."""
    saved: int
    """Written to the disk."""
    unsaved: int
    """Handed over and not yet on the disk: what a power cut would lose now."""
    waiting: int
    journal_bytes: int
    oldest_s: float
    """Age of the oldest message in the journal."""
    set_aside: int
    """Damaged journals."""
    drops: Mapping[str, int]
    """Given up, by reason in words."""
    alarm: str
    """What a person has to look at; empty where there is nothing."""


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
    spool: SpoolStats | None = None
    """Of a sink that keeps durable messages on the disk; they are in the counts above as well."""


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
    state_dir: Path | None = None
    """Where durable messages are kept on the disk; None keeps them in memory."""


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
