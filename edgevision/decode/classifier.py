"""Classification: one score per class, of which the best `top_k` are named.

All of the best `top_k` that reach their threshold are given; with a threshold of 0 these are always `top_k`. So a
consumer that wants "what is it, at all" sets 0, and one that wants "only if sure" sets more, and an empty answer means
"none of them".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision import registry
from edgevision.decode._detections import wanted
from edgevision.decode._roles import check_labels, take_roles
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize
from edgevision.types import Classifications, ImageTransform, Tensors, TensorSpec


class Options(registry.Options):
    """Nothing to set: the manifest's activation and thresholds are all there is."""


def create(options: Options, outputs: Mapping[str, TensorSpec], context: DecodeContext) -> Decoder:  # noqa: ARG001
    """Make a decoder of the role `scores`, [1, classes] (further axes of size 1 do not matter).

    Raises:
        ModelError: the role is missing, or its shape or type does not fit.
    """
    (spec,) = take_roles("classifier", outputs, ("scores",))
    if sum(size != 1 for size in spec.shape) > 1:
        raise ModelError(
            f"decoder classifier: output {spec.name!r} (scores) is {list(spec.shape)}; [1, classes] is needed"
        )
    if -1 not in spec.shape:
        check_labels("classifier", spec, int(np.prod(spec.shape)), context)
    return _Classifier(spec, context)


class _Classifier:
    """A `Decoder`."""

    def __init__(self, spec: TensorSpec, context: DecodeContext) -> None:
        self._spec = spec
        self._context = context
        # Activated scores are never below 0; raw ones may be.
        self._filters = context.activation == "none" or context.confidence > 0 or bool(context.class_confidence)
        self._allowed = None if context.classes is None else np.array(sorted(context.classes), np.intp)

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Classifications:  # noqa: ARG002 - no boxes
        """Decode one inference.

        Raises:
            InferenceError: the model gives no numbers.
        """
        values = tensors[self._spec.name].reshape(-1)
        quantization = self._spec.quantization
        real = values.astype(np.float32, copy=False) if quantization is None else dequantize(values, quantization)
        # A sum is finite only if every part is (logits are nowhere near overflowing it): one call looks at all.
        if not math.isfinite(float(real.sum())):
            broken = real.size - int(np.isfinite(real).sum())
            raise InferenceError(f"output {self._spec.name!r}: {broken} of {real.size} scores are no finite numbers")
        # Activations keep the order, so the best are found before, and only they are activated.
        if self._allowed is None:
            best = _top(real, self._context.top_k)
        else:
            classes = self._allowed[self._allowed < len(real)]
            best = classes[_top(real[classes], self._context.top_k)]
        confidence = self._activate(real, real[best])
        if self._filters:
            keep = wanted(confidence, best, self._context)
            best, confidence = best[keep], confidence[keep]
        return Classifications(
            confidence=confidence.astype(np.float32), class_id=best.astype(np.int32), labels=self._context.labels
        )

    def _activate(self, real: NDArray[np.float32], chosen: NDArray[np.float32]) -> NDArray[np.float32]:
        """The activated values of some scores; softmax needs all of them for its sum."""
        if self._context.activation == "softmax":
            peak = real.max()
            return np.asarray(np.exp(chosen - peak) / np.exp(real - peak).sum())
        if self._context.activation == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-chosen.clip(-80, 80))))
        return chosen


def _top(scores: NDArray[Any], k: int) -> NDArray[np.intp]:
    """Indices of the k largest, largest first; of two equal ones the first."""
    if k < len(scores):
        # All that reach the k-th largest: argpartition alone would pick any of several equal ones.
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        found = np.flatnonzero(scores >= least)
    else:
        found = np.arange(len(scores))
    return found[np.argsort(-scores[found], kind="stable")][:k]
