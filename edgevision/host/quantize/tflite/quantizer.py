"""Float .tflite to 8-bit .tflite: litert-quantizer rewrites the graph, the numbers it writes are ours.

The library knows the format and its kernels' rules (which operator wants one scale on both sides, what a bias is held in).
Ranges, bias correction and which operators stay in float are decided here: its defaults cost a depthwise network points.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, TypeAlias

import numpy as np

from edgevision import registry
from edgevision.errors import ModelError, UsageError
from edgevision.host.quantize.tflite.bias import prepare_biases
from edgevision.host.quantize.tflite.equalize import equalize
from edgevision.host.quantize.tflite.file import PACKAGE
from edgevision.host.quantize.tflite.graph import Graph
from edgevision.host.quantize.tflite.operators import Operator
from edgevision.host.quantize.tflite.ranges import Measured, Range, RangeMethod, measure
from edgevision.host.quantize.tflite.runner import Calibration

Kind: TypeAlias = Literal["static", "weight_only", "dynamic", "float16"]
Border: TypeAlias = Literal["float32", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteRecipe:
    """How a model becomes smaller."""

    name: str
    kind: Kind = "static"
    """`static`: integer kernels, ranges from calibration. `dynamic`: 8-bit weights, activations quantised as they come.
    `weight_only`: 8-bit weights, float kernels. `float16`: half the size, float kernels."""
    activation_bits: Literal[8, 16] = 8
    """Of `static`. 16 is for models that 8 break; few kernels have it and it is slower than float on most CPUs."""
    float_tail: bool = True
    """Of `static`: what stands behind the last convolutions stays in float, so that boxes and scores need not share a scale."""
    inputs: Border = "int8"
    """Of `static`: the type of the model's inputs; float32 adds one QUANTIZE."""
    outputs: Border = "float32"
    """Of `static`: the type of the model's outputs; float32 adds one DEQUANTIZE each where the last step is an integer's."""
    ranges: RangeMethod = "mse"
    equalize: bool = True
    """Even out the channels of SiLU layers, at one more multiplication each (`equalize`)."""
    bias_correction: bool = True

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UsageError: a float tail with integer outputs.
        """
        if self.kind == "static" and self.float_tail and self.outputs == "int8":
            raise UsageError(f"recipe {self.name!r}: a float tail cannot have int8 outputs; set float_tail to False")

    @property
    def needs_calibration(self) -> bool:
        """Whether pictures are looked at."""
        return self.kind == "static"


MIXED = TfliteRecipe(name="int8")
"""Integer kernels up to the last convolutions, float behind them."""
FULL_INTEGER = TfliteRecipe(name="int8-full", float_tail=False, outputs="int8")
"""Every operator an integer's, int8 in and out: what an Edge TPU's compiler takes."""
PLAIN = TfliteRecipe(name="int8-plain", equalize=False)
"""As `MIXED` without a multiplication for each SiLU: quicker, and for depthwise networks with SiLU far worse."""
MIN_MAX = TfliteRecipe(name="int8-min-max", ranges="min_max")
INT16 = TfliteRecipe(name="int16x8", activation_bits=16, inputs="float32")
DYNAMIC = TfliteRecipe(name="dynamic", kind="dynamic")
WEIGHT_ONLY = TfliteRecipe(name="weight-only", kind="weight_only")
FLOAT16 = TfliteRecipe(name="float16", kind="float16")


def quantize_tflite(
    content: bytes,
    *,
    calibration: Calibration | None,
    recipe: TfliteRecipe,
    name: str,
    float_operators: Collection[str] = (),
    threads: int = 1,
) -> bytes:
    """Make an 8-bit model of a float one; the same input gives the same bytes.

    Args:
        content: the float .tflite file; float16 weights behind DEQUANTIZE are taken too.
        calibration: gives the calibration set, a fresh pass at each call: batch-1 tensors by input name, in the float
            model's type and layout. None where the recipe needs none.
        recipe: how.
        name: the model's name, for messages.
        float_operators: further operators to keep in float, by the name of a tensor they make (`layer_sqnr` ranks them).
        threads: of one inference during calibration.

    Returns:
        The quantised .tflite file.

    Raises:
        ModelError: the file is damaged, too large, quantised already, or the library cannot quantise it.
        UsageError: calibration is missing, empty, or does not fit the model; an operator is not there.
        PluginError: litert-quantizer is not installed.
    """
    graph = Graph(content, name)
    if graph.is_quantized():
        raise ModelError(f"model {name!r}: it is quantised already; start from the float model it was made of")
    graph.unfold_float16()
    graph.make_names_unique()
    measured: Measured | None = None
    if recipe.needs_calibration:
        if calibration is None:
            raise UsageError(f"model {name!r}: recipe {recipe.name!r} needs calibration pictures")
        floors = equalize(graph, calibration, threads=threads) if recipe.equalize else {}
        measured = measure(graph, calibration, method=recipe.ranges, floors=floors, threads=threads)
        kept = _kept(graph, recipe, float_operators)
        prepare_biases(
            graph,
            measured.ranges,
            measured.channel_means,
            keep={step.index for step in kept},
            correct=recipe.bias_correction and recipe.activation_bits == 8,
        )
    return _rewrite(graph, recipe, _kept(graph, recipe, float_operators), measured)


def _kept(graph: Graph, recipe: TfliteRecipe, names: Collection[str]) -> tuple[Operator, ...]:
    """The operators that stay in float."""
    operators = graph.operators()
    makes = {graph.tensor_name(output): step for step in operators for output in step.outputs if output >= 0}
    unknown = [wanted for wanted in names if wanted not in makes]
    if unknown:
        raise UsageError(
            registry.unknown_name(f"operator of model {graph.name!r} to keep in float", unknown[0], tuple(makes)[:20])
        )
    kept = {makes[wanted].index: makes[wanted] for wanted in names}
    if recipe.kind == "static" and recipe.float_tail:
        kept |= {step.index: step for step in graph.tail()}
    return tuple(kept[index] for index in sorted(kept))


def _rewrite(graph: Graph, recipe: TfliteRecipe, kept: tuple[Operator, ...], measured: Measured | None) -> bytes:
    library = _library("quantizer")
    try:
        with _silence():
            made = library.Quantizer(graph.to_bytes(), _library_recipe(graph, recipe, kept))
            result = made.quantize(
                None if measured is None else _extremes(graph, measured.ranges),
                enable_progress_report=False,
                enable_progress_bar=False,
            ).quantized_model
    except (ValueError, RuntimeError, KeyError, IndexError, TypeError) as error:
        text = " ".join(str(error).split())[:300]
        raise ModelError(
            f"model {graph.name!r}: litert-quantizer cannot quantise it with recipe {recipe.name!r}: {text}; keep the "
            "operator it names in float, or take another recipe"
        ) from error
    return bytes(result)


def _library_recipe(graph: Graph, recipe: TfliteRecipe, kept: tuple[Operator, ...]) -> Any:
    manager = _library("recipe_manager").RecipeManager()
    types, algorithms = _library("qtyping"), _library("algorithm_manager").AlgorithmName
    everything = types.TFLOperationName.ALL_SUPPORTED
    if recipe.kind == "static":
        manager.add_static_config(".*", everything, recipe.activation_bits, 8)
    elif recipe.kind == "dynamic":
        manager.add_dynamic_config(".*", everything, 8)
    elif recipe.kind == "weight_only":
        manager.add_weight_only_config(".*", everything, 8)
    else:
        for operation in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE"):
            manager.add_weight_only_config(
                ".*", types.TFLOperationName(operation), 16, algorithm_key=algorithms.FLOAT_CASTING
            )

    def leave(expression: str, operation: Any) -> None:
        manager.add_quantization_config(expression, operation, algorithm_key=algorithms.NO_QUANTIZE)

    if recipe.kind == "static":
        for border, operation in ((recipe.inputs, "INPUT"), (recipe.outputs, "OUTPUT")):
            if border == "float32":
                leave(".*", types.TFLOperationName(operation))
    for step in kept:
        leave(f"^{re.escape(graph.scope(step))}$", everything)
    return manager.get_quantization_recipe()


def _extremes(graph: Graph, ranges: Mapping[str, Range]) -> dict[str, dict[str, Any]]:
    """Ranges as the library wants them: arrays with as many dimensions as the tensor."""
    rank = {fact.name: max(len(fact.shape), 1) for fact in graph.facts()}
    return {
        name: {
            "min": np.full((1,) * rank[name], covered.low, np.float32),
            "max": np.full((1,) * rank[name], covered.high, np.float32),
        }
        for name, covered in ranges.items()
    }


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the library's warnings and progress bars out of the tool's output; what goes wrong is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _library(module: str) -> ModuleType:
    return registry.require(f"litert_quantizer.{module}", package=PACKAGE, purpose="quantising a .tflite model")
