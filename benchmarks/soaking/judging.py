"""What is made of a soak's watching: how each fault went, what became of every message, and whether anything grows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from support_mqtt_tap import Key  # type: ignore[import-not-found]

from soaking.faults import Fault
from soaking.watching import Account, Sample, Told
from soaking.world import FPS, Line

AFTER_S = 10.0
"""How long after a fault's end the other cameras are still looked at."""
CALM_S = 5.0
"""The end of a fault's slot, in which all must be well again."""
NEVER = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A fault's time: it begins, ends, and the next one begins."""

    fault: Fault
    begun_s: float
    ended_s: float
    next_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a fault went; seconds."""

    fault: str
    hits: str
    at_s: float
    """Since the soak's start."""
    lasted_s: float
    noticed_s: float | None
    """From its beginning until the daemon said so; None where it had no reason to, or did not."""
    recovered_s: float | None
    """From its end (of a blow: from when it was noticed) until all was well: the camera live and a trusted result, the broker
    connected and nothing left to send, the alarm gone, the config answered."""
    others_fps: float | None
    """The worst of the other cameras: results for the pictures of this time, to those that there should be."""
    healed: bool
    """At the end of its slot all cameras were live with results, the broker connected, nothing waiting, no alarm."""
    said: str
    """What the daemon said of it."""


def judge(slot: Slot, account: Account, lines: Sequence[Line], *, start_s: float) -> Outcome:
    """How the fault of a slot went."""
    group, _, camera = slot.fault.hits.partition(":")
    told = [status for status in account.told if slot.begun_s <= status.time_s < slot.next_s]
    find: dict[str, Callable[[], tuple[float | None, float | None, str]]] = {
        "camera": lambda: _camera(slot, account, [status for status in told if status.camera == camera], camera),
        "broker": lambda: _broker(slot, account, lines),
        "disk": lambda: _disk(slot, account, [status for status in told if status.camera is None]),
        "config": lambda: _config(slot, [status for status in told if status.camera is None]),
        "consumer": lambda: (NEVER, NEVER, ""),
    }
    noticed_s, recovered_s, said = find[group]()
    over_s = slot.ended_s if slot.fault.lasts_s else max(slot.ended_s, noticed_s or 0.0)
    return Outcome(
        fault=slot.fault.name,
        hits=slot.fault.hits,
        at_s=round(slot.begun_s - start_s, 1),
        lasted_s=round(slot.ended_s - slot.begun_s, 2),
        noticed_s=None if noticed_s is None else round(noticed_s - slot.begun_s, 2),
        recovered_s=None if recovered_s is None else round(max(0.0, recovered_s - over_s), 2),
        others_fps=None if group == "config" else _others_fps(slot, account, camera),
        healed=_healed(slot, account),
        said=said,
    )


def _first(found: Iterable[float]) -> float | None:
    return min(found, default=None)


def _camera(slot: Slot, account: Account, told: list[Told], camera: str) -> tuple[float | None, float | None, str]:
    bad = [status for status in told if status.state != "live"]
    noticed_s = _first(status.time_s for status in bad)
    if noticed_s is None:
        return None, None, ""
    # A fault without a length of its own ends when it is noticed.
    from_s = max(slot.ended_s, noticed_s)
    live_s = _first(status.time_s for status in told if status.state == "live" and status.time_s > from_s)
    if live_s is None and told[-1].state == "live":
        live_s = told[-1].time_s  # it was back before the fault had ended: a camera that only changed
    if live_s is None:
        return noticed_s, None, bad[0].reason
    seen_s = _first(taken_s for taken_s in account.trusted[camera] if taken_s >= live_s - 1 / FPS)
    return noticed_s, seen_s, bad[0].reason


def _broker(slot: Slot, account: Account, lines: Sequence[Line]) -> tuple[float | None, float | None, str]:
    troubles = [
        line
        for line in lines
        if slot.begun_s <= line.time_s < slot.next_s
        and line.content.get("level") == "warning"
        and str(line.content.get("message", "")).startswith("mqtt:")
    ]
    counts = [count for count in account.counts if slot.begun_s <= count.time_s < slot.next_s]
    noticed = [line.time_s for line in troubles] + [count.time_s for count in counts if not count.connected]
    well_s = None
    for count in reversed([count for count in counts if count.time_s > slot.ended_s]):
        if not count.connected or count.waiting > FPS * 3:
            break
        well_s = count.time_s
    return _first(noticed), well_s, str(troubles[0].content["message"]) if troubles else ""


def _disk(slot: Slot, account: Account, told: list[Told]) -> tuple[float | None, float | None, str]:
    alarmed = [status for status in told if status.alarms]
    well_s = _first(status.time_s for status in told if not status.alarms and status.time_s > slot.ended_s)
    counts = [count for count in account.counts if slot.ended_s < count.time_s < slot.next_s]
    safe_s = _first(count.time_s for count in counts if count.spool == "journal" and count.unsaved < FPS * 3)
    if well_s is None or safe_s is None:
        return _first(status.time_s for status in alarmed), None, ""
    return _first(status.time_s for status in alarmed), max(well_s, safe_s), alarmed[0].alarms[0] if alarmed else ""


def _config(slot: Slot, told: list[Told]) -> tuple[float | None, float | None, str]:
    answers = [status for status in told if "new config" in status.reason or "the new one was refused" in status.reason]
    after = [status.time_s for status in answers if status.time_s >= slot.ended_s]
    recovered_s = max(after) if after else None
    return _first(status.time_s for status in answers), recovered_s, answers[0].reason if answers else ""


def _others_fps(slot: Slot, account: Account, hit: str) -> float | None:
    end_s = min(slot.next_s, slot.ended_s + AFTER_S)
    others = [
        _rate(taken, slot.begun_s, end_s) for name, taken in account.results.items() if name not in {hit, "extra"}
    ]
    return round(min(others) / FPS, 3)


def _rate(times: Iterable[float], from_s: float, to_s: float) -> float:
    return sum(from_s <= time_s < to_s for time_s in times) / (to_s - from_s)


def _healed(slot: Slot, account: Account) -> bool:
    from_s = slot.next_s - CALM_S
    states: dict[str | None, Told] = {
        status.camera: status for status in account.told if status.time_s < slot.next_s and status.camera != "extra"
    }
    counts = [count for count in account.counts if from_s <= count.time_s < slot.next_s]
    rates = [_rate(taken, from_s, slot.next_s) for name, taken in account.trusted.items() if name != "extra"]
    return (
        all(status.state == ("online" if name is None else "live") for name, status in states.items())
        and not states[None].alarms
        and bool(counts)
        and all(count.connected and count.waiting < FPS * 10 for count in counts)
        and min(rates) > 0.8 * FPS
    )


def keys_of(path: Path) -> Counter[Key]:
    """Every durable message of a JSON lines file, and how often it stands there."""
    found: Counter[Key] = Counter()
    with path.open("rb") as file:
        for text in file:
            line = json.loads(text)
            if "payload" in line and not line["topic"].endswith("/telemetry"):
                found[line["topic"], line["payload"]["boot_id"], line["payload"]["seq"]] += 1
    return found


def messages(truth: Path, arrived: Path, acknowledged: set[Key]) -> dict[str, Any]:
    """What became of every durable message."""
    made, came = keys_of(truth), keys_of(arrived)
    missing = {key for key in made if key not in came}
    last_wills = {key for key in came if key[2] == 0}
    return {
        "made": len(made),
        "arrived": len(came.keys() - last_wills),
        "arrived_twice": sum(count > 1 for key, count in came.items() if key not in last_wills),
        "never_made": len(came.keys() - made.keys() - last_wills),
        "missing": len(missing),
        "missing_but_acknowledged_by_the_broker": len(missing & acknowledged),
        "lost_by_edgevision": sorted(map(list, missing - acknowledged))[:20],
    }


def round_s(outcomes: Sequence[Outcome]) -> float:
    """Seconds until every kind of fault had been once: when the first came again; infinite where none did."""
    seen: set[str] = set()
    for outcome in outcomes:
        if outcome.fault in seen:
            return outcome.at_s
        seen.add(outcome.fault)
    return float("inf")


def slope(samples: Sequence[Sample], pick: Callable[[Sample], float], *, after_s: float) -> dict[str, float]:
    """Least squares over the minutes' medians after the warm-up: change an hour, with the 95 % interval; empty: too short."""
    start_s = samples[0].time_s
    minutes: dict[int, list[float]] = {}
    for taken in samples:
        if taken.time_s - start_s >= after_s:
            minutes.setdefault(int((taken.time_s - start_s) // 60), []).append(pick(taken))
    hours = np.array(sorted(minutes)) / 60
    values = np.array([float(np.median(minutes[minute])) for minute in sorted(minutes)])
    if len(hours) < 4:  # too short to tell
        return {}
    (gradient, offset), covariance = np.polyfit(hours, values, 1, cov=True)
    return {
        "per_hour": round(float(gradient), 3),
        "interval": round(1.96 * float(np.sqrt(covariance[0, 0])), 3),
        "first": round(float(offset + gradient * hours[0]), 2),
        "last": round(float(offset + gradient * hours[-1]), 2),
    }
