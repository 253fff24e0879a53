"""Splits: sizes, strata, seeds, and no near-duplicate across a border."""

import cv2
import numpy as np
import pytest
from dataset_support import classification, detection, scene

from edgevision.errors import StateError, UsageError
from edgevision.host.dataset import duplicates, read
from edgevision.host.dataset.base import Box, Dataset, Sample
from edgevision.host.dataset.split import PARTS, plan_split, write_split


def _parts_of(plan):
    return {sample.name: role for role, part in plan.parts.items() for sample in part.samples}


def test_sizes_and_strata_of_classes(tmp_path):
    dataset = classification(tmp_path, [100, 40, 20], ("a", "b", "c"))
    plan = plan_split(dataset, seed=3, bits=None)
    assert {role: len(part) for role, part in plan.parts.items()} == {"train": 112, "validation": 24, "test": 24}
    for label_id, count in enumerate((100, 40, 20)):
        for role, share in zip(PARTS, (0.7, 0.15, 0.15), strict=True):
            found = sum(sample.label_id == label_id for sample in plan.parts[role].samples)
            assert abs(found - share * count) <= 1
    assert len(_parts_of(plan)) == 160


def test_many_rare_labels_do_not_empty_the_test_set(tmp_path):
    plan = plan_split(classification(tmp_path, [1] * 40, tuple(map(str, range(40)))), seed=0, bits=None)
    assert {role: len(part) for role, part in plan.parts.items()} == {"train": 28, "validation": 6, "test": 6}
    assert "test has no picture with 34 of the labels" in " ".join(plan.remarks)


def test_strata_of_boxes(tmp_path):
    random = np.random.default_rng(1)
    boxes = [
        [
            Box(label_id=label, xyxy=(1, 2, 30, 40))
            for label in range(4)
            if random.random() < (0.8, 0.4, 0.2, 0.1)[label]
        ]
        for _ in range(200)
    ]
    plan = plan_split(detection(tmp_path, boxes, labels=tuple("abcd")), seed=5, bits=None)
    for label in range(4):
        total = sum(any(box.label_id == label for box in found) for found in boxes)
        for role, share in zip(PARTS, (0.7, 0.15, 0.15), strict=True):
            samples = plan.parts[role].samples
            found = sum(any(box.label_id == label for box in sample.boxes) for sample in samples)
            assert abs(found - share * total) <= 2.5


def test_the_seed_decides(tmp_path):
    dataset = classification(tmp_path, [30, 30], ("a", "b"))
    first, again, other = (_parts_of(plan_split(dataset, seed=seed, bits=None)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    "change",
    [
        lambda image: cv2.imdecode(cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 40))[1], cv2.IMREAD_COLOR),
        lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        lambda image: cv2.convertScaleAbs(image, alpha=0.8, beta=10),
        lambda image: image[:, ::-1],
        np.rot90,
        lambda image: cv2.GaussianBlur(image, (7, 7), 2),
    ],
    ids=["jpeg", "half", "darker", "mirrored", "turned", "blurred"],
)
def test_real_pictures_copies_are_found_and_others_are_not(shared, change):
    files = sorted((shared / "images" / "coco-val").glob("*.jpg"))[:60]
    images = [cv2.imread(str(file)) for file in files]
    both = images + [np.ascontiguousarray(change(image)) for image in images]
    hashes = np.stack([duplicates.hash_picture(image) for image in both])
    pairs = {tuple(pair) for pair in duplicates.near_pairs(hashes, duplicates.DEFAULT_BITS).tolist()}
    wanted = {(index, index + 60) for index in range(60)}
    assert len(wanted - pairs) <= 1
    assert not pairs - wanted


def test_pairs_in_blocks_are_those_of_a_plain_loop(monkeypatch):
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, (40, 8, 2), dtype=np.uint64)
    for copy, original in ((5, 30), (39, 0), (8, 7)):
        hashes[copy] = hashes[original]
        hashes[copy, 3, 1] ^= np.uint64(0b111)
    hashes[20, 4] = hashes[33, 0]  # alike only when it is turned

    def plain(bits):
        def near(one, other):
            return any(
                all((int(hashes[one, 0, kind]) ^ int(hashes[other, way, kind])).bit_count() <= bits for kind in (0, 1))
                for way in range(8)
            )

        return {(one, other) for one in range(40) for other in range(one + 1, 40) if near(one, other)}

    for bits in (0, 3, 20):
        assert {tuple(pair) for pair in duplicates.near_pairs(hashes, bits).tolist()} == plain(bits)


def test_groups_are_what_is_connected():
    pairs = np.array([(0, 3), (3, 5), (1, 2)])
    assert duplicates.groups(7, pairs).tolist() == [0, 1, 1, 0, 4, 0, 6]


def test_no_near_duplicate_crosses_a_border(tmp_path):
    samples = []
    for number in range(40):
        image = scene(96, 96, number)
        for copy in range(1 + number % 3):
            path = tmp_path / f"{number}-{copy}.jpg"
            cv2.imwrite(
                str(path), cv2.convertScaleAbs(image, alpha=1 - 0.1 * copy), (cv2.IMWRITE_JPEG_QUALITY, 90 - 20 * copy)
            )
            samples.append(Sample(name=path.name, path=path, width=96, height=96, label_id=number % 2))
    samples.sort(key=lambda sample: sample.name)
    dataset = Dataset(source=tmp_path, format="csv", task="classification", labels=("a", "b"), samples=tuple(samples))
    plan = plan_split(dataset, seed=0)
    parts = _parts_of(plan)
    for number in range(40):
        assert len({parts[f"{number}-{copy}.jpg"] for copy in range(1 + number % 3)}) == 1
    assert (plan.duplicate_groups, plan.duplicates) == (26, 13 * 2 + 13 * 3)
    torn = _parts_of(plan_split(dataset, seed=0, bits=None))
    assert any(len({torn[f"{number}-{copy}.jpg"] for copy in range(1 + number % 3)}) > 1 for number in range(40))


def test_one_scene_for_all_is_pointed_out(tmp_path):
    image = scene(64, 48, 1)
    samples = []
    for number in range(30):
        path = tmp_path / f"{number:02d}.png"
        cv2.imwrite(str(path), image if number < 20 else scene(64, 48, 100 + number))
        samples.append(Sample(name=path.name, path=path, width=64, height=48, label_id=0))
    dataset = Dataset(source=tmp_path, format="csv", task="classification", labels=("a",), samples=tuple(samples))
    plan = plan_split(dataset, seed=0)
    assert "one group of near-duplicates holds 20 pictures" in plan.remarks[0]


@pytest.mark.parametrize(
    ("counts", "ratios", "role", "words"),
    [
        ([2], (70, 15, 15), None, "too few for these ratios"),
        ([9], (70, -15, 15), None, "must be three numbers"),
        ([9], (100, 0, 0), None, "must be three numbers"),
        ([9], (70, 15, 15), "test", "is a held-out test set and must not be split"),
    ],
)
def test_what_cannot_be_split(tmp_path, counts, ratios, role, words):
    dataset = classification(tmp_path, counts, ("a",))
    dataset = Dataset(**{**{key: getattr(dataset, key) for key in dataset.__slots__}, "role": role})
    with pytest.raises(UsageError, match=words):
        plan_split(dataset, seed=0, ratios=ratios, bits=None)


@pytest.mark.parametrize("name", ["coco", "yolo", "voc"])
def test_what_is_written(tmp_path, name):
    dataset = detection(tmp_path / "in", [[Box(label_id=index % 2, xyxy=(1, 2, 30, 40))] for index in range(20)])
    plan = plan_split(dataset, seed=4, bits=None)
    write_split(plan, dataset, tmp_path / "out", name, link=False)
    found = [read(tmp_path / "out", split=role) for role in ("train", "val", "test")]
    assert [part.role for part in found] == ["train", "validation", "test"]
    assert [len(part) for part in found] == [14, 3, 3]
    assert sorted(sample.name for part in found for sample in part.samples) == [
        sample.name for sample in dataset.samples
    ]
    said = (tmp_path / "out" / "test" / "dataset.yaml").read_text()
    assert "role: test" in said
    assert "seed: 4" in said
    assert f"source_digest: {dataset.digest()}" in said
    assert f"digest: {found[2].digest()}" in said


def test_a_split_without_room_leaves_nothing(tmp_path, monkeypatch):
    dataset = detection(tmp_path / "in", [[Box(label_id=0, xyxy=(1, 2, 30, 40))] for _ in range(20)])
    plan = plan_split(dataset, seed=4, bits=None)
    calls = []

    def full(*_arguments):
        calls.append(1)
        if len(calls) > 15:  # in the second part
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        "edgevision.host.dataset._place.shutil.copyfile",
        lambda source, target: (full(), target.write_bytes(source.read_bytes())),
    )
    with pytest.raises(StateError, match="No space left"):
        write_split(plan, dataset, tmp_path / "out", "coco", link=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_real_pictures(shared):
    dataset = read(shared / "images" / "coco-val")
    plan = plan_split(dataset, seed=1)
    assert {role: len(part) for role, part in plan.parts.items()} == {"train": 110, "validation": 24, "test": 24}
