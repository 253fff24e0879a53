"""How the daemon is doing, in numbers: the contract's telemetry, of cameras, sinks and the process."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgevision.messages.envelope import CameraState, Count, Envelope, Milliseconds, Payload


class StageSummary(Payload):
    """One stage's time over the telemetry's interval, in milliseconds."""

    mean: Milliseconds
    p50: Milliseconds
    p99: Milliseconds
    max: Milliseconds


class TriggerTelemetry(Payload):
    """A triggered camera's messages that asked for a picture; counts since the camera was started."""

    received: Count
    served: Count
    missed: Count
    """They got no picture in time: parts that nobody looked at."""
    delay_ms: StageSummary | None
    """From a trigger's arrival to its picture, over the last interval; null where there was none."""


class CameraTelemetry(Payload):
    """One camera's counts since the daemon started, and times over the last interval."""

    state: CameraState
    captured: Count
    processed: Count
    dropped: Count
    """Frames that no model had time for."""
    unreadable: Count
    """Frames or pictures that the source could not decode."""
    failed: Count
    """Frames that the model failed on."""
    restarts: Count
    """How often the source was opened again."""
    snapshots_dropped: Count
    fps: Annotated[float, Field(ge=0)]
    stages_ms: dict[str, StageSummary]
    triggers: TriggerTelemetry | None = None
    """Null where the camera is not triggered."""


class SpoolTelemetry(Payload):
    """Durable messages of one sink that are kept on the disk; counts since the daemon started."""

    state: Literal["journal", "memory"]
    """`memory`: the disk fails or stalls, and a power cut would lose what waits."""
    reason: str
    recovered: Count
    """Messages that an earlier run left behind."""
    replayed: Count
    """Late messages that the broker has acknowledged."""
    saved: Count
    unsaved: Count
    """Handed over and not yet on the disk."""
    waiting: Count
    journal_bytes: Count
    oldest_s: Annotated[float, Field(ge=0)]
    """Age of the oldest message in the journal, in seconds; time in which the machine is off does not count."""
    set_aside: Count
    """Damaged journals."""
    drops: dict[str, Count]
    """Messages given up, by reason in words; they are in the sink's `dropped` as well."""


class SinkTelemetry(Payload):
    """One sink's counts since the daemon started."""

    sent: Count
    dropped: Count
    queued: Count
    connected: bool
    state: str
    spool: SpoolTelemetry | None = None
    """Of a sink that keeps durable messages on the disk."""


class ProcessTelemetry(Payload):
    """The daemon itself."""

    uptime_s: Annotated[float, Field(ge=0)]
    cpu_percent: Annotated[float, Field(ge=0)]
    """Of one core, over the last interval."""
    rss_bytes: Count
    threads: Count
    open_files: Count


class TelemetryPayload(Envelope):
    """How the daemon is doing; sent every interval."""

    schema_: Annotated[Literal["edgevision/telemetry/1"], Field(alias="schema")] = "edgevision/telemetry/1"
    interval_s: Annotated[float, Field(ge=0)]
    cameras: dict[str, CameraTelemetry]
    sinks: dict[str, SinkTelemetry]
    process: ProcessTelemetry
    clock_synchronised: bool | None = None
    """As in the device's status."""
