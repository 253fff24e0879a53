"""What a source of frames is. One file a variant beside this one; the camera's supervisor (runtime) knows only this page.

A source opens in `frames()`, not when it is made, so that making one never blocks. It yields frames until it ends (a file
that is not looped), until `close()` is called from another thread, or until it fails with a `CaptureError` that says what
was found and how to mend it; the supervisor then makes a new one after a while. It never repairs itself in silence.

Silence of a source is a fault (`stalled`) unless the source says that it is none: one whose pictures come when something
happens calls `SourceContext.idle` as long as it looks and nothing is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.types import Frame

IDLE_EVERY_S = 1.0
"""`SourceContext.idle` is called at least so often, however slow the source's own round is."""


def tell_nobody(fault: str, /) -> None:
    """The `idle` of whoever does not ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceContext:
    """What every source is told beside its own options."""

    camera: str
    fps: float | None = None
    """Frames per second that are wanted; None is all there are. Unwanted frames are skipped before they are decoded where
    the source can, are not counted as drops, and take no sequence number."""
    clock: Clock = SYSTEM_CLOCK
    idle: Callable[[str], None] = tell_nobody
    """Called from within `frames()`, once a second or more often, by a source that has looked and has no picture to give.
    With an empty text all is well: none is due, and the camera is `live`. With a reason the source works, but what should
    come does not: the camera becomes `stalled` for that reason after its usual time. A source that hangs calls nothing."""


class FrameSource(Protocol):
    """A camera, stream, file or folder."""

    @property
    def live(self) -> bool:
        """True where pictures come whether we are ready or not (newest wins); False where the source waits for us."""
        ...

    @property
    def unreadable(self) -> int:
        """Frames or pictures that came but could not be decoded, since the source was made."""
        ...

    def frames(self) -> Iterator[Frame]:
        """Open, then yield frames as they come, `sequence` counting up from 0.

        Raises:
            CaptureError: it cannot be opened, or it broke off.
        """
        ...

    def close(self) -> None:
        """Stop `frames()` soon, from any thread, and let go of the device; may be called twice."""
        ...
