"""What the daemon tells of its sinks: their counts for telemetry, and their alarms and troubles for the device's status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from edgevision.clock import Clock
from edgevision.messages import SinkTelemetry, SpoolTelemetry
from edgevision.publish._certificate import certificate_problem
from edgevision.publish.base import Sink, SpoolStats
from edgevision.publish.mqtt import Options

EXPIRES_DAYS = 30
"""So many days before our certificate expires, that is an alarm."""
_LOOK_S = 3600.0


def sink_telemetry(sink: Sink, *, past: SinkTelemetry | None = None) -> SinkTelemetry:
    """One sink's counts since the daemon started; `past` are those of the sinks in whose place it came."""
    stats = sink.stats
    return SinkTelemetry(
        sent=stats.sent + (past.sent if past else 0),
        dropped=stats.dropped + (past.dropped if past else 0),
        queued=stats.queued,
        connected=stats.connected,
        state=stats.state,
        spool=None if stats.spool is None else _spool_telemetry(stats.spool, past.spool if past else None),
    )


def _spool_telemetry(stats: SpoolStats, past: SpoolTelemetry | None) -> SpoolTelemetry:
    return SpoolTelemetry(
        state=stats.state,
        reason=stats.reason,
        # What a sink of this very run left behind for the next one is of no earlier run.
        recovered=past.recovered if past else stats.recovered,
        replayed=stats.replayed + (past.replayed if past else 0),
        saved=stats.saved + (past.saved if past else 0),
        unsaved=stats.unsaved,
        waiting=stats.waiting,
        journal_bytes=stats.journal_bytes,
        oldest_s=stats.oldest_s,
        set_aside=stats.set_aside + (past.set_aside if past else 0),
        drops=dict(Counter(stats.drops) + Counter(past.drops if past else {})),
    )


def add_dropped(past: SinkTelemetry | None, count: int) -> SinkTelemetry:
    """The counts of earlier sinks with so many dropped besides."""
    if past is None:
        return SinkTelemetry(sent=0, dropped=count, queued=0, connected=False, state="")
    return past.model_copy(update={"dropped": past.dropped + count})


def sink_alarms(sinks: Mapping[str, Sink]) -> tuple[str, ...]:
    """What a person has to look at, in words; empty where all is well."""
    found = ((name, sink.stats.spool) for name, sink in sinks.items())
    return tuple(f"{name}: {spool.alarm}" for name, spool in found if spool is not None and spool.alarm)


def sink_troubles(sinks: Mapping[str, Sink]) -> list[str]:
    """Which sinks deliver nothing now, and why, in words."""
    stats = ((name, sink.stats) for name, sink in sinks.items())
    return [f"{name}: {found.state or 'not connected'}" for name, found in stats if not found.connected]


class CertificateAlarm:
    """Tells in time that the device's certificate for the broker ends: a connection may outlive it by months."""

    def __init__(self, clock: Clock) -> None:
        """Has looked at nothing yet."""
        self._clock = clock
        self._looked_ns: int | None = None
        self._found: tuple[str, ...] = ()

    def look(self, mqtt: Options | None) -> tuple[str, ...]:
        """The alarm now; the file is read once an hour."""
        now_ns = self._clock.monotonic_ns()
        if self._looked_ns is None or now_ns - self._looked_ns >= _LOOK_S * 1e9:
            self._looked_ns = now_ns
            cert_file = None if mqtt is None or mqtt.tls is None else mqtt.tls.cert_file
            found = certificate_problem(cert_file, self._clock.time_ns(), days=EXPIRES_DAYS)
            self._found = (f"mqtt: {found}",) if found else ()
        return self._found
