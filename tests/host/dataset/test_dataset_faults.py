"""Everything that can be wrong with labels: one line each, with file and line, and the rest goes on."""

import json

import cv2
import numpy as np
import pytest
from dataset_support import picture

from edgevision.errors import DocumentError, UsageError
from edgevision.host.dataset import read

IMAGES = [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}]
CATEGORIES = [{"id": 3, "name": "nut"}, {"id": 1, "name": "bolt"}]


def _coco(folder, annotations, images=IMAGES, categories=CATEGORIES):
    picture(folder / "images" / "a.png")
    lines = ",\n".join(json.dumps(item) for item in annotations)
    text = (
        f'{{"images": {json.dumps(images)},\n"categories": {json.dumps(categories)},\n"annotations": [\n{lines}\n]}}\n'
    )
    (folder / "instances.json").write_text(text)
    return read(folder)


def _annotation(number=1, bbox=(1, 2, 10, 10), category=1, image=1, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": list(bbox), **more}


GOOD = (_annotation(8, category=1), _annotation(9, category=3))


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (_annotation(bbox=(60, 40, 20, 4)), "reaches beyond its picture of 64x48; it is cut off"),
        (_annotation(bbox=(70, 40, 20, 4)), "lies outside its picture of 64x48; it is left out"),
        (_annotation(bbox=(10, 10, -5, 4)), "is inverted"),
        (_annotation(bbox=(10, 10, 0, 4)), "has no area"),
        (_annotation(bbox=(float("nan"), 10, 5, 4)), "no finite numbers"),
        (_annotation(bbox=(float("inf"), 10, 5, 4)), "no finite numbers"),
        (_annotation(bbox=(1, 2, 3)), "must be four numbers"),
        (_annotation(bbox=(1, 2, 3, "4")), "must be four numbers"),
        (_annotation(category=17), "there is no category 17"),
        (_annotation(image=17), "there is no image 17"),
        (_annotation(number=8), "the id stands twice"),
    ],
)
def test_a_bad_coco_box_is_told_with_its_line_and_id(tmp_path, annotation, words):
    dataset = _coco(tmp_path, [*GOOD, annotation])
    (fault,) = dataset.faults
    assert words in fault.problem
    assert f"annotation {annotation['id']}:" in fault.problem
    assert fault.line == 6
    assert str(fault).startswith(f"{tmp_path / 'instances.json'}:6: ")
    assert len(dataset.samples[0].boxes) == (3 if "cut off" in words else 2)


def test_a_box_that_is_cut_off_ends_at_the_edge_and_rounding_is_no_fault(tmp_path):
    dataset = _coco(tmp_path, [*GOOD, _annotation(bbox=(60, 40, 20, 20)), _annotation(2, bbox=(-0.3, 0, 64.5, 48))])
    assert len(dataset.faults) == 1
    assert [box.xyxy for box in dataset.samples[0].boxes[2:]] == [(60, 40, 64, 48), (0, 0, 64, 48)]


def test_coco_categories_go_by_id_and_empty_ones_are_told(tmp_path):
    dataset = _coco(tmp_path, [GOOD[0]])
    assert dataset.labels == ("bolt", "nut")
    (fault,) = dataset.faults
    assert "1 of 2 classes are empty (no box): 'nut'" in fault.problem


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"id": 2, "file_name": "gone.png"}, "the picture is missing"),
        ({"id": 2, "file_name": "cut.png"}, "cut off"),
        ({"id": 2, "file_name": "text.png"}, "is not a picture"),
        ({"id": 2, "file_name": "empty.png"}, "is empty (0 bytes)"),
        ({"id": 2, "file_name": "../a.png"}, "must stay within the picture folder"),
        ({"id": 2, "file_name": "/etc/passwd"}, "must stay within the picture folder"),
        ({"id": 2, "file_name": "b.png", "width": 48, "height": 64}, "labelled without its EXIF orientation"),
        ({"id": 2, "file_name": "b.png", "width": 10, "height": 10}, "says 10x10, the picture is 64x48"),
        ({"id": 1, "file_name": "b.png"}, "image 1 stands twice"),
        ({"id": 2, "file_name": "a.png"}, "stands twice; the first is kept"),
        ({"file_name": "b.png"}, "needs a whole `id`"),
    ],
)
def test_a_bad_coco_picture_is_told_and_the_rest_goes_on(tmp_path, image, words):
    whole = picture(tmp_path / "images" / "b.png").read_bytes()
    (tmp_path / "images" / "cut.png").write_bytes(whole[:-20])
    (tmp_path / "images" / "text.png").write_text("hello")
    (tmp_path / "images" / "empty.png").touch()
    dataset = _coco(tmp_path, GOOD, images=[*IMAGES, image])
    (fault,) = dataset.faults
    assert words in fault.problem
    assert fault.line == 1
    assert [sample.name for sample in dataset.samples] == ["a.png"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"images": [],\n"categories": [}', r"instances\.json:2: is not COCO JSON"),
        ('{"images": [], "categories": []}', "has no annotations"),
        ('{"images": [3], "categories": [], "annotations": []}', "each entry must be an object"),
        ('{"images": {}, "categories": [], "annotations": []}', "Expecting '\\['"),
        ('{"images": [], "images": [], "categories": [], "annotations": []}', "'images' stands twice"),
        ('{"x": ' + "[" * 100_000 + ', "images": [], "annotations": []', "is not COCO JSON"),
    ],
)
def test_what_is_no_coco_json_is_refused(tmp_path, text, words):
    (tmp_path / "instances.json").write_text(text)
    with pytest.raises(UsageError, match=words):
        read(tmp_path / "instances.json", "coco")


def _yolo(folder, lines, names="names: [bolt, nut]"):
    picture(folder / "images" / "a.png")
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / "a.txt").write_text("\n".join(["0 .5 .5 .2 .2", "1 .5 .5 .2 .2", *lines]))
    (folder / "data.yaml").write_text(f"train: images\nval: images\n{names}\n")
    return read(folder)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 .5 .5 .2", "has 4 columns, 5 make a box"),
        ("0 .5 .5 .2 .2 .9", "a confidence"),
        ("0 .1 .1 .2 .2 .3 .3", "an outline"),
        ("0 .5 .5 .2 wide", "must hold numbers"),
        ("2 .5 .5 .2 .2", "there is no class 2 (known: 0 to 1)"),
        ("-1 .5 .5 .2 .2", "there is no class -1"),
        ("0.5 .5 .5 .2 .2", "there is no class 0.5"),
        ("nan .5 .5 .2 .2", "there is no class nan"),
        ("0 nan .5 .2 .2", "no finite numbers"),
        ("0 .95 .5 .2 .2", "reaches beyond"),
        ("0 32 24 10 10", "these look like pixels"),
        ("0 .5 .5 0 .2", "has no area"),
        ("0 .5 .5 -.1 .2", "is inverted"),
    ],
)
def test_a_bad_yolo_line_is_told_with_its_number(tmp_path, line, words):
    dataset = _yolo(tmp_path, [line])
    (fault,) = dataset.faults
    assert words in fault.problem
    assert (fault.file, fault.line) == (str(tmp_path / "labels" / "a.txt"), 3)


def test_yolo_lone_labels_corrupt_pictures_and_bare_pictures(tmp_path):
    picture(tmp_path / "images" / "bare.png")
    (tmp_path / "images" / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "lone.txt").write_text("0 .5 .5 .1 .1\n")
    dataset = _yolo(tmp_path, [])
    problems = " ".join(fault.problem for fault in dataset.faults)
    assert len(dataset.faults) == 2
    assert "cut off" in problems
    assert "lone.* is missing" in problems
    assert dataset.notes == ("1 pictures have no label file; they count as showing nothing",)
    assert [sample.name for sample in dataset.samples] == ["a.png", "bare.png"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("names: [on, off]", "reads as True; write it in quotes"),
        ("names: {0: a, 2: b}", "without gaps"),
        ("names: bolt", "must be a list"),
        ("names: [a, b]\ntest: 7", "test: must be a folder"),
        ("names: [a, b]\ntest: elsewhere", "choose one with --split"),
    ],
)
def test_a_bad_data_yaml_is_refused(tmp_path, names, words):
    with pytest.raises(UsageError, match=words):
        _yolo(tmp_path, [], names)


def _voc(folder, objects, size="<size><width>64</width><height>48</height></size>", head=""):
    picture(folder / "JPEGImages" / "a.png")
    (folder / "Annotations").mkdir(exist_ok=True)
    text = f"{head}<annotation>\n<filename>a.png</filename>\n{size}\n{objects}\n</annotation>"
    (folder / "Annotations" / "a.xml").write_text(text)
    return read(folder)


def _object(name="bolt", box=(11, 11, 20, 20)):
    edges = "".join(f"<{tag}>{edge}</{tag}>" for tag, edge in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><bndbox>{edges}</bndbox></object>"


def test_voc_counts_from_one_and_includes_the_last_pixel(tmp_path):
    dataset = _voc(tmp_path, _object(box=(1, 1, 64, 48)))
    assert dataset.samples[0].boxes[0].xyxy == (0, 0, 64, 48)
    assert not dataset.faults
    (tmp_path / "dataset.yaml").write_text("voc_origin: 0\n")
    assert _voc(tmp_path, _object(box=(0, 0, 64, 48))).samples[0].boxes[0].xyxy == (0, 0, 64, 48)


@pytest.mark.parametrize(
    ("objects", "line", "words"),
    [
        (_object(box=(0, 5, 20, 20)), 4, "VOC counts pixels from 1"),
        (_object(box=(20, 5, 10, 20)), 4, "is inverted"),
        (_object(box=(100, 5, 110, 20)), 4, "lies outside"),
        (_object(box=("x", 5, 10, 20)), 4, "must hold four numbers"),
        (_object(box=("nan", 5, 10, 20)), 4, "no finite numbers"),
        ("<object><name>bolt</name></object>", 4, "has no <bndbox>"),
        (_object(name=""), 4, "has no <name>"),
        ("<object>", 5, "is not XML"),
    ],
)
def test_a_bad_voc_object_is_told_with_its_line(tmp_path, objects, line, words):
    (fault,) = _voc(tmp_path, objects).faults
    assert words in fault.problem
    assert (fault.file, fault.line) == (str(tmp_path / "Annotations" / "a.xml"), line)


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>\n',
        '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>\n',
        '<!DOCTYPE annotation SYSTEM "http://127.0.0.1:9/x.dtd">\n',
        "<a>" * 100_000,
    ],
)
def test_hostile_xml_is_refused(tmp_path, head):
    dataset = _voc(tmp_path, _object(), head=head)
    (fault,) = dataset.faults
    assert "which labels do not need" in fault.problem or "nests deeper" in fault.problem
    assert not dataset.samples


def test_voc_missing_picture_wrong_size_and_unknown_label(tmp_path):
    _voc(tmp_path, _object("screw"))
    (tmp_path / "labels.txt").write_text("bolt\n")
    (tmp_path / "Annotations" / "gone.xml").write_text("<annotation><filename>gone.jpg</filename></annotation>")
    picture(tmp_path / "JPEGImages" / "b.png")
    (tmp_path / "Annotations" / "b.xml").write_text(
        "<annotation><size><width>48</width><height>64</height></size></annotation>"
    )
    problems = [str(fault) for fault in read(tmp_path).faults]
    assert len(problems) == 4
    assert "a.xml:4: object 1: unknown label 'screw'" in problems[0]
    assert "EXIF orientation" in problems[1]
    assert "gone.jpg: the picture is missing" in problems[2]
    assert "labels.txt: 1 of 1 classes are empty" in problems[3]


def test_labels_csv(tmp_path):
    picture(tmp_path / "a.png")
    rows = ["file,class_index,more", "a.png,1,x", "gone.png,0,x", "a.png,0,x", "a.png,7,x", "a.png,one,x", "a.png"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    (tmp_path / "labels.txt").write_text("bad\ngood\n")
    dataset = read(tmp_path)
    found = [(fault.line, fault.problem) for fault in dataset.faults]
    assert [line for line, _ in found] == [3, 4, 5, 6, 7, None]
    expected = ("missing", "stands twice", "no class '7'", "no class 'one'", "as many columns", "'bad'")
    for (_, problem), words in zip(found, expected, strict=True):
        assert words in problem
    assert [(sample.name, sample.label_id) for sample in dataset.samples] == [("a.png", 1)]
    (tmp_path / "labels.csv").write_text("name,class\n")
    with pytest.raises(UsageError, match="has no column file and no class_index"):
        read(tmp_path)


def test_class_folders(tmp_path):
    picture(tmp_path / "good" / "a.png")
    picture(tmp_path / "loose.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "good" / "b.png").write_bytes(b"")
    dataset = read(tmp_path)
    assert dataset.labels == ("empty", "good")
    assert [fault.problem.split(": ")[-1] for fault in dataset.faults] == ["is empty (0 bytes)", "'empty'"]
    assert dataset.notes == ("1 pictures lie outside the class folders; they are left out",)


def test_masks_that_do_not_fit(tmp_path):
    for name in "abc":
        picture(tmp_path / "images" / f"{name}.png")
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), np.zeros((48, 60), np.uint8))
    cv2.imwrite(str(tmp_path / "masks" / "b.png"), np.zeros((48, 64, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "masks" / "d.png"), np.zeros((48, 64), np.uint8))
    (tmp_path / "labels.txt").write_text("none\ncrack\n")
    problems = [fault.problem for fault in read(tmp_path).faults]
    assert len(problems) == 4
    for problem, words in zip(problems, ("60x48", "grey PNG", "c.png is missing", "picture is missing"), strict=True):
        assert words in problem


def test_dataset_yaml_faults_have_lines(tmp_path):
    picture(tmp_path / "good" / "a.png")
    (tmp_path / "dataset.yaml").write_text("format: folders\nrole: tset\nroll: 1\n")
    with pytest.raises(DocumentError) as caught:
        read(tmp_path)
    assert "dataset.yaml:2: role:" in str(caught.value)
    assert "dataset.yaml:3: roll: unknown key; did you mean 'role'?" in str(caught.value)
