"""What a config file holds: its keys, their types and limits, as frozen pydantic models.

A plug-in's options are checked here too, against the `Options` of the file that its `type` names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from edgevision import documents, registry
from edgevision.broker.options import BrokerOptions
from edgevision.config.watching import HealthSection, ReaderSection, TriggerSection
from edgevision.environment import default_state_dir, user_models_dir
from edgevision.errors import EdgevisionError
from edgevision.logs import LogFormat, LogLevel
from edgevision.messages import MAX_MASK_BYTES, Deliveries, Delivery
from edgevision.publish import mqtt
from edgevision.tiling import Tiling

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_TOPIC = re.compile(r"[^/+#$\s\x00][^/+#\s\x00]*(/[^/+#\s\x00]+)*")


def _check_name(value: str) -> str:
    """A level of an MQTT topic (MQTT 5.0, 4.7: no separator, no wildcard), and nothing that a shell would trip on."""
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"must be 1 to 64 letters, digits, `_`, `.` or `-`, not beginning with `.` or `-`; found {value!r}"
        )
    return value


def _check_topic(value: str) -> str:
    if len(value) > 512 or not _TOPIC.fullmatch(value):
        raise ValueError(
            f"must be levels parted by single `/`, without `+`, `#`, spaces or a leading `$`; found {value!r}"
        )
    return value


Name = Annotated[str, AfterValidator(_check_name)]
Topic = Annotated[str, AfterValidator(_check_topic)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A plug-in that the config names, with its options checked."""

    type: str
    options: registry.Options
    given: dict[str, Any] = field(default_factory=dict, repr=False)
    """The options as they stand in the file, secrets put in: another process makes the same plug-in of them."""


def _choose(stage: registry.Stage) -> BeforeValidator:
    """Turns `{type: opencv, url: ...}` into a Choice by asking the plug-in that `type` names."""

    def check(value: Any) -> Any:
        if isinstance(value, Choice):
            return value
        if not isinstance(value, dict) or not isinstance(value.get("type"), str):
            raise ValueError(  # noqa: TRY004  pydantic takes a ValueError for a fault of the value
                f"must hold `type` and that type's options; known types: {', '.join(registry.available(stage))}"
            )
        try:
            plugin = registry.load(stage, value["type"])
        except EdgevisionError as failure:
            raise ValueError(f"type: {failure}") from failure
        given = {key: entry for key, entry in value.items() if key != "type"}
        try:
            return Choice(type=value["type"], options=plugin.Options.model_validate(given), given=given)
        except ValidationError as failure:
            raise documents.NestedFaultsError(failure, plugin.Options) from failure

    return BeforeValidator(check)


SourceChoice = Annotated[Choice, _choose("capture")]
SinkChoice = Annotated[Choice, _choose("publish")]


class RuleSection(_Section):
    """One rule on one camera: its name, and the rule's own options beside it."""

    name: Name
    rule: Annotated[Choice, _choose("events")]

    @model_validator(mode="before")
    @classmethod
    def _split_name(cls, value: Any) -> Any:
        if isinstance(value, dict) and "rule" not in value:
            value = dict(value)
            return {"name": value.pop("name", value.get("type", "rule")), "rule": value}
        return value


class ModelSection(_Section):
    """A model that cameras share."""

    model: str
    """A model's name, or the path of its folder."""
    backend: str | None = None
    """onnxrt, litert, openvino ...; without it, the first that the model has a file for and this machine a runtime."""
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """Threads of one inference."""
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    iou: Annotated[float, Field(ge=0, le=1)] | None = None
    class_agnostic: bool | None = None
    """Boxes that overlap more than `iou` are one object whatever their labels: one part is never both `good` and `bad`."""
    max_detections: Annotated[int, Field(ge=1, le=10_000)] | None = None
    top_k: Annotated[int, Field(ge=1, le=1000)] | None = None
    classes: list[str] | None = None
    """Only these labels."""
    class_confidence: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    """Thresholds of single labels, in place of `confidence`."""
    tiling: Tiling | None = None
    """Look at a picture in overlapping parts, so that small defects on a large one are found; without it, as a whole."""
    options: dict[str, Any] = {}
    """The backend's own options, such as `providers` and `spinning` of onnxrt."""
    probe: Literal["auto", "never"] = "auto"
    """A model that has not run here yet is run once in a process of its own first; `never` loads it at once."""


class MasksSection(_Section):
    """The masks of a segmentation in the camera's results."""

    encoding: Literal["rle", "polygons", "none"] = "rle"
    """COCO's run lengths, outlines, or only how much of each class and where."""
    max_bytes: Annotated[int, Field(ge=256, le=1 << 20)] = MAX_MASK_BYTES
    """Of all masks of one result; larger ones are made coarser until they fit."""


class SnapshotSection(_Section):
    """Pictures on the camera's image topic."""

    what: Literal["frame", "crops", "mask"] = "frame"
    """The whole picture, each detection cut out (JPEG), or the class map of a segmentation (palette PNG)."""
    when: Literal["always", "detection"] = "detection"
    """With every result, or only with those that found something."""
    interval_s: Annotated[float, Field(ge=0, le=86_400)] = 1.0
    """At most one frame's pictures in this time."""
    quality: Annotated[int, Field(ge=1, le=100)] = 80
    max_width: Annotated[int, Field(ge=16, le=8192)] = 1280
    """Wider pictures are made smaller."""
    draw: bool = False
    """Draw boxes and labels into the whole picture."""
    max_crops: Annotated[int, Field(ge=1, le=100)] = 10


Coordinate = Annotated[float, Field(ge=0, le=100_000)]


class CameraSection(_Section):
    """One camera."""

    name: Name
    source: SourceChoice
    model: str
    """One of `models`."""
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Frames per second to look at; without it, all there are."""
    roi: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = None
    """Left, top, right, bottom of the part to look at: pixels, or fractions where all four are at most 1."""
    rotation: Literal[0, 90, 180, 270] = 0
    """Clockwise, before anything else looks at the picture."""
    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    stall_after_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    """Without a frame for this long, the camera's state is `stalled`."""
    reader: ReaderSection = ReaderSection()
    health: HealthSection = HealthSection()
    trigger: TriggerSection | None = None
    rules: list[RuleSection] = []
    snapshot: SnapshotSection | None = None
    masks: MasksSection = MasksSection()

    @model_validator(mode="after")
    def _check(self) -> CameraSection:
        if self.name in {"status", "telemetry"}:
            raise ValueError(f"name: {self.name!r} is taken by the device's own topics; choose another")
        if self.roi is not None and not (self.roi[0] < self.roi[2] and self.roi[1] < self.roi[3]):
            raise ValueError(
                f"roi: must be left, top, right, bottom with left < right and top < bottom; found {self.roi}"
            )
        return self


class TelemetrySection(Delivery):
    """How telemetry is sent, and how often."""

    expires_s: Annotated[float, Field(gt=0, le=0xFFFFFFFF)] | None = 300
    interval_s: Annotated[float, Field(ge=1, le=86_400)] = 10.0


_DEFAULTS = Deliveries()


class MqttSection(mqtt.Options):
    """The broker, and how each kind of message is sent to it."""

    topic: Topic = "edgevision"
    """The first levels of every topic: `{topic}/{device}/...`."""
    results: Delivery = _DEFAULTS.results
    events: Delivery = _DEFAULTS.events
    status: Delivery = _DEFAULTS.status
    telemetry: TelemetrySection = TelemetrySection()
    image: Delivery = _DEFAULTS.image

    @property
    def deliveries(self) -> Deliveries:
        """How each kind of message is sent."""
        return Deliveries(
            results=self.results, events=self.events, status=self.status, telemetry=self.telemetry, image=self.image
        )


class SupervisionSection(_Section):
    """When a part counts as stuck, and what is done about parts that crash."""

    inference_deadline_s: Annotated[float, Field(ge=0.1, le=3600)] | None = None
    """One frame in a model's hands for longer is stuck; without it, 20 times the warm inference, and at least 10 s."""
    publish_deadline_s: Annotated[float, Field(ge=1, le=3600)] = 300.0
    """A sink's thread that does not go round for so long is stuck (for mqtt at least connect_timeout_s + 120 s)."""
    start_deadline_s: Annotated[float, Field(ge=1, le=86_400)] = 900.0
    """A start, or a reload, may take so long: a runtime may build its engine for minutes."""
    probe_deadline_s: Annotated[float, Field(ge=1, le=86_400)] = 120.0
    """A model that is tried in a process of its own, and has not run once within this, hangs."""
    probe_memory_mb: Annotated[int, Field(ge=64, le=1_048_576)] | None = None
    """What that process may have; without it 1024 MB and eight times the file."""
    stop_deadline_s: Annotated[float, Field(ge=1, le=600)] = 20.0
    """What waits is delivered within this after SIGTERM; the rest is counted as dropped.

    systemd is asked for the time. A container's stop_grace_period must be 15 s longer: SIGKILL comes then, with no last word.
    """
    safe_mode_after: Annotated[int, Field(ge=0, le=100)] = 3
    """After so many crashes in a row, the part that crashes is left out; 0 is never."""


class LoggingSection(_Section):
    """Log lines on standard error."""

    level: LogLevel = "info"
    format: LogFormat = "text"


class Config(_Section):
    """A whole config file."""

    device: Name
    """This box's name: a level of every topic."""
    state_dir: Path = Field(default_factory=default_state_dir)
    mqtt: MqttSection | None = None
    sinks: list[SinkChoice] = []
    """Other places that every message goes to."""
    models: Annotated[dict[Name, ModelSection], Field(min_length=1)]
    cameras: Annotated[list[CameraSection], Field(min_length=1, max_length=64)]
    logging: LoggingSection = LoggingSection()
    supervision: SupervisionSection = SupervisionSection()

    @model_validator(mode="after")
    def _somewhere_to_publish(self) -> Config:
        if self.mqtt is None and not self.sinks:
            raise ValueError("nowhere to publish: give `mqtt` (host, port, topic) or `sinks`")
        return self

    @model_validator(mode="after")
    def _triggers_have_a_broker(self) -> Config:
        """A camera's section holds all that it depends on, so that a reload with another broker restarts it."""
        lacking = [camera.name for camera in self.cameras if camera.trigger and camera.trigger.broker is None]
        if not lacking:
            return self
        if self.mqtt is None:
            raise ValueError(
                f"camera {lacking[0]}: trigger: no broker to hear triggers from: give `mqtt`, or its `broker`"
            )
        values = {name: getattr(self.mqtt, name) for name in BrokerOptions.model_fields}
        broker = BrokerOptions.model_construct(
            **{**values, "client_id": None}
        )  # two clients of one id throw each other out
        cameras = [
            camera.model_copy(update={"trigger": camera.trigger.model_copy(update={"broker": broker})})
            if camera.trigger and camera.trigger.broker is None
            else camera
            for camera in self.cameras
        ]
        return self.model_copy(update={"cameras": cameras})

    @property
    def models_dir(self) -> Path:
        """Where the user's own models are."""
        return user_models_dir(self.state_dir)
