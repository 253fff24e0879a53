"""The progress board: what each thread of the daemon is at, since when, and for how long that may take.

It decides what "stuck" means, and so when systemd's watchdog is fed:

- **Inference** (`model:NAME`) is stuck when one frame has been in its hands for longer than the deadline. A model without
  frames is idle, not stuck: a camera that is away is no reason to die.
- **Publishing** (`sink:NAME`) is stuck when the sink's own thread has not gone round for its deadline; a broker that is
  away is no reason either, because the thread goes round while it tries. A write that hangs in a model's thread shows
  as that model's, with `publishing` as what it was at.
- **The supervision** (`main`) is stuck when its loop, which looks after the cameras, has not gone round for its deadline, or
  a start, a reload or an end takes longer than its own.
- **Capture** (`camera:NAME`) is never stuck by silence, for that is a state of the camera, published as such. A reader that
  has ended without having said so is a fault of ours, and counts.

A stamp is one attribute assignment of a monotonic time: nothing is locked on the way of a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgevision.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """A part that no longer makes progress."""

    part: str
    """`model:parts`, `sink:mqtt`, `main` ..."""
    doing: str
    since_s: float
    limit_s: float

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.part} is stuck in {self.doing} for {self.since_s:.1f} s (limit {self.limit_s:g} s)"


class Part:
    """One thread's place on the board. Written by that thread, read by the watchman."""

    def __init__(self, name: str, *, clock: Clock, limit_s: float) -> None:
        """Idle at first."""
        self.name = name
        self.limit_s = limit_s
        """How long one thing may take, in seconds."""
        self.ended: Callable[[], bool] | None = None
        """Asked by the watchman: True where the thread has ended and must not have."""
        self._clock = clock
        # One tuple, so that a reader never sees one thing's name with another's time.
        self._at: tuple[str, int, float] | None = None

    def enter(self, doing: str, *, limit_s: float | None = None) -> None:
        """Begin something, or go on to the next thing; also a heartbeat, where the same thing begins again."""
        self._at = (doing, self._clock.monotonic_ns(), self.limit_s if limit_s is None else limit_s)

    def idle(self) -> None:
        """Nothing is in hand: waiting does not count."""
        self._at = None

    def check(self) -> Stuck | None:
        """What is wrong with it now."""
        if self.ended is not None and self.ended():
            return Stuck(part=self.name, doing="nothing: its thread has ended", since_s=0.0, limit_s=0.0)
        at = self._at
        if at is None:
            return None
        doing, since_ns, limit_s = at
        since_s = (self._clock.monotonic_ns() - since_ns) / 1e9
        return Stuck(part=self.name, doing=doing, since_s=since_s, limit_s=limit_s) if since_s > limit_s else None


class Board:
    """All parts by name; parts come and go with a reload."""

    def __init__(self, clock: Clock) -> None:
        """Empty."""
        self._clock = clock
        self._parts: dict[str, Part] = {}

    def part(self, name: str, *, limit_s: float) -> Part:
        """A new part under `name`, in place of an older one."""
        self._parts[name] = part = Part(name, clock=self._clock, limit_s=limit_s)
        return part

    def remove(self, name: str) -> None:
        """Forget a part that has ended in order; one that is not there is no fault."""
        self._parts.pop(name, None)

    def stuck(self) -> Stuck | None:
        """The first part that makes no progress, or None where all is well."""
        return next((found for part in list(self._parts.values()) if (found := part.check()) is not None), None)
