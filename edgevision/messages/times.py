"""Times as the contract writes them."""

from __future__ import annotations

import time
from functools import lru_cache


def timestamp(time_ns: int) -> str:
    """RFC 3339, UTC, microseconds: `2026-01-31T12:00:00.000000Z`. Whole-number arithmetic: a float would lose digits."""
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    return f"{_second(seconds)}.{rest_ns // 1000:06d}Z"


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    """Many messages share a second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
