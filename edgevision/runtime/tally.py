"""What is counted of one camera since the daemon's start: it outlives the camera's sources, readers and reloads.

Consumers subtract two readings, and find lost frames by gaps in `sequence`: within one `boot_id` no count ever goes back.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Tally:
    """One camera's counts; each is written by one thread at a time."""

    captured: int = 0
    processed: int = 0
    dropped: int = 0
    """Frames that no model had time for."""
    unreadable: int = 0
    """Frames or pictures that the source could not decode."""
    failed: int = 0
    """Frames that the model failed on."""
    restarts: int = 0
    """How often the source was opened again."""
    snapshots_dropped: int = 0
    next_sequence: int = 0
    """Number of the next frame."""
