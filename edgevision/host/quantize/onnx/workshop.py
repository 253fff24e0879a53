"""The recipes for .onnx files by target, in the order of what they promise, and what to spare where none of them is enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgevision.host.quantize.onnx import fusion, openvino_graph
from edgevision.host.quantize.onnx.equalise import Equalised, equalise
from edgevision.host.quantize.onnx.fence import fence
from edgevision.host.quantize.onnx.halves import to_float16, to_int8_weights
from edgevision.host.quantize.onnx.harm import culprits, harm
from edgevision.host.quantize.onnx.input import feed_uint8
from edgevision.host.quantize.onnx.nncf import quantize_nncf
from edgevision.host.quantize.onnx.prepare import prepare
from edgevision.host.quantize.onnx.qdq import Recipe, observe_all, quantize
from edgevision.host.quantize.onnx.ranges import CalibrationInputs, Histogram, Range, Rule
from edgevision.host.quantize.onnx.sensitivity import layer_sqnr, rank, worst
from edgevision.host.quantize.onnx.tail import find_tail
from edgevision.host.quantize.source import Source
from edgevision.host.quantize.targets import Target
from edgevision.host.quantize.workshop import GIVEN, Attempt, IntegerShare, Kind, LayerNoise

_LOOKED_AT = 8
"""Pictures that layers are compared on."""
_RANKED_ON = 4
"""Pictures that layers are ranked on: each layer is tried alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A recipe of ONNX Runtime's own quantiser, and what is done to the model before it."""

    recipe: Recipe
    spares: bool = False
    """Leave the most harmful convolutions in float, as many as may be where nine in ten must be integers."""


def _plans(name: str, recipe: Recipe) -> tuple[Plan, ...]:
    spared = replace(recipe, name=f"{name}-spared", float_last="unbounded")
    return (
        Plan(recipe=spared, spares=True),
        Plan(recipe=replace(spared, name=f"{name}-spared-unfitted", refit=False), spares=True),
        Plan(recipe=replace(spared, name=f"{name}-spared-percentile", rule=Rule.PERCENTILE), spares=True),
        Plan(recipe=replace(recipe, name=name)),
        Plan(recipe=replace(recipe, name=f"{name}-whole", float_last="unbounded")),
    )


PLANS: Mapping[str, tuple[Plan, ...]] = {
    "x86": _plans("u8s8-pair-safe", Recipe(name="", pair_safe=True)),
    "x86-vnni": _plans("u8s8", Recipe(name="")),
    "arm64": _plans("s8s8", Recipe(name="", signed=True)),
    "jetson": (Plan(recipe=Recipe(name="s8s8-symmetric", signed=True, symmetric=True, inputs_only=True)),),
    "openvino": (Plan(recipe=Recipe(name="u8s8-spared", float_last="unbounded"), spares=True),),
}
"""By target; each starts from the model with its channels equalised."""

NNCF: Mapping[str, tuple[tuple[str, float], ...]] = {
    "openvino": (("nncf-culprits-80", 0.8), ("nncf-culprits-90", 0.9), ("nncf", 0.0)),
}
"""By target: NNCF's mixed preset, and the share of the noise whose few makers are left in float."""


class OnnxWorkshop:
    """A `Workshop` for .onnx files."""

    def __init__(self, source: Source, target: Target, inputs: CalibrationInputs, *, pictures: int) -> None:
        """Nothing is read before it is asked for; `pictures` is how many a pass of `inputs` gives."""
        self._source, self._target, self._inputs, self._pictures = source, target, inputs, pictures
        self._ranked: dict[bool, list[tuple[str, float]]] = {}
        self._bases: dict[frozenset[str], tuple[Equalised, Mapping[str, Histogram]]] = {}

    @cached_property
    def _float(self) -> onnx.ModelProto:
        return prepare(self._source.content, self._source.given)

    @cached_property
    def _observed(self) -> Mapping[str, Histogram]:
        return observe_all(self._float, self._inputs)

    @property
    def _pixels(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std of the input's channels; raw pixels have 0 and 1."""
        section = self._source.manifest.input_for(self._source.backend)
        return section.mean or (0.0,) * 3, section.std or (1.0,) * 3

    def _known_ranges(self, recipe: Recipe) -> dict[str, Range]:
        """The input's range, which pixels tell and no calibration picture need show."""
        if recipe.symmetric:
            return {}
        mean, std = self._pixels
        low = min((0 - m) / s for m, s in zip(mean, std, strict=True))
        high = max((255 - m) / s for m, s in zip(mean, std, strict=True))
        return {self._float.graph.input[0].name: Range(low=low, high=high)}

    def _ranking(self, recipe: Recipe) -> list[tuple[str, float]]:
        """Every layer's harm; it hangs on the activations' type, hardly on the rest of a recipe."""
        if recipe.signed not in self._ranked:
            few = list(islice(self._inputs(), _RANKED_ON))
            known = self._known_ranges(recipe)
            self._ranked[recipe.signed] = rank(self._float, self._observed, recipe, few, fixed_ranges=known)
        return self._ranked[recipe.signed]

    def _basis(self, left: frozenset[str]) -> tuple[Equalised, Mapping[str, Histogram]]:
        """The model with its channels equalised, but for layers that stay float, and what is seen in it."""
        if left not in self._bases:
            equalised = equalise(self._float, self._inputs, skip=left)
            self._bases[left] = equalised, observe_all(equalised.model, self._inputs)
        return self._bases[left]

    def _left(self, plan: Plan, spared: Sequence[str]) -> frozenset[str]:
        """Layers that a plan leaves in float."""
        own = worst(self._float, plan.recipe, self._ranking(plan.recipe)) if plan.spares else frozenset()
        return own | frozenset(spared)

    def attempts(self) -> Sequence[Attempt]:
        """Integers of every kind that suits the target, then what is only smaller."""
        name = self._target.name
        return [
            *(self._own(plan) for plan in PLANS[name]),
            *(self._nncf(title, share) for title, share in NNCF.get(name, ())),
            self._smaller("weights-int8", "weights", to_int8_weights),
            self._smaller("float16", "float16", to_float16),
        ]

    def sparing(self, attempt: Attempt) -> Sequence[str]:
        """Layers by the damage that they alone do, the worst first."""
        if "nncf" in attempt.parameters:
            return [layer for layer, _ in self._harms]
        plan = self._plan(attempt)
        left = self._left(plan, ())
        return [layer for layer, _ in self._ranking(plan.recipe) if layer not in left]

    def spare(self, attempt: Attempt, layers: Sequence[str]) -> Attempt:
        """The same recipe with these layers left in float."""
        if "nncf" in attempt.parameters:
            return self._nncf(str(attempt.parameters["recipe"]), 0.0, spared=tuple(layers))
        return self._own(self._plan(attempt), spared=tuple(layers))

    def inspect(self, attempt: Attempt, content: bytes) -> tuple[IntegerShare | None, Sequence[LayerNoise]]:
        """Integer kernels in the graph that the runtime executes, and noise by layer."""
        model = onnx.load_from_string(content)
        noise = []
        if attempt.kind == "int8" and GIVEN not in attempt.parameters:
            exact = self._float
            if "nncf" not in attempt.parameters:
                exact = self._basis(self._left(self._plan(attempt), attempt.spared))[0].model
            noise = self._noise(exact, model)
        if not self._target.needs_integers:
            return None, noise
        if self._target.backend == "openvino":
            counted = openvino_graph.integer_share(content)
        else:
            counted = fusion.integer_share(content, signed_allowed=self._target.signed)
        integer, total, operators = counted
        return IntegerShare(integer=integer, total=total, operators=operators), noise

    def _plan(self, attempt: Attempt) -> Plan:
        return next(plan for plan in PLANS[self._target.name] if plan.recipe.name == attempt.parameters["recipe"])

    def _own(self, plan: Plan, spared: tuple[str, ...] = ()) -> Attempt:
        def make() -> bytes:
            left = self._left(plan, spared)
            basis, observed = self._basis(left)
            made = quantize(
                basis.model,
                calibration=self._inputs,
                recipe=replace(plan.recipe, float_nodes=left),
                observed=observed,
                fixed_ranges={**self._known_ranges(plan.recipe), **basis.ranges},
            )
            return self._finished(made)

        recipe = plan.recipe
        described = {key: value for key, value in asdict(recipe).items() if key not in {"name", "float_nodes", "rule"}}
        return Attempt(
            name=_title(recipe.name, spared),
            kind="int8",
            parameters={"recipe": recipe.name, "rule": recipe.rule.name, "spares": plan.spares, **described},
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
        """With the pixels as its input, where that is exact, and what is float for good."""
        mean, std = self._pixels
        content: bytes = fence(feed_uint8(made, mean=mean, std=std).model or made).SerializeToString()
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
