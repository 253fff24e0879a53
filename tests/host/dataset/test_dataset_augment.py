"""Augmented boxes stay on their objects: coloured rectangles are drawn, changed, and looked for by their colour."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from dataset_support import classification, detection
from hypothesis import given
from hypothesis import strategies as st

from edgevision.capture.images import read_image
from edgevision.errors import UsageError
from edgevision.host.dataset import read
from edgevision.host.dataset.base import Box, Dataset, Sample

pytest.importorskip("albumentations")

from edgevision.host.dataset.augment import MIN_VISIBLE, OPERATIONS, Augmenter, Picture, clipped, cutmix, visible_part
from edgevision.host.dataset.augmented import check, contact_sheet, save_sheet, write_augmented

COLORS = {0: (0, 0, 255), 1: (0, 255, 0), 2: (255, 0, 0)}
"""BGR, far from each other and from the background by their hue."""


def _objects(seed, width=320, height=240):
    """A picture with one rectangle of each colour, and their boxes."""
    random = np.random.default_rng(seed)
    image = np.full((height, width, 3), 40, np.uint8)
    boxes = []
    for label_id, left in enumerate((20, 120, 220)):
        x, y = left + int(random.integers(0, 20)), 60 + int(random.integers(0, 60))
        w, h = int(random.integers(30, 70)), int(random.integers(30, 80))
        image[y : y + h, x : x + w] = COLORS[label_id]
        boxes.append(Box(label_id=label_id, xyxy=(x, y, x + w, y + h)))
    return Picture(image=image, boxes=tuple(boxes))


def _colored(image, label_id):
    """Where a channel stands out, (H, W)."""
    channel = (2, 1, 0)[label_id]
    others = np.delete(image.astype(int), channel, axis=2).max(axis=2)
    return image[..., channel].astype(int) - others > 60


def _hugs(image, box, tolerance_px):
    rows, columns = np.nonzero(_colored(image, box.label_id))
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose(box.xyxy, found, atol=tolerance_px)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("operations", "tolerance_px"),
    [
        (("flip",), 0.01),
        (("vflip",), 0.01),
        (("rotate",), 1.5),
        (("brightness",), 0),
        (("rotate", "flip", "vflip", "brightness"), 1.5),
    ],
)
def test_boxes_hug_their_objects(operations, tolerance_px, seed):
    picture, random = _objects(seed), np.random.default_rng(seed)
    augmenter = Augmenter(operations, seed=0)
    for name in operations:
        picture = augmenter.apply(name, picture, random)
    assert [box.label_id for box in picture.boxes] == [0, 1, 2]
    for box in picture.boxes:
        _hugs(picture.image, box, tolerance_px)


@pytest.mark.parametrize("seed", range(8))
def test_noise_moves_no_box_and_changes_pixels(seed):
    before = _objects(seed)
    after = Augmenter(("noise",), seed=0).apply("noise", before, np.random.default_rng(seed))
    assert after.boxes == before.boxes
    assert 3 < np.abs(after.image.astype(int) - before.image).mean() < 30


@pytest.mark.parametrize("seed", range(30))
def test_erased_and_cut_boxes_end_where_their_colour_ends(seed):
    random = np.random.default_rng(seed)
    one, plain = _objects(seed), np.full((240, 320, 3), 40, np.uint8)
    mixed = cutmix(one, Picture(image=plain), random)
    assert mixed.dropped == 3 - len(mixed.boxes)
    for box in mixed.boxes:
        _hugs(mixed.image, box, 0)
    pasted = cutmix(Picture(image=plain), one, random)
    for box in pasted.boxes:
        _hugs(pasted.image, box, 0)
    erased = Augmenter(("erase",), seed=0).apply("erase", one, random)
    assert (erased.image != one.image).any()
    changed = (erased.image != one.image).any(axis=2)
    for box in erased.boxes:
        kept = _colored(one.image, box.label_id) & ~changed
        rows, columns = np.nonzero(kept)
        # A pixel of the random filling may be the object's colour by chance; so it is judged by what was not filled.
        np.testing.assert_allclose(box.xyxy, (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), atol=1)


def test_mixup_has_the_objects_of_both():
    one, other = _objects(1), _objects(2)
    mixed = Augmenter(("mixup",), seed=0).apply("mixup", one, np.random.default_rng(0), partner=other)
    assert mixed.boxes == one.boxes + other.boxes
    share = mixed.image.astype(float).mean() - (one.image.astype(float).mean() + other.image.astype(float).mean()) / 2
    assert abs(share) < 3
    for box in mixed.boxes:
        x, y = round((box.xyxy[0] + box.xyxy[2]) / 2), round((box.xyxy[1] + box.xyxy[3]) / 2)
        assert mixed.image[y, x, (2, 1, 0)[box.label_id]] > 90


def test_a_partner_of_another_size_is_scaled_with_its_boxes():
    other = _objects(2, 640, 480)
    mixed = Augmenter(("mixup",), seed=0).apply("mixup", _objects(1), np.random.default_rng(0), partner=other)
    np.testing.assert_allclose(mixed.boxes[3].xyxy, np.array(other.boxes[0].xyxy) / 2)


_EDGE = st.integers(0, 12)


@given(st.tuples(_EDGE, _EDGE, _EDGE, _EDGE), st.tuples(_EDGE, _EDGE, _EDGE, _EDGE))
def test_visible_and_clipped_parts_are_what_counting_pixels_gives(one, other):
    box, hole = ((min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1) for a, b, c, d in (one, other))
    grid = np.zeros((14, 14), bool)
    grid[box[1] : box[3], box[0] : box[2]] = True
    area = grid.sum()
    inside = np.zeros_like(grid)
    inside[hole[1] : hole[3], hole[0] : hole[2]] = True
    for found, left in ((visible_part(box, hole), grid & ~inside), (clipped(box, hole), grid & inside)):
        edges, share = found
        assert share == pytest.approx(left.sum() / area)
        if left.any():
            rows, columns = np.nonzero(left)
            assert edges == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_turned_out_of_the_picture_is_dropped_and_counted():
    image = np.zeros((100, 400, 3), np.uint8)
    corner = Box(label_id=0, xyxy=(0, 0, 6, 6))
    picture = Picture(image=image, boxes=(corner,))
    augmenter = Augmenter(("rotate",), seed=0)
    made = [augmenter.apply("rotate", picture, np.random.default_rng(seed)) for seed in range(20)]
    assert all(one.dropped == 1 - len(one.boxes) for one in made)
    assert {one.dropped for one in made} == {0, 1}
    for one in made:
        for box in one.boxes:
            assert 0 <= box.xyxy[0] < box.xyxy[2] <= 400
            assert 0 <= box.xyxy[1] < box.xyxy[3] <= 100


def test_masks_follow_their_pictures():
    picture = _objects(3)
    mask = np.where(_colored(picture.image, 0), 1, 0).astype(np.uint8)
    augmenter = Augmenter(("rotate", "flip", "vflip", "erase"), seed=0)
    for name in ("rotate", "flip", "vflip"):
        made = augmenter.apply(name, replace(picture, boxes=(), mask=mask), np.random.default_rng(1))
        wanted = _colored(made.image, 0)
        assert (wanted & (made.mask == 1)).sum() / (wanted | (made.mask == 1)).sum() > 0.95
    erased = augmenter.apply("erase", replace(picture, boxes=(), mask=mask), np.random.default_rng(1))
    hidden = np.asarray(erased.mask) == 255
    assert hidden.any()
    assert (erased.image[~hidden] == picture.image[~hidden]).all()
    other = Picture(image=np.zeros_like(picture.image), mask=np.full_like(mask, 2))
    mixed = cutmix(replace(picture, mask=mask), other, np.random.default_rng(0))
    assert (mixed.image[mixed.mask == 2] == 0).all()


def _colored_dataset(folder, count=6):
    folder.mkdir()
    samples = []
    for number in range(count):
        one = _objects(number)
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), one.image)
        samples.append(Sample(name=path.name, path=path, width=320, height=240, boxes=one.boxes))
    return Dataset(source=folder, format="coco", task="detection", labels=("r", "g", "b"), samples=tuple(samples))


@pytest.mark.parametrize("name", ["coco", "yolo", "voc"])
def test_a_written_dataset_hugs_too_and_the_seed_decides(tmp_path, name):
    dataset = _colored_dataset(tmp_path / "in")
    written = []
    for run, seed in enumerate((7, 7, 8)):
        augmenter = Augmenter(("rotate", "flip", "brightness"), seed=seed)
        done = write_augmented(dataset, tmp_path / f"out{run}", name, augmenter, copies=2)
        assert (done.originals, done.copies) == (6, 12)
        written.append(read(tmp_path / f"out{run}"))
    assert [len(one) for one in written] == [18, 18, 18]
    assert written[0].digest() == written[1].digest()
    assert written[0].digest() != written[2].digest()
    assert not written[0].faults
    for sample in written[0].samples:
        for box in sample.boxes:
            _hugs(cv2.imread(str(sample.path)), box, 1.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out0", "out1", "out2"]


def test_one_picture_more_changes_no_other(tmp_path):
    small, large = _colored_dataset(tmp_path / "small", 3), _colored_dataset(tmp_path / "large", 5)
    augmenter = Augmenter(("rotate", "noise", "erase"), seed=1)
    for one, two in zip(small.samples, large.samples, strict=False):
        (first,), (second,) = augmenter.copies(small, one, 1), augmenter.copies(large, two, 1)
        assert (first.image == second.image).all()


def test_classes_are_mixed_with_their_own_kind(tmp_path):
    dataset = classification(tmp_path / "in", [3, 1], ("a", "b"))
    for sample in dataset.samples:  # one grey for each class
        cv2.imwrite(str(sample.path), np.full((48, 64, 3), 60 + 100 * int(sample.label_id or 0), np.uint8))
    augmenter = Augmenter(("mixup", "cutmix"), seed=0)
    done = write_augmented(dataset, tmp_path / "out", "folders", augmenter, copies=4, originals=False)
    assert done.alone > 0  # class b has one picture only
    for sample in read(tmp_path / "out").samples:
        assert np.abs(read_image(sample.path).astype(int) - (60 + 100 * int(sample.label_id or 0))).max() <= 1


def test_every_operation_at_once_on_real_pictures(tmp_path, shared):
    dataset = read(shared / "images" / "coco-val")
    few = replace(dataset, samples=dataset.samples[:12])
    done = write_augmented(few, tmp_path / "out", "coco", Augmenter(OPERATIONS, seed=0), copies=2)
    made = read(tmp_path / "out")
    assert not [fault for fault in made.faults if "empty" not in fault.problem]
    assert len(made) == 36
    assert done.dropped_boxes > 0
    sheet = contact_sheet(few, Augmenter(OPERATIONS, seed=0), pictures=8)
    save_sheet(sheet, tmp_path / "sheet.png")
    assert read_image(tmp_path / "sheet.png").shape == (640, 1280, 3)


def test_what_is_not_augmented(tmp_path):
    dataset = detection(tmp_path, [[]])
    with pytest.raises(UsageError, match="held-out test set"):
        check(replace(dataset, role="test"), ("flip",))
    with pytest.raises(UsageError, match="mixup gives a pixel two labels"):
        check(replace(dataset, task="segmentation"), ("mixup",))
    with pytest.raises(UsageError, match="did you mean 'rotate'"):
        Augmenter(("rotat",), seed=0)
    with pytest.raises(UsageError, match="at least one operation"):
        Augmenter((), seed=0)
    assert 0 < MIN_VISIBLE < 1
