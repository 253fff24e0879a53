"""The message contract, version 1: topics and payloads. JSON Schemas and the AsyncAPI document are generated from here.

Every JSON payload has the same envelope; a key that has no meaning for a message is null, never absent. `seq` counts up by
one per topic within a boot, given when a message is made: whatever is dropped afterwards shows as a gap. Changing a field's
meaning, or taking one away, is a new schema version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

CameraState: TypeAlias = Literal[
    "starting", "live", "late", "stalled", "frozen", "dark", "overexposed", "blurred", "failed", "off"
]
"""All states of version 1. A consumer treats every state but `live` as "cannot be trusted to see"."""
DeviceState: TypeAlias = Literal["starting", "online", "stopping", "offline"]
Task: TypeAlias = Literal["classification", "detection", "segmentation", "embedding"]
Timestamp = Annotated[
    str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$", json_schema_extra={"format": "date-time"})
]
Milliseconds = Annotated[float, Field(ge=0)]
Confidence = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Box = tuple[float, float, float, float]
Keypoint = tuple[float, float, Confidence]
"""x, y in pixels of the camera's picture, and how sure the model is that it shows there."""

WILL_SEQ = 0
"""The last will is lodged before anything is sent and spoken by the broker: it stands outside the count, which begins at 1."""


class _Payload(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True, validate_by_name=True)


class ModelRef(_Payload):
    """Which model looked."""

    name: str
    version: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class FrameRef(_Payload):
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


class LatencyMs(_Payload):
    """Where this frame's time went, in milliseconds."""

    waiting: Milliseconds
    """From capture until a model took the frame up."""
    preprocess: Milliseconds
    inference: Milliseconds
    decode: Milliseconds
    events: Milliseconds
    total: Milliseconds
    """From capture until the message was made."""


class Envelope(_Payload):
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


class RleMask(_Payload):
    """A mask as COCO's compressed run lengths: column by column, the lengths of runs of 0 and 1 by turns, from 0."""

    size: tuple[int, int]
    """Height, width of the mask; where they are less than the picture's, the mask was made coarser to stay small."""
    counts: str
    """As `pycocotools.mask.decode` reads it."""


class DetectionItem(_Payload):
    """One object."""

    label: str
    class_id: int
    confidence: Confidence
    xyxy: Box
    """Left, top, right, bottom in pixels of the camera's picture."""
    track_id: int | None = None
    mask: RleMask | None = None
    """The object's pixels, where the model tells them. All masks of a result take 64 KiB at most: they are made coarser until
    they do; one that would lose its last pixel by that is null."""
    keypoints: list[Keypoint] | None = None
    """Where the model tells them: always as many for one model, in its order."""


class ClassificationItem(_Payload):
    """One class."""

    label: str
    class_id: int
    confidence: Confidence


class SegmentItem(_Payload):
    """All pixels of one class."""

    label: str
    class_id: int
    pixels: Annotated[int, Field(ge=1)]
    """Of the camera's picture."""
    share: Confidence
    """Of the pixels that the model looked at."""
    xyxy: Box
    """The smallest box around them, in pixels of the camera's picture."""
    rle: RleMask | None = None
    polygons: list[list[float]] | None = None
    """Outlines [x, y, x, y ...] through the outermost pixels, holes too, in pixels of the camera's picture. Drawn together
    and even-odd (OpenCV's `fillPoly`) they are the mask, but for the corners that were left out to stay small."""


class EmbeddingItem(_Payload):
    """A vector that stands for the whole picture."""

    size: Annotated[int, Field(ge=1)]
    """How many numbers it has."""
    normalised: bool
    """Whether its length is 1: then the dot product of two is their cosine similarity."""
    float32: str
    """The numbers as little-endian IEEE 754 of 32 bits, in base64."""


class ResultPayload(Envelope):
    """What a model saw in one frame; sent for every frame, with empty lists where it saw nothing."""

    schema_: Annotated[Literal["edgevision/result/1"], Field(alias="schema")] = "edgevision/result/1"
    camera: str
    captured_at: Timestamp
    camera_state: CameraState
    model: ModelRef
    frame: FrameRef
    latency_ms: LatencyMs
    trusted: bool
    """False: what was seen, or not seen, says nothing of the world. So for every state but `live`, and for a frame that shows
    what would become another state if it lasted."""
    task: Task
    detections: list[DetectionItem] | None = None
    """For task `detection`: most confident first."""
    classifications: list[ClassificationItem] | None = None
    """For task `classification`: most confident first."""
    segments: list[SegmentItem] | None = None
    """For task `segmentation`: every class that was seen but the background, largest first. Masks are as the config's `masks`
    says; both forms are null where it wants none, and where even the coarsest takes more than its `max_bytes`."""
    embedding: EmbeddingItem | None = None
    """For task `embedding`."""


class EventPayload(Envelope):
    """Something that happened, as a rule saw it."""

    schema_: Annotated[Literal["edgevision/event/1"], Field(alias="schema")] = "edgevision/event/1"
    camera: str
    captured_at: Timestamp | None = None
    """Null for `unknown`, which no picture shows; so are `frame`, and `model` where none is loaded."""
    camera_state: CameraState
    model: ModelRef | None = None
    frame: FrameRef | None = None
    trusted: bool
    """As in the result of the same frame; an event that is not trusted is `unknown`."""
    kind: str
    """`unknown`: the camera cannot be trusted to see from now on, and the rule's last answer no longer holds; sent at once for
    each rule, and once. What the rule finds afterwards is told anew. Other kinds are the rule's own."""
    rule: str
    occurred_at: Timestamp
    reason: str | None = None
    """Of `unknown`: why, in words for a person."""
    label: str | None = None
    confidence: Confidence | None = None
    xyxy: Box | None = None
    track_id: int | None = None


class ImagePayload(Envelope):
    """Carried inside a picture, so that it never loses its truth.

    It is the JPEG's comment segment or, of `what: mask`, the PNG's first iTXt chunk, whose keyword is `edgevision`.
    """

    schema_: Annotated[Literal["edgevision/image/1"], Field(alias="schema")] = "edgevision/image/1"
    camera: str
    captured_at: Timestamp
    camera_state: CameraState
    frame: FrameRef
    what: Literal["frame", "crop", "mask"]
    """`mask`: a palette PNG of the frame's size, whose numbers are class ids; 255 is where the model did not look."""
    xyxy: Box
    """The part of the camera's picture that is shown, in its pixels."""
    label: str | None = None
    confidence: Confidence | None = None


class CameraStatusPayload(Envelope):
    """A camera's state; retained, sent on every change."""

    schema_: Annotated[Literal["edgevision/camera-status/1"], Field(alias="schema")] = "edgevision/camera-status/1"
    camera: str
    camera_state: CameraState
    trusted: bool
    """True for `live` alone. While it is false every rule's answer is unknown."""
    since: Timestamp
    reason: str
    """Why, in words for a person."""


class ExecutionStatus(_Payload):
    """Where a model's operators really run."""

    shares: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    """Share of the nodes that each execution provider, delegate or device took; empty where the runtime does not tell."""
    left_out: dict[str, str] = {}
    """Optional providers that are not used, with the reason."""
    notes: list[str] = []
    """What a person should know, such as a provider that took nothing, or INT8 that is computed in float."""
    building: str = ""
    """What is being made ready while something else serves; empty where nothing is."""


class ModelStatus(ModelRef):
    """A model that is loaded, and how it was proved."""

    backend: str
    threads: int
    proof: list[dict[str, Any]] = []
    """The manifest's measured figures; empty: the model is unproved."""
    execution: ExecutionStatus | None = None
    """Null where the backend does not tell."""


class DeviceStatusPayload(Envelope):
    """The daemon's state; retained. The last will is this message with `offline`."""

    schema_: Annotated[Literal["edgevision/status/1"], Field(alias="schema")] = "edgevision/status/1"
    state: DeviceState
    since: Timestamp
    reason: str
    version: str
    """edgevision's version."""
    cameras: list[str] = []
    models: dict[str, ModelStatus] = {}
    """By the name the config gives them."""
    safe_mode: str | None = None
    """What was left out after repeated crashes, and why; null where everything runs."""
    clock_synchronised: bool | None = None
    """Whether the wall clock behind every timestamp is set by somebody who knows; null where it cannot be told."""
    alarms: list[str] = []
    """What a person has to look at, in words; empty where all is well."""


class StageSummary(_Payload):
    """One stage's time over the telemetry's interval, in milliseconds."""

    mean: Milliseconds
    p50: Milliseconds
    p99: Milliseconds
    max: Milliseconds


class TriggerTelemetry(_Payload):
    """A triggered camera's messages that asked for a picture; counts since the camera was started."""

    received: Count
    served: Count
    missed: Count
    """They got no picture in time: parts that nobody looked at."""
    delay_ms: StageSummary | None
    """From a trigger's arrival to its picture, over the last interval; null where there was none."""


class CameraTelemetry(_Payload):
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


class SpoolTelemetry(_Payload):
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


class SinkTelemetry(_Payload):
    """One sink's counts since the daemon started."""

    sent: Count
    dropped: Count
    queued: Count
    connected: bool
    state: str
    spool: SpoolTelemetry | None = None
    """Of a sink that keeps durable messages on the disk."""


class ProcessTelemetry(_Payload):
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


PAYLOADS: Mapping[str, type[Envelope]] = {
    "result": ResultPayload,
    "event": EventPayload,
    "image": ImagePayload,
    "camera-status": CameraStatusPayload,
    "status": DeviceStatusPayload,
    "telemetry": TelemetryPayload,
}
"""By the middle part of their schema name, `edgevision/<name>/1`."""
