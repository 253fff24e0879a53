"""Which decoder fits a file's outputs: by what its exporter wrote, by its last operators, by names and by shapes.

A rule answers None where its signs are not there. They are asked in order, the surest signs first.
"""

from __future__ import annotations

from collections.abc import Callable

from edgevision.proposals.facts import Facts, Family, activation_line, only_output, option_line, role_line, whole
from edgevision.proposals.proposal import Line, Sureness
from edgevision.proposals.yolos import gfl, ultralytics, yolo_by_shape
from edgevision.types import TensorSpec

Rule = Callable[[Facts], "Family | None"]
_POST_PROCESS = "TFLite_Detection_PostProcess"
_CERTAIN, _LIKELY, _GUESS = Sureness.CERTAIN, Sureness.LIKELY, Sureness.GUESS


def recognise(facts: Facts) -> Family | None:
    """The first family whose signs are there."""
    for rule in RULES:
        found = rule(facts)
        if found is not None:
            return found
    return None


def ssd(facts: Facts) -> Family | None:
    """TensorFlow Lite's own post-processing: the operator's outputs come in an order of their own."""
    node = next((node for node in facts.graph.nodes if node.op == _POST_PROCESS), None)
    if node is None or len(node.outputs) != 4:
        return None
    names = {spec.name for spec in facts.outputs}
    if not names.issuperset(node.outputs):
        return None
    why = f"the operator {_POST_PROCESS} gives them in this order"
    roles = [
        role_line(role, name, _CERTAIN, why)
        for role, name in zip(("boxes", "classes", "scores", "count"), node.outputs, strict=True)
    ]
    return Family(
        name="ssd", task="detection", sureness=_CERTAIN, why=f"the file ends in {_POST_PROCESS}", outputs=tuple(roles),
        activation=activation_line("none", _CERTAIN, "the operator's scores are ready"), confidence=0.5,
    )  # fmt: skip


def detr(facts: Facts) -> Family | None:
    """DETR and its heirs, by the names that their exporters give."""
    by_name = {spec.name: spec for spec in facts.outputs}
    lower = {name.lower(): spec for name, spec in by_name.items()}
    if {"labels", "boxes", "scores"} <= lower.keys() and len(lower["boxes"].shape) == 3:
        sizes = [spec for spec in facts.inputs if spec.name == "orig_target_sizes"]
        constants: tuple[Line, ...] = ()
        if sizes and facts.size is not None:
            constants = (
                Line(key="input.constants", value={"orig_target_sizes": [list(facts.size)]}, sureness=_LIKELY,
                     why="what RT-DETR's and D-FINE's post-processors want; given the input's own, boxes are its pixels"),
            )  # fmt: skip
        roles = (("boxes", "boxes"), ("classes", "labels"), ("scores", "scores"))
        return Family(
            name="detr", task="detection", sureness=_CERTAIN if sizes else _LIKELY,
            why="labels, boxes and scores with a batch" + (", and an input orig_target_sizes" if sizes else ""),
            outputs=tuple(role_line(role, lower[name], _CERTAIN, "its name says so") for role, name in roles),
            activation=activation_line("none", _CERTAIN, "with labels, scores are ready"), confidence=0.5,
            constants=constants, kind="rtdetr",
        )  # fmt: skip
    for boxes, scores, kind, who in (
        ("pred_boxes", "logits", "rtdetr", "transformers' names"),
        ("pred_boxes", "pred_logits", "rtdetr", "the authors' names"),
        ("dets", "labels", "rfdetr", "RF-DETR's names"),
    ):
        if boxes in lower and scores in lower and len(lower[scores].shape) == 3 and lower[boxes].shape[-1] == 4:
            return Family(
                name="detr", task="detection", sureness=_CERTAIN, why=f"outputs {boxes} and {scores}: {who}",
                outputs=(role_line("boxes", lower[boxes], _CERTAIN, "its name says so"),
                         role_line("scores", lower[scores], _CERTAIN, "its name says so")),
                activation=activation_line("sigmoid", _LIKELY, "RT-DETR, D-FINE, RF-DETR give logits; DETR wants softmax"),
                confidence=0.5, kind=kind,
            )  # fmt: skip
    return None


def faster_rcnn(facts: Facts) -> Family | None:
    """Torchvision's detectors: three outputs without a batch, told by type and rank."""
    classes = [spec for spec in facts.outputs if whole(spec) and len(spec.shape) == 1]
    boxes = [spec for spec in facts.outputs if len(spec.shape) == 2 and spec.shape[1] == 4]
    scores = [spec for spec in facts.outputs if not whole(spec) and len(spec.shape) == 1]
    if len(facts.outputs) != 3 or [len(part) for part in (classes, boxes, scores)] != [1, 1, 1]:
        return None
    why = "the one output of its type and rank"
    return Family(
        name="faster_rcnn", task="detection", sureness=_LIKELY,
        why="boxes [n, 4], whole numbers [n] and scores [n] without a batch: torchvision's detectors",
        outputs=(role_line("boxes", boxes[0], _CERTAIN, why), role_line("classes", classes[0], _CERTAIN, why),
                 role_line("scores", scores[0], _CERTAIN, why)),
        activation=activation_line("none", _CERTAIN, "with classes, scores are ready"), confidence=0.5,
    )  # fmt: skip


def efficientdet(facts: Facts) -> Family | None:
    """Scores and codes of nine anchors a cell, for five grids or for all of them in one."""
    if len(facts.outputs) == 2:
        return _efficientdet_in_one(facts)
    if len(facts.outputs) != 10 or any(len(spec.shape) != 4 for spec in facts.outputs):
        return None
    axis = 1 if sum(spec.shape[1] == 36 for spec in facts.outputs) >= 5 else 3
    boxes = sorted((spec for spec in facts.outputs if spec.shape[axis] == 36), key=lambda spec: -_area(spec, axis))
    scores = sorted((spec for spec in facts.outputs if spec.shape[axis] != 36), key=lambda spec: -_area(spec, axis))
    if len(boxes) != 5 or [_area(one, axis) for one in boxes] != [_area(one, axis) for one in scores]:
        return None
    roles = []
    for name, specs in (("boxes", boxes), ("scores", scores)):
        for level, spec in enumerate(specs, 3):
            roles.append(
                role_line(f"{name}_{level}", spec, _CERTAIN, f"{_area(spec, axis)} cells, {spec.shape[axis]} channels")
            )
    return Family(
        name="efficientdet", task="detection", sureness=_LIKELY,
        why="five grids with 36 channels, 9 anchors of 4 numbers, and five with as many classes",
        outputs=tuple(roles),
        decoder=(
            option_line("layout", "NCHW" if axis == 1 else "NHWC", _CERTAIN, f"axis {axis} has the 36 channels"),
            _anchor_scale(),
        ),
        activation=activation_line("sigmoid", _LIKELY, "bare heads give logits"), confidence=0.3,
    )  # fmt: skip


def _efficientdet_in_one(facts: Facts) -> Family | None:
    if facts.size is None or any(len(spec.shape) != 3 for spec in facts.outputs):
        return None
    anchors, (width, height) = 0, facts.size
    for level in range(1, 8):
        width, height = (width + 1) // 2, (height + 1) // 2
        anchors += 9 * width * height if level >= 3 else 0
    boxes = [spec for spec in facts.outputs if spec.shape[1:] == (anchors, 4)]
    scores = [spec for spec in facts.outputs if spec.shape[1] == anchors and spec.shape[2] != 4]
    if len(boxes) != 1 or len(scores) != 1:
        return None
    why = f"{anchors} rows are 9 anchors for each cell of strides 8 to 128"
    return Family(
        name="efficientdet", task="detection", sureness=_LIKELY, why=why,
        outputs=(role_line("boxes", boxes[0], _CERTAIN, "4 numbers a row"),
                 role_line("scores", scores[0], _CERTAIN, "the other")),
        decoder=(_anchor_scale(),),
        activation=_last(facts, scores[0]), confidence=0.3,
    )  # fmt: skip


def _anchor_scale() -> Line:
    return option_line("anchor_scale", 4.0, _GUESS, "4 for D0 to D7, Lite3 and Lite4; 3 for Lite0 to Lite2")


def _last(facts: Facts, scores: TensorSpec) -> Line:
    """What scores of single classes still need, by the operator that they end in."""
    maker = facts.maker(scores.name)
    if maker is not None and maker.op in ("Concat", "CONCATENATION") and maker.inputs:
        maker = facts.maker(maker.inputs[0])  # the grids' outputs, put together
    op = maker.op if maker is not None else "nothing that is known"
    if op in ("Sigmoid", "LOGISTIC"):
        return activation_line("none", _CERTAIN, f"they end in {op}")
    return activation_line("sigmoid", _LIKELY, f"they end in {op}: logits")


def _area(spec: TensorSpec, axis: int) -> int:
    return spec.shape[2] * spec.shape[3] if axis == 1 else spec.shape[1] * spec.shape[2]


def semantic(facts: Facts) -> Family | None:
    """One map over the picture: of class numbers, or of scores."""
    only = only_output(facts)
    if only is None:
        maps = [spec for spec in facts.outputs if spec.name == "out" and len(spec.shape) == 4]
        if len(maps) != 1:  # torchvision's have an auxiliary head beside `out`
            return None
        only = maps[0]
    sides = [size for size in only.shape if size != 1]
    maker = facts.maker(only.name)
    if maker is not None and maker.op in ("ArgMax", "ARG_MAX") and len(sides) == 2:
        return Family(
            name="semantic", task="segmentation", sureness=_CERTAIN, why=f"the file ends in {maker.op}, over a map",
            outputs=(role_line("class_map", only, _CERTAIN, f"{maker.op} gives class numbers"),),
            decoder=(option_line("background", 0, _LIKELY, "class 0 is nearly always the background"),),
            activation=activation_line("none", _CERTAIN, "there are no scores"), kind="semantic",
        )  # fmt: skip
    if len(only.shape) != 4 or facts.size is None or max(only.shape[1:]) < 16:
        return None
    width, height = facts.size
    ratio = height / width
    fits = {
        "NCHW": abs(only.shape[2] / only.shape[3] - ratio) < 0.05 and only.shape[1] < 255,
        "NHWC": abs(only.shape[1] / only.shape[2] - ratio) < 0.05 and only.shape[3] < 255,
    }
    if facts.labels:
        fits = {
            "NCHW": fits["NCHW"] and only.shape[1] == len(facts.labels),
            "NHWC": fits["NHWC"] and only.shape[3] == len(facts.labels),
        }
    layouts = [layout for layout, fit in fits.items() if fit]
    if len(layouts) != 1:
        return None
    op = maker.op if maker is not None else ""
    scores = {"Softmax": "none", "SOFTMAX": "none", "Sigmoid": "none", "LOGISTIC": "none"}.get(op)
    single = only.shape[1 if layouts[0] == "NCHW" else 3] == 1
    return Family(
        name="semantic", task="segmentation", sureness=_LIKELY,
        why=f"one output {list(only.shape)}: a map with the picture's proportions and {layouts[0]} channels",
        outputs=(role_line("scores", only, _CERTAIN, "the map"),),
        decoder=(
            option_line("layout", layouts[0], _CERTAIN if facts.labels else _LIKELY, "the other axes have the proportions"),
            option_line("background", 0, _LIKELY, "class 0 is nearly always the background"),
        ),
        activation=activation_line("none", _CERTAIN, f"the file ends in {op}") if scores
        else activation_line("sigmoid" if single else "softmax", _LIKELY, f"the file ends in {op or 'nothing that is known'}"),
        kind="semantic",
    )  # fmt: skip


def whole_picture(facts: Facts) -> Family | None:
    """One row of numbers: classes or an embedding."""
    only = only_output(facts)
    if only is None or sum(size != 1 for size in only.shape) != 1 or -1 in only.shape:
        return None
    count = max(only.shape)
    maker = facts.maker(only.name)
    op = maker.op if maker is not None else ""
    named = any(word in only.name.lower() for word in ("embed", "feature", "descriptor"))
    if named or op in ("LpNormalization", "L2_NORMALIZATION"):
        sign = f"the output is named {only.name!r}" if named else f"the file ends in {op}"
        return Family(
            name="embedding", task="embedding", sureness=_LIKELY, why=sign,
            outputs=(role_line("embedding", only, _CERTAIN, "the one output"),),
            activation=activation_line("none", _CERTAIN, "a vector needs none"), kind="classifier",
        )  # fmt: skip
    fits = len(facts.labels) == count
    imagenet = count in (1000, 1001)
    ends = op in ("Softmax", "SOFTMAX")
    several = op in ("Sigmoid", "LOGISTIC")
    why = f"one output of {count} numbers" + (", as many as labels" if fits else "")
    why += ", as ImageNet has classes" if imagenet and not fits else ""
    why += f"; the file ends in {op}" if ends or several else ""
    if ends or several:
        activation = activation_line("none", _CERTAIN, f"the file ends in {op}")
    else:
        activation = activation_line("softmax", _LIKELY, f"the file ends in {op or 'nothing that is known'}: logits")
    return Family(
        name="classifier", task="classification",
        sureness=_CERTAIN if fits or ends or several else _LIKELY if imagenet else _GUESS, why=why,
        outputs=(role_line("scores", only, _CERTAIN, "the one output"),),
        decoder=(option_line("multi_label", True, _LIKELY, f"{op}: each class stands for itself"),) if several else (),
        activation=activation,
    )  # fmt: skip


RULES: tuple[Rule, ...] = (
    ssd, ultralytics, detr, gfl, efficientdet, faster_rcnn, yolo_by_shape, semantic, whole_picture,
)  # fmt: skip
"""Asked in this order."""
