"""The recipes for .tflite files, in the order of what they promise, and what to spare where none of them is enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from edgevision.host.quantize.onnx.ranges import CalibrationInputs
from edgevision.host.quantize.source import Source
from edgevision.host.quantize.targets import Target
from edgevision.host.quantize.tflite.quantizer import (
    FLOAT16,
    FULL_INTEGER,
    MIXED,
    PLAIN,
    WEIGHT_ONLY,
    TfliteRecipe,
    quantize_tflite,
)
from edgevision.host.quantize.tflite.sensitivity import layer_sqnr, worst_first
from edgevision.host.quantize.tflite.share import integer_share
from edgevision.host.quantize.workshop import GIVEN, Attempt, IntegerShare, Kind, LayerNoise

_KINDS: dict[str, Kind] = {"static": "int8", "dynamic": "weights", "weight_only": "weights", "float16": "float16"}


class TfliteWorkshop:
    """A `Workshop` for .tflite files."""

    def __init__(self, source: Source, target: Target, inputs: CalibrationInputs) -> None:
        """Nothing is read before it is asked for."""
        self._source, self._target, self._inputs = source, target, inputs

    def attempts(self) -> Sequence[Attempt]:
        """Integers of every kind that the target takes, then what is only smaller."""
        if self._target.name == "litert-edgetpu":
            return [self._attempt(FULL_INTEGER)]
        return [self._attempt(recipe) for recipe in (MIXED, PLAIN, WEIGHT_ONLY, FLOAT16)]

    def sparing(self, attempt: Attempt) -> Sequence[str]:
        """Layers by the noise that they add under this recipe, the worst first."""
        return [one.layer for one in self._noise(attempt.make())]

    def spare(self, attempt: Attempt, layers: Sequence[str]) -> Attempt:
        """The same recipe with these layers left in float."""
        recipe = next(one for one in (MIXED, FULL_INTEGER, PLAIN) if one.name == attempt.parameters["recipe"]["name"])
        return self._attempt(recipe, tuple(layers))

    def inspect(self, attempt: Attempt, content: bytes) -> tuple[IntegerShare | None, Sequence[LayerNoise]]:
        """Integer kernels and noise by layer."""
        found = integer_share(content, self._source.given)
        share = IntegerShare(integer=found.integer, total=found.convolutions, operators=dict(found.operators))
        return share, self._noise(content) if attempt.kind == "int8" and GIVEN not in attempt.parameters else ()

    def _attempt(self, recipe: TfliteRecipe, spared: tuple[str, ...] = ()) -> Attempt:
        def make() -> bytes:
            return quantize_tflite(
                self._source.content,
                calibration=self._inputs if recipe.needs_calibration else None,
                recipe=recipe,
                name=self._source.given,
                float_operators=spared,
            )

        return Attempt(
            name=recipe.name + (f" sparing {len(spared)}" if spared else ""),
            kind=_KINDS[recipe.kind],
            parameters={"recipe": asdict(recipe)},
            make=make,
            spared=spared,
        )

    def _noise(self, content: bytes) -> list[LayerNoise]:
        found = layer_sqnr(self._source.content, content, self._inputs, name=self._source.given)
        return [LayerNoise(layer=one.tensor, sqnr_db=one.sqnr_db) for one in worst_first(found)]
