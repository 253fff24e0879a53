"""What the daemon tells of its sinks: their counts for telemetry, and their alarms for the device's status."""

from __future__ import annotations

from collections.abc import Mapping

from edgevision.messages import SinkTelemetry, SpoolTelemetry
from edgevision.publish.base import Sink, SpoolStats


def sink_telemetry(sink: Sink) -> SinkTelemetry:
    """One sink's counts now."""
    stats = sink.stats
    return SinkTelemetry(
        sent=stats.sent,
        dropped=stats.dropped,
        queued=stats.queued,
        connected=stats.connected,
        state=stats.state,
        spool=None if stats.spool is None else _spool_telemetry(stats.spool),
    )


def _spool_telemetry(stats: SpoolStats) -> SpoolTelemetry:
    return SpoolTelemetry(
        state=stats.state,
        reason=stats.reason,
        recovered=stats.recovered,
        replayed=stats.replayed,
        saved=stats.saved,
        unsaved=stats.unsaved,
        waiting=stats.waiting,
        journal_bytes=stats.journal_bytes,
        oldest_s=stats.oldest_s,
        set_aside=stats.set_aside,
        drops=dict(stats.drops),
    )


def sink_alarms(sinks: Mapping[str, Sink]) -> tuple[str, ...]:
    """What a person has to look at, in words; empty where all is well."""
    found = ((name, sink.stats.spool) for name, sink in sinks.items())
    return tuple(f"{name}: {spool.alarm}" for name, spool in found if spool is not None and spool.alarm)
