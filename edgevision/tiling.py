"""Tiles: a large picture is looked at in overlapping parts, so that a small defect is not scaled away.

A model with an input of 416x416 sees a picture of 4000x3000 ten times smaller: what is 40 pixels wide has 4 left. Here the
picture is cut into tiles (views of it, never copies), each goes through the model as a picture of its own, and what they
found becomes one list again. Several tiles are one inference where the model's batch is open.

What a tile's edge cuts through is found twice, in parts. So boxes that touch an edge inside the picture stand behind all others
when overlaps are removed: the whole object in the neighbouring tile wins against the part, however confident the part is.
Comparing by intersection over the smaller area also removes a part that is small beside its whole (Akyon et al. 2022,
arXiv:2202.06934, who merge greedily without that order).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgevision import registry
from edgevision.clock import Clock
from edgevision.decode.base import Decoder
from edgevision.errors import ImageError, ModelError
from edgevision.geometry import ios_xyxy, nms
from edgevision.inference.base import Backend
from edgevision.preprocess.base import Preprocessor
from edgevision.types import BoxXyxy, Detections, Frame, Tensors, TensorSpec

MIN_SIDE_PX, MAX_SIDE_PX = 16, 16_384
Side = Annotated[int, Field(ge=MIN_SIDE_PX, le=MAX_SIDE_PX)]


class Tiling(registry.Options):
    """How a picture is cut, and how what the tiles found is put together."""

    size: Literal["model"] | tuple[Side, Side] = "model"
    """Width, height of the smallest tiles in pixels of the picture; `model`: those of the model's input, so that nothing is
    scaled."""
    levels: Annotated[int, Field(ge=1, le=6)] = 2
    """How often the picture is cut, each time into tiles twice as wide and high: what is larger than a tile is found in the
    next level's."""
    overlap: Annotated[float, Field(ge=0, le=0.8)] = 0.2
    """Share of a tile that its neighbour sees too, at least: an object should fit into it."""
    merge: Literal["ios", "nms"] = "ios"
    """`ios`: a box cut by a tile's edge goes if it lies in another of its class by more than `threshold` of the smaller area;
    `nms`: overlaps are compared as intersection over union alone."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """For `ios`; uncut boxes, and all with `nms`, are compared by the model's own `iou`."""
    include_whole: bool = True
    """Look at the whole picture too: it finds what is larger than a tile."""
    max_tiles: Annotated[int, Field(ge=1, le=4096)] = 256
    """A picture that makes more is an error, and not an hour of work."""
    batch: Annotated[int, Field(ge=1, le=64)] = 4
    """Tiles in one inference, where the model takes several; more need more memory."""


def grid(region: BoxXyxy, size: tuple[int, int], overlap: float) -> tuple[BoxXyxy, ...]:
    """Tiles of `size` (width, height) that cover `region`, row by row, evenly spread.

    Neighbours share at least the part `overlap` of a side. A tile is never larger than the region.
    """
    columns = _starts(region[0], region[2], size[0], overlap)
    rows = _starts(region[1], region[3], size[1], overlap)
    width, height = min(size[0], region[2] - region[0]), min(size[1], region[3] - region[1])
    return tuple((left, top, left + width, top + height) for top in rows for left in columns)


def _starts(begin: int, end: int, side: int, overlap: float) -> list[int]:
    room = end - begin - side
    if room <= 0:
        return [begin]
    # The last tile ends where the region does, and the distances between starts are as alike as whole pixels can be.
    steps = math.ceil(room / max(1, math.floor(side * (1 - overlap))))
    return [begin + round(step * room / steps) for step in range(steps + 1)]


def merge(
    parts: Sequence[tuple[BoxXyxy, Detections]],
    region: BoxXyxy,
    tiling: Tiling,
    *,
    iou: float,
    max_detections: int,
    class_agnostic: bool = False,
) -> Detections:
    """What the tiles found as one list, most confident first.

    Args:
        parts: each tile and what was found in it, in pixels of the picture; at least one.
        region: what all tiles together cover.
        tiling: how overlaps are compared.
        iou: the model's own threshold.
        max_detections: how many are kept at most.
        class_agnostic: whether boxes of different classes are one object as well.
    """
    if not any(len(found) for _, found in parts):
        return parts[0][1]
    xyxy = np.concatenate([found.xyxy for _, found in parts])
    confidence = np.concatenate([found.confidence for _, found in parts])
    class_id = np.concatenate([found.class_id for _, found in parts])
    if class_agnostic:
        class_id = np.zeros_like(class_id)
    cut = np.concatenate([_cut(found.xyxy, tile, region) for tile, found in parts])
    if tiling.merge == "nms":
        # Confidence is 0 to 1: every cut box comes after every whole one.
        kept = nms(xyxy, confidence - cut, class_id, iou=iou, max_detections=len(xyxy))
    else:
        (whole,), (pieces,) = (~cut).nonzero(), cut.nonzero()
        whole = whole[nms(xyxy[whole], confidence[whole], class_id[whole], iou=iou, max_detections=len(whole))]
        pieces = pieces[~_inside(xyxy, class_id, pieces, whole, tiling.threshold)]
        kept_pieces = nms(
            xyxy[pieces],
            confidence[pieces],
            class_id[pieces],
            iou=tiling.threshold,
            max_detections=len(pieces),
            overlap="ios",
        )
        kept = np.concatenate((whole, pieces[kept_pieces]))
    kept = kept[(-confidence[kept]).argsort(kind="stable")[:max_detections]]
    return _gathered([found for _, found in parts if len(found)], kept)


def _gathered(parts: Sequence[Detections], kept: NDArray[np.intp]) -> Detections:
    """These of all the detections of `parts`, with whatever each carries (masks, keypoints ...); raises ModelError."""
    values: dict[str, Any] = {}
    for field in fields(parts[0]):
        if field.name == "labels":
            continue
        given = [getattr(part, field.name) for part in parts]
        there = [value is not None for value in given]
        if any(there) and not all(there):
            raise ModelError(
                f"tiling cannot put `{field.name}` together: some tiles' detections have it and some have not"
            )
        if not any(there):
            values[field.name] = None
        elif isinstance(given[0], np.ndarray):
            values[field.name] = np.concatenate(given)[kept]
        else:
            together = [one for value in given for one in value]
            values[field.name] = tuple(together[index] for index in kept.tolist())
    return replace(parts[0], **values)


def _inside(
    xyxy: NDArray[Any], class_id: NDArray[Any], pieces: NDArray[np.intp], whole: NDArray[np.intp], threshold: float
) -> NDArray[np.bool_]:
    """Which of `pieces` lie in one of `whole` of the same class."""
    same = class_id[pieces][:, None] == class_id[whole]
    inside: NDArray[np.bool_] = (same & (ios_xyxy(xyxy[pieces], xyxy[whole]) > threshold)).any(axis=1)
    return inside


_MARGIN = 0.01
"""Share of a tile's side within which a box touches its edge: networks place the edges of cut objects a little inside."""


def _cut(xyxy: NDArray[Any], tile: BoxXyxy, region: BoxXyxy) -> NDArray[np.bool_]:
    """Which boxes (n, 4) touch an edge of the tile that is none of the region's."""
    cut: NDArray[np.bool_] = np.zeros(len(xyxy), np.bool_)
    for axis in (0, 1):
        margin = _MARGIN * (tile[axis + 2] - tile[axis])
        if tile[axis] > region[axis]:
            cut |= xyxy[:, axis] <= tile[axis] + margin
        if tile[axis + 2] < region[axis + 2]:
            cut |= xyxy[:, axis + 2] >= tile[axis + 2] - margin
    return cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Nanoseconds of each stage, over all tiles."""

    preprocess_ns: int
    inference_ns: int
    decode_ns: int


def takes_batches(backend: Backend, outputs: Sequence[TensorSpec]) -> bool:
    """Whether several tiles can be one inference: a single input, and every output that is decoded, with an open batch."""
    return len(backend.inputs) == 1 and all(spec.open_batch for spec in (*backend.inputs, *outputs))


class Tiles:
    """Looks at a frame in tiles; `pipeline.Model` asks it in place of its own one pass."""

    def __init__(
        self,
        tiling: Tiling,
        *,
        input_size: tuple[int, int],
        preprocessors: Sequence[Preprocessor],
        batch: NDArray[Any] | None,
        backend: Backend,
        decoder: Decoder,
        decoded: Sequence[str],
        iou: float,
        class_agnostic: bool,
        max_detections: int,
        clock: Clock,
    ) -> None:
        """Put it together.

        Args:
            tiling: how.
            input_size: width, height of the model's input.
            preprocessors: one for each place in the batch.
            batch: (places, ...), what they write into where they can; None: one tile after the other.
            backend: of the model.
            decoder: of the model.
            decoded: the outputs that it reads.
            iou: of the model's NMS.
            class_agnostic: of the model's NMS.
            max_detections: in the whole picture.
            clock: times the stages.
        """
        self.tiling = tiling
        self.size = input_size if tiling.size == "model" else tiling.size
        """Width, height of the smallest tiles in pixels of the picture."""
        self._preprocessors = preprocessors
        self._batch = batch
        self._backend = backend
        self._input_name = backend.inputs[0].name
        self._decode = decoder
        self._decoded = tuple(decoded)
        self._iou = iou
        self._class_agnostic = class_agnostic
        self._max_detections = max_detections
        self._clock = clock
        self._planned: tuple[BoxXyxy, tuple[BoxXyxy, ...]] | None = None

    @property
    def planned(self) -> tuple[BoxXyxy, ...]:
        """What the model looked at in the last frame; empty before the first."""
        return () if self._planned is None else self._planned[1]

    def regions(self, frame: Frame) -> tuple[BoxXyxy, ...]:
        """What the model looks at, in order: tiles of the frame or of its region, and the whole of it.

        Raises:
            ImageError: it makes more than `max_tiles`.
        """
        height, width = frame.image.shape[:2]
        region = frame.roi or (0, 0, width, height)
        if self._planned is None or self._planned[0] != region:
            self._planned = (region, self._plan(region, frame.camera))
        return self._planned[1]

    def _plan(self, region: BoxXyxy, camera: str) -> tuple[BoxXyxy, ...]:
        tiling = self.tiling
        width, height = region[2] - region[0], region[3] - region[1]
        tiles: list[BoxXyxy] = []
        size = self.size
        for _ in range(tiling.levels):
            columns = len(_starts(region[0], region[2], size[0], tiling.overlap))
            rows = len(_starts(region[1], region[3], size[1], tiling.overlap))
            if len(tiles) + columns * rows > tiling.max_tiles:
                raise ImageError(
                    f"camera {camera!r}: {width}x{height} pixels make {columns}x{rows} tiles of {size[0]}x{size[1]}"
                    + (f" and {len(tiles)} smaller ones" if tiles else "")
                    + f", and tiling.max_tiles is {tiling.max_tiles}; give a larger tiling.size or a smaller overlap, a `roi`, "
                    "or allow more"
                )
            if columns * rows == 1 and tiles:
                break
            tiles += grid(region, size, tiling.overlap)
            size = (size[0] * 2, size[1] * 2)
        if tiling.include_whole and tiles[-1] != region:
            tiles.append(region)
        return tuple(tiles)

    def look(self, frame: Frame) -> tuple[Detections, Spent]:
        """Every tile through the three stages, and one list of what they found.

        Raises:
            ImageError: the picture makes too many tiles, or is none.
            InferenceError: the runtime failed.
            ModelError: the model does not answer for each picture of a batch, or finds no boxes.
        """
        now = self._clock.monotonic_ns
        regions, places = self.regions(frame), len(self._preprocessors)
        parts: list[tuple[BoxXyxy, Detections]] = []
        preprocess_ns = inference_ns = decode_ns = 0
        for start in range(0, len(regions), places):
            chosen = regions[start : start + places]
            started_ns = now()
            inputs = [
                preprocess(replace(frame, roi=region))
                for preprocess, region in zip(self._preprocessors, chosen, strict=False)
            ]
            tensors = inputs[0].tensors
            if self._batch is not None:
                tensors = {self._input_name: self._in_batch([one.tensors[self._input_name] for one in inputs])}
            preprocessed_ns = now()
            outputs = self._backend.run(tensors)
            inferred_ns = now()
            if len(chosen) > 1:
                self._check_batch(outputs, len(chosen))
            for index, (region, one) in enumerate(zip(chosen, inputs, strict=True)):
                own = outputs
                if self._batch is not None:
                    own = {name: outputs[name][index : index + 1] for name in self._decoded}
                found = self._decode(own, one.transform)
                if not isinstance(found, Detections):
                    raise ModelError("tiling puts boxes together, and this model gives none; take `tiling` away")
                parts.append((region, found))
            decoded_ns = now()
            preprocess_ns += preprocessed_ns - started_ns
            inference_ns += inferred_ns - preprocessed_ns
            decode_ns += decoded_ns - inferred_ns
        started_ns = now()
        if len(parts) == 1:
            found = parts[0][1]
        else:
            whole = self._planned[0] if self._planned is not None else regions[-1]
            found = merge(
                parts,
                whole,
                self.tiling,
                iou=self._iou,
                max_detections=self._max_detections,
                class_agnostic=self._class_agnostic,
            )
        decode_ns += now() - started_ns
        return found, Spent(preprocess_ns=preprocess_ns, inference_ns=inference_ns, decode_ns=decode_ns)

    def _in_batch(self, tensors: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The beginning of the batch with these in it; those that were written there are not copied."""
        batch = self._batch
        assert batch is not None  # noqa: S101  only asked where there is one
        for index, tensor in enumerate(tensors):
            place = batch[index : index + 1]
            if not np.may_share_memory(tensor, place):
                np.copyto(place, tensor)
        return batch[: len(tensors)]

    def warm_up(self) -> None:
        """One full batch, so that the first real frame meets no lazy initialisation.

        Raises:
            ModelError: the model does not answer for each picture of a batch.
        """
        if self._batch is not None and len(self._batch) > 1:
            self._check_batch(self._backend.run({self._input_name: self._batch}), len(self._batch))

    def _check_batch(self, outputs: Tensors, pictures: int) -> None:
        for name in self._decoded:
            shape = outputs[name].shape
            if not shape or shape[0] != pictures:
                raise ModelError(
                    f"output {name!r} is {list(shape)} for {pictures} pictures: the model's batch is open in name only; set "
                    "tiling.batch: 1"
                )
