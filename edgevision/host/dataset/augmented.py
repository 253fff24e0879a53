"""An augmented dataset on the disk, and a sheet of samples that a person can look at before it is trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from edgevision.drawing import draw, encode_jpeg
from edgevision.errors import StateError, UsageError
from edgevision.host.dataset._place import new_folder
from edgevision.host.dataset.augment import Augmenter, Picture
from edgevision.host.dataset.base import Dataset, Sample
from edgevision.host.dataset.formats import fill
from edgevision.types import Detections

_JPEG_QUALITY = 95
_TILE_PX = 320
_COLUMNS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmented:
    """What was written."""

    originals: int
    copies: int
    dropped_boxes: int
    """Boxes of copies that were dropped because too little of their object is left to see."""
    alone: int
    """Times that a copy was to be mixed and had no partner; it has the other operations only."""
    lost: tuple[str, ...]
    """What the format could not hold."""


def check(dataset: Dataset, operations: Iterable[str]) -> None:
    """Raise UsageError where a dataset must not or cannot be augmented so."""
    if dataset.role == "test":
        raise UsageError(f"{dataset.source}: is a held-out test set and must not be augmented")
    if dataset.task == "segmentation" and "mixup" in operations:
        raise UsageError("mixup gives a pixel two labels, which a mask cannot hold; leave it out for segmentation")


def write_augmented(
    dataset: Dataset,
    folder: Path,
    format_name: str,
    augmenter: Augmenter,
    *,
    copies: int,
    originals: bool = True,
    link: bool = False,
    made: Mapping[str, object] | None = None,
    advance: Callable[[int], None] = lambda _steps: None,
) -> Augmented:
    """Write a dataset with changed copies of its pictures; whole or not at all.

    Args:
        dataset: what is augmented; `check` it first.
        folder: new or empty.
        format_name: for the dataset's task.
        augmenter: the operations and the seed.
        copies: changed copies of each picture.
        originals: whether the pictures themselves go in too.
        link: hard-link the originals instead of copying them.
        made: how it was made, for the dataset.yaml.
        advance: told the number of pictures done since the last call.

    Raises:
        UsageError: the folder is filled, or the format is not for this task.
        ImageError: a picture cannot be decoded.
        StateError: it cannot be written.
    """
    with new_folder(folder) as temporary, tempfile.TemporaryDirectory(prefix=".augment-", dir=temporary) as scratch:
        samples = list(dataset.samples) if originals else []
        taken = {_stem(sample.name) for sample in dataset.samples}
        dropped = 0
        for sample in dataset.samples:
            for number, picture in enumerate(augmenter.copies(dataset, sample, copies), start=1):
                name = _free_name(sample.name, number, taken)
                samples.append(_save(picture, name, Path(scratch)))
                dropped += picture.dropped
            advance(1)
        full = replace(dataset, samples=tuple(sorted(samples, key=lambda one: one.name)), faults=(), notes=())
        lost = fill(full, temporary, format_name, link=link, made=made)
    return Augmented(
        originals=len(dataset) if originals else 0,
        copies=len(dataset) * copies,
        dropped_boxes=dropped,
        alone=augmenter.alone,
        lost=tuple(lost),
    )


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix().casefold()


def _free_name(name: str, number: int, taken: set[str]) -> str:
    path = PurePosixPath(name)
    suffix = ".jpg" if path.suffix.lower() in {".jpg", ".jpeg"} else ".png"
    stem = f"{path.stem}-aug{number}"
    while _stem((path.parent / f"{stem}{suffix}").as_posix()) in taken:
        stem += "x"
    made = (path.parent / f"{stem}{suffix}").as_posix()
    taken.add(_stem(made))
    return made


def _save(picture: Picture, name: str, scratch: Path) -> Sample:
    """A copy as files and its sample; JPEG stays JPEG, all else becomes PNG."""
    path = scratch / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_jpeg(picture.image, _JPEG_QUALITY) if path.suffix == ".jpg" else _png(picture.image))
    mask = None
    if picture.mask is not None:
        mask = scratch / "masks" / f"{name}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        mask.write_bytes(_png(picture.mask))
    height, width = picture.image.shape[:2]
    return Sample(
        name=name, path=path, width=width, height=height, label_id=picture.label_id, boxes=picture.boxes, mask=mask
    )


def _png(image: NDArray[np.uint8]) -> bytes:
    _, data = cv2.imencode(".png", image)
    return data.tobytes()


def contact_sheet(dataset: Dataset, augmenter: Augmenter, *, pictures: int = 24, seed: int = 0) -> NDArray[np.uint8]:
    """Copies of randomly drawn pictures with their boxes or labels drawn, side by side: (H, W, 3) BGR."""
    order = np.random.default_rng(seed).permutation(len(dataset))[:pictures]
    if not len(order):
        raise UsageError(f"{dataset.source}: holds no picture")
    per_picture = -(-pictures // len(order))
    copies = (copy for index in order for copy in augmenter.copies(dataset, dataset.samples[index], per_picture))
    tiles = [_tile(copy, dataset.labels) for copy in islice(copies, pictures)]
    rows = [tiles[start : start + _COLUMNS] for start in range(0, len(tiles), _COLUMNS)]
    blank = np.full_like(tiles[0], 255)
    return np.vstack([np.hstack(row + [blank] * (_COLUMNS - len(row))) for row in rows])


def _tile(picture: Picture, labels: tuple[str, ...]) -> NDArray[np.uint8]:
    """One picture in a square."""
    height, width = picture.image.shape[:2]
    scale = _TILE_PX / max(height, width)
    image = picture.image
    if picture.mask is not None:
        known = picture.mask != 255
        colors = cv2.applyColorMap((picture.mask * 67).astype(np.uint8), cv2.COLORMAP_HSV)
        image = np.where(known[..., None] & (picture.mask > 0)[..., None], image // 2 + colors // 2, image)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image.astype(np.uint8, copy=False), size, interpolation=cv2.INTER_AREA)
    shown = [(box.label_id, box.xyxy) for box in picture.boxes]
    if picture.label_id is not None:
        shown = [(picture.label_id, (1.0, 1.0, width - 2.0, height - 2.0))]
    found = Detections(
        xyxy=np.array([edges for _, edges in shown], np.float32).reshape(-1, 4) * np.float32(scale),
        confidence=np.ones(len(shown), np.float32),
        class_id=np.array([label_id for label_id, _ in shown], np.int32),
        labels=labels,
    )
    tile = np.full((_TILE_PX, _TILE_PX, 3), 255, np.uint8)
    tile[: size[1], : size[0]] = draw(small.astype(np.uint8, copy=False), found)
    return tile


def save_sheet(sheet: NDArray[np.uint8], file: Path) -> None:
    """Write a contact sheet as PNG (or JPEG by its suffix), whole or not at all; raises StateError."""
    temporary = file.with_name(f".{file.name}.part")
    content = encode_jpeg(sheet, _JPEG_QUALITY) if file.suffix.lower() in {".jpg", ".jpeg"} else _png(sheet)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(file)
    except OSError as failure:
        temporary.unlink(missing_ok=True)
        raise StateError(f"{file}: cannot be written: {failure.strerror or failure}") from failure
