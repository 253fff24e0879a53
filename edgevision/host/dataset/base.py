"""What a dataset is, whatever format it came in. One file a format beside this one; everything else knows only this page.

A format reads what is there and says what is wrong with it: a fault is a value with file and line, and not an exception, so
that `evaluate` can go on with the rest and say how much it left out. Pictures are not opened when a dataset is read; their
size is read from the header.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

Task: TypeAlias = Literal["classification", "detection", "segmentation"]
Role: TypeAlias = Literal["train", "validation", "test", "calibration"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One labelled object."""

    label_id: int
    """Index into the dataset's `labels`."""
    xyxy: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels of the picture, edges (not pixel centres): an object of one pixel is 1 wide."""
    crowd: bool = False
    """COCO: a group that is not counted as single objects."""
    difficult: bool = False
    """VOC: not counted as a miss when it is not found."""
    area_px: float | None = None
    """The object's own area where the labels tell it (COCO's segment area); None: the box's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One picture and what is known of it."""

    name: str
    """The picture's path relative to the dataset's picture folder, with `/`: unique in a dataset."""
    path: Path
    width: int
    height: int
    """Pixels, as the picture is shown (EXIF orientation applied)."""
    label_id: int | None = None
    """Classification: index into the dataset's `labels`."""
    boxes: tuple[Box, ...] = ()
    mask: Path | None = None
    """Segmentation: a picture whose pixel values are label ids, 255 is not labelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFault:
    """Something wrong in a dataset."""

    file: str
    line: int | None
    """1-based where the format has lines."""
    problem: str
    """What was found and how to mend it."""

    def __str__(self) -> str:
        """`file:line: problem`."""
        return f"{self.file}:{self.line}: {self.problem}" if self.line is not None else f"{self.file}: {self.problem}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Labelled pictures."""

    source: Path
    """What was read: a file or folder."""
    format: str
    task: Task
    labels: tuple[str, ...]
    samples: tuple[Sample, ...]
    """Sorted by name; those with an unreadable picture are left out and told in `faults`."""
    faults: tuple[LabelFault, ...] = field(default=(), repr=False)
    role: Role | None = None
    """What the dataset file says that it is for; a test set's uses are counted."""
    notes: tuple[str, ...] = field(default=(), repr=False)
    """What its files hold and these values do not, with the number of times: nothing is left out in silence."""

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.samples)

    def digest(self) -> str:
        """sha256 in hex over names, labels and the pictures' contents: the same data has the same digest in any format."""
        total = hashlib.sha256()
        total.update("\n".join(self.labels).encode())
        for line in self._lines():
            total.update(line.encode())
        return total.hexdigest()

    def _lines(self) -> Iterator[str]:
        for sample in self.samples:
            content = hashlib.sha256(sample.path.read_bytes()).hexdigest()
            mask = hashlib.sha256(sample.mask.read_bytes()).hexdigest() if sample.mask else ""
            boxes = sorted((box.label_id, *(round(edge, 2) for edge in box.xyxy), box.crowd) for box in sample.boxes)
            yield f"\n{sample.name} {content} {sample.label_id} {boxes} {mask}"
