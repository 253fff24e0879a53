"""What machine a figure was taken on, so that two files can tell whether they may be compared."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

from edgevision._version import __version__

_PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "ai-edge-litert",
    "tflite-runtime",
    "openvino",
    "pydantic",
)
"""Whatever decides how long a frame takes; those not installed are left out."""
_FEATURES = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_tile",  # x86
    "neon", "asimd", "asimddp", "i8mm", "sve", "bf16",  # ARM
)  # fmt: skip


def environment(root: Path = Path("/")) -> dict[str, Any]:
    """The machine and the versions; `root` is another folder in tests."""
    cpu = _read(root / "proc/cpuinfo")
    return {
        "edgevision": __version__,
        "cpu": _cpu_model(cpu, root),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "features": _features(cpu),
        "governor": _governor(root),
        "memory_bytes": _memory_bytes(root),
        "host": platform.node(),
        "kernel": platform.release(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": _packages(),
    }


def load_average(root: Path = Path("/")) -> list[float] | None:
    """Processes that wanted to run, over the last 1, 5 and 15 minutes."""
    fields = _read(root / "proc/loadavg").split()
    return [float(field) for field in fields[:3]] if len(fields) >= 3 else None


def busy_s(root: Path = Path("/")) -> float | None:
    """Seconds that all cores together have worked since boot, for whomever, time stolen by a hypervisor included (proc(5))."""
    fields = _read(root / "proc/stat").partition("\n")[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _read(path: Path) -> str:
    """A file of /proc or /sys, empty where this machine has none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _cpu_model(cpuinfo: str, root: Path) -> str:
    """x86 tells the model name; an ARM board tells the board's name in its device tree."""
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    board = _read(root / "proc/device-tree/model") or _read(root / "sys/firmware/devicetree/base/model")
    if board:
        part = re.search(r"^CPU part\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
        return f"{board} ({named[1] if named else 'CPU part ' + part[1] if part else platform.machine()})"
    return named[1].strip() if named else platform.processor() or platform.machine()


def _features(cpuinfo: str) -> list[str]:
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    there = set(found[1].split()) if found else set()
    return [name for name in _FEATURES if name in there]


def _governor(root: Path) -> str | None:
    """How the kernel chooses clock rates; None where it does not (a virtual machine)."""
    files = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))
    return ", ".join(sorted({_read(file) for file in files})) or None


def _memory_bytes(root: Path) -> int | None:
    found = re.search(r"^MemTotal:\s*(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
