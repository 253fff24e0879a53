"""What every message of the contract has: whose it is, when it was made, what the camera's state was.

Every JSON payload has the same envelope; a key that has no meaning for a message is null, never absent. `seq` counts up by
one per topic within a boot, given when a message is made: whatever is dropped afterwards shows as a gap.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

CameraState: TypeAlias = Literal[
    "starting", "live", "late", "stalled", "frozen", "dark", "overexposed", "blurred", "failed", "off"
]
"""All states of version 1. A consumer treats every state but `live` as "cannot be trusted to see"."""
Timestamp = Annotated[
    str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$", json_schema_extra={"format": "date-time"})
]
Milliseconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]

WILL_SEQ = 0
"""The last will is lodged before anything is sent and spoken by the broker: it stands outside the count, which begins at 1."""


class Payload(BaseModel):
    """A value of the contract: it cannot be changed, and a key that the contract does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True, validate_by_name=True)


class ModelRef(Payload):
    """Which model looked."""

    name: str
    version: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class FrameRef(Payload):
    """Which picture was looked at."""

    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    sequence: Count
    """Counts up by one per frame of this camera since the daemon started; a gap is a frame that was dropped or could not be
    decoded, or a trigger that got no picture in time."""
    dropped: Count
    """Frames of this camera that no model had time for, since the daemon started; triggers without a picture are none."""
    origin: Annotated[str, Field(max_length=1024)] | None = None
    """What the picture belongs to: the file's name in a watched folder, the id of the trigger that asked for it; null where
    it is one of a stream. The same picture seen twice, after a crash, has the same one."""


class LatencyMs(Payload):
    """Where this frame's time went, in milliseconds."""

    waiting: Milliseconds
    """From capture until a model took the frame up."""
    preprocess: Milliseconds
    inference: Milliseconds
    decode: Milliseconds
    events: Milliseconds
    total: Milliseconds
    """From capture until the message was made."""


class Envelope(Payload):
    """What every JSON payload has."""

    schema_: Annotated[str, Field(alias="schema")]
    device: str
    camera: str | None = None
    boot_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    """One start of the daemon."""
    seq: Count
    """Counts up by one per topic within a boot, from 1; a gap is a lost message. 0 is the last will."""
    captured_at: Timestamp | None = None
    """When the picture was taken (RFC 3339, UTC)."""
    published_at: Timestamp
    """When the message was made; for the last will, when it was lodged with the broker."""
    camera_state: CameraState | None = None
    model: ModelRef | None = None
    frame: FrameRef | None = None
    latency_ms: LatencyMs | None = None
    historical: bool = False
    """True where the message could not be sent when it was made: it tells of the past."""
