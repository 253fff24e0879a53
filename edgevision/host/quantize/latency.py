"""How long a candidate's inference takes against the float model's: interleaved, in one run, as a ratio with its interval.

Both are run by the backend that the daemon would use, on a tensor that is ready. The ratio is the median over pairs of
neighbouring blocks, its interval a bootstrap over them: a shared machine's speed wanders by more than what is measured.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgevision.host.benchmark.frames import frame_of, scene
from edgevision.host.benchmark.interleave import Loop, rounds, settling_s
from edgevision.pipeline import Model

DEFAULT_S = 4.0
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One candidate's inference beside the float model's."""

    float_ms: float
    ms: float
    ratio: float
    """The candidate's time over the float model's: below 1 is faster."""
    low: float
    high: float
    """The 95 % interval of the ratio."""
    threads: int

    @property
    def faster(self) -> bool:
        """Whether the whole interval says so."""
        return self.high < 1

    @property
    def slower(self) -> bool:
        """Whether the whole interval says so."""
        return self.low > 1

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {key: round(value, 4) for key, value in asdict(self).items()}


def compare_latency(float_model: Model, candidate: Model, *, seconds: float = DEFAULT_S) -> Latency:
    """Time two loaded models in turns.

    Args:
        float_model: the reference.
        candidate: loaded with as many threads.
        seconds: about how long it may take.
    """
    settle_s = settling_s(candidate.threads)
    found = rounds(
        {
            "float": Loop(call=_Inference(float_model), settle_s=settle_s),
            "candidate": Loop(call=_Inference(candidate), settle_s=settle_s),
        },
        seconds,
    )
    before, after = (
        np.array([np.median(one.samples_ns[name]) / 1e6 for one in found]) for name in ("float", "candidate")
    )
    ratios = after / before
    drawn = np.median(
        ratios[np.random.default_rng(0).integers(0, len(ratios), (_RESAMPLES, len(ratios)))],
        axis=1,
    )
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Latency(
        float_ms=float(np.median(before)),
        ms=float(np.median(after)),
        ratio=float(np.median(ratios)),
        low=float(low),
        high=float(high),
        threads=candidate.threads,
    )


class _Inference:
    """The backend's call alone."""

    def __init__(self, model: Model) -> None:
        frame = frame_of(scene(1280, 720), time_ns=0, mono_ns=0)
        self._backend = model.backend
        self._tensors = {name: np.array(tensor) for name, tensor in model.preprocessor(frame).tensors.items()}

    def __call__(self) -> None:
        self._backend.run(self._tensors)
