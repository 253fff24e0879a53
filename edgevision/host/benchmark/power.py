"""Power, where the board measures it: INA3221 on Jetson and Kria boards, RAPL on x86. Elsewhere it is said why not.

Sources: Linux Documentation/hwmon/ina3221.rst (in*_input in mV, curr*_input in mA, in*_label) and
Documentation/power/powercap/powercap.rst (energy_uj counts up and wraps at max_energy_range_uj).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgevision.clock import SYSTEM_CLOCK, Clock

EVERY_S = 0.1
"""How often the meter is read; RAPL's counter wraps after minutes at the earliest."""


class Meter(Protocol):
    """A way to measure power."""

    name: str

    def watts(self, elapsed_s: float) -> dict[str, float]:
        """By rail: the power now, or its mean since the last call `elapsed_s` ago."""
        ...


class Ina3221:
    """Rails of an INA3221: voltage times current, now."""

    name = "INA3221"

    def __init__(self, folders: list[Path]) -> None:
        """`folders` are hwmon devices."""
        self._rails: dict[str, tuple[Path, Path]] = {}
        for folder in folders:
            for channel in (1, 2, 3):
                millivolt, milliampere = folder / f"in{channel}_input", folder / f"curr{channel}_input"
                label = folder / f"in{channel}_label"
                if millivolt.is_file() and milliampere.is_file():
                    name = label.read_text(encoding="utf-8").strip() if label.is_file() else f"channel {channel}"
                    self._rails[name if name not in self._rails else f"{name} ({folder.name})"] = (
                        millivolt,
                        milliampere,
                    )

    def watts(self, elapsed_s: float) -> dict[str, float]:  # noqa: ARG002  it measures power, not energy
        """The power now."""
        return {
            rail: float(millivolt.read_text()) * float(milliampere.read_text()) / 1e6
            for rail, (millivolt, milliampere) in self._rails.items()
        }


class Rapl:
    """Energy counters of an x86 processor's packages."""

    name = "RAPL"

    def __init__(self, folders: list[Path]) -> None:
        """`folders` are powercap zones."""
        self._zones = {f"{(folder / 'name').read_text().strip()} ({folder.name})": folder for folder in folders}
        self._last = {name: self._microjoule(zone) for name, zone in self._zones.items()}

    @staticmethod
    def _microjoule(zone: Path) -> int:
        return int((zone / "energy_uj").read_text())

    def watts(self, elapsed_s: float) -> dict[str, float]:
        """The mean power since the last call."""
        found = {}
        for name, zone in self._zones.items():
            now = self._microjoule(zone)
            spent = now - self._last[name]
            if spent < 0:
                spent += int((zone / "max_energy_range_uj").read_text())
            self._last[name] = now
            found[name] = spent / 1e6 / elapsed_s
        return found


def find(root: Path = Path("/")) -> Meter | str:
    """The machine's power meter, or why there is none; `root` is another folder in tests."""
    hwmon = [path for path in sorted((root / "sys/class/hwmon").glob("hwmon*")) if _name(path) == "ina3221"]
    powercap = root / "sys/class/powercap"
    zones = [path for path in sorted(powercap.glob("*rapl:*")) if path.name.count(":") == 1]
    try:
        if hwmon:
            return Ina3221(hwmon)
        if zones:
            return Rapl(zones)
    except PermissionError as failure:
        return f"not available: {failure.filename} may be read by root only"
    except (OSError, ValueError) as failure:
        return f"not available: {failure}"
    return "not available: no INA3221 (/sys/class/hwmon) and no RAPL (/sys/class/powercap) on this machine"


def _name(folder: Path) -> str:
    try:
        return (folder / "name").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


@dataclass(slots=True)
class _Sums:
    """What a measurement has gathered."""

    joule: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    failure: str = ""


@contextmanager
def measured(meter: Meter | str, *, every_s: float = EVERY_S, clock: Clock = SYSTEM_CLOCK) -> Iterator[dict[str, Any]]:
    """Measure while the block runs; the mapping it gives is filled at the end: `meter`, `mean_w` by rail, or `said`."""
    found: dict[str, Any] = {}
    if isinstance(meter, str):
        yield found
        found["said"] = meter
        return
    sums, stop = _Sums(), threading.Event()
    thread = threading.Thread(target=_sample, args=(meter, every_s, clock, stop, sums), name="power", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
    if sums.failure or not sums.seconds:
        found["said"] = f"not available: {meter.name} {sums.failure or 'gave no reading'}"
    else:
        found |= {"meter": meter.name, "mean_w": {k: round(v / sums.seconds, 3) for k, v in sums.joule.items()}}


def _sample(meter: Meter, every_s: float, clock: Clock, stop: threading.Event, sums: _Sums) -> None:
    before_ns = clock.monotonic_ns()
    ended = False
    while not ended:
        ended = clock.wait(stop, every_s)
        now_ns = clock.monotonic_ns()
        elapsed_s = max((now_ns - before_ns) / 1e9, 1e-6)
        before_ns = now_ns
        try:
            for rail, watts in meter.watts(elapsed_s).items():
                sums.joule[rail] = sums.joule.get(rail, 0.0) + watts * elapsed_s
        except (OSError, ValueError) as failure:
            sums.failure = f"cannot be read: {failure}"
            return
        sums.seconds += elapsed_s
