"""`--limit N`: a seeded choice of pictures that keeps the classes' shares."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable

import numpy as np

from edgevision.host.dataset.base import Dataset, Sample


def choose(dataset: Dataset, limit: int, seed: int) -> tuple[Sample, ...]:
    """At most `limit` of a dataset's pictures, in the dataset's order.

    A picture's class is its label, or the rarest class among its boxes. Every class gives its share, rounded by largest
    remainder, and each class one before any gets a second where the limit allows it.
    """
    if limit >= len(dataset.samples):
        return dataset.samples
    rng = np.random.default_rng(seed)
    boxes = Counter(label for sample in dataset.samples for label in {box.label_id for box in sample.boxes})
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for number, sample in enumerate(dataset.samples):
        groups[_class_of(sample, boxes)].append(number)
    members = [rng.permutation(group).tolist() for _, group in sorted(groups.items(), key=lambda item: repr(item[0]))]
    chosen: list[int] = []
    for group, share in zip(members, _shares([len(group) for group in members], limit, rng), strict=True):
        chosen += group[:share]
    return tuple(dataset.samples[number] for number in sorted(chosen))


def _class_of(sample: Sample, boxes: Counter[int]) -> int | None:
    if sample.label_id is not None:
        return sample.label_id
    return min({box.label_id for box in sample.boxes}, key=lambda label: (boxes[label], label), default=None)


def _shares(sizes: list[int], limit: int, rng: np.random.Generator) -> list[int]:
    least = 1 if limit >= len(sizes) else 0
    exact = np.array(sizes) * (limit / sum(sizes))
    shares = np.clip(np.floor(exact).astype(int), least, sizes)
    # Ties are broken by the draw, not by the class's number.
    ties = rng.permutation(len(sizes))
    while (missing := limit - int(shares.sum())) != 0:
        room = shares < sizes if missing > 0 else shares > least
        want = np.where(room, (exact - shares) * np.sign(missing), -np.inf)
        shares[np.lexsort((ties, -want))[0]] += int(np.sign(missing))
    return [int(share) for share in shares]
