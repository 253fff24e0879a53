"""What is written is read back: labels, names and boxes, through every format and any chain of them."""

import shutil
import tempfile
from pathlib import Path

import pytest
from dataset_support import classification, detection, detection_datasets, make_pictures, picture, same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgevision.errors import StateError, UsageError
from edgevision.host.dataset import FORMATS, read, write
from edgevision.host.dataset.base import Box, Dataset, Sample

DETECTION = ("coco", "yolo", "voc")
PICTURES = Path(tempfile.mkdtemp(prefix="edgevision-dataset-"))


@pytest.fixture(scope="module", autouse=True)
def pictures():
    make_pictures(PICTURES)
    yield
    shutil.rmtree(PICTURES)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(detection_datasets(PICTURES), st.permutations(DETECTION))
def test_a_chain_through_all_detection_formats_loses_nothing(dataset, chain):
    with tempfile.TemporaryDirectory() as folder:
        current = dataset
        for step, name in enumerate(chain):
            write(current, Path(folder) / str(step), name)
            current = read(Path(folder) / str(step))
            assert current.format == name
            assert not [fault for fault in current.faults if "empty" not in fault.problem]
        assert same(dataset, current)
        first = read(Path(folder) / "0")
        crowds = any(box.crowd for sample in first.samples for box in sample.boxes)
        assert (first.digest() == current.digest()) is not crowds  # crowd marks are no part of YOLO and VOC


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(detection_datasets(PICTURES))
def test_coco_keeps_every_mark_and_area(dataset):
    with tempfile.TemporaryDirectory() as folder:
        written = write(dataset, Path(folder) / "out", "coco")
        again = read(Path(folder) / "out")
    assert not written.lost
    for mine, others in zip(dataset.samples, again.samples, strict=True):
        for box, twin in zip(mine.boxes, others.boxes, strict=True):
            assert (box.crowd, box.difficult) == (twin.crowd, twin.difficult)
            width, height = box.xyxy[2] - box.xyxy[0], box.xyxy[3] - box.xyxy[1]
            assert (twin.area_px or width * height) == pytest.approx(box.area_px or width * height, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("coco", ()),
        ("voc", ("1 crowd", "1 object area")),
        ("yolo", ("1 crowd", "1 difficult", "1 object area")),
    ],
)
def test_what_a_format_cannot_hold_is_told_with_its_number(tmp_path, name, lost):
    box = Box(label_id=0, xyxy=(1, 2, 30, 40), crowd=True, difficult=True, area_px=77)
    written = write(detection(tmp_path / "in", [[box], []]), tmp_path / "out", name)
    assert len(written.lost) == len(lost)
    assert all(said.startswith(words) for said, words in zip(written.lost, lost, strict=True))


@pytest.mark.parametrize("first", ["folders", "csv"])
def test_classification_formats(tmp_path, first):
    dataset = classification(tmp_path / "in", [2, 1, 0, 3], ("b", "a", "none here", "c d"))
    second = "csv" if first == "folders" else "folders"
    write(dataset, tmp_path / "one", first)
    one = read(tmp_path / "one")
    write(one, tmp_path / "two", second)
    two = read(tmp_path / "two")
    assert one.labels == two.labels == dataset.labels
    pairs = [
        sorted((sample.path.read_bytes(), sample.label_id) for sample in each.samples) for each in (dataset, one, two)
    ]
    assert pairs[0] == pairs[1] == pairs[2]


def test_masks(tmp_path):
    samples = tuple(
        Sample(
            name=f"{name}.png", path=picture(tmp_path / f"{name}.png"), width=64, height=48, mask=_mask(tmp_path, name)
        )
        for name in ("a", "b")
    )
    dataset = Dataset(source=tmp_path, format="masks", task="segmentation", labels=("none", "crack"), samples=samples)
    write(dataset, tmp_path / "out", "masks")
    again = read(tmp_path / "out")
    assert again.labels == dataset.labels
    assert [_mask_bytes(sample) for sample in again.samples] == [_mask_bytes(sample) for sample in samples]
    assert not again.faults


def _mask_bytes(sample):
    assert sample.mask is not None
    return sample.mask.read_bytes()


def _mask(folder, name):
    import cv2
    import numpy as np

    path = folder / f"{name}-mask.png"
    cv2.imwrite(str(path), np.full((48, 64), 1, np.uint8))
    return path


def test_real_coco_through_yolo_and_voc(tmp_path, shared):
    dataset = read(shared / "images" / "coco-val")
    assert (len(dataset), sum(len(sample.boxes) for sample in dataset.samples), len(dataset.labels)) == (158, 1424, 80)
    assert not dataset.faults
    write(dataset, tmp_path / "yolo", "yolo", link=_same_disk(tmp_path, shared))
    write(read(tmp_path / "yolo"), tmp_path / "voc", "voc", link=True)
    write(read(tmp_path / "voc"), tmp_path / "coco", "coco", link=True)
    again = read(tmp_path / "coco")
    assert same(dataset, again)
    # Crowd marks are no part of YOLO, so the digest is compared from there on.
    assert again.digest() == read(tmp_path / "yolo").digest()


def _same_disk(one, other):
    return one.stat().st_dev == other.stat().st_dev


def test_written_coco_is_what_pycocotools_reads(tmp_path, shared, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    write(read(shared / "images" / "coco-val"), tmp_path / "out", "coco")
    ours = coco.COCO(str(tmp_path / "out" / "instances.json"))
    theirs = coco.COCO(str(shared / "images" / "coco-val" / "instances.json"))
    capsys.readouterr()

    def rows(api):
        return sorted(
            (
                api.loadImgs(item["image_id"])[0]["file_name"],
                api.loadCats(item["category_id"])[0]["name"],
                *(round(edge, 4) for edge in item["bbox"]),
                item["iscrowd"],
                round(item["area"], 4),
            )
            for item in api.dataset["annotations"]
        )

    assert rows(ours) == rows(theirs)


def test_real_classification(tmp_path, shared):
    dataset = read(shared / "images" / "imagenet")
    assert (len(dataset), dataset.task, dataset.format) == (500, "classification", "csv")
    assert next(sample.label_id for sample in dataset.samples if sample.name == "0002.jpg") == 2
    assert not dataset.faults


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_filled_folder_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    data = detection(tmp_path / "in", [[]])
    data = Dataset(**{**{key: getattr(data, key) for key in data.__slots__}, "task": FORMATS[name].task})
    with pytest.raises(UsageError, match="not empty"):
        write(data, tmp_path / "out", name)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_ctrl_c_leaves_nothing(tmp_path, monkeypatch, failure):
    dataset = detection(tmp_path / "in", [[], [], []])
    copied = []

    def stop_at_the_second(source, target):
        copied.append(source)
        if len(copied) == 2:
            raise failure
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr("edgevision.host.dataset._place.shutil.copyfile", stop_at_the_second)
    with pytest.raises(StateError if isinstance(failure, OSError) else KeyboardInterrupt):
        write(dataset, tmp_path / "out", "yolo")
    assert len(copied) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_detection_does_not_become_classification(tmp_path):
    with pytest.raises(UsageError, match="cannot store; choose coco, yolo, voc"):
        write(detection(tmp_path / "in", [[]]), tmp_path / "out", "folders")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["yolo", "voc"])
def test_two_pictures_that_would_share_a_label_file_are_refused(tmp_path, name):
    samples = tuple(
        Sample(name=file, path=picture(tmp_path / "in" / file), width=64, height=48) for file in ("a.bmp", "a.png")
    )
    dataset = Dataset(source=tmp_path, format="coco", task="detection", labels=("x",), samples=samples)
    with pytest.raises(UsageError, match=r"a\.bmp and a\.png would share"):
        write(dataset, tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


def test_links_share_the_bytes_and_copies_do_not(tmp_path):
    dataset = detection(tmp_path / "in", [[]])
    write(dataset, tmp_path / "copied", "coco")
    write(dataset, tmp_path / "linked", "coco", link=True)
    inode = dataset.samples[0].path.stat().st_ino
    assert (tmp_path / "linked" / "images" / "000.png").stat().st_ino == inode
    assert (tmp_path / "copied" / "images" / "000.png").stat().st_ino != inode
