"""The machine under the daemon: its clock, its disk, its memory, and whether heat holds it back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgevision.doctor.findings import Finding, fault, ok, warning
from edgevision.host.benchmark import sensors
from edgevision.runtime.wall_clock import clock_synchronised

_LEAST_BYTES, _FEW_BYTES = 64 << 20, 1 << 30
"""Below the first, journals and models cannot be written; below the second it will soon be so."""
_FEW_INODES = 1000
_LEAST_MEMORY_BYTES = 256 << 20
_HOT_C, _WARM_C = 95.0, 80.0
"""Most boards hold their clock back from 80 to 85 degrees on, and x86 from 95 to 105."""


def check(job: dict[str, Any]) -> Iterator[Finding]:
    """All of it."""
    root = Path(job["root"])
    yield _clock(root)
    yield from _disk(Path(job["state_dir"]), int(job["spool_bytes"]))
    yield from _memory(root)
    yield from _heat(sensors.read(root))


def _clock(root: Path) -> Finding:
    known = clock_synchronised(root=root)
    fix = "timedatectl set-ntp true, or set up chrony or PTP; every message says whether its clock can be trusted"
    if known is None:
        return warning("machine", "clock", "it cannot be told whether the wall clock is synchronised", fix)
    if not known:
        return warning("machine", "clock", "the wall clock is not synchronised: times in messages may be wrong", fix)
    return ok("machine", "clock", "synchronised")


def _disk(state_dir: Path, spool_bytes: int) -> Iterator[Finding]:
    place = state_dir
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        told = os.statvfs(place)
    except OSError as failure:
        yield fault("machine", "disk", f"{place}: {failure.strerror}", "mount it, or name another state_dir")
        return
    free, whole = told.f_bavail * told.f_frsize, told.f_blocks * told.f_frsize
    words = f"{free / 2**30:.1f} of {whole / 2**30:.1f} GiB free where {state_dir} is"
    fix = "free some space, or name a state_dir on another disk"
    if free < _LEAST_BYTES:
        yield fault("machine", "disk", words, fix)
    elif free < spool_bytes:
        words += f", and mqtt.spool.max_bytes wants {spool_bytes / 2**30:.1f} GiB"
        yield warning("machine", "disk", words, f"{fix}, or set a smaller mqtt.spool.max_bytes")
    elif free < _FEW_BYTES:
        yield warning("machine", "disk", words, fix)
    else:
        yield ok("machine", "disk", words)
    if told.f_files and told.f_favail < _FEW_INODES:
        yield warning(
            "machine", "disk", f"only {told.f_favail} files can still be made on it", "delete small files there"
        )


def _memory(root: Path) -> Iterator[Finding]:
    try:
        text = (root / "proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return
    found = re.search(r"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE)
    if found is None:
        return
    free = int(found[1]) << 10
    words = f"{free / 2**20:.0f} MiB available"
    if free < _LEAST_MEMORY_BYTES:
        yield warning(
            "machine", "memory", words, "the daemon needs about 130 MiB, and 90 for each live camera: end others"
        )
    else:
        yield ok("machine", "memory", words)


def _heat(told: sensors.Reading) -> Iterator[Finding]:
    fix = "give it air or a heat sink, or ask for fewer frames per second: a hot board is a slower board"
    if told.temperature_c:
        name, hottest = max(told.temperature_c.items(), key=lambda item: item[1])
        words = f"{hottest:.0f} °C ({name})"
        if hottest >= _HOT_C:
            yield fault("machine", "temperature", words, fix)
        elif hottest >= _WARM_C:
            yield warning("machine", "temperature", words, fix)
        else:
            yield ok("machine", "temperature", words)
    else:
        yield ok("machine", "temperature", "the kernel tells none")
    since = f"{told.throttle_events} times since boot" if told.throttle_events else ""
    if told.limits:
        power = any("voltage" in limit for limit in told.limits)
        fix = "use a stronger power supply and a shorter cable" if power else fix
        yield warning("machine", "throttling", "; ".join([*told.limits, *([since] if since else [])]), fix)
    elif since:
        yield warning("machine", "throttling", f"not now, but {since} heat held the processor back", fix)
    else:
        yield ok("machine", "throttling", "none now")
