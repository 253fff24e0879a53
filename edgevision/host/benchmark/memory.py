"""What a process takes, from /proc (Linux, proc(5)): resident memory, its share of shared pages, processor time."""

from __future__ import annotations

import re
from pathlib import Path

PROC = Path("/proc/self")


def forget_peak(proc: Path = PROC) -> bool:
    """Let the peak begin anew; False where the kernel does not allow it, and the peak then is that of the whole process."""
    try:
        (proc / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def resident(proc: Path = PROC) -> dict[str, int | None]:
    """`peak_rss_bytes`, `rss_bytes`, and `pss_bytes` (pages shared with other processes counted in part); None: not told."""
    return {
        "peak_rss_bytes": _kilobytes(proc / "status", "VmHWM"),
        "rss_bytes": _kilobytes(proc / "status", "VmRSS"),
        "pss_bytes": _kilobytes(proc / "smaps_rollup", "Pss"),
    }


def _kilobytes(file: Path, name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s*(\d+) kB", file.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
