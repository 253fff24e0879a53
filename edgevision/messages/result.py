"""Results as JSON text: the one message that is made for every frame of every camera, so it is written straight out.

Right after an inference the caches hold the model and not us: building the pydantic payload and serialising it then takes
0.23 ms; this, with the hand-over to a sink, takes 0.1
(`publish` in the stages of `benchmarks/overhead.py`). `ResultPayload` stays the contract; a property
test holds every text against it.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence

from edgevision.messages.contract import ClassificationItem, DetectionItem, EmbeddingItem, ResultPayload, SegmentItem
from edgevision.messages.envelope import CameraState, ModelRef
from edgevision.messages.masks import mask_items
from edgevision.messages.segments import segment_items
from edgevision.messages.times import timestamp
from edgevision.types import Classifications, Detections, Embedding, Frame, Predictions, StageTimes, label_of


class ResultWriter:
    """Writes the results of one camera and one model; what never changes is made once."""

    def __init__(self, *, device: str, camera: str, boot_id: str, model: ModelRef) -> None:
        """Prepare the fixed parts."""
        schema = ResultPayload.model_fields["schema_"].default
        self._head = (
            f'{{"schema":"{schema}","device":{_text(device)},"camera":{_text(camera)},"boot_id":"{boot_id}","seq":'
        )
        self._model = f'"model":{model.model_dump_json()},"frame":'
        self._labels: dict[int, str] = {}

    def write(
        self,
        frame: Frame,
        predictions: Predictions,
        times: StageTimes,
        *,
        seq: int,
        published_at_ns: int,
        total_ns: int,
        state: CameraState,
        dropped: int,
        trusted: bool,
        segments: Sequence[SegmentItem] | None = None,
    ) -> bytes:
        """The payload of one result; `segments` in place of a class map's own items, where its masks are of another form."""
        height, width = frame.image.shape[:2]
        origin = "null" if frame.origin is None else _text(frame.origin)
        text = (
            f'{self._head}{seq},"captured_at":"{timestamp(frame.captured_at_ns)}","published_at":"'
            f'{timestamp(published_at_ns)}","camera_state":"{state}",{self._model}{{"width":{width},"height":{height},'
            f'"sequence":{frame.sequence},"dropped":{dropped},"origin":{origin}}},"latency_ms":{{"waiting":{_ms(times.capture_to_start_ns)},'
            f'"preprocess":{_ms(times.preprocess_ns)},"inference":{_ms(times.inference_ns)},"decode":'
            f'{_ms(times.decode_ns)},"events":{_ms(times.events_ns)},"total":{_ms(total_ns)}}},"historical":false,"trusted":'
            f"{'true' if trusted else 'false'},{self._predictions(predictions, segments)}}}"
        )
        return text.encode()

    def _predictions(self, found: Predictions, segments: Sequence[SegmentItem] | None) -> str:
        detections = classifications = parts = vector = "null"
        if isinstance(found, Detections):
            task, detections = "detection", f"[{self._detections(found)}]"
        elif isinstance(found, Classifications):
            task, classifications = "classification", f"[{self._classifications(found)}]"
        elif isinstance(found, Embedding):
            task, vector = "embedding", embedding_item(found).model_dump_json()
        else:
            items = segment_items(found) if segments is None else segments
            task, parts = "segmentation", f"[{','.join(item.model_dump_json() for item in items)}]"
        return (
            f'"task":"{task}","detections":{detections},"classifications":{classifications},"segments":{parts},'
            f'"embedding":{vector}'
        )

    def _detections(self, found: Detections) -> str:
        # float32 does not print shortly as a double: four digits of confidence and hundredths of a pixel are what is meant.
        tracks = ["null"] * len(found) if found.track_id is None else found.track_id.tolist()
        more = _more(found)
        rows = zip(found.class_id.tolist(), found.confidence.tolist(), found.xyxy.tolist(), tracks, more, strict=True)
        return ",".join(
            [
                f'{{"label":{self._label(found.labels, class_id)},"class_id":{class_id},"confidence":{confidence:.4f},'
                f'"xyxy":[{left:.2f},{top:.2f},{right:.2f},{bottom:.2f}],"track_id":{track},{rest}}}'
                for class_id, confidence, (left, top, right, bottom), track, rest in rows
            ]
        )

    def _classifications(self, found: Classifications) -> str:
        rows = zip(found.class_id.tolist(), found.confidence.tolist(), strict=True)
        return ",".join(
            [
                f'{{"label":{self._label(found.labels, class_id)},"class_id":{class_id},"confidence":{confidence:.4f}}}'
                for class_id, confidence in rows
            ]
        )

    def _label(self, labels: tuple[str, ...], class_id: int) -> str:
        text = self._labels.get(class_id)
        if text is None:
            text = self._labels[class_id] = _text(label_of(labels, class_id))
        return text


def _more(found: Detections) -> list[str]:
    """Of each object, mask and keypoints, which most models do not tell."""
    if found.masks is None and found.keypoints is None:
        return ['"mask":null,"keypoints":null'] * len(found)
    masks = ["null"] * len(found)
    if found.masks is not None:
        masks = ["null" if item is None else item.model_dump_json() for item in mask_items(found.masks)]
    keypoints = ["null"] * len(found)
    if found.keypoints is not None:
        keypoints = [
            f"[{','.join([f'[{x:.2f},{y:.2f},{sure:.4f}]' for x, y, sure in points])}]"
            for points in found.keypoints.tolist()
        ]
    return [f'"mask":{mask},"keypoints":{points}' for mask, points in zip(masks, keypoints, strict=True)]


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.3f}"


def embedding_item(found: Embedding) -> EmbeddingItem:
    """An embedding as a value of the contract."""
    text = b64encode(found.vector.astype("<f4", copy=False).tobytes()).decode("ascii")
    return EmbeddingItem(size=len(found.vector), normalised=found.normalised, float32=text)


def prediction_items(
    predictions: Predictions,
) -> list[DetectionItem] | list[ClassificationItem] | list[SegmentItem] | list[EmbeddingItem]:
    """Predictions as values of the contract, for whoever does not write them sixty times a second."""
    if isinstance(predictions, Detections):
        tracks = [None] * len(predictions) if predictions.track_id is None else predictions.track_id.tolist()
        boxes = zip(
            predictions.class_id.tolist(),
            predictions.confidence.tolist(),
            predictions.xyxy.tolist(),
            tracks,
            [None] * len(predictions) if predictions.masks is None else mask_items(predictions.masks),
            [None] * len(predictions) if predictions.keypoints is None else predictions.keypoints.tolist(),
            strict=True,
        )
        return [
            DetectionItem(
                label=label_of(predictions.labels, class_id),
                class_id=class_id,
                confidence=round(confidence, 4),
                xyxy=tuple(round(edge, 2) for edge in xyxy),
                track_id=track,
                mask=mask,
                keypoints=None
                if points is None
                else [(round(x, 2), round(y, 2), round(sure, 4)) for x, y, sure in points],
            )
            for class_id, confidence, xyxy, track, mask, points in boxes
        ]
    if isinstance(predictions, Classifications):
        rows = zip(predictions.class_id.tolist(), predictions.confidence.tolist(), strict=True)
        return [
            ClassificationItem(
                label=label_of(predictions.labels, class_id), class_id=class_id, confidence=round(value, 4)
            )
            for class_id, value in rows
        ]
    if isinstance(predictions, Embedding):
        return [embedding_item(predictions)]
    return segment_items(predictions)
