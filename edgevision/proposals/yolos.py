"""The rules for YOLOs, NanoDet and PicoDet: by what Ultralytics' exporter wrote, and by the cells of their grids."""

from __future__ import annotations

from edgevision.proposals.facts import Facts, Family, activation_line, only_output, option_line, role_line
from edgevision.proposals.metadata import Ultralytics
from edgevision.proposals.proposal import Line, Sureness
from edgevision.types import TensorSpec

_CERTAIN, _LIKELY = Sureness.CERTAIN, Sureness.LIKELY
_MOST_NORMALISED = 4.0
"""Boxes from 0 to 1 may reach over the border, but not so far."""


def ultralytics(facts: Facts) -> Family | None:
    """What Ultralytics' exporter says of itself; the shape tells the generation."""
    notes = facts.notes.ultralytics
    if notes is None:
        return None
    said = f"the metadata says task {notes.task!r}"
    if notes.task == "classify":
        only = only_output(facts)
        return None if only is None else Family(
            name="classifier", task="classification", sureness=_CERTAIN, why=said,
            outputs=(role_line("scores", only, _CERTAIN, "the one output"),),
            activation=activation_line("none", _CERTAIN, "Ultralytics' classifiers end in softmax"),
            kind="ultralytics_classify",
        )  # fmt: skip
    if notes.task in ("segment", "pose"):
        return _ultralytics_more(facts, notes, said)
    only = only_output(facts)
    if notes.task not in ("detect", "") or only is None or len(only.shape) != 3:
        return None
    return _ultralytics_detect(facts, notes, only, said)


def _ultralytics_detect(facts: Facts, notes: Ultralytics, only: TensorSpec, said: str) -> Family | None:
    classes = len(notes.names)
    if not notes.end_to_end and only.shape[2] == 5 + classes:
        cells = {3 * cells for cells in (facts.cells(8, 16, 32), facts.cells(8, 16, 32, 64)) if cells}
        why = f"the metadata has {classes} names; [1, rows, 5 + names] is this head"
        if only.shape[1] in cells:
            return _yolo("yolov5", only, _CERTAIN, f"{why}, with three anchors for each cell", facts)
        if not notes.task and (only.shape[1] == -1 or not cells):  # YOLOv5 writes no task
            return _yolo("yolov5", only, _CERTAIN if notes.theirs and classes > 1 else _LIKELY, why, facts)
    if (notes.end_to_end and only.shape[2] in (6, -1)) or (only.shape[2] == 6 and classes != 2):
        sureness = _CERTAIN if notes.end_to_end or (notes.theirs and notes.task) else _LIKELY
        return _yolo("yolov10", only, sureness, f"{said}, and rows of 6 are finished objects", facts)
    if only.shape[1] == 4 + classes:
        return _yolo("yolov8", only, _CERTAIN, f"{said} and {classes} names; [1, 4 + names, cells] is this head", facts)
    return None


def _ultralytics_more(facts: Facts, notes: Ultralytics, said: str) -> Family | None:
    """Masks or keypoints: behind each box stand numbers for them, as many as maps, or as the metadata says."""
    segment = notes.task == "segment"
    maps = [spec for spec in facts.outputs if len(spec.shape) == 4]
    rows = [spec for spec in facts.outputs if len(spec.shape) == 3]
    if len(rows) != 1 or len(maps) != segment:
        return None
    roles = [role_line("predictions", rows[0], _CERTAIN, "the one output of three axes")]
    roles += [role_line("prototypes", spec, _CERTAIN, "the one output of four axes") for spec in maps]
    options = list(_normalised(facts))
    if segment:
        last = facts.graph.format == "tflite"
        extra = maps[0].shape[3 if last else 1]
        why = ".tflite maps have their channels last"
        options += [option_line("prototypes_layout", "channels_last", _CERTAIN, why)] if last else []
    else:
        keypoints, values = notes.keypoints or (17, 3)
        extra = keypoints * values
        sureness, why = _CERTAIN, f"the metadata says kpt_shape [{keypoints}, {values}]"
        if notes.keypoints is None:
            sureness, why = _LIKELY, "as many as COCO's people have; the metadata does not say"
        options += [option_line("keypoints", keypoints, sureness, why),
                    option_line("keypoint_values", values, sureness, why)]  # fmt: skip
    first, width = 4 + len(notes.names) + extra, 6 + extra
    if notes.end_to_end and rows[0].shape[2] in (width, -1):
        options.append(option_line("end_to_end", True, _CERTAIN, "the metadata says end2end"))
    elif rows[0].shape[1] != first:
        if rows[0].shape[2] != width:
            return None
        options.append(option_line("end_to_end", True, _CERTAIN, f"rows of 6 + {extra} are finished objects"))
    return Family(
        name="yolov8_seg" if segment else "yolov8_pose", task="detection", sureness=_CERTAIN, why=said,
        outputs=tuple(roles), decoder=tuple(options), activation=activation_line("none", _CERTAIN, "scores have their sigmoid"),
        confidence=0.25, kind="ultralytics",
    )  # fmt: skip


def _normalised(facts: Facts) -> tuple[Line, ...]:
    if facts.graph.format != "tflite":
        return ()
    quantization = next((spec.quantization for spec in facts.outputs if len(spec.shape) == 3), None)
    reach = 0.0 if quantization is None else float(quantization.scale[0]) * 255
    if quantization is not None and reach < _MOST_NORMALISED:
        return (option_line("normalised", True, _CERTAIN, f"8 bits of the output reach {reach:.3g}: no pixels"),)
    return (option_line("normalised", True, _LIKELY, "Ultralytics' .tflite files have boxes from 0 to 1"),)


def _yolo(family: str, spec: TensorSpec, sureness: Sureness, why: str, facts: Facts) -> Family:
    return Family(
        name=family, task="detection", sureness=sureness, why=why,
        outputs=(role_line("predictions", spec, _CERTAIN, "the one output"),), decoder=_normalised(facts),
        activation=activation_line("none", sureness, "its exports have scores after their sigmoid"),
        confidence=0.25, kind="ultralytics",
    )  # fmt: skip


def gfl(facts: Facts) -> Family | None:
    """NanoDet and PicoDet: for each grid class scores, and 4 sides of 8 values."""
    sides = 32
    for strides in ((8, 16, 32), (8, 16, 32, 64)):
        if facts.size is None or len(facts.outputs) != 2 * len(strides):
            continue
        rows = {-(-facts.size[0] // stride) * -(-facts.size[1] // stride): stride for stride in strides}
        roles = []
        widths = set()
        for spec in facts.outputs:
            stride = rows.get(spec.shape[-2]) if len(spec.shape) in (2, 3) else None
            if stride is None:
                break
            part = "boxes" if spec.shape[-1] == sides else "scores"
            if part == "scores":
                widths.add(spec.shape[-1])
            why = f"{spec.shape[-2]} rows are the cells of stride {stride}, {spec.shape[-1]} channels are "
            why += "4 sides of 8 values" if part == "boxes" else "classes"
            roles.append(role_line(f"{part}_{stride}", spec, _CERTAIN, why))
        if len({line.key for line in roles}) != 2 * len(strides) or len(widths) != 1:
            continue
        pico = len(strides) == 4
        return Family(
            name="picodet" if pico else "nanodet", task="detection", sureness=_LIKELY,
            why=f"scores and distributions of 4 x 8 values for strides {list(strides)}: "
            + ("PicoDet has four" if pico else "NanoDet has three"),
            outputs=tuple(roles), decoder=(option_line("strides", list(strides), _CERTAIN, "the numbers of rows"),),
            activation=activation_line("none", _LIKELY, "both are exported with scores after their sigmoid"), confidence=0.35,
        )  # fmt: skip
    return None


def yolo_by_shape(facts: Facts) -> Family | None:  # noqa: PLR0911 - one for each shape
    """One tensor of as many rows as there are cells; without an exporter's word."""
    only = only_output(facts)
    notes = facts.notes.ultralytics
    if only is None or len(only.shape) != 3 or (notes is not None and notes.theirs):
        return None  # an exporter's word that `ultralytics` knows nothing for: RT-DETR, oriented boxes
    cells = facts.cells(8, 16, 32)
    if only.shape[2] == 6 and only.shape[1] in (100, 300):
        return _yolo("yolov10", only, _LIKELY, f"{only.shape[1]} rows of 6 numbers: finished objects", facts)
    if cells is None:
        return None
    if only.shape[2] == cells and only.shape[1] > 4:
        return _yolo(
            "yolov8", only, _LIKELY, f"[1, 4 + classes, {cells}]: the cells of strides 8, 16, 32 come last", facts
        )
    if only.shape[1] == 3 * cells and only.shape[2] > 5:
        return _yolo(
            "yolov5", only, _LIKELY, f"{3 * cells} rows: three anchors for the cells of strides 8, 16, 32", facts
        )
    if only.shape[1] != cells or only.shape[2] <= 5:
        return None
    if only.shape[2] > 36 and only.shape[2] - 32 == len(facts.labels):
        return None  # NanoDet-Plus has 4 grids; three of one tensor are nobody's
    decoded = {"Exp", "EXP"} & facts.graph.operators.keys()
    if decoded:
        return None
    if not _bare(facts, only.name):
        why = f"{cells} rows, the cells of strides 8, 16, 32, of 5 + classes, boxes decoded as YOLOv6's are"
        return _yolo("yolov5", only, _LIKELY, why, facts)
    focus = len(facts.first()) > 0 and facts.first()[0].op in ("Slice", "STRIDED_SLICE")
    return Family(
        name="yolox", task="detection", sureness=_LIKELY,
        why=f"{cells} rows, the cells of strides 8, 16, 32, of 5 + classes, boxes not decoded"
        + (", and the picture is sliced first (Focus)" if focus else ""),
        outputs=(role_line("predictions", only, _CERTAIN, "the one output"),),
        activation=activation_line("none", _LIKELY, "YOLOX is exported with scores after their sigmoid"), confidence=0.3,
    )  # fmt: skip


def _bare(facts: Facts, tensor: str) -> bool:
    """Whether boxes come from a convolution as they are: they stand first in what is put together."""
    maker = facts.maker(tensor)
    for _ in range(4):  # the grids, and in each the box beside its scores
        if maker is None or maker.op not in ("Concat", "CONCATENATION") or not maker.inputs:
            break
        maker = facts.maker(maker.inputs[0])
    if (
        maker is not None
        and maker.op == "Add"
        and len(maker.inputs) == 2
        and facts.constant(maker.inputs[1]) is not None
    ):
        maker = facts.maker(maker.inputs[0])  # OpenVINO's bias
    return maker is not None and maker.op in ("Conv", "CONV_2D", "Convolution")
