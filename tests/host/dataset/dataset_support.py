"""Small pictures and datasets for the tests of this folder."""

from pathlib import Path

import cv2
import numpy as np
from hypothesis import strategies as st

from edgevision.host.dataset.base import Box, Dataset, Sample

SIZES = ((64, 48), (37, 91), (1920, 1080))
"""Width, height."""


def picture(path, width=64, height=48, seed=None):
    """A picture file: noise of its own, or a black one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width, 3)
    image = np.zeros(shape, np.uint8) if seed is None else scene(width, height, seed)
    cv2.imwrite(str(path), image)
    return path


def scene(width, height, seed):
    """A smooth picture that looks like no other."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def detection(folder, boxes_of, labels=("bolt", "nut"), **more):
    """A dataset with one new picture for each list of boxes."""
    samples = tuple(
        Sample(
            name=f"{index:03d}.png",
            path=picture(folder / f"{index:03d}.png", seed=index),
            width=64,
            height=48,
            boxes=tuple(boxes),
        )
        for index, boxes in enumerate(boxes_of)
    )
    return Dataset(source=folder, format="coco", task="detection", labels=labels, samples=samples, **more)


def classification(folder, counts, labels):
    """A dataset with so many pictures of each label."""
    samples = []
    for label_id, count in enumerate(counts):
        for index in range(count):
            name = f"{label_id:02d}-{index:04d}.png"
            path = picture(folder / name, seed=1000 * label_id + index)
            samples.append(Sample(name=name, path=path, width=64, height=48, label_id=label_id))
    return Dataset(source=folder, format="csv", task="classification", labels=labels, samples=tuple(samples))


_LABEL = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=12
).filter(lambda text: text == text.strip() and len(text.splitlines()) == 1)


@st.composite
def detection_datasets(draw, folder: Path):
    """Random datasets over the pictures that `make_pictures` has put into a folder."""
    labels = tuple(draw(st.lists(_LABEL, min_size=1, max_size=4, unique=True)))
    names = draw(
        st.lists(st.sampled_from(("a", "b c", "d/e", "d/f.g", "ü", "z'&<")), unique=True, min_size=1, max_size=4)
    )
    samples = []
    for name in sorted(names):
        width, height = draw(st.sampled_from(SIZES))
        boxes = draw(st.lists(_boxes(len(labels), width, height), max_size=4))
        path = folder / f"{width}x{height}.png"
        samples.append(Sample(name=f"{name}.png", path=path, width=width, height=height, boxes=tuple(boxes)))
    return Dataset(
        source=folder,
        format="coco",
        task="detection",
        labels=labels,
        samples=tuple(sorted(samples, key=lambda one: one.name)),
    )


@st.composite
def _boxes(draw, labels, width, height):
    left = draw(st.floats(0, width - 0.01))
    top = draw(st.floats(0, height - 0.01))
    right = draw(st.floats(left + 0.005, width))
    bottom = draw(st.floats(top + 0.005, height))
    return Box(
        label_id=draw(st.integers(0, labels - 1)),
        xyxy=(left, top, right, bottom),
        crowd=draw(st.booleans()),
        difficult=draw(st.booleans()),
        area_px=draw(st.none() | st.floats(0.001, 1e6)),
    )


def make_pictures(folder):
    """The pictures that random datasets are about."""
    for width, height in SIZES:
        picture(folder / f"{width}x{height}.png", width, height)
    return folder


def same(one: Dataset, other: Dataset, tolerance_px=2e-6):
    """Whether labels, names and boxes are the same within a tolerance."""
    assert one.labels == other.labels
    assert [sample.name for sample in one.samples] == [sample.name for sample in other.samples]
    for mine, others in zip(one.samples, other.samples, strict=True):
        assert (mine.width, mine.height, mine.label_id) == (others.width, others.height, others.label_id)
        assert [box.label_id for box in mine.boxes] == [box.label_id for box in others.boxes]
        for box, twin in zip(mine.boxes, others.boxes, strict=True):
            np.testing.assert_allclose(box.xyxy, twin.xyxy, rtol=0, atol=tolerance_px)
    return True
