"""The options of `models add` that say what a file is, read into `Told`."""

from __future__ import annotations

from pathlib import Path

import yaml

from edgevision.errors import UsageError
from edgevision.manifest import read_label_file
from edgevision.proposals import Told


def read(
    *,
    family: str | None,
    size: str | None,
    color: str | None,
    resize: str | None,
    mean: str | None,
    std: str | None,
    raw: bool,
    activation: str | None,
    outputs: list[str] | None,
    decoder: list[str] | None,
    labels: Path | None,
) -> Told:
    """What the user says.

    Raises:
        UsageError: an option cannot be read.
        ModelError: the labels cannot be read.
    """
    if raw and (mean or std):
        raise UsageError("--raw means pixels as they are, 0-255: leave out --mean and --std")
    return Told(
        family=family,
        size=None if size is None else _size(size),
        color=None if color is None else color.upper(),
        resize=resize,
        mean=None if mean is None else _numbers("--mean", mean),
        std=None if std is None else _numbers("--std", std),
        raw=raw,
        activation=activation,
        outputs=dict(_pair("--output", one, "boxes=output_3") for one in outputs or []),
        decoder={
            key: _value(value) for key, value in (_pair("--decoder", one, "class_offset=1") for one in decoder or [])
        },
        labels=None if labels is None else read_label_file(labels),
    )


def _size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if not 1 <= len(sides) <= 2 or not all(map(_is_side, sides)):
        raise UsageError(f"--size: width x height in pixels, as in 640x480, or one number for both; found {text!r}")
    return int(sides[0]), int(sides[-1])


def _is_side(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6  # `²` is a digit too, and no number


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) not in (1, 3):
        raise UsageError(
            f"{option}: three numbers in the order of the colours, as in 123.7,116.3,103.5; found {text!r}"
        )
    return found if len(found) == 3 else found * 3


def _pair(option: str, text: str, example: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise UsageError(f"{option}: as in {example}; found {text!r}")
    return key, value


def _value(text: str) -> object:
    try:
        value: object = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value
