"""What the user may set of the spool."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SpoolOptions(BaseModel):
    """How much is kept for the broker on the disk, for how long, and how fast it is sent afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    max_bytes: int = Field(default=256 * 2**20, ge=64 * 2**10, le=2**40)
    """Bytes that the journal's messages may take on the disk; the file may be a little larger."""
    max_age_s: float = Field(default=7 * 86_400.0, ge=1, le=10 * 366 * 86_400)
    """Older messages are given up. Time in which the machine is off does not count."""
    when_full: Literal["oldest", "lowest"] = "lowest"
    """What is given up first: `oldest`, or `lowest` priority (results, then events, then states; the oldest of each)."""
    replay_per_s: float = Field(default=2500.0, ge=1, le=1_000_000)
    """Late messages sent a second, so that a broker that comes back is not flooded."""
