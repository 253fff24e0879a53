"""What a format is to the rest: a name, a look, a reader and a writer. And the words that people use for the three parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from edgevision.errors import UsageError
from edgevision.host.dataset.base import Dataset, Role, Task

_ROLES: Mapping[str, Role] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
    "calibration": "calibration",
    "calib": "calibration",
}

_Part = TypeVar("_Part")


class Reader(Protocol):
    """Reads a dataset at a path that `looks_like` has found to be of this format."""

    def __call__(self, path: Path, *, split: str | None) -> Dataset:
        """`split` picks a part where the format holds several; raises UsageError where it must be said and is not."""
        ...


class Writer(Protocol):
    """Writes a dataset into an empty folder."""

    def __call__(self, dataset: Dataset, folder: Path, *, link: bool) -> list[str]:
        """Gives what the format cannot hold, each with its number; may raise OSError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way to store labelled pictures."""

    name: str
    task: Task
    signs: str
    """What is looked for, for messages."""
    looks_like: Callable[[Path], bool]
    read: Reader
    write: Writer


def role_of_split(word: str) -> Role | None:
    """`val` and `valid` are validation; None for a word that names no part."""
    return _ROLES.get(word.lower())


def pick_split(path: Path, parts: Mapping[str, _Part], split: str | None) -> tuple[str, _Part]:
    """The part of a dataset that is asked for; with nothing asked, the only one.

    Raises:
        UsageError: there is none of that name, or several and no choice.
    """
    names = ", ".join(parts)
    if split is None:
        if len(parts) == 1:
            return next(iter(parts.items()))
        raise UsageError(f"{path}: holds several parts: {names}; choose one with --split")
    role = role_of_split(split)
    found = [name for name in parts if name == split or (role is not None and role_of_split(name) == role)]
    if len(found) != 1:
        raise UsageError(f"{path}: has no part {split!r}; there are: {names}")
    return found[0], parts[found[0]]


def count_lost(dataset: Dataset, *, holds: Sequence[str] = ()) -> list[str]:
    """What of the boxes a format cannot hold, given what it can: `crowd`, `difficult`, `area`."""
    boxes = [box for sample in dataset.samples for box in sample.boxes]
    counts = {
        "crowd": (sum(box.crowd for box in boxes), "crowd marks (groups are single objects now)"),
        "difficult": (sum(box.difficult for box in boxes), "difficult marks"),
        "area": (sum(box.area_px is not None for box in boxes), "object areas (the boxes' areas count now)"),
    }
    return [f"{count} {what}" for key, (count, what) in counts.items() if count and key not in holds]
