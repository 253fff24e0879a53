"""Joining datasets, counting them, and counting the uses of a held-out one."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from dataset_support import classification, detection, picture

from edgevision.errors import StateError, UsageError
from edgevision.host.dataset import note_use, read, write
from edgevision.host.dataset.base import Box
from edgevision.host.dataset.merge import merge
from edgevision.host.dataset.split import plan_split, write_split
from edgevision.host.dataset.stats import statistics

BOLT = Box(label_id=0, xyxy=(1, 2, 30, 40))
NUT = Box(label_id=1, xyxy=(5, 5, 15, 15))


def test_labels_join_by_name_and_names_stay_apart(tmp_path):
    one = detection(tmp_path / "one", [[BOLT], [NUT]], labels=("bolt", "nut"))
    two = detection(tmp_path / "two", [[BOLT, NUT]], labels=("screw", "bolt"))
    picture(tmp_path / "two" / "000.png", seed=77)
    merged = merge([one, two])
    assert merged.dataset.labels == ("bolt", "nut", "screw")
    assert [sample.name for sample in merged.dataset.samples] == ["000-2.png", "000.png", "001.png"]
    assert [box.label_id for box in merged.dataset.samples[0].boxes] == [2, 0]
    assert (merged.renamed, merged.copies, merged.remarks) == (1, 0, ())
    write(merged.dataset, tmp_path / "out", "voc")
    assert len(read(tmp_path / "out")) == 3


def test_copies_are_left_out_contradictions_and_like_labels_are_told(tmp_path):
    one = detection(tmp_path / "one", [[BOLT], [BOLT]], labels=("bolt",))
    two = detection(tmp_path / "two", [[BOLT], []], labels=("Bolt ",))
    merged = merge([one, two])
    assert merged.copies == 0
    assert any("'bolt' and 'Bolt ' look alike" in remark for remark in merged.remarks)
    assert any("2 pictures are there twice with different labels" in remark for remark in merged.remarks)
    same = merge([one, replace(two, labels=("bolt",))])
    assert (same.copies, len(same.dataset)) == (1, 3)


def test_what_does_not_merge(tmp_path):
    one = detection(tmp_path / "one", [[BOLT]])
    with pytest.raises(UsageError, match="two or more"):
        merge([one])
    with pytest.raises(UsageError, match="do not merge"):
        merge([one, classification(tmp_path / "two", [1], ("a",))])
    with pytest.raises(UsageError, match="held-out test set; it merges with other test sets only"):
        merge([one, replace(one, role="test")])
    mixed = merge([replace(one, role="train"), replace(one, role="validation")])
    assert mixed.dataset.role is None
    assert "the roles differ" in mixed.remarks[-1]


def test_statistics(tmp_path):
    large = Box(label_id=0, xyxy=(0, 0, 64, 48), area_px=9217)
    dataset = detection(tmp_path, [[BOLT] * 5, [NUT, large, replace(BOLT, crowd=True)], [], [BOLT] * 14])
    found = statistics(dataset)
    assert (found.pictures, found.boxes, found.unlabelled_pictures, found.crowd_boxes) == (4, 22, 1, 1)
    bolt, nut = found.labels
    assert (bolt.pictures, bolt.boxes, bolt.small, bolt.medium, bolt.large) == (3, 21, 0, 20, 1)
    assert (nut.boxes, nut.small) == (1, 1)
    assert found.imbalance == 21
    assert "'bolt' occurs 21 times, 'nut' 1 times (21 to 1)" in found.remarks[0]
    assert found.picture_sizes == ((64, 48, 4),)
    assert found.box_aspect is not None
    assert [found.box_aspect.least, found.box_aspect.greatest] == pytest.approx([29 / 38, 64 / 48])
    assert not found.faults
    json.dumps(found.document(), allow_nan=False)


def test_statistics_open_the_pictures(tmp_path):
    dataset = detection(tmp_path, [[BOLT], [NUT]])
    path = dataset.samples[1].path
    content = bytearray(path.read_bytes())
    content[60:200] = bytes(140)  # within the pixels: the header and the end are whole
    path.write_bytes(content)
    assert not statistics(dataset, decode=False).faults
    (fault,) = statistics(dataset).faults
    assert fault.file == str(path)
    assert "cannot be decoded" in fault.problem


def test_statistics_look_into_masks(tmp_path):
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    mask = np.full((48, 64), 255, np.uint8)
    mask[3, 3] = 2
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), mask)
    (tmp_path / "labels.txt").write_text("none\ncrack\n")
    (fault,) = statistics(read(tmp_path)).faults
    assert "a pixel is 2; there are 2 labels" in fault.problem


def test_a_changed_dataset_is_told(tmp_path):
    write(detection(tmp_path / "in", [[BOLT], [NUT]]), tmp_path / "out", "yolo")
    assert not statistics(read(tmp_path / "out")).faults
    (tmp_path / "out" / "labels" / "000.txt").write_text("0 .5 .5 .2 .2\n")
    (fault,) = statistics(read(tmp_path / "out")).faults
    assert "is not what it was" in fault.problem


def _held_out(tmp_path, name="coco"):
    dataset = detection(tmp_path / "in", [[replace(BOLT, label_id=index % 2)] for index in range(20)])
    write_split(plan_split(dataset, seed=0, bits=None), dataset, tmp_path / "out", name, link=False)
    return tmp_path / "out"


def test_every_use_of_a_test_set_is_counted(tmp_path):
    folder = _held_out(tmp_path, "yolo")
    assert [note_use(read(folder, split="test"), model="m 1", figure="mAP 0.3") for _ in range(3)] == [0, 1, 2]
    # However it is reached, and after a label was mended.
    assert note_use(read(folder / "data.yaml", split="test"), model="m 2", figure="mAP 0.4") == 3
    next((folder / "test" / "labels").glob("*.txt")).write_text("0 .5 .5 .2 .2\n")
    assert note_use(read(folder / "test"), model="m 3", figure="mAP 0.4") == 4
    lines = [json.loads(line) for line in (folder / "test" / "test-uses.jsonl").read_text().splitlines()]
    assert [line["model"] for line in lines] == ["m 1"] * 3 + ["m 2", "m 3"]


def test_a_cut_off_line_is_a_use(tmp_path):
    folder = _held_out(tmp_path) / "test"
    (folder / "test-uses.jsonl").write_text('{"used_at": "20')
    assert note_use(read(folder), model="m", figure="f") == 1
    assert note_use(read(folder), model="m", figure="f") == 2


def test_other_sets_are_not_counted(tmp_path):
    folder = _held_out(tmp_path) / "train"
    assert [note_use(read(folder), model="m", figure="f") for _ in range(2)] == [0, 0]
    assert not (folder / "test-uses.jsonl").exists()


def test_a_read_only_test_set_is_counted_elsewhere(tmp_path):
    dataset = read(_held_out(tmp_path) / "test")
    # A folder of that name cannot be opened for writing, even by root.
    (tmp_path / "out" / "test" / "test-uses.jsonl").mkdir()
    with pytest.raises(StateError, match="cannot be read"):
        note_use(dataset, model="m", figure="f", state_dir=tmp_path / "state")
    (tmp_path / "out" / "test" / "test-uses.jsonl").rmdir()
    (tmp_path / "out" / "test" / "test-uses.jsonl").symlink_to("/proc/edgevision/none")
    assert [note_use(dataset, model="m", figure="f", state_dir=tmp_path / "state") for _ in range(2)] == [0, 1]
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "dataset-uses").symlink_to("/proc/edgevision")
    with pytest.raises(StateError, match="the use of the test set cannot be written down"):
        note_use(dataset, model="m", figure="f", state_dir=tmp_path / "blocked")
