"""What is said of a row of latencies: percentiles, spread, MLPerf's estimates. Nanoseconds in, milliseconds out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevision.host.benchmark.early_stopping import estimate

PERCENTILES = (50, 90, 95, 99)
NS_PER_MS = 1e6


def to_ms(value_ns: float) -> float:
    """Milliseconds to a tenth of a microsecond."""
    return round(float(value_ns) / NS_PER_MS, 4)


def summary(samples_ns: NDArray[np.int64]) -> dict[str, float]:
    """Count, mean, spread, extremes and percentiles (numpy's linear ones) of (n,) latencies."""
    points = np.percentile(samples_ns, PERCENTILES)
    return {
        "calls": len(samples_ns),
        "mean_ms": to_ms(samples_ns.mean()),
        "std_ms": to_ms(samples_ns.std()),
        "min_ms": to_ms(samples_ns.min()),
        **{f"p{percent}_ms": to_ms(point) for percent, point in zip(PERCENTILES, points, strict=True)},
        "max_ms": to_ms(samples_ns.max()),
    }


def mlperf(samples_ns: NDArray[np.int64]) -> dict[str, dict[str, Any]]:
    """MLPerf's SingleStream early-stopping estimates of p90 and p99; `value_ms` is None where the run is too short."""
    found = {}
    for percent in (90, 99):
        said = estimate(samples_ns, percent / 100)
        found[f"p{percent}"] = {
            "value_ms": None if said.value is None else to_ms(said.value),
            "calls_needed": said.needed,
            "discarded": said.discarded,
        }
    return found
