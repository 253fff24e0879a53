"""Text for a results file: no path of the machine that made it, and a name for that machine."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

_PATH = re.compile(r"(?:~|(?<![\w.:/])/)?(?:[\w.@+-]+/){2,}([\w.@+-]+)")


def plain(text: str, longest: int = 300) -> str:
    """One line, with the names of files in place of their paths."""
    line = _PATH.sub(r"\1", " ".join(text.split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def host_name() -> str:
    """CPU model and number of cores, as a folder's name."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    models = [line.partition(":")[2] for line in cpu.splitlines() if line.startswith(("model name", "Model"))]
    name = re.sub(r"\((R|TM|C)\)|@.*|\bCPU\b|\bProcessor\b|\d+-Core", " ", models[0] if models else platform.machine())
    return re.sub(r"[^a-z0-9]+", "-", f"{name} {os.cpu_count()} cores".lower()).strip("-")
