"""What a model said of each picture, in the dataset's own classes: plain values that every metric reads."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgevision.errors import UsageError
from edgevision.types import Classifications, Detections

OTHER = -1
"""Label id of an answer that is no class of the dataset."""

_SHOWN = 8
"""Labels that an error names before it says how many more there are."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PixelCounts:
    """Segmentation of one picture, counted: an answer as large as the picture is not kept."""

    both: NDArray[np.int64]
    """(classes,) pixels that are the class and were said to be."""
    said: NDArray[np.int64]
    """(classes,) labelled pixels that were said to be the class."""
    true: NDArray[np.int64]
    """(classes,) pixels that are the class."""


Found: TypeAlias = Detections | Classifications | PixelCounts
"""Class ids are the dataset's label ids, `OTHER` where it has no such class (classification only)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassMap:
    """How a model's classes become the dataset's."""

    label_of_class: NDArray[np.int64]
    """(model classes,) the dataset's label id, or `OTHER`."""
    how: str
    """For the report."""
    names: tuple[str, ...]
    """The dataset's labels for people: a label that is only a number has the model's name beside it."""
    missing: frozenset[int]
    """Label ids of the dataset that no class of the model means."""

    def labels(self, class_id: NDArray[np.int32]) -> NDArray[np.int64]:
        """The dataset's label ids of model classes (n,)."""
        known = (class_id >= 0) & (class_id < len(self.label_of_class))
        ids = np.full(len(class_id), OTHER, np.int64)
        ids[known] = self.label_of_class[class_id[known]]
        return ids


def match_classes(
    model: tuple[str, ...], dataset: tuple[str, ...], *, offset: int | None, used: frozenset[int]
) -> ClassMap:
    """Match a model's classes with a dataset's, by name or by number.

    By name, case, `_` and `-` do not count, and several classes of the model may have one name. By number, label i of the
    dataset is class i + offset of the model; where the dataset's labels are themselves whole numbers, those are i.

    Args:
        model: the model's labels by class id.
        dataset: the dataset's labels by label id.
        offset: match by number; None to match by name.
        used: the label ids that the pictures really carry; one that none carries may be unknown to the model.

    Raises:
        UsageError: nothing matches at all, or a name stands for two of the dataset's classes.
    """
    if offset is not None:
        return _by_index(model, dataset, used, offset)
    if model == dataset:
        return ClassMap(
            label_of_class=np.arange(len(model)), how="the labels are the same", names=dataset, missing=frozenset()
        )
    if not model:
        raise UsageError("the model carries no labels to match with the dataset's; say --by-index to match by number")
    ids: dict[str, int] = {}
    for label_id, name in enumerate(dataset):
        if ids.setdefault(_plain(name), label_id) != label_id:
            raise UsageError(f"two classes of the dataset are named {name!r}; rename one, or match with --by-index")
    label_of_class = np.array([ids.get(_plain(name), OTHER) for name in model], np.int64)
    missing = frozenset(range(len(dataset))) - frozenset(label_of_class.tolist())
    if used and used <= missing:
        raise UsageError(unknown_labels(model, dataset, missing & used))
    return ClassMap(label_of_class=label_of_class, how="by name", names=dataset, missing=missing)


def unknown_labels(model: tuple[str, ...], dataset: tuple[str, ...], missing: frozenset[int]) -> str:
    """One line for labels that the model does not know, each with the nearest one that it does."""
    plain = {_plain(name): name for name in model}
    words = []
    for label_id in sorted(missing)[:_SHOWN]:
        near = get_close_matches(_plain(dataset[label_id]), list(plain), n=1)
        words.append(repr(dataset[label_id]) + (f" (did you mean {plain[near[0]]!r}?)" if near else ""))
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return (
        f"labels do not fit the model: it has no {', '.join(words)}{more} among its {len(model)} labels; rename them in "
        "the dataset, match by number with --by-index, or leave them out with --skip-faulty"
    )


def _by_index(model: tuple[str, ...], dataset: tuple[str, ...], used: frozenset[int], offset: int) -> ClassMap:
    numbers = [int(name) if name.isascii() and name.isdigit() else None for name in dataset]
    named = None not in numbers and len(set(numbers)) == len(numbers)
    counted = [number for number in numbers if number is not None] if named else list(range(len(dataset)))
    class_of_label = [number + offset for number in counted]
    size = len(model) or max(class_of_label, default=-1) + 1
    beyond = [class_of_label[label_id] for label_id in sorted(used) if not 0 <= class_of_label[label_id] < size]
    if beyond:
        raise UsageError(f"--by-index: the dataset has class {beyond[0]}, the model only 0 to {size - 1}")
    label_of_class = np.full(size, OTHER, np.int64)
    for label_id, class_id in enumerate(class_of_label):
        if 0 <= class_id < size:
            label_of_class[class_id] = label_id
    how = "by number (the labels are class ids)" if named else "by number (in order)"
    names = dataset
    if named and model:
        names = tuple(
            f"{label} ({model[class_id]})" if 0 <= class_id < size else label
            for label, class_id in zip(dataset, class_of_label, strict=True)
        )
    if offset:
        how += f", {offset:+d}"
    return ClassMap(label_of_class=label_of_class, how=how, names=names, missing=frozenset())


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
