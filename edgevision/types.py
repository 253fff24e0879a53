"""The values that pass between the stages, and nothing else: standard library and numpy only.

A stage knows the value it takes and the value it gives; these types are all that two stages share. All are frozen and
slotted. Where a field is an array, equality is switched off, because comparing arrays gives arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

BoxXyxy: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom in whole pixels; right and bottom are exclusive."""

Tensors: TypeAlias = Mapping[str, NDArray[Any]]
"""Arrays by tensor name, each in the model's own dtype and layout."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Frame:
    """One picture of one camera."""

    image: NDArray[np.uint8]
    """(H, W, 3) BGR."""
    camera: str
    sequence: int
    """Counts the frames that were meant to be looked at, from 0; a gap is one that was dropped or could not be decoded, or a
    trigger that got no picture in time."""
    captured_at_ns: int
    """Unix time, nanoseconds."""
    captured_mono_ns: int
    """Monotonic time, nanoseconds; for latency."""
    roi: BoxXyxy | None = None
    """The part of the picture the model looks at; None is all of it. Results stay in pixels of the whole picture."""
    origin: str | None = None
    """What outside of us the picture belongs to: a watched folder's file name, the id of the trigger that asked for it."""
    done: Callable[[str], None] | None = field(default=None, repr=False)
    """For a source that keeps a picture until its result is out: called once, from any thread, when the messages have been
    handed to the sinks (with an empty text) or cannot be made (with the reason). A frame that is given up is not done."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Quantization:
    """real = scale * (q - zero_point), per tensor (c = 1) or per slice along `axis`."""

    scale: NDArray[np.float32]
    """(c,)"""
    zero_point: NDArray[np.int32]
    """(c,)"""
    axis: int | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TensorSpec:
    """An input or output of a model, as its runtime tells it."""

    name: str
    shape: tuple[int, ...]
    """-1 where the model leaves the size open."""
    dtype: np.dtype[Any]
    layout: Literal["NHWC", "NCHW"] | None = None
    quantization: Quantization | None = None
    open_batch: bool = False
    """The first size, 1 in `shape`, may be any: so many pictures are taken, or answered, in one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTransform:
    """How frame pixels became input pixels: input = frame * scale + offset, along each axis. Invertible."""

    frame_size: tuple[int, int]
    """Width, height of the whole frame in pixels."""
    input_size: tuple[int, int]
    """Width, height of the model's input in pixels."""
    scale: tuple[float, float]
    """Input pixels per frame pixel along x and y."""
    offset: tuple[float, float]
    """Where the frame's origin lies in the input, in input pixels along x and y; negative after a crop."""
    region: BoxXyxy
    """The part of the frame that the model sees, in frame pixels; boxes are clipped to it."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ModelInput:
    """What a preprocessor gives to a backend. The arrays are reused: valid until the preprocessor's next call."""

    tensors: Tensors
    transform: ImageTransform


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Mask:
    """The pixels of one object, cut out of the picture around it."""

    pixels: NDArray[np.bool_]
    """(h, w)"""
    left: int
    """Where the cut-out begins in the frame, in pixels."""
    top: int
    frame_size: tuple[int, int]
    """Width, height of the whole frame in pixels."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Detections:
    """Objects found in one frame, most confident first."""

    xyxy: NDArray[np.float32]
    """(n, 4) left, top, right, bottom in frame pixels."""
    confidence: NDArray[np.float32]
    """(n,) 0-1"""
    class_id: NDArray[np.int32]
    """(n,)"""
    labels: tuple[str, ...] = field(default=(), repr=False)
    """The model's label by class id: one tuple for the life of the model, not one per detection."""
    track_id: NDArray[np.int64] | None = None
    """(n,) or None where nothing tracks."""
    masks: tuple[Mask | None, ...] | None = None
    """(n,) or None where the model makes none. None for an object for whose mask there was no more room: see the decoder."""
    keypoints: NDArray[np.float32] | None = None
    """(n, k, 3) x, y in frame pixels and confidence 0-1, or None where the model makes none."""

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.confidence)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Classifications:
    """What the whole picture shows, most confident first."""

    confidence: NDArray[np.float32]
    """(k,) 0-1, descending"""
    class_id: NDArray[np.int32]
    """(k,)"""
    labels: tuple[str, ...] = field(default=(), repr=False)
    """The model's label by class id."""
    multi_label: bool = False
    """Whether each class stands for itself, and all are true; else they are guesses at one."""

    def __len__(self) -> int:
        """Number of classes named."""
        return len(self.confidence)


UNSEEN = 255
"""A class map's value where the model did not look: outside the camera's region, or cut off. It is never "nothing there"."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Segmentation:
    """A class for every pixel."""

    class_map: NDArray[np.uint8]
    """(H, W) in frame pixels; `UNSEEN` where the model did not look."""
    background: int | None = None
    """The class that means "nothing here"; None where every class is something."""
    labels: tuple[str, ...] = field(default=(), repr=False)
    """The model's label by class id."""

    def __len__(self) -> int:
        """Number of classes found; the background is none."""
        seen = np.bincount(self.class_map.ravel(), minlength=UNSEEN + 1)
        seen[UNSEEN] = 0
        if self.background is not None:
            seen[self.background] = 0
        return int(np.count_nonzero(seen))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Embedding:
    """A vector that stands for the whole picture."""

    vector: NDArray[np.float32]
    """(n,)"""
    normalised: bool
    """Whether its length is 1."""
    labels: tuple[str, ...] = field(default=(), repr=False)
    """Whatever labels the model came with; an embedding names nothing."""

    def __len__(self) -> int:
        """1: every picture has its vector."""
        return 1


Predictions: TypeAlias = Detections | Classifications | Segmentation | Embedding


def label_of(labels: tuple[str, ...], class_id: int) -> str:
    """The label of a class, or `class 17` where the model has no name for it."""
    return labels[class_id] if 0 <= class_id < len(labels) else f"class {class_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, as a rule saw it."""

    kind: str
    camera: str
    rule: str
    occurred_at_ns: int
    """Unix time, nanoseconds."""
    label: str | None = None
    confidence: float | None = None
    box: tuple[float, float, float, float] | None = None
    """xyxy in frame pixels."""
    track_id: int | None = None
    reason: str | None = None
    """Of `unknown`: why, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message, ready to send."""

    topic: str
    payload: bytes
    qos: Literal[0, 1, 2] = 0
    retain: bool = False
    expires_s: float | None = None
    """Worthless to a consumer after this; the broker and our queue may then drop it."""
    durable: bool = False
    """Must outlive an outage and a restart."""
    priority: int = 0
    """Where room is short, lower ones are given up first."""
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """Where one frame's time went, in nanoseconds of the monotonic clock; 0 for a stage not reached."""

    capture_to_start_ns: int = 0
    """From the picture's capture until a model took it up: waiting."""
    preprocess_ns: int = 0
    inference_ns: int = 0
    decode_ns: int = 0
    events_ns: int = 0
    publish_ns: int = 0
    """Encoding the messages and handing them to the sinks (never the network's time)."""
