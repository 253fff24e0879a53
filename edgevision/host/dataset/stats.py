"""What is in a dataset: how often each label, how large the objects, how uneven it all is, and everything that is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from edgevision.capture.images import read_image
from edgevision.errors import ImageError
from edgevision.host.dataset.base import Dataset, LabelFault, Sample
from edgevision.host.dataset.dataset_file import FILE_NAME, folder_of, read_dataset_file
from edgevision.host.dataset.masks import read_mask

UNEVEN = 10.0
"""Times as often the most frequent label as the rarest one that occurs: pointed out."""
SMALL_AREA_PX, LARGE_AREA_PX = 32**2, 96**2
"""COCO's borders between small, medium and large objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Of some numbers the least, the middle, the mean and the greatest."""

    least: float
    median: float
    mean: float
    greatest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCount:
    """How often a label occurs."""

    label: str
    pictures: int
    boxes: int
    small: int
    medium: int
    large: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """All figures of a dataset."""

    source: str
    format: str
    task: str
    role: str | None
    digest: str
    pictures: int
    unlabelled_pictures: int
    boxes: int
    crowd_boxes: int
    difficult_boxes: int
    labels: tuple[LabelCount, ...]
    imbalance: float | None
    """The most frequent label's count over the rarest one's that occurs."""
    picture_sizes: tuple[tuple[int, int, int], ...]
    """Width, height, number of pictures; the most frequent first."""
    boxes_per_picture: Spread | None
    box_aspect: Spread | None
    """Width over height."""
    box_side_share: Spread | None
    """Square root of a box's share of its picture."""
    remarks: tuple[str, ...]
    notes: tuple[str, ...]
    faults: tuple[LabelFault, ...]

    def document(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return asdict(self)


def statistics(
    dataset: Dataset, *, decode: bool = True, advance: Callable[[int], None] = lambda _steps: None
) -> Statistics:
    """Count a dataset.

    Args:
        dataset: as it was read.
        decode: open every picture and mask too: damage within a file shows only there.
        advance: told the number of pictures decoded since the last call.

    Raises:
        StateError, OSError: never for a picture that cannot be read; that is a fault.
    """
    faults = [*dataset.faults]
    for sample in dataset.samples if decode else ():
        faults += _decoded(dataset, sample)
        advance(1)
    digest = dataset.digest()
    said = read_dataset_file(dataset.source)
    if said is not None and said.digest is not None and said.digest != digest and said.format == dataset.format:
        file = str(folder_of(dataset.source) / FILE_NAME)
        faults.append(
            LabelFault(file=file, line=None, problem="the dataset is not what it was when this digest was taken")
        )
    labels = _label_counts(dataset)
    boxes = [box for sample in dataset.samples for box in sample.boxes]
    counts = {count.label: count.boxes if dataset.task == "detection" else count.pictures for count in labels}
    used = {label: count for label, count in counts.items() if count}
    imbalance = max(used.values()) / min(used.values()) if used else None
    sizes = Counter((sample.width, sample.height) for sample in dataset.samples)
    shapes = [(box, sample) for sample in dataset.samples for box in sample.boxes]
    return Statistics(
        source=str(dataset.source),
        format=dataset.format,
        task=dataset.task,
        role=dataset.role,
        digest=digest,
        pictures=len(dataset),
        unlabelled_pictures=sum(not _labelled(sample) for sample in dataset.samples),
        boxes=len(boxes),
        crowd_boxes=sum(box.crowd for box in boxes),
        difficult_boxes=sum(box.difficult for box in boxes),
        labels=tuple(labels),
        imbalance=imbalance,
        picture_sizes=tuple((*size, count) for size, count in sizes.most_common()),
        boxes_per_picture=_spread([len(sample.boxes) for sample in dataset.samples]) if boxes else None,
        box_aspect=_spread([_width(box.xyxy) / _height(box.xyxy) for box in boxes]),
        box_side_share=_spread(
            [(_width(box.xyxy) * _height(box.xyxy) / (sample.width * sample.height)) ** 0.5 for box, sample in shapes]
        ),
        remarks=tuple(_remarks(used)),
        notes=dataset.notes,
        faults=tuple(faults),
    )


def _decoded(dataset: Dataset, sample: Sample) -> list[LabelFault]:
    """The faults that show only when a picture and its mask are decoded."""
    try:
        height, width = read_image(sample.path).shape[:2]
        if (width, height) != (sample.width, sample.height):
            problem = f"is {width}x{height}, its header says {sample.width}x{sample.height}"
            return [LabelFault(file=str(sample.path), line=None, problem=problem)]
        if sample.mask is not None:
            highest = int((read_mask(sample.mask) + 1).max()) - 1  # 255, not labelled, wraps to -1
            if highest >= len(dataset.labels):
                problem = f"a pixel is {highest}; there are {len(dataset.labels)} labels (and 255 for none)"
                return [LabelFault(file=str(sample.mask), line=None, problem=problem)]
    except ImageError as failure:
        file, _, problem = str(failure).partition(": ")
        return [LabelFault(file=file, line=None, problem=problem)]
    return []


def _labelled(sample: Sample) -> bool:
    return bool(sample.boxes) or sample.label_id is not None or sample.mask is not None


def _label_counts(dataset: Dataset) -> list[LabelCount]:
    pictures: Counter[int] = Counter()
    sizes: Counter[tuple[int, int]] = Counter()
    for sample in dataset.samples:
        pictures.update({box.label_id for box in sample.boxes})
        if sample.label_id is not None:
            pictures[sample.label_id] += 1
        for box in sample.boxes:
            area = _width(box.xyxy) * _height(box.xyxy) if box.area_px is None else box.area_px
            sizes[box.label_id, 0 if area < SMALL_AREA_PX else 1 if area <= LARGE_AREA_PX else 2] += 1
    return [
        LabelCount(
            label=label,
            pictures=pictures[index],
            boxes=sum(sizes[index, size] for size in range(3)),
            small=sizes[index, 0],
            medium=sizes[index, 1],
            large=sizes[index, 2],
        )
        for index, label in enumerate(dataset.labels)
    ]


def _width(xyxy: tuple[float, float, float, float]) -> float:
    return xyxy[2] - xyxy[0]


def _height(xyxy: tuple[float, float, float, float]) -> float:
    return xyxy[3] - xyxy[1]


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    return Spread(least=min(values), median=median(values), mean=sum(values) / len(values), greatest=max(values))


def _remarks(used: dict[str, int]) -> list[str]:
    if len(used) < 2:
        return []
    most, least = max(used, key=lambda label: used[label]), min(used, key=lambda label: used[label])
    ratio = used[most] / used[least]
    if ratio < UNEVEN:
        return []
    said = (
        f"the classes are unbalanced: {most!r} occurs {used[most]} times, {least!r} {used[least]} times ({ratio:.0f} to 1); "
        f"collect more of the rare ones, and read figures per class"
    )
    return [said]
