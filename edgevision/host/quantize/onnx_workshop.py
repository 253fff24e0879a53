"""The recipes for .onnx files by target, in the order of what they promise, and what to spare where none of them is enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgevision.host.quantize import fusion, openvino_graph
from edgevision.host.quantize.equalise import Equalised, equalise
from edgevision.host.quantize.halves import to_float16, to_int8_weights
from edgevision.host.quantize.harm import culprits, harm
from edgevision.host.quantize.input import feed_uint8
from edgevision.host.quantize.nncf import quantize_nncf
from edgevision.host.quantize.prepare import prepare
from edgevision.host.quantize.qdq import Recipe, observe_all, quantize
from edgevision.host.quantize.ranges import CalibrationInputs, Histogram, Range
from edgevision.host.quantize.sensitivity import layer_sqnr, rank
from edgevision.host.quantize.source import Source
from edgevision.host.quantize.tail import find_tail
from edgevision.host.quantize.targets import Target
from edgevision.host.quantize.workshop import GIVEN, Attempt, IntegerShare, Kind, LayerNoise

_LOOKED_AT = 8
"""Pictures that layers are compared on."""
_RANKED_ON = 4
"""Pictures that layers are ranked on: each layer is tried alone."""
_EQUALISED = "-equalised"

RECIPES: Mapping[str, tuple[Recipe, ...]] = {
    "x86": (Recipe(name="u8s8-equalised", pair_safe=True), Recipe(name="u8s8", pair_safe=True)),
    "x86-vnni": (Recipe(name="u8s8-equalised"), Recipe(name="u8s8")),
    "arm64": (Recipe(name="s8s8-equalised", signed=True), Recipe(name="s8s8", signed=True)),
    "jetson": (Recipe(name="s8s8-symmetric", signed=True, symmetric=True, inputs_only=True),),
    "openvino": (),
}
"""By target; ONNX Runtime's own quantiser with our ranges, scales and biases."""

NNCF: Mapping[str, tuple[tuple[str, float], ...]] = {
    "openvino": (("nncf-culprits-80", 0.8), ("nncf-culprits-90", 0.9), ("nncf", 0.0)),
}
"""By target: NNCF's mixed preset, and the share of the noise whose few makers are left in float."""


class OnnxWorkshop:
    """A `Workshop` for .onnx files."""

    def __init__(self, source: Source, target: Target, inputs: CalibrationInputs, *, pictures: int) -> None:
        """Nothing is read before it is asked for; `pictures` is how many a pass of `inputs` gives."""
        self._source, self._target, self._inputs, self._pictures = source, target, inputs, pictures

    @cached_property
    def _float(self) -> onnx.ModelProto:
        return prepare(self._source.content, self._source.given)

    @cached_property
    def _equalised(self) -> Equalised:
        return equalise(self._float, self._inputs)

    @cached_property
    def _observed(self) -> Mapping[str, Histogram]:
        return observe_all(self._float, self._inputs)

    @cached_property
    def _observed_equalised(self) -> Mapping[str, Histogram]:
        return observe_all(self._equalised.model, self._inputs)

    @property
    def _pixels(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std of the input's channels; raw pixels have 0 and 1."""
        section = self._source.manifest.input_for(self._source.backend)
        return section.mean or (0.0,) * 3, section.std or (1.0,) * 3

    def _basis(self, recipe: Recipe) -> tuple[onnx.ModelProto, Mapping[str, Histogram], dict[str, Range]]:
        """The float model that a recipe starts from, what was seen in it, and the ranges that are known."""
        mean, std = self._pixels
        (value,) = self._float.graph.input
        low = min((0 - m) / s for m, s in zip(mean, std, strict=True))
        high = max((255 - m) / s for m, s in zip(mean, std, strict=True))
        known = {} if recipe.symmetric else {value.name: Range(low=low, high=high)}
        if recipe.name.endswith(_EQUALISED):
            return self._equalised.model, self._observed_equalised, {**known, **self._equalised.ranges}
        return self._float, self._observed, known

    def attempts(self) -> Sequence[Attempt]:
        """Integers of every kind that suits the target, then what is only smaller."""
        name = self._target.name
        return [
            *(self._own(recipe) for recipe in RECIPES[name]),
            *(self._nncf(title, share) for title, share in NNCF.get(name, ())),
            self._smaller("weights-int8", "weights", to_int8_weights),
            self._smaller("float16", "float16", to_float16),
        ]

    def sparing(self, attempt: Attempt) -> Sequence[str]:
        """Layers by the damage that they alone do, the worst first."""
        if "nncf" in attempt.parameters:
            return [layer for layer, _ in self._harms]
        recipe = self._recipe(attempt)
        model, observed, known = self._basis(recipe)
        few = list(islice(self._inputs(), _RANKED_ON))
        return [layer for layer, _ in rank(model, observed, recipe, few, fixed_ranges=known)]

    def spare(self, attempt: Attempt, layers: Sequence[str]) -> Attempt:
        """The same recipe with these layers left in float."""
        if "nncf" in attempt.parameters:
            return self._nncf(str(attempt.parameters["recipe"]), 0.0, spared=tuple(layers))
        return self._own(replace(self._recipe(attempt), float_nodes=frozenset(layers)), spared=tuple(layers))

    def inspect(self, attempt: Attempt, content: bytes) -> tuple[IntegerShare | None, Sequence[LayerNoise]]:
        """Integer kernels in the graph that the runtime executes, and noise by layer."""
        model = onnx.load_from_string(content)
        noise = []
        if attempt.kind == "int8" and GIVEN not in attempt.parameters:
            equalised = str(attempt.parameters.get("recipe", "")).endswith(_EQUALISED)
            noise = self._noise(self._equalised.model if equalised else self._float, model)
        if not self._target.needs_integers:
            return None, noise
        if self._target.backend == "openvino":
            counted = openvino_graph.integer_share(content)
        else:
            counted = fusion.integer_share(content, signed_allowed=self._target.signed)
        integer, total, operators = counted
        return IntegerShare(integer=integer, total=total, operators=operators), noise

    def _recipe(self, attempt: Attempt) -> Recipe:
        return next(one for one in RECIPES[self._target.name] if one.name == attempt.parameters["recipe"])

    def _own(self, recipe: Recipe, spared: tuple[str, ...] = ()) -> Attempt:
        def make() -> bytes:
            model, observed, known = self._basis(recipe)
            made = quantize(model, calibration=self._inputs, recipe=recipe, observed=observed, fixed_ranges=known)
            return self._finished(made)

        described = {key: value for key, value in asdict(recipe).items() if key not in {"name", "float_nodes", "rule"}}
        return Attempt(
            name=_title(recipe.name, spared),
            kind="int8",
            parameters={"recipe": recipe.name, "rule": recipe.rule.name, **described},
            make=make,
            spared=spared,
        )

    def _nncf(self, title: str, share: float, spared: tuple[str, ...] = ()) -> Attempt:
        def make() -> bytes:
            left = (*spared, *(culprits(self._harms, share) if share > 0 else ()))
            return self._finished(self._by_nncf(left) if left else self._plain_nncf)

        return Attempt(
            name=_title(title, spared),
            kind="int8",
            parameters={"recipe": title, "nncf": "mixed", "culprits_share": share},
            make=make,
            spared=spared,
        )

    @cached_property
    def _plain_nncf(self) -> onnx.ModelProto:
        return self._by_nncf(())

    @cached_property
    def _harms(self) -> list[tuple[str, float]]:
        return harm(self._float, self._plain_nncf, islice(self._inputs(), _RANKED_ON))

    def _by_nncf(self, left: Sequence[str]) -> onnx.ModelProto:
        ignored = sorted(find_tail(self._float).after | set(left))
        return quantize_nncf(self._float, self._inputs, subset_size=self._pictures, ignored_nodes=ignored)

    def _smaller(self, name: str, kind: Kind, make: Callable[[onnx.ModelProto], onnx.ModelProto]) -> Attempt:
        return Attempt(
            name=name, kind=kind, parameters={"recipe": name}, make=lambda: make(self._float).SerializeToString()
        )

    def _finished(self, made: onnx.ModelProto) -> bytes:
        """With the pixels as its input, where that is exact."""
        mean, std = self._pixels
        content: bytes = (feed_uint8(made, mean=mean, std=std).model or made).SerializeToString()
        return content

    def _noise(self, exact: onnx.ModelProto, quantized: onnx.ModelProto) -> list[LayerNoise]:
        few = [dict(tensors) for tensors in islice(self._inputs(), _LOOKED_AT)]
        found = layer_sqnr(exact, quantized, few, quantised_tensors=[self._as_fed(quantized, one) for one in few])
        return sorted((LayerNoise(layer=layer, sqnr_db=db) for layer, db in found), key=lambda one: one.sqnr_db)

    def _as_fed(self, quantized: onnx.ModelProto, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The float model's tensors as a candidate wants them, which may take the pixels themselves."""
        if quantized.graph.input[0].type.tensor_type.elem_type != onnx.TensorProto.UINT8:
            return dict(tensors)
        mean, std = (np.array(one, np.float32).reshape(1, 3, 1, 1) for one in self._pixels)
        return {name: np.rint(value * std + mean).astype(np.uint8) for name, value in tensors.items()}


def _title(name: str, spared: Sequence[str]) -> str:
    return name + (f" sparing {len(spared)}" if spared else "")
