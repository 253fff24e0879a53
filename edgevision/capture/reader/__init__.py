"""A source read in a process of its own, because a driver that hangs or crashes can only be killed, and only as a process.

`source` is what the daemon sees: a `FrameSource` like any other. `process` starts, watches and ends the reader, `child` is
what runs in it, `slots` is the memory that carries the pixels, and `link` the few words the two exchange.
"""

from __future__ import annotations

from edgevision.capture.reader.process import Job, Limits
from edgevision.capture.reader.source import ProcessSource, Reader

__all__ = ["Job", "Limits", "ProcessSource", "Reader"]
