"""Whether the machine's wall clock is set by somebody who knows the time: a timestamp is worth no more than that.

The kernel knows, whoever keeps the time (chrony, ntpd, systemd-timesyncd, PTP): adjtimex(2) gives its state without any
privilege. Where a sandbox forbids the call, timesyncd's own mark is looked at, and else nobody can tell.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

_TIMEX_BYTES = 256
"""More than sizeof(struct timex) on every Linux (208 on 64-bit); `modes` is its first field, and 0 only reads."""
_TIME_ERROR = 5
"""What adjtimex returns while the clock is not synchronised (sys/timex.h)."""
_TIMESYNCD_MARK = Path("run/systemd/timesync/synchronized")


def _kernel_state() -> int | None:
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None  # this C library has no adjtimex: nobody can tell
    state = int(adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    return None if state < 0 else state


def clock_synchronised(
    *, root: Path = Path("/"), kernel_state: Callable[[], int | None] = _kernel_state
) -> bool | None:
    """True, False, or None where it cannot be told. `root` and `kernel_state` are others in tests."""
    state = kernel_state()
    if state is not None:
        return state != _TIME_ERROR
    return True if (root / _TIMESYNCD_MARK).is_file() else None
