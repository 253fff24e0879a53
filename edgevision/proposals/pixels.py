"""How a picture is wanted: from the metadata, from the graph's own first steps, by its family's convention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision.graphs import Tensor
from edgevision.proposals.facts import Facts, Family
from edgevision.proposals.proposal import Line, Sureness
from edgevision.types import TensorSpec

_CERTAIN, _LIKELY, _GUESS, _MISSING = Sureness.CERTAIN, Sureness.LIKELY, Sureness.GUESS, Sureness.MISSING
_IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
_UNIT = ([0.0, 0.0, 0.0], [255.0, 255.0, 255.0])
_SCALING = {"Div", "Mul", "Sub", "Add", "DIV", "MUL", "SUB", "ADD", "BatchNormalization"}
_MADE_SMALLER = 0.1
"""What normalises pixels from 0 to 255 divides them by more than 10: by 255, 127.5, some 58."""
_SAY = {
    "size": "--size WxH",
    "color": "--color RGB|BGR",
    "resize": "--resize letterbox|center_crop|stretch",
    "mean": "--mean A,B,C or --raw",
    "std": "--std A,B,C or --raw",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """How a family's authors show it their pictures."""

    who: str
    color: str
    resize: str
    options: Mapping[str, Any]
    scaling: tuple[list[float], list[float]] | None
    """Mean and std; None is raw pixels."""
    sureness: Sureness = _LIKELY
    exporter: bool = False
    """Whether it is what Ultralytics' exporter always wants, which is certain where that wrote the file."""


CONVENTIONS: Mapping[str, Convention] = {
    "ultralytics": Convention(
        who="Ultralytics", color="RGB", resize="letterbox", options={"align": "center", "pad": 114}, scaling=_UNIT,
        exporter=True,
    ),
    "ultralytics_classify": Convention(
        who="Ultralytics' classifiers", color="RGB", resize="center_crop", options={}, scaling=_UNIT,
        exporter=True,
    ),
    "yolox": Convention(
        who="YOLOX", color="BGR", resize="letterbox", options={"align": "top_left", "pad": 114}, scaling=None
    ),
    "nanodet": Convention(
        who="NanoDet", color="BGR", resize="letterbox", options={"align": "center", "pad": 0},
        scaling=([103.53, 116.28, 123.675], [57.375, 57.12, 58.395]),
    ),
    "picodet": Convention(who="PicoDet", color="RGB", resize="stretch", options={}, scaling=_IMAGENET),
    "rtdetr": Convention(who="RT-DETR and D-FINE", color="RGB", resize="stretch", options={}, scaling=_UNIT),
    "rfdetr": Convention(who="RF-DETR", color="RGB", resize="stretch", options={}, scaling=_IMAGENET),
    "faster_rcnn": Convention(
        who="torchvision's detectors, which normalise inside", color="RGB", resize="letterbox",
        options={"align": "top_left", "pad": 0}, scaling=_UNIT,
    ),
    "efficientdet": Convention(
        who="effdet", color="RGB", resize="letterbox", options={"align": "top_left", "pad": 124}, scaling=_IMAGENET,
        sureness=_GUESS,
    ),
    "ssd": Convention(who="SSDs", color="RGB", resize="stretch", options={}, scaling=None, sureness=_LIKELY),
    "semantic": Convention(
        who="most segmenters", color="RGB", resize="stretch", options={}, scaling=_IMAGENET, sureness=_GUESS
    ),
    "classifier": Convention(
        who="most classifiers", color="RGB", resize="center_crop", options={"fraction": 0.875}, scaling=_IMAGENET,
        sureness=_GUESS,
    ),
}  # fmt: skip


def input_lines(facts: Facts, family: Family | None) -> list[Line]:
    """The lines of `input`."""
    spec = facts.picture
    if spec is None:
        names = ", ".join(f"{one.name} {list(one.shape)}" for one in facts.inputs)
        return [_line("size", None, _MISSING, f"no input is a picture of three channels: {names}")]
    convention = CONVENTIONS.get((family.kind or family.name) if family else "")
    return [_size(facts), *_color_and_fit(facts, convention), *_scaling(facts, spec, convention)]


def _line(key: str, value: Any, sureness: Sureness, why: str) -> Line:
    return Line(key=f"input.{key}", value=value, sureness=sureness, why=why, say=_SAY.get(key, ""))


def _size(facts: Facts) -> Line:
    notes = facts.notes.ultralytics
    if facts.size is not None:
        spec = facts.picture
        where = "" if spec is None else f"the input {spec.name!r} is {spec.layout} {list(spec.shape)}"
        return _line("size", list(facts.size), _CERTAIN, where)
    if notes is not None and notes.size is not None:
        return _line("size", list(notes.size), _CERTAIN, "the model leaves it open; the metadata's imgsz")
    return _line("size", None, _MISSING, "the model leaves it open")


def _sureness(facts: Facts, convention: Convention) -> Sureness:
    """Names in the metadata are no sign: anybody writes them."""
    notes = facts.notes.ultralytics
    return _CERTAIN if convention.exporter and notes is not None and notes.theirs else convention.sureness


def _color_and_fit(facts: Facts, convention: Convention | None) -> list[Line]:
    note = facts.notes.inputs[0] if len(facts.notes.inputs) == 1 else None
    if note is not None and note.rgb:
        color = _line("color", "RGB", _CERTAIN, "the metadata says so")
    elif convention is None:
        color = _line("color", None, _MISSING, "nothing tells the order of the colours")
    else:
        sureness = _sureness(facts, convention)
        color = _line("color", convention.color, sureness, f"by the convention of {convention.who}")
    if convention is None:
        return [color, _line("resize", None, _MISSING, "nothing tells how a picture is fitted")]
    sureness = _sureness(facts, convention)
    lines = [color, _line("resize", convention.resize, sureness, f"by the convention of {convention.who}")]
    if convention.options:
        lines.append(_line("options", dict(convention.options), sureness, f"by the convention of {convention.who}"))
    return lines


def _scaling(facts: Facts, spec: TensorSpec, convention: Convention | None) -> list[Line]:
    """Mean and std; none for raw pixels."""
    note = facts.notes.inputs[0] if len(facts.notes.inputs) == 1 else None
    if note is not None and len(note.mean) in (1, 3) and len(note.std) in (1, 3):
        return _pair(list(note.mean), list(note.std), _CERTAIN, "the metadata's normalisation")
    if np.issubdtype(spec.dtype, np.integer):
        return _of_bytes(spec, facts, convention)
    inside = _inside(facts)
    if inside:
        return inside
    if convention is None:
        return [_line("mean", None, _MISSING, "nothing tells what the model does to a pixel first")]
    sureness = _sureness(facts, convention)
    if convention.scaling is None:
        return [_line("mean", None, sureness, f"raw pixels, 0-255, by the convention of {convention.who}")]
    return _pair(*convention.scaling, sureness, f"by the convention of {convention.who}")


def _pair(mean: list[float], std: list[float], sureness: Sureness, why: str) -> list[Line]:
    return [_line("mean", (mean * 3)[:3] if len(mean) == 1 else mean, sureness, why),
            _line("std", (std * 3)[:3] if len(std) == 1 else std, sureness, why)]  # fmt: skip


def _of_bytes(spec: TensorSpec, facts: Facts, convention: Convention | None) -> list[Line]:
    """A byte with a scale is a real number: one step of it is one step of the pixel in nearly every file."""
    if spec.quantization is None:
        return [_line("mean", None, _CERTAIN, f"{spec.dtype} without a scale takes pixels as they are")]
    scale, zero = float(spec.quantization.scale[0]), int(spec.quantization.zero_point[0])
    limits = np.iinfo(spec.dtype)
    if convention is not None and convention.scaling is not None and _sureness(facts, convention) == _CERTAIN:
        return _pair(*convention.scaling, _CERTAIN, "as Ultralytics do, before the byte")
    # The byte b is pixel b - least: real = scale * (b - zero) = (pixel - (zero - least)) * scale.
    shift = zero - limits.min
    why = f"{spec.dtype} with scale {scale:.6g} and zero point {zero}: so the byte is the pixel"
    return _pair([float(shift)], [round(1 / scale, 4)], _LIKELY, why)


def _inside(facts: Facts) -> list[Line]:
    """What the graph itself does to a pixel first; empty where it does not scale it.

    Its steps together are pixel * scale + shift, which is 0 for the pixel -shift / scale. One above 1 is of 0 to 255. Pixels
    from 0 to 1 are never made smaller, those from 0 to 255 nearly always are.
    """
    found: list[str] = []
    scale, shift, read = np.ones(3), np.zeros(3), True
    for node in facts.first():
        constants = [facts.constant(name) for name in node.inputs]
        if node.op not in _SCALING or not any(constants):
            break
        found.append(node.op)
        numbers = next((_numbers(constant) for constant in constants if constant), None)
        op = node.op.title()
        if numbers is None or len(constants) != 2 or (constants[0] and op in ("Sub", "Div")):
            read = False
        elif op in ("Sub", "Add"):
            shift = shift - numbers if op == "Sub" else shift + numbers
        else:
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                factor = numbers if op == "Mul" else 1 / numbers
                scale, shift = scale * factor, shift * factor
    begins = f"the file begins with {' and '.join(found)} by constants"
    if not found or (read and (scale == 1).all() and (shift == 0).all()):
        return []
    if not read or not np.isfinite((scale, shift)).all() or (scale <= 0).any():
        return [_line("mean", None, _GUESS, f"raw pixels: {begins} that cannot be read: it normalises itself")]
    middle = -shift / scale
    if (middle > 1).any() or (scale <= _MADE_SMALLER).all():
        return [_line("mean", None, _LIKELY, f"raw pixels: {begins}: it normalises itself")]
    if (scale >= 1).all() and (middle >= 0).all():
        return _pair(*_UNIT, _LIKELY, f"{begins} that are for pixels from 0 to 1: it normalises itself")
    return [_line("mean", None, _GUESS, f"raw pixels: {begins}, which are neither for 0 to 255 nor for 0 to 1")]


def _numbers(constant: Tensor) -> NDArray[np.float64] | None:
    """A real constant for each colour; None where it has another size or type, or lies where it is not read."""
    if constant.dtype not in ("float16", "float32", "float64") or constant.content is None:
        return None
    dtype = np.dtype(constant.dtype).newbyteorder("<")
    if constant.content.nbytes not in (dtype.itemsize, 3 * dtype.itemsize):
        return None
    numbers = np.frombuffer(constant.content, dtype).astype(np.float64)
    return np.broadcast_to(numbers, (3,)) if np.isfinite(numbers).all() else None
