"""Several datasets as one: labels are joined by name, pictures of one name are told apart, copies are left out.

A label that differs only in case or spaces is another label, and is pointed out. A held-out test set is merged only with
other test sets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from edgevision.errors import UsageError
from edgevision.host.dataset.base import Dataset, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The joined dataset and what was done for it."""

    dataset: Dataset
    renamed: int
    """Pictures that got another name because theirs was taken."""
    copies: int
    """Pictures that were left out: same content and labels as one before."""
    remarks: tuple[str, ...]


def merge(datasets: Sequence[Dataset]) -> Merged:
    """Join datasets of one task, in order: the first keeps its label numbers and names.

    Raises:
        UsageError: fewer than two, different tasks, masks with different labels, or a test set among others.
    """
    if len(datasets) < 2:
        raise UsageError("give two or more datasets to merge")
    first = datasets[0]
    for other in datasets[1:]:
        if other.task != first.task:
            raise UsageError(
                f"{other.source}: is for {other.task}, and {first.source} for {first.task}: they do not merge"
            )
        if first.task == "segmentation" and other.labels != first.labels:
            raise UsageError(
                f"{other.source}: its labels differ from those of {first.source}, and masks hold their numbers"
            )
    roles = {dataset.role for dataset in datasets}
    if "test" in roles and len(roles) > 1:
        held_out = next(dataset.source for dataset in datasets if dataset.role == "test")
        raise UsageError(f"{held_out}: is a held-out test set; it merges with other test sets only")
    labels = tuple(dict.fromkeys(label for dataset in datasets for label in dataset.labels))
    joiner = _Joiner(labels)
    for dataset in datasets:
        joiner.add(dataset)
    remarks = [*_alike(labels), *joiner.remarks()]
    if len(roles) > 1:
        remarks.append(
            f"the roles differ ({', '.join(sorted(str(role) for role in roles))}): the merged dataset has none"
        )
    samples = tuple(sorted(joiner.samples, key=lambda sample: sample.name))
    role = first.role if len(roles) == 1 else None
    merged = replace(first, labels=labels, samples=samples, faults=(), notes=(), role=role)
    return Merged(dataset=merged, renamed=joiner.renamed, copies=joiner.copies, remarks=tuple(remarks))


class _Joiner:
    def __init__(self, labels: tuple[str, ...]) -> None:
        self.samples: list[Sample] = []
        self.renamed = 0
        self.copies = 0
        self._numbers = {label: index for index, label in enumerate(labels)}
        self._stems: set[str] = set()
        self._contents: dict[str, Sample] = {}
        self._contradictions: list[tuple[Sample, Sample]] = []

    def add(self, dataset: Dataset) -> None:
        number = [self._numbers[label] for label in dataset.labels]
        for old in dataset.samples:
            boxes = tuple(replace(box, label_id=number[box.label_id]) for box in old.boxes)
            label_id = None if old.label_id is None else number[old.label_id]
            sample = replace(old, boxes=boxes, label_id=label_id)
            content = hashlib.sha256(old.path.read_bytes()).hexdigest()
            before = self._contents.get(content)
            if before is not None and _same_labels(before, sample):
                self.copies += 1
                continue
            if before is not None:
                self._contradictions.append((before, sample))
            self._contents.setdefault(content, sample)
            name = self._free_name(sample.name)
            self.renamed += name != sample.name
            self.samples.append(replace(sample, name=name))

    def _free_name(self, name: str) -> str:
        """Names that differ only in suffix or case count as one: they would share a label file, or a file on some disks."""
        path, number = PurePosixPath(name), 1
        while (stem := path.with_suffix("").as_posix().casefold()) in self._stems:
            number += 1
            path = PurePosixPath(name).with_stem(f"{PurePosixPath(name).stem}-{number}")
        self._stems.add(stem)
        return path.as_posix()

    def remarks(self) -> list[str]:
        if not self._contradictions:
            return []
        one, other = self._contradictions[0]
        count = len(self._contradictions)
        return [
            f"{count} pictures are there twice with different labels, both are kept; the first: {one.path}, {other.path}"
        ]


def _same_labels(one: Sample, other: Sample) -> bool:
    if one.label_id != other.label_id or (one.mask is None) != (other.mask is None):
        return False
    if one.mask is not None and other.mask is not None:
        return one.mask.read_bytes() == other.mask.read_bytes()
    mine, others = (
        sorted((box.label_id, *(round(edge, 2) for edge in box.xyxy), box.crowd, box.difficult) for box in sample.boxes)
        for sample in (one, other)
    )
    return mine == others


def _alike(labels: Sequence[str]) -> list[str]:
    """Labels that are probably one."""
    seen: dict[str, str] = {}
    said = []
    for label in labels:
        key = "".join(char for char in label.casefold() if char.isalnum()) or label
        if key in seen:
            said.append(
                f"the labels {seen[key]!r} and {label!r} look alike and stay two; rename one if they are the same"
            )
        seen.setdefault(key, label)
    return said
