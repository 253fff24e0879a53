"""images/ and masks/: for segmentation. A mask is a PNG of its picture's size and name whose grey values are label ids.

labels.txt names the labels; 255 is not labelled. A palette PNG, as Pascal VOC's are, is refused: OpenCV gives its colours and
not its numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgevision.errors import ImageError, UsageError
from edgevision.host.dataset._collect import Collector, Place, read_label_names
from edgevision.host.dataset._format import Format
from edgevision.host.dataset._place import label_paths, put, put_pictures, write_labels
from edgevision.host.dataset.base import Dataset, Sample
from edgevision.host.dataset.pictures import pictures_under

_LABELS_FILE = "labels.txt"
_GREY, _PALETTE = 0, 3
"""PNG's colour types."""


def _looks_like(path: Path) -> bool:
    return (path / "images").is_dir() and (path / "masks").is_dir()


def _read(path: Path, *, split: str | None) -> Dataset:
    if not _looks_like(path):
        raise UsageError(f"{path}: is no dataset of masks: it must hold images/ and masks/")
    if split is not None:
        raise UsageError(f"{path}: has no part {split!r}: it holds images/ and masks/ only")
    if not (path / _LABELS_FILE).is_file():
        raise UsageError(f"{path}: has no {_LABELS_FILE}: one label a line, the first is that of grey value 0")
    collector = Collector()
    labels = read_label_names(path / _LABELS_FILE, collector)
    images, masks = path / "images", path / "masks"
    unused = set(pictures_under(masks))
    for picture in pictures_under(images):
        name = picture.relative_to(images)
        mask, place = masks / name.with_suffix(".png"), Place(file=str(picture))
        size = collector.size(picture, place)
        if not mask.is_file():
            collector.fault(place, f"its mask {mask} is missing; it is left out")
            continue
        unused.discard(mask)
        mask_size = collector.size(mask, Place(file=str(mask)))
        if size is None or mask_size is None:
            continue
        kind_fault = _kind_fault(mask)
        if kind_fault is not None:
            collector.fault(Place(file=str(mask)), f"the mask {kind_fault}; it is left out")
            continue
        if size != mask_size:
            collector.fault(
                Place(file=str(mask)),
                f"is {mask_size[0]}x{mask_size[1]}, its picture {size[0]}x{size[1]}; they are left out",
            )
            continue
        sample = Sample(name=name.as_posix(), path=picture, width=size[0], height=size[1], mask=mask)
        collector.add(sample, place)
    for mask in sorted(unused):
        collector.fault(Place(file=str(mask)), "its picture is missing; it is left out")
    return collector.dataset(
        source=path,
        format_name=FORMAT.name,
        task=FORMAT.task,
        labels=labels,
        labels_file=Place(file=str(path / _LABELS_FILE)),
    )


def _kind_fault(mask: Path) -> str | None:
    """What keeps a file from holding one label id a pixel; the PNG header (IHDR) tells it."""
    with mask.open("rb") as stream:
        head = stream.read(26)
    depth, color = head[24], head[25]
    if color == _PALETTE:
        return "holds colours of a palette; write its palette numbers as grey values"
    if depth != 8 or color != _GREY:
        return "must be a grey PNG of 8 bits a pixel"
    return None


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Label ids, (H, W) uint8; raises ImageError where it is no grey picture of 8 bits or damaged."""
    try:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error) as failure:
        raise ImageError(f"{path}: the mask cannot be read: {failure}") from failure
    if image is None or image.ndim != 2 or image.dtype != np.uint8:
        raise ImageError(f"{path}: the mask is no grey picture of 8 bits, or is damaged")
    return cast("NDArray[np.uint8]", image)


def _write(dataset: Dataset, folder: Path, *, link: bool) -> list[str]:
    put_pictures(dataset, folder / "images", link=link)
    write_labels(dataset, folder / _LABELS_FILE)
    for name, sample in zip(label_paths(dataset, ".png"), dataset.samples, strict=True):
        if sample.mask is None:
            raise UsageError(f"{sample.path}: has no mask, and every picture of this format has one")
        put(sample.mask, folder / "masks" / name, link=link)
    return []


FORMAT = Format(
    name="masks",
    task="segmentation",
    signs="images/ and masks/ with labels.txt",
    looks_like=_looks_like,
    read=_read,
    write=_write,
)
