"""What all backends check in the same way: that tensors fit the model, and where a picture's channels are."""

from __future__ import annotations

import re
from typing import Literal

from edgevision.errors import InferenceError
from edgevision.types import Tensors, TensorSpec


def layout_of(shape: tuple[int, ...]) -> Literal["NHWC", "NCHW"] | None:
    """Where an input of three or four dimensions has its three channels; None for what is no colour picture.

    Three are a picture without a batch, as torchvision's detectors take it.
    """
    if len(shape) not in (3, 4):
        return None
    if shape[-1] == 3:
        return "NHWC"
    return "NCHW" if shape[-3] == 3 else None


def check_tensors(model: str, specs: tuple[TensorSpec, ...], tensors: Tensors) -> None:
    """Refuse tensors that do not fit, before a runtime sees them; a microsecond.

    Raises:
        InferenceError: a tensor is missing, unknown, or has another shape or type; found and wanted are named.
    """
    for spec in specs:
        tensor = tensors.get(spec.name)
        if tensor is None:
            raise InferenceError(f"model {model!r}: input {spec.name!r} is missing; given: {_names(tuple(tensors))}")
        if tensor.dtype != spec.dtype:
            raise InferenceError(
                f"model {model!r}: input {spec.name!r} is {tensor.dtype}; the model wants {spec.dtype}"
            )
        wanted = (-1, *spec.shape[1:]) if spec.open_batch else spec.shape
        if tensor.shape != spec.shape and not _fits(tensor.shape, wanted):
            raise InferenceError(
                f"model {model!r}: input {spec.name!r} is {list(tensor.shape)}; the model wants {list(spec.shape)}"
            )
    if len(tensors) > len(specs):
        unknown = sorted(tensors.keys() - {spec.name for spec in specs})
        raise InferenceError(
            f"model {model!r} has no input {_names(tuple(unknown))}; it has {_names(tuple(s.name for s in specs))}"
        )


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        want in (-1, have) and have > 0 for have, want in zip(shape, wanted, strict=True)
    )


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names) or "nothing"


def first_sentence(error: BaseException, limit: int = 300) -> str:
    """A runtime's own words, cut to the first sentence of the first line: runtimes like to write pages."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return re.split(r"(?<=[a-z)\]])\.(?=\s|[A-Z])", line, maxsplit=1)[0].rstrip(".")[:limit]
