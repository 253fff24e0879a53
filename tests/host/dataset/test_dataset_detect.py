"""Which format lies there, which part is meant, and what it is for."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from dataset_support import detection, picture
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevision.capture.images import read_image
from edgevision.errors import ImageError, UsageError
from edgevision.host.dataset import FORMATS, read, write
from edgevision.host.dataset.base import Box
from edgevision.host.dataset.pictures import picture_size

BOX = Box(label_id=0, xyxy=(1, 2, 30, 40))


def test_nothing_there_and_nothing_known(tmp_path):
    with pytest.raises(UsageError, match="no such file or folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is of no known format; looked for coco"):
        read(tmp_path)
    with pytest.raises(UsageError, match="did you mean 'coco'"):
        read(tmp_path, "cocoo")


def test_two_formats_in_one_folder_are_refused_by_name(tmp_path):
    write(detection(tmp_path / "in", [[BOX]]), tmp_path / "both", "yolo")
    write(detection(tmp_path / "in", [[BOX]]), tmp_path / "coco", "coco")
    (tmp_path / "both" / "instances.json").write_bytes((tmp_path / "coco" / "instances.json").read_bytes())
    (tmp_path / "both" / "dataset.yaml").unlink()
    with pytest.raises(UsageError, match=r"looks like coco .* and yolo .*; choose with --format"):
        read(tmp_path / "both")
    assert read(tmp_path / "both", "coco").format == "coco"
    assert read(tmp_path / "both", format="yolo").format == "yolo"
    (tmp_path / "both" / "dataset.yaml").write_text("format: yolo\n")
    assert read(tmp_path / "both").format == "yolo"


@pytest.mark.parametrize("name", ["coco", "yolo", "voc"])
def test_parts_in_folders_have_to_be_chosen(tmp_path, name):
    for part in ("train", "valid"):
        write(detection(tmp_path / f"in-{part}", [[BOX]]), tmp_path / "all" / part, name)
        (tmp_path / "all" / part / "dataset.yaml").unlink()
    with pytest.raises(UsageError, match="holds several parts: train, valid; choose one with --split"):
        read(tmp_path / "all")
    assert read(tmp_path / "all", split="val").samples[0].path.is_relative_to(tmp_path / "all" / "valid")
    with pytest.raises(UsageError, match="has no part 'test'; there are: train, valid"):
        read(tmp_path / "all", split="test")


def test_coco_files_by_split(tmp_path):
    write(detection(tmp_path / "in", [[BOX]]), tmp_path / "one", "coco")
    (tmp_path / "all" / "annotations").mkdir(parents=True)
    for part in ("train", "val"):
        picture(tmp_path / "all" / f"{part}2017" / "000.png")
        file = tmp_path / "all" / "annotations" / f"instances_{part}2017.json"
        file.write_bytes((tmp_path / "one" / "instances.json").read_bytes())
    with pytest.raises(UsageError, match="several parts: train, val"):
        read(tmp_path / "all")
    found = read(tmp_path / "all", split="val")
    assert found.samples[0].path == tmp_path / "all" / "val2017" / "000.png"
    assert found.role == "validation"


def test_bare_yolo_folders_and_roboflows_paths(tmp_path):
    picture(tmp_path / "bare" / "images" / "a.png")
    (tmp_path / "bare" / "labels").mkdir()
    (tmp_path / "bare" / "labels" / "a.txt").write_text("1 .5 .5 .5 .5\n")
    (tmp_path / "bare" / "classes.txt").write_text("bolt\nnut\n")
    assert read(tmp_path / "bare").samples[0].boxes[0].xyxy == (16, 12, 48, 36)
    robo = tmp_path / "robo"
    picture(robo / "valid" / "images" / "a.png")
    (robo / "valid" / "labels").mkdir()
    (robo / "valid" / "labels" / "a.txt").write_text("0 .5 .5 .5 .5\n")
    (robo / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 1\nnames: {0: bolt}\n")
    dataset = read(robo, split="val")
    assert (len(dataset), dataset.role, dataset.faults) == (1, "validation", ())
    (robo / "list.txt").write_text("valid/images/a.png\nvalid/images/gone.png\n")
    (robo / "data.yaml").write_text("test: list.txt\nnames: [bolt]\n")
    dataset = read(robo)
    assert (len(dataset), dataset.role, dataset.faults[0].line) == (1, "test", 2)


def test_a_test_set_stays_a_test_set(tmp_path):
    write(detection(tmp_path / "in", [[BOX]], role="test"), tmp_path / "out", "coco")
    assert read(tmp_path / "out").role == "test"
    with pytest.raises(UsageError, match="is marked as test, and cannot be used as calibration"):
        read(tmp_path / "out", role="calibration")
    (tmp_path / "out" / "dataset.yaml").unlink()
    assert read(tmp_path / "out", role="calibration").role == "calibration"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(sorted(FORMATS)))
def test_noise_for_a_label_file_is_a_fault_or_one_line(content, name):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = {
            "coco": "instances.json",
            "yolo": "labels/a.txt",
            "voc": "Annotations/a.xml",
            "folders": "x/a.png",
            "csv": "labels.csv",
            "masks": "masks/a.png",
        }
        picture(root / "images" / "a.png")
        (root / "data.yaml").write_text("train: images\nnames: [a]\n")
        (root / "labels.txt").write_text("a\n")
        (root / "masks").mkdir()
        target = root / files[name]
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
        refusal = None
        try:
            read(root, name)
        except UsageError as failure:
            refusal = str(failure)
        assert refusal is None or refusal.startswith(folder)


def _tiff(orientation):
    return b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x112, 3, 1, orientation) + struct.pack("<I", 0)


def _with_orientation(kind, orientation):
    image = np.zeros((40, 60, 3), np.uint8)
    content = cv2.imencode(f".{kind}", image)[1].tobytes()
    exif = _tiff(orientation)
    if kind == "jpg":
        segment = b"Exif\0\0" + exif
        return content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:]
    if kind == "png":
        chunk = b"eXIf" + exif
        return content[:33] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]
    if kind == "webp":
        header = (
            b"VP8X"
            + struct.pack("<I", 10)
            + bytes([8, 0, 0, 0])
            + (59).to_bytes(3, "little")
            + (39).to_bytes(3, "little")
        )
        body = b"WEBP" + header + content[12:] + b"EXIF" + struct.pack("<I", len(exif)) + exif
        return b"RIFF" + struct.pack("<I", len(body)) + body
    (offset,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, offset)
    entries = [content[offset + 2 + 12 * index :][:12] for index in range(count)]
    entries = [entry for entry in entries if struct.unpack("<H", entry[:2])[0] != 274]
    entries = sorted(
        [*entries, struct.pack("<HHIHH", 274, 3, 1, orientation, 0)], key=lambda entry: struct.unpack("<H", entry[:2])
    )
    content += b"\0" * (len(content) % 2)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0"
    return content[:4] + struct.pack("<I", len(content)) + content[8:] + directory


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_picture_as_it_is_shown(tmp_path, kind, orientation):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(_with_orientation(kind, orientation))
    height, width = read_image(path).shape[:2]
    assert picture_size(path) == (width, height)


@pytest.mark.parametrize("name", ["cat.bmp", "bird.bmp", "grace_hopper.bmp", "hot_dog.jpg", "cats_and_dogs.jpg"])
def test_real_pictures_sizes(shared, name):
    height, width = read_image(shared / "images" / name).shape[:2]
    assert picture_size(shared / "images" / name) == (width, height)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"\xff\xd8\xff\xe1", b"\x89PNG\r\n\x1a\n", b"RIFF", b"II*\0", b"MM\0*", b"BM", b"GIF89a"]),
)
def test_noise_is_no_picture_and_no_crash(tmp_path_factory, content, magic):
    path = tmp_path_factory.getbasetemp() / "noise.png"
    path.write_bytes(magic + content)
    try:
        width, height = picture_size(path)
    except ImageError:
        return
    assert width > 0
    assert height > 0
