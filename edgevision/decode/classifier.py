"""Classification: one score per class, of which the best `top_k` are named.

All of the best `top_k` that reach their threshold are given; with a threshold of 0 these are always `top_k`. So a
consumer that wants "what is it, at all" sets 0, and one that wants "only if sure" sets more, and an empty answer means
"none of them". A multi-label network answers for each class by itself: all that reach their thresholds are given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision import registry
from edgevision.decode._detections import wanted
from edgevision.decode._roles import check_labels, of_one_picture, refuse_other_batch, take_roles
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize
from edgevision.types import Classifications, ImageTransform, Tensors, TensorSpec


class Options(registry.Options):
    """Beside the manifest's activation and thresholds."""

    multi_label: bool = False
    """Every class that reaches its threshold, of which `max_detections` at most, in place of the best `top_k`."""


def create(options: Options, outputs: Mapping[str, TensorSpec], context: DecodeContext) -> Decoder:
    """Make a decoder of the role `scores`, [1, classes] (further axes of size 1 do not matter).

    Raises:
        ModelError: the role is missing, or its shape or type does not fit.
    """
    (spec,) = take_roles("classifier", outputs, ("scores",))
    spec = of_one_picture(spec)
    if sum(size != 1 for size in spec.shape) > 1:
        raise ModelError(
            f"decoder classifier: output {spec.name!r} (scores) is {list(spec.shape)}; [1, classes] is needed"
        )
    if -1 not in spec.shape:
        check_labels("classifier", spec, int(np.prod(spec.shape)), context)
    if options.multi_label:
        if context.activation == "softmax":
            raise ModelError(
                "decoder classifier: with multi_label each class stands for itself, and softmax makes them share one "
                "certainty; use sigmoid or none"
            )
        context = replace(context, top_k=context.max_detections)
    return _Classifier(spec, context, multi_label=options.multi_label)


_FEW = 8
"""Up to this many, looking for the largest again and again is quicker than a partition: 0.06 ms against 0.14 for 5 of
1000, right after an inference."""


class _Classifier:
    """A `Decoder`."""

    def __init__(self, spec: TensorSpec, context: DecodeContext, *, multi_label: bool) -> None:
        self._spec = spec
        self._multi_label = multi_label
        self._context = context
        # Activated scores are never below 0; raw ones may be.
        self._filters = context.activation == "none" or context.confidence > 0 or bool(context.class_confidence)
        self._allowed = None if context.classes is None else np.array(sorted(context.classes), np.intp)

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Classifications:  # noqa: ARG002 - no boxes
        """Decode one inference.

        Raises:
            InferenceError: the model gives no numbers, or answers for several pictures.
        """
        tensor = tensors[self._spec.name]
        refuse_other_batch(tensor, self._spec)
        values = tensor.reshape(-1)
        quantization = self._spec.quantization
        real = values.astype(np.float32, copy=False) if quantization is None else dequantize(values, quantization)
        # Activations keep the order, so the best are found before, and only they are activated.
        if self._allowed is None:
            best = _top(real, self._context.top_k)
        else:
            classes = self._allowed[self._allowed < len(real)]
            best = classes[_top(real[classes], self._context.top_k)]
        confidence = self._activate(real, best)
        if self._filters:
            keep = wanted(confidence, best, self._context)
            best, confidence = best[keep], confidence[keep]
        return Classifications(
            confidence=confidence.astype(np.float32, copy=False),
            class_id=best.astype(np.int32),
            labels=self._context.labels,
            multi_label=self._multi_label,
        )

    def _activate(self, real: NDArray[np.float32], best: NDArray[np.intp]) -> NDArray[Any]:
        """The activated scores of some classes; softmax needs all of them for its sum."""
        chosen = real[best]
        if self._context.activation != "softmax":
            self._refuse_broken(real, real.sum())
            return 1 / (1 + np.exp(-chosen.clip(-80, 80))) if self._context.activation == "sigmoid" else chosen
        peak = chosen[0] if self._allowed is None else real.max()  # the best is the largest, if all were asked
        with np.errstate(invalid="ignore"):  # infinity less infinity, which is refused right below
            total = np.exp(real - peak).sum()
        self._refuse_broken(real, total + chosen.sum())  # and none of the best is minus infinity
        return np.asarray(np.exp(chosen - peak) / total)

    def _refuse_broken(self, real: NDArray[np.float32], total: Any) -> None:
        """A sum is finite only if every part is (scores are nowhere near overflowing it): one number tells of all."""
        if not math.isfinite(total):
            broken = real.size - int(np.isfinite(real).sum())
            raise InferenceError(f"output {self._spec.name!r}: {broken} of {real.size} scores are no finite numbers")


def _top(scores: NDArray[Any], k: int) -> NDArray[np.intp]:
    """Indices of the k largest, largest first; of two equal ones the first."""
    if k <= _FEW and k < len(scores):
        rest, found = scores.copy(), np.empty(k, np.intp)
        for place in range(k):
            found[place] = best = rest.argmax()
            rest[best] = -np.inf
        return found
    if k < len(scores):
        # All that reach the k-th largest: argpartition alone would pick any of several equal ones.
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= least)
    else:
        candidates = np.arange(len(scores))
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]
