"""More pictures from those there are, with boxes kept right: turned, mirrored, brighter, noisy, partly hidden, mixed.

What happens to one picture is albumentations' (its last MIT release, 2.0.8; its successor is AGPL and is not used). What joins
two pictures, mixup and cutmix, albumentations does not have in a form that keeps labels, so it is here; and so is what a
hidden part means for a box (`visible_part`), one rule for `erase` and `cutmix`.

Each copy has a random choice of the operations; its random numbers come from the seed, the picture's name and the copy's
number alone, so that one picture more or less changes no other.

Sources: H. Zhang et al., mixup, 2018; S. Yun et al., CutMix, 2019; Z. Zhong et al., Random Erasing, 2020.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgevision import registry
from edgevision.capture.images import read_image
from edgevision.errors import UsageError
from edgevision.host.dataset.base import Box, Dataset, Sample
from edgevision.host.dataset.masks import read_mask

OPERATIONS = ("rotate", "flip", "vflip", "brightness", "noise", "erase", "mixup", "cutmix")
"""`flip` is left to right, `vflip` upside down."""

DEFAULT_OPERATIONS = ("rotate", "flip", "brightness", "noise", "erase")

MIN_VISIBLE = 0.4
"""A box of which less is left is dropped: what is left can hardly be told for what it is."""

MAX_ROTATION_DEG = 10.0
"""Boxes grow when they are turned: at 10 degrees a square's area by a third."""

_MOVING = frozenset({"rotate", "flip", "vflip"})
"""Operations that move pixels, and boxes with them."""

_PADDING = 114
"""Grey, as the letterbox pads with."""
_NO_LABEL = 255

Xyxy = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Picture:
    """One picture with its labels, in memory."""

    image: NDArray[np.uint8]
    """(H, W, 3) BGR."""
    boxes: tuple[Box, ...] = ()
    label_id: int | None = None
    mask: NDArray[np.uint8] | None = None
    """(H, W) label ids."""
    dropped: int = 0
    """Boxes that were dropped because too little is left of their objects."""


def load(sample: Sample) -> Picture:
    """Decode a sample; raises ImageError."""
    mask = read_mask(sample.mask) if sample.mask is not None else None
    return Picture(image=read_image(sample.path), boxes=sample.boxes, label_id=sample.label_id, mask=mask)


def visible_part(xyxy: Xyxy, hole: Xyxy) -> tuple[Xyxy, float]:
    """What is left of a box when a rectangle hides a part of it.

    Returns:
        The smallest box around what is left, and the share of the old area that is left (0-1). A hole in a corner or in
        the middle hides area and moves no edge.
    """
    left, top, right, bottom = xyxy
    cut = (max(left, hole[0]), max(top, hole[1]), min(right, hole[2]), min(bottom, hole[3]))
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        return xyxy, 1.0
    share = 1 - (cut[2] - cut[0]) * (cut[3] - cut[1]) / ((right - left) * (bottom - top))
    if cut[1] <= top and cut[3] >= bottom:  # over the full height: the left or right edge may move
        left, right = (cut[2] if cut[0] <= left else left), (cut[0] if cut[2] >= right else right)
    elif cut[0] <= left and cut[2] >= right:
        top, bottom = (cut[3] if cut[1] <= top else top), (cut[1] if cut[3] >= bottom else bottom)
    return (left, top, right, bottom), max(0.0, share)


def clipped(xyxy: Xyxy, window: Xyxy) -> tuple[Xyxy, float]:
    """The part of a box within a rectangle, and its share of the box's area; a share of 0 where nothing is."""
    left, top = max(xyxy[0], window[0]), max(xyxy[1], window[1])
    right, bottom = min(xyxy[2], window[2]), min(xyxy[3], window[3])
    area = (xyxy[2] - xyxy[0]) * (xyxy[3] - xyxy[1])
    return (left, top, right, bottom), max(0.0, right - left) * max(0.0, bottom - top) / area


class Augmenter:
    """Applies operations to pictures; the library's parts are made once."""

    def __init__(self, operations: Sequence[str], *, seed: int) -> None:
        """Check the operations and load the library.

        Raises:
            UsageError: an operation is not known, or none is given.
            PluginError: albumentations is not installed.
        """
        for name in operations:
            if name not in OPERATIONS:
                raise UsageError(registry.unknown_name("operation", name, list(OPERATIONS)))
        if not operations:
            raise UsageError(f"give at least one operation of {', '.join(OPERATIONS)}")
        self._operations = tuple(dict.fromkeys(operations))
        self._seed = seed
        self.alone = 0
        """Copies that were to be mixed and had no other picture (of their class) to be mixed with."""
        # It asks its maker's server for news when it is imported, unless it is told not to.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        self._library: Any = registry.require("albumentations", package="edgevision[host]", purpose="augmentation")
        self._transforms = {name: self._compose(name) for name in self._operations if name not in {"mixup", "cutmix"}}

    def copies(self, dataset: Dataset, sample: Sample, count: int) -> Iterator[Picture]:
        """So many changed copies of a picture; raises ImageError where it, or a partner, cannot be decoded."""
        original = load(sample)
        for number in range(count):
            key = f"{self._seed}/{sample.name}/{number}".encode()
            random = np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()[:8], "little"))
            picture = original
            for name in self._choice(random):
                picture = self.apply(name, picture, random, partner=self._partner(name, dataset, sample, random))
            yield picture

    def _choice(self, random: np.random.Generator) -> list[str]:
        """Each operation with a chance of one half, at least one; in the given order."""
        taken = random.random(len(self._operations)) < 0.5
        taken[random.integers(len(taken))] = True
        return [name for name, take in zip(self._operations, taken, strict=True) if take]

    def _partner(self, name: str, dataset: Dataset, sample: Sample, random: np.random.Generator) -> Picture | None:
        """Another picture of the dataset; for classification of the same class, so that the label stays true."""
        if name not in {"mixup", "cutmix"}:
            return None
        others = [other for other in dataset.samples if other.label_id == sample.label_id and other is not sample]
        return load(others[random.integers(len(others))]) if others else None

    def apply(
        self, name: str, picture: Picture, random: np.random.Generator, *, partner: Picture | None = None
    ) -> Picture:
        """One operation; mixup and cutmix leave the picture as it is where there is no partner."""
        if name in {"mixup", "cutmix"}:
            if partner is None:
                self.alone += 1
                return picture
            fitted = _fitted(partner, picture.image.shape[1], picture.image.shape[0])
            return mixup(picture, fitted, random) if name == "mixup" else cutmix(picture, fitted, random)
        transform = self._transforms[name]
        transform.set_random_seed(int(random.integers(2**31)))
        given: dict[str, Any] = {"image": picture.image}
        if picture.mask is not None:
            given["mask"] = picture.mask
        if name == "erase":  # what it hides shows in a second mask
            given["hidden"] = np.zeros(picture.image.shape[:2], np.uint8)
        if name in _MOVING:
            given["bboxes"] = np.array([box.xyxy for box in picture.boxes], np.float64).reshape(-1, 4)
            given["number"] = np.arange(len(picture.boxes))
        made = transform(**given)
        changed = replace(picture, image=np.ascontiguousarray(made["image"]), mask=made.get("mask"))
        if name == "erase":
            return _erased(changed, made["hidden"])
        if name not in _MOVING:
            return changed
        boxes = []
        for edges, number in zip(made["bboxes"].tolist(), made["number"], strict=True):
            box = picture.boxes[int(number)]
            # A turned box may be cut off at the picture's edge; its area, told by an outline, is known no more.
            area_px = None if name == "rotate" else box.area_px
            boxes.append(replace(box, xyxy=(edges[0], edges[1], edges[2], edges[3]), area_px=area_px))
        return replace(changed, boxes=tuple(boxes), dropped=picture.dropped + len(picture.boxes) - len(boxes))

    def _compose(self, name: str) -> Any:
        library = self._library
        transform = {
            "rotate": lambda: library.Rotate(
                limit=(-MAX_ROTATION_DEG, MAX_ROTATION_DEG),
                interpolation=cv2.INTER_LINEAR,
                border_mode=cv2.BORDER_CONSTANT,  # a mirrored border would show objects that have no box
                fill=_PADDING,
                fill_mask=_NO_LABEL,
                p=1,
            ),
            "flip": lambda: library.HorizontalFlip(p=1),
            "vflip": lambda: library.VerticalFlip(p=1),
            "brightness": lambda: library.RandomBrightnessContrast(
                brightness_limit=(-0.3, 0.3), contrast_limit=(-0.3, 0.3), p=1
            ),
            "noise": lambda: library.GaussNoise(std_range=(0.02, 0.08), p=1),
            "erase": lambda: library.CoarseDropout(
                num_holes_range=(1, 1),
                hole_height_range=(0.1, 0.3),
                hole_width_range=(0.1, 0.3),
                fill="random_uniform",
                fill_mask=_NO_LABEL,
                p=1,
            ),
        }[name]()
        moving = library.BboxParams(format="pascal_voc", label_fields=["number"], min_visibility=MIN_VISIBLE, clip=True)
        return library.Compose(
            [transform],
            bbox_params=moving if name in _MOVING else None,
            additional_targets={"hidden": "mask"} if name == "erase" else None,
        )


def _erased(picture: Picture, hidden: NDArray[np.uint8]) -> Picture:
    rows, columns = np.flatnonzero(hidden.any(axis=1)), np.flatnonzero(hidden.any(axis=0))
    if not len(rows):
        return picture
    hole = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return _with_hole(picture, hole)


def _with_hole(picture: Picture, hole: Xyxy) -> Picture:
    """The boxes of a picture a rectangle of which is hidden."""
    boxes = []
    for box in picture.boxes:
        xyxy, share = visible_part(box.xyxy, hole)
        if share >= MIN_VISIBLE:
            boxes.append(box if share == 1 else replace(box, xyxy=xyxy, area_px=None))
    return replace(picture, boxes=tuple(boxes), dropped=picture.dropped + len(picture.boxes) - len(boxes))


def _fitted(picture: Picture, width: int, height: int) -> Picture:
    """Scaled to another picture's size; not padded, so that the whole of both is mixed."""
    old_height, old_width = picture.image.shape[:2]
    across, down = width / old_width, height / old_height
    method = cv2.INTER_AREA if across < 1 and down < 1 else cv2.INTER_LINEAR
    image = cv2.resize(picture.image, (width, height), interpolation=method).astype(np.uint8, copy=False)
    boxes = tuple(
        replace(
            box,
            xyxy=(box.xyxy[0] * across, box.xyxy[1] * down, box.xyxy[2] * across, box.xyxy[3] * down),
            area_px=None if box.area_px is None else box.area_px * across * down,
        )
        for box in picture.boxes
    )
    mask = picture.mask
    if mask is not None:
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.uint8, copy=False)
    return replace(picture, image=image, boxes=boxes, mask=mask)


def mixup(one: Picture, other: Picture, random: np.random.Generator) -> Picture:
    """Both pictures shine through each other, 40 to 60 % each, with the boxes of both; sizes must be equal.

    Raises:
        UsageError: a picture has a mask: its pixels would have two labels.
    """
    if one.mask is not None:
        raise UsageError("mixup gives a pixel two labels, which a mask cannot hold; leave it out for segmentation")
    share = random.uniform(0.4, 0.6)
    image = cv2.addWeighted(one.image, share, other.image, 1 - share, 0).astype(np.uint8, copy=False)
    return replace(one, image=image, boxes=one.boxes + other.boxes)


def cutmix(one: Picture, other: Picture, random: np.random.Generator) -> Picture:
    """A rectangle of the other picture covers this one at the same place; sizes must be equal."""
    height, width = one.image.shape[:2]
    side = np.sqrt(random.uniform(0.1, 0.4))
    cut_width, cut_height = max(1, round(width * side)), max(1, round(height * side))
    left, top = int(random.integers(width - cut_width + 1)), int(random.integers(height - cut_height + 1))
    rows, columns = slice(top, top + cut_height), slice(left, left + cut_width)
    window = (float(left), float(top), float(left + cut_width), float(top + cut_height))
    image = one.image.copy()
    image[rows, columns] = other.image[rows, columns]
    covered = _with_hole(one, window)
    boxes, dropped = list(covered.boxes), covered.dropped
    for box in other.boxes:
        xyxy, share = clipped(box.xyxy, window)
        if share >= MIN_VISIBLE:
            boxes.append(replace(box, xyxy=xyxy, area_px=box.area_px if share > 1 - 1e-9 else None))
        elif share > 0:
            dropped += 1
    mask = one.mask
    if mask is not None and other.mask is not None:
        mask = mask.copy()
        mask[rows, columns] = other.mask[rows, columns]
    return replace(covered, image=image, boxes=tuple(boxes), mask=mask, dropped=dropped)
