"""What the sources of live pictures share that wait for the next one themselves: they are told to stop by an event."""

from __future__ import annotations

import threading

from edgevision.capture.base import SourceContext


class LiveSource:
    """The part of a `FrameSource` beside its `frames()`."""

    def __init__(self, context: SourceContext) -> None:
        """Nothing is opened yet."""
        self._context = context
        self._closing = threading.Event()
        self.unreadable = 0
        """Pictures that came and were none, or not whole, since the source was made."""

    @property
    def live(self) -> bool:
        """True: pictures come whether we are ready or not."""
        return True

    def close(self) -> None:
        """Stop `frames()`."""
        self._closing.set()
