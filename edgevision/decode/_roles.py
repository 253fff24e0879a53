"""What decoders of all families check of a model's outputs when they are made: that roles and numbers fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision.decode.base import DecodeContext
from edgevision.errors import InferenceError, ModelError
from edgevision.types import Tensors, TensorSpec


def take_roles(family: str, outputs: Mapping[str, TensorSpec], needed: tuple[str, ...]) -> tuple[TensorSpec, ...]:
    """The specs of the roles a family needs, in that order.

    Raises:
        ModelError: a role is missing, or an output holds integers without a scale.
    """
    missing = [role for role in needed if role not in outputs]
    if missing:
        raise ModelError(
            f"decoder {family}: the manifest's `outputs` name no {', '.join(missing)}; "
            f"needed: {', '.join(needed)}; found: {', '.join(outputs) or 'none'}"
        )
    specs = tuple(outputs[role] for role in needed)
    for role, spec in zip(needed, specs, strict=True):
        _check_numbers(family, role, spec)
    return specs


def _check_numbers(family: str, role: str, spec: TensorSpec) -> None:
    if np.issubdtype(spec.dtype, np.floating):
        return
    if not np.issubdtype(spec.dtype, np.integer):
        raise ModelError(f"decoder {family}: output {spec.name!r} ({role}) is {spec.dtype}; numbers are needed")
    if spec.quantization is None:
        raise ModelError(
            f"decoder {family}: output {spec.name!r} ({role}) is {spec.dtype} without a scale and zero point; "
            "the model must carry them, or give floats"
        )
    if spec.quantization.scale.size > 1:
        raise ModelError(
            f"decoder {family}: output {spec.name!r} ({role}) is quantised per channel; one scale is needed for outputs"
        )


def check_labels(family: str, spec: TensorSpec, classes: int, context: DecodeContext) -> None:
    """Refuse labels that are not as many as the model's classes.

    Raises:
        ModelError: they differ; both numbers are named.
    """
    if classes < 1:
        raise ModelError(f"decoder {family}: output {spec.name!r} {list(spec.shape)} has no room for a class")
    if context.labels and len(context.labels) != classes:
        raise ModelError(
            f"decoder {family}: output {spec.name!r} {list(spec.shape)} has {classes} classes, "
            f"but there are {len(context.labels)} labels"
        )


def of_one_picture(spec: TensorSpec) -> TensorSpec:
    """The spec with an open first axis as a batch of one picture: exports may name it otherwise than the input's batch.

    `refuse_other_batch` then holds each answer to it.
    """
    if len(spec.shape) > 1 and spec.shape[0] == -1:
        return replace(spec, shape=(1, *spec.shape[1:]))
    return spec


def refuse_other_batch(tensor: NDArray[Any], spec: TensorSpec) -> None:
    """Refuse an answer for another number of pictures than one; `spec` is as `of_one_picture` gave it.

    Raises:
        InferenceError: the first axis is not as long as in `spec`.
    """
    if len(spec.shape) > 1 and spec.shape[0] == 1 and len(tensor) != 1:
        raise InferenceError(f"output {spec.name!r} gave {list(tensor.shape)}: the answer for one picture is needed")


def one_picture(tensors: Tensors, spec: TensorSpec) -> NDArray[Any]:
    """An output without its batch axis.

    Raises:
        ModelError: the model, which left it open, answered for another number of pictures than one.
    """
    tensor = tensors[spec.name]
    if len(tensor) != 1:
        raise ModelError(f"output {spec.name!r} gave {list(tensor.shape)}: the answer for one picture is needed")
    picture: NDArray[Any] = tensor[0]
    return picture
