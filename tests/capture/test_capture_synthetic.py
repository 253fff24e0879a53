import hashlib
from typing import Any

import numpy as np
from capture_support import FakeClock

from edgevision.capture import synthetic
from edgevision.capture.base import SourceContext


def frames(fps: Any = None, clock: Any = None, **options: Any) -> Any:
    context = SourceContext(camera="c", fps=fps, clock=clock or FakeClock())
    return list(synthetic.create(synthetic.Options(**options), context).frames())


def test_the_same_seed_is_the_same_film() -> None:
    first, second = (frames(frames=5, seed=3) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_frames_and_seeds_differ() -> None:
    digests = {hashlib.sha256(frame.image).digest() for seed in (0, 1) for frame in frames(frames=10, seed=seed)}
    assert len(digests) == 20


def test_pace_is_the_cameras_rate() -> None:
    clock = FakeClock()
    times = [frame.captured_mono_ns for frame in frames(fps=10, clock=clock, frames=11)]
    assert times[-1] - times[0] == 1_000_000_000
    clock = FakeClock()
    frames(clock=clock, frames=31)
    assert abs(sum(clock.waits_s) - 1.0) < 1e-6


def test_max_waits_for_nothing() -> None:
    clock = FakeClock()
    assert len(frames(clock=clock, frames=100, pace="max", width=16, height=16)) == 100
    assert clock.waits_s == []
