"""Embedding: a vector that stands for the whole picture, to be compared with others by whoever receives it.

With `normalise` its length is 1, so that the dot product of two is their cosine similarity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from edgevision import registry
from edgevision.decode._roles import of_one_picture, refuse_other_batch, take_roles
from edgevision.decode.base import DecodeContext, Decoder
from edgevision.errors import InferenceError, ModelError
from edgevision.quantization import dequantize
from edgevision.types import Embedding, ImageTransform, Tensors, TensorSpec

MOST_NUMBERS = 4096
"""A message holds the whole vector, 5.5 bytes a number."""


class Options(registry.Options):
    """What is done to the vector."""

    normalise: bool = True
    """Divide it by its Euclidean length."""


def create(options: Options, outputs: Mapping[str, TensorSpec], context: DecodeContext) -> Decoder:
    """Make a decoder of the role `embedding`, [1, n] (further axes of size 1 do not matter).

    Raises:
        ModelError: the role is missing, or its shape or type, or an activation or labels, do not fit.
    """
    (spec,) = take_roles("embedding", outputs, ("embedding",))
    spec = of_one_picture(spec)
    if sum(size != 1 for size in spec.shape) > 1:
        raise ModelError(
            f"decoder embedding: output {spec.name!r} (embedding) is {list(spec.shape)}; [1, n] is needed; a network's map "
            "must be pooled inside the model"
        )
    size = math.prod(spec.shape)
    if size > MOST_NUMBERS:
        raise ModelError(
            f"decoder embedding: output {spec.name!r} (embedding) is {list(spec.shape)}: {size} numbers; a message holds at "
            f"most {MOST_NUMBERS}"
        )
    if context.activation != "none":
        raise ModelError(f"decoder embedding: activation {context.activation} does not belong to a vector; use none")
    return _Embedding(options, spec, context)


class _Embedding:
    """A `Decoder`."""

    def __init__(self, options: Options, spec: TensorSpec, context: DecodeContext) -> None:
        self._spec = spec
        self._normalise = options.normalise
        self._labels = context.labels

    def __call__(self, tensors: Tensors, transform: ImageTransform) -> Embedding:  # noqa: ARG002 - no place in the picture
        """Decode one inference.

        Raises:
            InferenceError: the model gives no numbers, or no direction, or answers for several pictures.
        """
        tensor = tensors[self._spec.name]
        refuse_other_batch(tensor, self._spec)
        values = tensor.reshape(-1)
        quantization = self._spec.quantization
        # A copy in any case: the tensor is the runtime's.
        vector = values.astype(np.float32) if quantization is None else dequantize(values, quantization)
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if not math.isfinite(length):
            broken = vector.size - int(np.isfinite(vector).sum())
            raise InferenceError(f"output {self._spec.name!r}: {broken} of {vector.size} numbers are not finite")
        if len(vector) > MOST_NUMBERS:
            raise InferenceError(f"output {self._spec.name!r}: {len(vector)} numbers; a message holds {MOST_NUMBERS}")
        if self._normalise:
            if length == 0:
                raise InferenceError(f"output {self._spec.name!r}: all numbers are 0: such a vector has no direction")
            vector /= np.float32(length)
        return Embedding(vector=vector, normalised=self._normalise, labels=self._labels)
