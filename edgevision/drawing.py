"""Drawing predictions into pictures, and JPEG: for snapshots and for `predict --save`."""

from __future__ import annotations

from colorsys import hsv_to_rgb

import cv2
import numpy as np
from numpy.typing import NDArray

from edgevision.errors import ImageError
from edgevision.types import UNSEEN, Classifications, Detections, Mask, Predictions, Segmentation, label_of

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SEEN = 0.5
"""A keypoint that is less sure is more likely hidden than where it is told, and is not drawn."""


def draw(image: NDArray[np.uint8], predictions: Predictions) -> NDArray[np.uint8]:
    """A copy of a picture, (H, W, 3) BGR, with boxes and labels drawn; line widths follow the picture's size."""
    canvas = image.copy()
    scale = max(0.6, min(canvas.shape[:2]) / 900)
    if isinstance(predictions, Detections):
        _draw_boxes(canvas, predictions, scale)
    elif isinstance(predictions, Classifications):
        y = 0
        for class_id, confidence in zip(predictions.class_id.tolist(), predictions.confidence.tolist(), strict=True):
            text = f"{label_of(predictions.labels, class_id)} {confidence:.2f}"
            y += _write(canvas, text, (0, y), _color(class_id), scale)
    elif isinstance(predictions, Segmentation):
        _draw_classes(canvas, predictions, scale)
    return canvas


def _draw_classes(canvas: NDArray[np.uint8], found: Segmentation, scale: float) -> None:
    """Each class in its colour over the picture, half seen through, and a list of them; the background stays as it is."""
    pixels = np.bincount(found.class_map.ravel(), minlength=UNSEEN + 1)
    looked_at = found.class_map.size - int(pixels[UNSEEN])
    shown = [class_id for class_id in np.flatnonzero(pixels).tolist() if class_id not in (found.background, UNSEEN)]
    table = np.zeros((1, 256, 3), np.uint8)
    table[0, shown] = [_color(class_id) for class_id in shown] if shown else 0
    visible = np.isin(found.class_map, shown)
    colors = cv2.LUT(cv2.merge((found.class_map,) * 3), table)
    canvas[visible] = cv2.addWeighted(canvas, 0.5, colors, 0.5, 0)[visible]
    y = 0
    for class_id in sorted(shown, key=lambda class_id: -pixels[class_id]):
        text = f"{label_of(found.labels, class_id)} {pixels[class_id] / looked_at:.1%}"
        y += _write(canvas, text, (0, y), _color(class_id), scale)


def palette(background: int | None) -> list[tuple[int, int, int]]:
    """Red, green, blue of the 256 numbers of a class map: the background is black, what was not looked at is grey."""
    colors = [_color(class_id)[::-1] for class_id in range(UNSEEN)]
    if background is not None:
        colors[background] = (0, 0, 0)
    return [*((red, green, blue) for red, green, blue in colors), (128, 128, 128)]


def _draw_boxes(canvas: NDArray[np.uint8], found: Detections, scale: float) -> None:
    thickness = max(1, round(2 * scale))
    rows = zip(found.xyxy.round().astype(int).tolist(), found.class_id.tolist(), found.confidence.tolist(), strict=True)
    # The surest is drawn last, on top.
    for row, ((left, top, right, bottom), class_id, confidence) in reversed(list(enumerate(rows))):
        color = _color(class_id)
        if found.masks is not None:
            _draw_mask(canvas, found.masks[row], color)
        if found.keypoints is not None:
            for x, y, sure in found.keypoints[row].tolist():
                if sure >= _SEEN:
                    cv2.circle(canvas, (round(x), round(y)), 2 * thickness, color, cv2.FILLED, cv2.LINE_AA)
        cv2.rectangle(canvas, (left, top), (right, bottom), color, thickness)
        _write(canvas, f"{label_of(found.labels, class_id)} {confidence:.2f}", (left, top), color, scale, above=True)


def _draw_mask(canvas: NDArray[np.uint8], mask: Mask | None, color: tuple[int, int, int]) -> None:
    """The object's pixels in its colour, half seen through."""
    if mask is None or not mask.pixels.any():
        return
    height, width = mask.pixels.shape
    part = canvas[mask.top : mask.top + height, mask.left : mask.left + width]
    part[mask.pixels] = (part[mask.pixels].astype(np.uint16) + np.array(color, np.uint16)) // 2


def _write(
    canvas: NDArray[np.uint8],
    text: str,
    corner: tuple[int, int],
    color: tuple[int, int, int],
    scale: float,
    *,
    above: bool = False,
) -> int:
    """Text on a filled plate that stays inside the picture; returns the plate's height in pixels."""
    ascii_text = text.encode("ascii", "replace").decode()  # Hershey fonts hold ASCII only
    thickness = max(1, round(scale))
    (width, height), baseline = cv2.getTextSize(ascii_text, _FONT, 0.6 * scale, thickness)
    plate = height + baseline + 2
    left = max(0, min(corner[0], canvas.shape[1] - width - 4))
    top = max(0, corner[1] - plate if above else corner[1])
    cv2.rectangle(canvas, (left, top), (left + width + 4, top + plate), color, cv2.FILLED)
    ink = (0, 0, 0) if 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2] > 127 else (255, 255, 255)
    cv2.putText(canvas, ascii_text, (left + 2, top + height + 1), _FONT, 0.6 * scale, ink, thickness, cv2.LINE_AA)
    return plate


def _color(class_id: int) -> tuple[int, int, int]:
    """A colour of its own for each class, BGR: steps of the golden ratio spread the hues."""
    red, green, blue = hsv_to_rgb(class_id * 0.61803398875 % 1, 0.8, 0.95)
    return int(blue * 255), int(green * 255), int(red * 255)


def shrink(image: NDArray[np.uint8], max_width: int) -> NDArray[np.uint8]:
    """The picture, at most `max_width` pixels wide; the same array where it is already."""
    height, width = image.shape[:2]
    if width <= max_width:
        return image
    size = (max_width, max(1, round(height * max_width / width)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """A picture as JPEG; raises ImageError where it cannot be one (a side over 65,500 pixels)."""
    try:
        _, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))
    except cv2.error as failure:
        raise ImageError(
            f"a picture of {image.shape[1]}x{image.shape[0]} cannot be made a JPEG: {failure.err}"
        ) from failure
    return data.tobytes()
