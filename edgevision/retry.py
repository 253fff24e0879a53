"""The one back-off: how long to wait before the next try, for cameras and brokers alike.

Full jitter between half and the whole of an exponentially growing delay, so that fifty boxes that lost the same switch do
not all knock again in the same second. It never gives up: on a factory floor the other side always comes back.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Backoff:
    """Delays that grow from `first_s` by `factor` up to `max_s`, each one spread over its upper half."""

    first_s: float = 1.0
    max_s: float = 60.0
    factor: float = 2.0
    random: random.Random = field(default_factory=random.Random)
    attempts: int = 0
    """Tries since the last success."""

    def next_delay_s(self) -> float:
        """The delay before the next try, in seconds; each call counts as one failed try."""
        # The exponent is bounded: after years of failing, factor ** attempts would overflow a float.
        delay_s = min(self.max_s, self.first_s * self.factor ** min(self.attempts, 64))
        self.attempts += 1
        return delay_s * self.random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """The other side answered: start again from `first_s`."""
        self.attempts = 0
