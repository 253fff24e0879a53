"""Splitting a dataset into training, validation and test: seeded, stratified, and with no near-duplicate across a border.

Near-duplicates stay together as one group. Groups are dealt out label by label, the rarest label first, each to the part that
still lacks that label most and has room (iterative stratification). The sizes of the parts are kept before the shares of the
labels, so that many rare labels do not empty the test set.

Source: K. Sechidis, G. Tsoumakas, I. Vlahavas, On the Stratification of Multi-Label Data, ECML PKDD 2011.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from edgevision.errors import UsageError
from edgevision.host.dataset import duplicates
from edgevision.host.dataset._place import new_folder
from edgevision.host.dataset.base import Dataset, Role
from edgevision.host.dataset.formats import fill

PARTS: tuple[Role, ...] = ("train", "validation", "test")
DEFAULT_RATIOS = (70.0, 15.0, 15.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which picture goes where; nothing is written yet."""

    parts: Mapping[Role, Dataset]
    """Only those with a share above zero."""
    seed: int
    bits: int | None
    """The near-duplicates' threshold; None where they were not looked for."""
    duplicate_groups: int
    """Groups of two and more near-duplicates."""
    duplicates: int
    """Pictures in them."""
    remarks: tuple[str, ...]
    """What its user has to know before he uses the parts."""


def plan_split(
    dataset: Dataset,
    *,
    seed: int,
    ratios: tuple[float, float, float] = DEFAULT_RATIOS,
    bits: int | None = duplicates.DEFAULT_BITS,
    advance: Callable[[int], None] = lambda _steps: None,
) -> Plan:
    """Deal a dataset's pictures out.

    Args:
        dataset: of any task; no held-out test set.
        seed: the same seed gives the same parts.
        ratios: shares of training, validation and test, in any unit.
        bits: how near is a near-duplicate (`duplicates.near_pairs`); None does not look for them.
        advance: told the number of pictures hashed since the last call.

    Raises:
        UsageError: a test set, bad ratios, or too few pictures or groups for the parts.
        ImageError: a picture cannot be decoded.
    """
    if dataset.role == "test":
        raise UsageError(f"{dataset.source}: is a held-out test set and must not be split")
    if min(ratios) < 0 or sum(ratio > 0 for ratio in ratios) < 2:
        raise UsageError(f"the ratios {ratios} must be three numbers from 0, two of them above 0")
    group_of = np.arange(len(dataset))
    if bits is not None:
        hashes = duplicates.hash_samples(dataset.samples, advance)
        group_of = duplicates.groups(len(dataset), duplicates.near_pairs(hashes, bits))
    names, members = np.unique(group_of, return_inverse=True)
    wanted = _sizes(len(dataset), np.array(ratios, np.float64))
    if len(names) < np.count_nonzero(ratios) or np.any((wanted == 0) & (np.array(ratios) > 0)):
        what = f"{len(dataset)} pictures in {len(names)} groups of near-duplicates"
        raise UsageError(f"{dataset.source}: {what} are too few for these ratios; collect more, or choose others")
    part_of = _deal(_label_counts(dataset, members, len(names)), np.bincount(members), wanted, seed)[members]
    sizes = np.bincount(members)
    parts = {
        role: replace(
            dataset,
            samples=tuple(sample for sample, to in zip(dataset.samples, part_of, strict=True) if to == index),
            faults=(),
            notes=(),
            role=role,
        )
        for index, role in enumerate(PARTS)
        if ratios[index] > 0
    }
    return Plan(
        parts=parts,
        seed=seed,
        bits=bits,
        duplicate_groups=int(np.count_nonzero(sizes > 1)),
        duplicates=int(sizes[sizes > 1].sum()),
        remarks=tuple(_remarks(parts, wanted, int(sizes.max()))),
    )


def _sizes(count: int, ratios: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers of pictures that add up, by largest remainder."""
    exact = ratios / ratios.sum() * count
    sizes: NDArray[np.int64] = np.floor(exact + 1e-9).astype(np.int64)
    for index in np.argsort(sizes - exact, kind="stable")[: count - int(sizes.sum())]:
        sizes[index] += 1
    return sizes


def _label_counts(dataset: Dataset, members: NDArray[np.intp], groups: int) -> NDArray[np.int64]:
    """(groups, labels): in how many pictures of a group a label occurs; masks are not opened and count as unlabelled."""
    counts = np.zeros((groups, max(1, len(dataset.labels))), np.int64)
    for sample, group in zip(dataset.samples, members, strict=True):
        found = {box.label_id for box in sample.boxes}
        if sample.label_id is not None:
            found.add(sample.label_id)
        counts[group, list(found)] += 1
    return counts


def _deal(
    counts: NDArray[np.int64], sizes: NDArray[np.int64], wanted: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """The part of each group."""
    random = np.random.default_rng(seed)
    lacking = counts.sum(axis=0)[:, None] * (
        wanted / wanted.sum()
    )  # (labels, parts) pictures with a label, still lacking
    room = wanted.astype(np.float64)
    part_of: NDArray[np.int64] = np.full(len(sizes), -1, np.int64)
    shuffled = random.permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]  # large groups first: small ones fill the gaps

    def give(group: int, need: NDArray[np.float64]) -> None:
        part = _choose(need, room, int(sizes[group]), random)
        part_of[group] = part
        room[part] -= sizes[group]
        lacking[:, part] -= counts[group]

    left = counts.sum(axis=0)
    lot = random.permutation(counts.shape[1])  # of equally rare labels none goes first for its number
    while (left > 0).any():
        alive = lot[left[lot] > 0]
        label = alive[np.argmin(left[alive])]
        chosen = order[(part_of[order] < 0) & (counts[order, label] > 0)]
        for group in chosen.tolist():
            give(group, lacking[label])
        left = left - counts[chosen].sum(axis=0)
    for group in order[part_of[order] < 0].tolist():
        give(group, room)
    return part_of


def _choose(need: NDArray[np.float64], room: NDArray[np.float64], size: int, random: np.random.Generator) -> int:
    """Of the parts with room, the one in need; then the emptiest; then by lot. Without room, the one with most of it."""
    fits = room >= size
    if not fits.any():
        return int(np.argmax(room))
    best = np.flatnonzero(fits & (need >= need[fits].max() - 1e-9))
    best = best[room[best] >= room[best].max() - 1e-9]
    return int(random.choice(best))


def _remarks(parts: Mapping[Role, Dataset], wanted: NDArray[np.int64], largest: int) -> list[str]:
    said = []
    smallest = int(wanted[wanted > 0].min())
    if largest > smallest:
        said.append(
            f"one group of near-duplicates holds {largest} pictures, more than the smallest part should: pictures of one "
            f"scene look alike to the hash; lower --near-duplicates (0 finds exact copies only) if they are not the same"
        )
    for role, part in parts.items():
        aim = int(wanted[PARTS.index(role)])
        if abs(len(part) - aim) > max(1, aim // 20):
            said.append(f"{role} holds {len(part)} pictures instead of {aim}: groups of near-duplicates stay together")
    used = {role: _labels_of(part) for role, part in parts.items()}
    for role in parts:
        missing = sorted(set().union(*used.values()) - used[role])
        if missing:
            labels = parts[role].labels
            named = ", ".join(labels[index] for index in missing[:8]) + (", ..." if len(missing) > 8 else "")
            said.append(f"{role} has no picture with {len(missing)} of the labels: {named}")
    return said


def _labels_of(part: Dataset) -> set[int]:
    found = {box.label_id for sample in part.samples for box in sample.boxes}
    return found | {sample.label_id for sample in part.samples if sample.label_id is not None}


def write_split(plan: Plan, dataset: Dataset, folder: Path, format_name: str, *, link: bool) -> None:
    """Write the parts as folders train, validation and test, each a dataset with its dataset.yaml; all or none.

    For YOLO a data.yaml over all three is added, as training tools want it.

    Raises:
        UsageError: the folder is filled, or the format is not for this task.
        StateError: it cannot be written.
    """
    made = {
        "by": "edgevision dataset split",
        "seed": plan.seed,
        "near_duplicates_bits": plan.bits,
        "source": str(dataset.source),
        "source_digest": dataset.digest(),
    }
    with new_folder(folder) as temporary:
        for role, part in plan.parts.items():
            (temporary / role).mkdir()
            fill(part, temporary / role, format_name, link=link, made=made)
        if format_name == "yolo":
            keys = {"train": "train", "validation": "val", "test": "test"}
            content: dict[str, Any] = {"path": ".", **{keys[role]: f"{role}/images" for role in plan.parts}}
            content |= {"nc": len(dataset.labels), "names": list(dataset.labels)}
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
            (temporary / "data.yaml").write_text(text, encoding="utf-8")
