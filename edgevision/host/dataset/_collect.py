"""What all readers share: gathering samples and faults, and the one judgement of what makes a box wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from edgevision.errors import ImageError
from edgevision.host.dataset.base import Box, Dataset, LabelFault, Role, Sample, Task
from edgevision.host.dataset.pictures import picture_size

ROUNDING_PX = 0.5
"""A box that reaches this far beyond its picture is a label tool's rounding: cut off, and no fault."""

DIGITS = 6
"""Box edges are kept to a millionth of a pixel: what x + width or a share of the picture's side adds is rounded away,
so that a dataset is the same (and has the same digest) in every format."""

_NAMED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a label stands, for messages."""

    file: str
    line: int | None = None
    what: str = ""
    """Such as `annotation 17`."""


Where: TypeAlias = Place | Callable[[], Place]
"""A place, or how to find it: only a fault needs to know its line."""


class Collector:
    """Takes what a reader finds; `dataset` gives it in order."""

    def __init__(self) -> None:
        self.faults: list[LabelFault] = []
        self._samples: dict[str, Sample] = {}
        self._notes: dict[str, int] = {}

    def fault(self, where: Where, problem: str) -> None:
        """Note something wrong."""
        place = where() if callable(where) else where
        self.faults.append(
            LabelFault(file=place.file, line=place.line, problem=f"{place.what}: {problem}" if place.what else problem)
        )

    def note(self, what: str, count: int = 1) -> None:
        """Count something that a dataset does not hold; `what` is put behind the number."""
        if count:
            self._notes[what] = self._notes.get(what, 0) + count

    def size(self, path: Path, place: Where) -> tuple[int, int] | None:
        """Width and height of a picture; None, and a fault, where it cannot be used."""
        try:
            return picture_size(path)
        except ImageError as failure:
            self.fault(place, f"{path}: {failure}")
            return None

    def add(self, sample: Sample, place: Where) -> None:
        """Keep a sample; a second one of the same picture is a fault."""
        if sample.name in self._samples:
            self.fault(place, f"the picture {sample.name} stands twice; the first is kept")
        else:
            self._samples[sample.name] = sample

    def box(self, box: Box, width: int, height: int, place: Where, *, hint: str = "") -> Box | None:
        """The box, cut off at its picture's edges; None, and a fault, where nothing of it is left.

        Args:
            box: as the file says.
            width: of the picture, pixels.
            height: of the picture, pixels.
            place: for the message.
            hint: what a box outside its picture mostly comes from in this format.
        """
        left, top, right, bottom = box.xyxy
        within = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
        cut = tuple(round(edge, DIGITS) for edge in within)
        problem = None
        if not all(math.isfinite(edge) for edge in box.xyxy):
            problem = "holds no finite numbers"
        elif right < left or bottom < top:
            problem = "is inverted: its right or bottom edge comes first"
        elif right == left or bottom == top:
            problem = "has no area"
        elif cut[2] <= cut[0] or cut[3] <= cut[1]:
            problem = f"lies outside its picture of {width}x{height}{hint}"
        if problem is not None:
            self.fault(place, f"the box {_shown(box)} {problem}; it is left out")
            return None
        if max(-left, -top, right - width, bottom - height) > ROUNDING_PX:
            self.fault(
                place,
                f"the box {_shown(box)} reaches beyond its picture of {width}x{height}; it is cut off there{hint}",
            )
        return replace(box, xyxy=(cut[0], cut[1], cut[2], cut[3]))

    def dataset(
        self,
        *,
        source: Path,
        format_name: str,
        task: Task,
        labels: tuple[str, ...],
        labels_file: Place,
        role: Role | None = None,
        check_empty: bool = True,
    ) -> Dataset:
        """All that was gathered, pictures sorted by name; empty classes and double labels join the faults.

        Args:
            source: what was read.
            format_name: the format's name.
            task: what the labels are for.
            labels: names by label id.
            labels_file: where the labels are named, for messages.
            role: what the files say that the dataset is for.
            check_empty: False where the labels are only those that occur.
        """
        samples = tuple(self._samples[name] for name in sorted(self._samples))
        double = (
            sorted({label for label in labels if labels.count(label) > 1}) if len(set(labels)) < len(labels) else []
        )
        if double:
            self.fault(labels_file, f"labels stand twice: {_some(double)}; give each class a name of its own")
        if check_empty and task != "segmentation":
            used = {box.label_id for sample in samples for box in sample.boxes}
            used |= {sample.label_id for sample in samples if sample.label_id is not None}
            empty = [label for label_id, label in enumerate(labels) if label_id not in used]
            if empty:
                what = "box" if task == "detection" else "picture"
                self.fault(labels_file, f"{len(empty)} of {len(labels)} classes are empty (no {what}): {_some(empty)}")
        notes = tuple(f"{count} {what}" for what, count in self._notes.items())
        return Dataset(
            source=source,
            format=format_name,
            task=task,
            labels=labels,
            samples=samples,
            faults=tuple(self.faults),
            role=role,
            notes=notes,
        )


def _shown(box: Box) -> str:
    return "(" + ", ".join(f"{edge:.7g}" for edge in box.xyxy) + ")"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(repr(name) for name in listed[:_NAMED]) + more


def safe_name(name: str) -> bool:
    """Whether a name from a label file stays within its folder: relative, no `..`, no zero byte, plain parts."""
    if not name or "\0" in name or "\\" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.as_posix() == name and path.name != ""


def read_lines(path: Path, collector: Collector, *, max_bytes: int = 64 << 20) -> list[str] | None:
    """Lines of a UTF-8 text file without their ends; None, and a fault, where it cannot be read."""
    place = Place(file=str(path))
    try:
        with path.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except OSError as failure:
        collector.fault(place, f"cannot be read: {failure.strerror or failure}")
        return None
    if len(content) > max_bytes:
        collector.fault(place, f"is larger than {max_bytes} bytes, which is the limit")
        return None
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as failure:
        line = content.count(b"\n", 0, failure.start) + 1
        collector.fault(Place(file=str(path), line=line), f"is not UTF-8 text: byte 0x{content[failure.start]:02x}")
        return None


def read_label_names(path: Path, collector: Collector) -> tuple[str, ...]:
    """A file with one label a line, as labels.txt and classes.txt are; an empty line within is a fault."""
    lines = read_lines(path, collector) or []
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            collector.fault(Place(file=str(path), line=number), "the label's name is empty; each line names one class")
    return tuple(line.strip() for line in lines)
