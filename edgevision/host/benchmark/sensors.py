"""Temperature, clock rate and throttling, as the kernel tells them: a hot board is a slower board.

Everything is read from /sys by its documented names (Linux: Documentation/driver-api/thermal/sysfs-api.rst,
Documentation/admin-guide/pm/cpufreq.rst, Documentation/ABI/testing/sysfs-devices-system-cpu; Raspberry Pi:
`get_throttled` of the firmware). What a machine does not tell is None, and the report says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_PI_NOW = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
"""Bits of the Raspberry Pi firmware's `get_throttled`; the same, 16 higher, mean "has happened since boot"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look at the sensors."""

    temperature_c: dict[str, float]
    """By thermal zone."""
    clock_mhz: list[float]
    """Of every core, now; empty where the kernel does not tell."""
    clock_max_mhz: float | None
    throttle_events: int | None
    """Times that cores were slowed down since boot (x86); None where the kernel does not count."""
    limits: list[str]
    """What holds the clock down now."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def read(root: Path = Path("/")) -> Reading:
    """The sensors now; `root` is another folder in tests."""
    sys = root / "sys"
    cores = sorted((sys / "devices/system/cpu").glob("cpu[0-9]*"), key=lambda core: int(core.name[3:]))
    clocks = [_number(core / "cpufreq/scaling_cur_freq") for core in cores]
    tops = _known(_number(core / "cpufreq/cpuinfo_max_freq") for core in cores)
    counts = _known(
        _number(core / f"thermal_throttle/{kind}_throttle_count") for core in cores for kind in ("core", "package")
    )
    return Reading(
        temperature_c=_temperatures(sys),
        clock_mhz=[clock / 1e3 for clock in _known(clocks)],
        clock_max_mhz=max(tops) / 1e3 if tops else None,
        throttle_events=sum(int(count) for count in counts) if counts else None,
        limits=[*_cooling(sys), *_raspberry_pi(sys)],
    )


def verdict(before: Reading, after: Reading) -> str:
    """Whether the machine was slowed down meanwhile: `yes: ...`, `no`, or `not available: ...`."""
    reasons = sorted({*before.limits, *after.limits})
    if before.throttle_events is not None and after.throttle_events is not None:
        events = after.throttle_events - before.throttle_events
        if events > 0:
            reasons.append(f"{events} throttle events")
    if reasons:
        return "yes: " + ", ".join(reasons)
    told = after.throttle_events is not None or after.clock_mhz or after.temperature_c
    return "no" if told else "not available: the kernel tells no clock rate, temperature or throttle count"


def _temperatures(sys: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for zone in sorted((sys / "class/thermal").glob("thermal_zone*")):
        milli_c = _number(zone / "temp")
        if milli_c is None or not -50_000 < milli_c < 200_000:  # a zone that is off gives an error or nonsense
            continue
        name = _text(zone / "type") or zone.name
        found[name if name not in found else f"{name} ({zone.name})"] = milli_c / 1e3
    return found


def _cooling(sys: Path) -> list[str]:
    """Cooling devices that hold a processor back now; a fan is none of them."""
    found = []
    for device in sorted((sys / "class/thermal").glob("cooling_device*")):
        kind, state = _text(device / "type"), _number(device / "cur_state")
        if state and (kind.lower() == "processor" or "cpufreq" in kind or "devfreq" in kind):
            found.append(f"{kind} held back by cooling (step {int(state)})")
    return found


def _raspberry_pi(sys: Path) -> list[str]:
    text = _text(sys / "devices/platform/soc/soc:firmware/get_throttled")
    try:
        bits = int(text, 16)
    except ValueError:
        return []
    return [f"Raspberry Pi: {what}" for bit, what in _PI_NOW.items() if bits >> bit & 1]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # not there, or the sensor does not answer
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
